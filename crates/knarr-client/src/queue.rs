//! The rate-limited work queue of control loops (after client-go's workqueue): a key is in work at most once at a time, a key
//! added while in work is handed out again afterwards, and failures back off exponentially.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The delay after the first failure of a key; each further failure doubles it.
pub const BASE_DELAY: Duration = Duration::from_millis(5);
/// The longest delay between two tries of a failing key.
pub const MAX_DELAY: Duration = Duration::from_secs(1000);

/// A shared handle on one queue; clones are the same queue.
pub struct WorkQueue<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        WorkQueue { shared: self.shared.clone() }
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    /// Wakes one waiting worker: a key became ready, or the earliest delay changed, or the queue was closed.
    wake: Notify,
    base_delay: Duration,
    max_delay: Duration,
}

struct State<T> {
    /// Ready keys in order; each is also in `dirty`, none is in `working`.
    ready: VecDeque<T>,
    /// Keys that want work: those in `ready`, and those added while in `working`.
    dirty: HashSet<T>,
    working: HashSet<T>,
    /// Delayed keys by the instant they are due; the number keeps equal instants apart.
    delayed: BTreeMap<(Instant, u64), T>,
    due: HashMap<T, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<T, u32>,
    closed: bool,
}

/// A key in work. Dropping it says the work is done.
pub struct Lease<T: Clone + Eq + Hash> {
    key: T,
    shared: Arc<Shared<T>>,
}

impl<T: Clone + Eq + Hash> Deref for Lease<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.key
    }
}

impl<T: Clone + Eq + Hash> Drop for Lease<T> {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.working.remove(&self.key);
        if state.dirty.contains(&self.key) {
            state.ready.push_back(self.key.clone());
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// A queue that backs off from [`BASE_DELAY`] to [`MAX_DELAY`].
    pub fn new() -> Self {
        Self::with_backoff(BASE_DELAY, MAX_DELAY)
    }

    pub fn with_backoff(base_delay: Duration, max_delay: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            closed: false,
        };
        WorkQueue { shared: Arc::new(Shared { state: Mutex::new(state), wake: Notify::new(), base_delay, max_delay }) }
    }

    /// Asks for work on `key`, once however often it is asked before a worker takes it.
    pub fn add(&self, key: T) {
        if self.shared.state.lock().add(key) {
            self.shared.wake.notify_one();
        }
    }

    /// Asks for work on `key` after `delay`; the earliest wish for a key wins.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let earliest_changed = self.shared.state.lock().delay(key, Instant::now() + delay);
        if earliest_changed {
            self.shared.wake.notify_one();
        }
    }

    /// Counts a failure of `key` and asks for work on it after the back-off that the count gives.
    pub fn add_rate_limited(&self, key: T) {
        let delay = self.fail(&key);
        self.add_after(key, delay);
    }

    fn fail(&self, key: &T) -> Duration {
        let mut state = self.shared.state.lock();
        let failures = state.failures.entry(key.clone()).or_insert(0);
        let delay = 2f64.powi((*failures).min(64) as i32) * self.shared.base_delay.as_secs_f64();
        *failures = failures.saturating_add(1);
        Duration::from_secs_f64(delay.min(self.shared.max_delay.as_secs_f64()))
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often `key` failed since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// How many keys are ready for a worker.
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No more keys come in; [`get`](Self::get) gives those that are ready and then `None`.
    pub fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_waiters();
        self.shared.wake.notify_one();
    }

    /// The next key, waiting for one; `None` once the queue is closed and empty.
    pub async fn get(&self) -> Option<Lease<T>> {
        loop {
            // Registered before the state is read, so that nothing added in between goes unnoticed.
            let woken = self.shared.wake.notified();
            let next_due = match self.take() {
                Taken::Key(key) => return Some(Lease { key, shared: self.shared.clone() }),
                Taken::Closed => return None,
                Taken::Nothing(next_due) => next_due,
            };
            match next_due {
                None => woken.await,
                Some(due) => tokio::select! {
                    () = woken => {}
                    () = tokio::time::sleep_until(due) => {}
                },
            }
        }
    }

    fn take(&self) -> Taken<T> {
        let mut state = self.shared.state.lock();
        state.promote_due(Instant::now());
        let Some(key) = state.ready.pop_front() else {
            if state.closed {
                drop(state);
                self.shared.wake.notify_one();
                return Taken::Closed;
            }
            return Taken::Nothing(state.delayed.keys().next().map(|(due, _)| *due));
        };
        state.dirty.remove(&key);
        state.working.insert(key.clone());
        let more = !state.ready.is_empty() || !state.delayed.is_empty();
        drop(state);
        if more {
            // One wake may stand for several additions: hand the news on to the next worker.
            self.shared.wake.notify_one();
        }
        Taken::Key(key)
    }
}

enum Taken<T> {
    Key(T),
    Nothing(Option<Instant>),
    Closed,
}

impl<T: Clone + Eq + Hash> State<T> {
    /// True when a worker should wake.
    fn add(&mut self, key: T) -> bool {
        if self.closed || !self.dirty.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// True when the earliest due instant of the queue became earlier.
    fn delay(&mut self, key: T, due: Instant) -> bool {
        if self.closed {
            return false;
        }
        if let Some(known) = self.due.get(&key).copied() {
            if known.0 <= due {
                return false;
            }
            self.delayed.remove(&known);
        }
        self.sequence += 1;
        let at = (due, self.sequence);
        let earliest = self.delayed.keys().next().is_none_or(|first| at < *first);
        self.delayed.insert(at, key.clone());
        self.due.insert(key, at);
        earliest
    }

    fn promote_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests;
