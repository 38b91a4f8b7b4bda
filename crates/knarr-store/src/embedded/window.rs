//! The newest events in memory, shared by all watches, and who is to be told of them.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak, atomic::AtomicBool, atomic::Ordering},
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{Event, Revision, WatchBatch};

/// Events of consecutive revisions, the last of them the store's newest. Bounded: a watch that needs older ones reads the engine.
pub(super) struct Window {
    events: RwLock<Events>,
    most_events: usize,
    most_bytes: usize,
    watchers: Mutex<Vec<Weak<Watcher>>>,
    closed: AtomicBool,
}

struct Events {
    queue: VecDeque<Event>,
    bytes: usize,
    head: u64,
}

/// A watch as the committer sees it: a prefix and a bell.
pub(super) struct Watcher {
    pub prefix: Box<str>,
    bell: Notify,
    /// A progress mark was asked for.
    mark: AtomicBool,
}

impl Watcher {
    /// Returns once the bell has rung since the last call.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Whether a progress mark is due; it counts as delivered.
    pub fn take_mark(&self) -> bool {
        self.mark.swap(false, Ordering::AcqRel)
    }

    fn ring_for_mark(&self) {
        self.mark.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

/// What the window can say to a watch.
pub(super) enum Recent {
    Batch(WatchBatch),
    /// The window begins after this revision and the watch is behind it.
    StartsAfter(u64),
}

fn event_key(event: &Event) -> &Arc<str> {
    match event {
        Event::Put { current, .. } | Event::Delete { current, .. } => &current.key,
    }
}

fn event_size(event: &Event) -> usize {
    let (current, previous) = match event {
        Event::Put { current, previous } => (current, previous.as_ref()),
        Event::Delete { current, previous } => (current, Some(previous)),
    };
    current.key.len() + current.value.len() + previous.map_or(0, |previous| previous.value.len())
}

impl Window {
    pub fn new(head: u64, most_events: usize, most_bytes: usize) -> Window {
        Window {
            events: RwLock::new(Events { queue: VecDeque::new(), bytes: 0, head }),
            most_events,
            most_bytes,
            watchers: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    /// The newest revision that watches can see.
    pub fn head(&self) -> u64 {
        self.events.read().head
    }

    /// Appends the events of the next revisions and rings for the watches that want one of them.
    pub fn publish(&self, new: Vec<Event>) {
        let keys: Vec<Arc<str>> = new.iter().map(|event| event_key(event).clone()).collect();
        self.append(new);
        // After the append: a watch that registers meanwhile finds the events when it first looks.
        for watcher in self.watchers() {
            if keys.iter().any(|key| key.starts_with(&*watcher.prefix)) {
                watcher.bell.notify_one();
            }
        }
    }

    fn append(&self, new: Vec<Event>) {
        let mut events = self.events.write();
        events.head += new.len() as u64;
        events.bytes += new.iter().map(event_size).sum::<usize>();
        events.queue.extend(new);
        while events.queue.len() > self.most_events || events.bytes > self.most_bytes {
            let Some(oldest) = events.queue.pop_front() else { break };
            events.bytes -= event_size(&oldest);
        }
    }

    fn watchers(&self) -> Vec<Arc<Watcher>> {
        let mut alive = Vec::new();
        self.watchers.lock().retain(|watcher| watcher.upgrade().map(|watcher| alive.push(watcher)).is_some());
        alive
    }

    /// Events under `prefix` after `cursor`, at most `most` of them.
    pub fn after(&self, prefix: &str, cursor: u64, most: usize) -> Recent {
        let events = self.events.read();
        let first = events.head + 1 - events.queue.len() as u64;
        if cursor + 1 < first {
            return Recent::StartsAfter(first - 1);
        }
        let mut batch = WatchBatch { revision: Revision(cursor.max(events.head)), events: Vec::new() };
        let skipped = (cursor + 1 - first).min(events.queue.len() as u64) as usize;
        for (offset, event) in events.queue.range(skipped..).enumerate() {
            if batch.events.len() == most {
                batch.revision = Revision(cursor + offset as u64);
                break;
            }
            if event_key(event).starts_with(prefix) {
                batch.events.push(event.clone());
            }
        }
        Recent::Batch(batch)
    }

    pub fn register(&self, prefix: &str) -> Arc<Watcher> {
        let watcher = Arc::new(Watcher { prefix: prefix.into(), bell: Notify::new(), mark: AtomicBool::new(false) });
        self.watchers.lock().push(Arc::downgrade(&watcher));
        watcher
    }

    /// Has every watch deliver what it has, or a mark.
    pub fn mark_progress(&self) {
        self.watchers().iter().for_each(|watcher| watcher.ring_for_mark());
    }

    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.mark_progress();
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
