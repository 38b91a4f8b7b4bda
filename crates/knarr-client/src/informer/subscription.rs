//! One listener's view of a cache: changes in order, steps of one object folded together while the listener is slow.
//!
//! Pending changes are at most one an object, so memory is bounded by what exists, and the state an object reached is never lost.
//! Objects that came and went unseen are still told of (loops that count their creations need it), the latest [`PASSED_LIMIT`] of them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Event, ObjectKey};

/// How many unseen short lives a slow listener is told of.
const PASSED_LIMIT: usize = 4096;

/// Events of an informer. Dropping it unsubscribes.
pub struct Subscription<K> {
    mailbox: Arc<Mailbox<K>>,
}

impl<K: kube::Resource> Subscription<K> {
    pub(super) fn new(mailbox: Arc<Mailbox<K>>) -> Self {
        Subscription { mailbox }
    }

    /// The next event; `None` once the informer has shut down. Safe to drop and call again.
    pub async fn recv(&mut self) -> Option<Event<K>> {
        loop {
            let woken = self.mailbox.wake.notified();
            {
                let mut state = self.mailbox.state.lock();
                if let Some(event) = state.next() {
                    return Some(event);
                }
                if state.closed {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<Event<K>> {
        self.mailbox.state.lock().next()
    }
}

pub(super) struct Mailbox<K> {
    state: Mutex<State<K>>,
    wake: Notify,
}

struct State<K> {
    /// Keys of `changes`, oldest change first.
    order: VecDeque<ObjectKey>,
    changes: HashMap<ObjectKey, Change<K>>,
    /// Events that come before everything in `order`.
    ready: VecDeque<Event<K>>,
    closed: bool,
}

/// What the listener last saw of an object, and what it is now.
struct Change<K> {
    seen: Option<Arc<K>>,
    now: Option<Arc<K>>,
}

impl<K: kube::Resource> Mailbox<K> {
    pub fn new() -> Self {
        let state = State { order: VecDeque::new(), changes: HashMap::new(), ready: VecDeque::new(), closed: false };
        Mailbox { state: Mutex::new(state), wake: Notify::new() }
    }

    /// Notes that the object of `key` went from `old` to `new`.
    pub fn deliver(&self, key: ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        self.state.lock().fold(key, old, new);
        self.wake.notify_one();
    }

    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }
}

impl<K: kube::Resource> State<K> {
    fn fold(&mut self, key: ObjectKey, old: Option<Arc<K>>, new: Option<Arc<K>>) {
        let Some(change) = self.changes.get_mut(&key) else {
            self.order.push_back(key.clone());
            self.changes.insert(key, Change { seen: old, now: new });
            return;
        };
        let replaced = new.is_none() || another_object(change.now.as_deref(), new.as_deref());
        match (&change.seen, &change.now) {
            (None, Some(passed)) if replaced => {
                let last = old.unwrap_or_else(|| passed.clone());
                self.ready.push_back(Event::Added(last.clone()));
                self.ready.push_back(Event::Deleted(last));
            }
            (Some(_), None) if new.is_some() => {
                if let Some(seen) = change.seen.take() {
                    self.ready.push_back(Event::Deleted(seen));
                }
            }
            (Some(_), Some(_)) if new.is_none() => change.seen = old.or(change.seen.take()),
            _ => {}
        }
        change.now = new;
        while self.ready.len() > 2 * PASSED_LIMIT {
            self.ready.drain(..2);
        }
    }

    fn next(&mut self) -> Option<Event<K>> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        while let Some(key) = self.order.pop_front() {
            let Some(Change { seen, now }) = self.changes.remove(&key) else { continue };
            match (seen, now) {
                (None, Some(new)) => return Some(Event::Added(new)),
                (Some(old), None) => return Some(Event::Deleted(old)),
                (Some(old), Some(new)) if another_object(Some(&*old), Some(&*new)) => {
                    self.ready.push_back(Event::Added(new));
                    return Some(Event::Deleted(old));
                }
                (Some(old), Some(new)) => return Some(Event::Updated { old, new }),
                (None, None) => {}
            }
        }
        None
    }
}

fn another_object<K: kube::Resource>(a: Option<&K>, b: Option<&K>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.meta().uid != b.meta().uid,
        _ => false,
    }
}
