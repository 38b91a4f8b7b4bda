//! What a loop has asked the API for and its cache has not shown yet (after client-go's controller expectations).
//!
//! A loop that creates three pods and looks again before its cache has them must not create three more. It expects them first;
//! while expectations stand, it does nothing but status. Expectations that never come true lapse after [`LAPSE`].

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long an expectation is waited for.
pub const LAPSE: Duration = Duration::from_secs(300);

/// Expected creations (counted) and deletions (by UID) of each owner.
pub struct Expectations<T> {
    owners: Mutex<HashMap<T, Expected>>,
}

struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl<T: Clone + Eq + Hash> Default for Expectations<T> {
    fn default() -> Self {
        Expectations { owners: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone + Eq + Hash> Expectations<T> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts anew with so many creations to be seen.
    pub fn expect_creations(&self, owner: &T, count: usize) {
        self.expect(owner, count as i64, HashSet::new());
    }

    /// Starts anew with the deletions of these UIDs to be seen.
    pub fn expect_deletions(&self, owner: &T, uids: impl IntoIterator<Item = String>) {
        self.expect(owner, 0, uids.into_iter().collect());
    }

    fn expect(&self, owner: &T, creations: i64, deletions: HashSet<String>) {
        let expected = Expected { creations, deletions, since: Instant::now() };
        self.owners.lock().insert(owner.clone(), expected);
    }

    /// One creation was seen, or was refused by the API.
    pub fn creation_observed(&self, owner: &T) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.creations -= 1;
        }
    }

    /// The deletion of `uid` was seen (its deletion timestamp is enough), or was refused by the API.
    pub fn deletion_observed(&self, owner: &T, uid: &str) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// Whether the owner may act: all it expected was seen, or it expects nothing, or the wait has lapsed.
    pub fn satisfied(&self, owner: &T) -> bool {
        self.owners.lock().get(owner).is_none_or(|expected| {
            (expected.creations <= 0 && expected.deletions.is_empty()) || expected.since.elapsed() > LAPSE
        })
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &T) {
        self.owners.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::{Expectations, LAPSE};

    #[tokio::test(start_paused = true)]
    async fn creations_are_counted_down() {
        let expectations = Expectations::new();
        assert!(expectations.satisfied(&"a"));
        expectations.expect_creations(&"a", 2);
        expectations.creation_observed(&"a");
        assert!(!expectations.satisfied(&"a"));
        assert!(expectations.satisfied(&"b"));
        expectations.creation_observed(&"a");
        assert!(expectations.satisfied(&"a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_counts_once_however_often_it_is_seen() {
        let expectations = Expectations::new();
        expectations.expect_deletions(&"a", ["1".to_string(), "2".to_string()]);
        expectations.deletion_observed(&"a", "1");
        expectations.deletion_observed(&"a", "1");
        assert!(!expectations.satisfied(&"a"));
        expectations.deletion_observed(&"a", "2");
        assert!(expectations.satisfied(&"a"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_comes_lapses() {
        let expectations = Expectations::new();
        expectations.expect_creations(&"a", 1);
        tokio::time::advance(LAPSE + LAPSE).await;
        assert!(expectations.satisfied(&"a"));
    }
}
