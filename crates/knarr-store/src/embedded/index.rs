//! The keys in memory: for every key where its versions are, no values.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::change::Version;
use crate::LeaseId;

/// One version of a key, as far as reads need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub revision: u64,
    /// 0: deleted.
    pub create_revision: u64,
    pub lease: Option<LeaseId>,
    value_length: u32,
}

impl Entry {
    pub fn is_deletion(&self) -> bool {
        self.create_revision == 0
    }
}

impl From<&Version> for Entry {
    fn from(version: &Version) -> Self {
        Entry {
            revision: version.revision,
            create_revision: version.create_revision,
            lease: version.lease,
            value_length: version.value_length,
        }
    }
}

struct History {
    latest: Entry,
    /// Oldest first; only what compaction has not forgotten. Most keys have none, hence the box.
    #[expect(clippy::box_collection, reason = "a pointer instead of three words in each of many thousand keys")]
    older: Option<Box<Vec<Entry>>>,
}

/// A version that compaction to `by` or later may forget.
struct Superseded {
    by: u64,
    revision: u64,
    value_length: u32,
    key: Arc<str>,
}

/// A version found by a read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub key: Arc<str>,
    pub entry: Entry,
}

#[derive(Default)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, History>,
    /// In the order of `by`.
    superseded: VecDeque<Superseded>,
    superseded_bytes: u64,
    head: u64,
}

impl Index {
    /// The newest revision.
    pub fn head(&self) -> u64 {
        self.head
    }

    pub fn advance_to(&mut self, revision: u64) {
        self.head = self.head.max(revision);
    }

    /// The key's live version.
    pub fn current(&self, key: &str) -> Option<Entry> {
        self.keys.get(key).map(|history| history.latest).filter(|entry| !entry.is_deletion())
    }

    /// The key itself if it is known, so that all its holders share one allocation.
    pub fn shared_key(&self, key: &str) -> Option<Arc<str>> {
        self.keys.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// Up to `limit` live keys (0: all) under `prefix` after `after` as of revision `at`, and whether more follow.
    pub fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: u64) -> (Vec<Found>, bool) {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut found = Vec::new();
        let keys = self.keys.range::<str, _>((start, Bound::Unbounded));
        for (key, history) in keys.take_while(|(key, _)| key.starts_with(prefix)) {
            let Some(entry) = history.at(at) else { continue };
            if limit != 0 && found.len() == limit {
                return (found, true);
            }
            found.push(Found { key: key.clone(), entry });
        }
        (found, false)
    }

    /// Takes note of a change that is newer than any before it.
    pub fn apply(&mut self, version: &Version) {
        debug_assert!(version.revision > self.head, "revisions grow");
        self.head = version.revision;
        let latest = Entry::from(version);
        let replaced = match self.keys.get_mut(&version.key) {
            Some(history) => {
                let replaced = std::mem::replace(&mut history.latest, latest);
                history.older.get_or_insert_default().push(replaced);
                Some(replaced)
            }
            None => {
                self.keys.insert(version.key.clone(), History { latest, older: None });
                None
            }
        };
        // A deletion was queued when it happened: it is its own successor.
        if let Some(replaced) = replaced.filter(|entry| !entry.is_deletion()) {
            self.supersede(version, replaced);
        }
        if latest.is_deletion() {
            self.supersede(version, latest);
        }
    }

    fn supersede(&mut self, by: &Version, old: Entry) {
        self.superseded_bytes += u64::from(old.value_length);
        self.superseded.push_back(Superseded {
            by: by.revision,
            revision: old.revision,
            value_length: old.value_length,
            key: by.key.clone(),
        });
    }

    /// The revision to compact to so that history has at most `versions` versions and `bytes` bytes of values, if it has more.
    pub fn overflow(&self, versions: usize, bytes: u64) -> Option<u64> {
        let mut surplus_bytes = self.superseded_bytes.saturating_sub(bytes);
        let mut surplus = self.superseded.len().saturating_sub(versions);
        let mut revision = None;
        for old in &self.superseded {
            if surplus == 0 && surplus_bytes == 0 {
                break;
            }
            revision = Some(old.by);
            surplus = surplus.saturating_sub(1);
            surplus_bytes = surplus_bytes.saturating_sub(u64::from(old.value_length));
        }
        revision
    }

    /// Forgets up to `most` versions that nobody can ask for once history before `compacted` is gone, and names them.
    pub fn forget(&mut self, compacted: u64, most: usize) -> Vec<u64> {
        let mut forgotten = Vec::new();
        while forgotten.len() < most && self.superseded.front().is_some_and(|old| old.by <= compacted) {
            let Some(old) = self.superseded.pop_front() else { break };
            self.superseded_bytes -= u64::from(old.value_length);
            self.remove(&old.key, old.revision);
            forgotten.push(old.revision);
        }
        forgotten
    }

    fn remove(&mut self, key: &Arc<str>, revision: u64) {
        let Some(history) = self.keys.get_mut(key) else { return };
        if history.latest.revision == revision {
            self.keys.remove(key);
            return;
        }
        if let Some(older) = &mut history.older {
            older.retain(|entry| entry.revision != revision);
            if older.is_empty() {
                history.older = None;
            }
        }
    }
}

impl History {
    fn at(&self, revision: u64) -> Option<Entry> {
        let older = self.older.iter().flat_map(|older| older.iter().rev());
        std::iter::once(&self.latest)
            .chain(older)
            .find(|entry| entry.revision <= revision)
            .filter(|entry| !entry.is_deletion())
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn version(revision: u64, key: &str, create_revision: u64) -> Version {
        let (previous, lease) = (None, None);
        Version { revision, key: key.into(), create_revision, previous, lease, value_length: 10 }
    }

    fn keys(index: &Index, prefix: &str, at: u64) -> Vec<(String, u64)> {
        let (found, _) = index.range(prefix, None, 0, at);
        found.iter().map(|found| (found.key.to_string(), found.entry.revision)).collect()
    }

    #[test]
    fn history_is_bounded_by_number_and_by_bytes() {
        let mut index = Index::default();
        for revision in 2..12 {
            index.apply(&version(revision, "a", 2));
        }
        assert_eq!(index.overflow(9, 90), None);
        assert_eq!(index.overflow(7, 90), Some(4));
        assert_eq!(index.overflow(9, 65), Some(5));
        assert_eq!(index.forget(5, 2), [2, 3]);
        assert_eq!(index.forget(5, 9), [4]);
        assert_eq!(index.overflow(6, 60), None);
    }

    proptest! {
        /// Against a model that keeps a copy of the whole map at every revision.
        #[test]
        fn reads_at_kept_revisions_are_what_was(
            writes in prop::collection::vec((0u8..4, any::<bool>()), 1..60), compact_at in 0usize..60,
        ) {
            let (mut index, mut model) = (Index::default(), BTreeMap::<String, u64>::new());
            let mut past = vec![(1, model.clone())];
            for (number, (key, delete)) in writes.into_iter().enumerate() {
                let (revision, key) = (number as u64 + 2, format!("k{key}"));
                if delete && model.remove(&key).is_none() {
                    continue;
                }
                if !delete {
                    model.insert(key.clone(), revision);
                }
                index.apply(&version(revision, &key, if delete { 0 } else { revision }));
                past.push((revision, model.clone()));
            }
            let compacted = past[compact_at % past.len()].0;
            index.forget(compacted, usize::MAX);
            for (revision, model) in past.into_iter().filter(|(revision, _)| *revision >= compacted) {
                prop_assert_eq!(keys(&index, "k", revision), model.into_iter().collect::<Vec<_>>());
            }
        }
    }
}
