//! What happened to a resource of late, and who is told.

use std::collections::VecDeque;
use std::sync::Arc;

use super::watchers::Watchers;
use super::{Change, Snapshot, TooOld};

/// Changes kept per resource for watches and lists from the past.
const MOST_CHANGES: usize = 10_000;
/// Bytes of objects that only the window keeps, at most.
const MOST_BYTES: usize = 32 * 1024 * 1024;
/// A root is kept every so many changes: a list of the past makes or takes back at most half as many.
const ROOT_EVERY: usize = 1024;

/// A window of changes and past states.
#[derive(Default)]
pub(super) struct Feed {
    pub watchers: Watchers,
    window: VecDeque<Arc<Change>>,
    /// Of the objects that changes of the window replaced.
    bytes: usize,
    /// Everything after this revision is in the window.
    floor: u64,
    /// Some of the states that the window spans, oldest first.
    roots: VecDeque<Arc<Snapshot>>,
    since_root: usize,
}

fn kept_bytes(change: &Change) -> usize {
    change.before.as_ref().map_or(0, |before| before.json().len())
}

impl Feed {
    pub fn starting_at(floor: u64) -> Self {
        Feed { floor, ..Feed::default() }
    }

    /// Forgets everything but the watchers: history begins anew.
    pub fn restart(&mut self, floor: u64) {
        let watchers = std::mem::take(&mut self.watchers);
        *self = Feed { watchers, ..Feed::starting_at(floor) };
    }

    /// The changes after `revision`, in order.
    pub fn since(&self, revision: u64) -> Result<Vec<Arc<Change>>, TooOld> {
        self.require_kept(revision)?;
        let start = self.window.partition_point(|c| c.revision <= revision);
        Ok(self.window.range(start..).cloned().collect())
    }

    fn require_kept(&self, revision: u64) -> Result<(), TooOld> {
        if revision < self.floor { Err(TooOld { requested: revision, oldest: self.floor }) } else { Ok(()) }
    }

    /// What is needed to come by the state at `revision`: the nearest state there is, and the changes between.
    pub fn way_to(&self, revision: u64, current: &Arc<Snapshot>) -> Result<Way, TooOld> {
        self.require_kept(revision)?;
        let position = |revision: u64| self.window.partition_point(|c| c.revision <= revision);
        let wanted = position(revision);
        let distance = |root: &&Arc<Snapshot>| position(root.revision).abs_diff(wanted);
        let nearest = self.roots.iter().chain([current]).min_by_key(distance).unwrap_or(current);
        let there = position(nearest.revision);
        let between = self.window.range(there.min(wanted)..there.max(wanted)).cloned().collect();
        Ok(Way { from: nearest.clone(), between, back: there > wanted })
    }

    /// Tells the watchers and keeps the change.
    pub fn remember(&mut self, change: Change) {
        if !self.watchers.is_empty() {
            self.watchers.dispatch(&change);
        }
        self.bytes += kept_bytes(&change);
        self.window.push_back(Arc::new(change));
        self.since_root += 1;
        while self.window.len() > MOST_CHANGES || self.bytes > MOST_BYTES {
            let Some(oldest) = self.window.pop_front() else { break };
            self.bytes -= kept_bytes(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// Keeps the state that the last change led to, if the last one kept is far enough.
    pub fn remember_root(&mut self, snapshot: &Arc<Snapshot>) {
        while self.roots.front().is_some_and(|root| root.revision < self.floor) {
            self.roots.pop_front();
        }
        if self.since_root >= ROOT_EVERY {
            self.since_root = 0;
            self.roots.push_back(snapshot.clone());
        }
    }
}

/// From a state to another one.
pub(super) struct Way {
    from: Arc<Snapshot>,
    between: Vec<Arc<Change>>,
    back: bool,
}

impl Way {
    /// The state at its end, as of `revision`.
    pub fn walk(self, revision: u64) -> Arc<Snapshot> {
        if self.between.is_empty() {
            return self.from;
        }
        let mut snapshot = Snapshot::clone(&self.from);
        if self.back {
            self.between.iter().rev().for_each(|change| snapshot.undo(change));
        } else {
            self.between.iter().for_each(|change| snapshot.redo(change));
        }
        snapshot.revision = revision;
        Arc::new(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Entry, Reader};

    fn entry(name: &str, revision: u64) -> Arc<Entry> {
        let stored = format!(r#"{{"kind":"K","apiVersion":"v1","metadata":{{"name":"{name}"}}}}"#);
        Arc::new(Entry::parse(name.into(), stored.as_bytes(), revision, &Reader::default()).expect("parses"))
    }

    /// Any past state is found, whether it lies before or after the nearest root, and each is as it was.
    #[test]
    fn every_kept_revision_can_be_seen_again() {
        let mut feed = Feed::starting_at(0);
        let mut current = Arc::new(Snapshot::default());
        let names = ["a", "b", "c", "d", "e"];
        let total = (ROOT_EVERY * 3) as u64;
        let mut expected = vec![Vec::new()];
        for revision in 1..=total {
            let name = names[(revision % 5) as usize];
            let before = current.get(name).cloned();
            let gone = before.is_some() && revision % 3 == 0;
            let change = Change { revision, before, after: (!gone).then(|| entry(name, revision)) };
            let mut next = Snapshot::clone(&current);
            next.redo(&change);
            feed.remember(change);
            current = Arc::new(next);
            feed.remember_root(&current);
            expected.push(current.range("", None).map(|e| (e.key.clone(), e.revision)).collect());
        }
        for revision in 0..=total {
            let way = feed.way_to(revision, &current).expect("kept");
            assert!(way.between.len() <= ROOT_EVERY, "{revision}");
            let seen: Vec<_> = way.walk(revision).range("", None).map(|e| (e.key.clone(), e.revision)).collect();
            assert_eq!(seen, expected[revision as usize], "{revision}");
        }
    }

    #[test]
    fn the_window_forgets_and_says_so() {
        let mut feed = Feed::starting_at(0);
        for revision in 1..=MOST_CHANGES as u64 + 5 {
            feed.remember(Change { revision, before: None, after: Some(entry("a", revision)) });
        }
        assert_eq!(feed.since(4).map(|c| c.len()), Err(TooOld { requested: 4, oldest: 5 }));
        assert_eq!(feed.since(5).map(|c| c.len()), Ok(MOST_CHANGES));
    }
}
