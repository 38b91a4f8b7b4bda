//! The store's contract over a map, for tests of what stands on it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, stream};
use knarr_store::{
    Event, Expect, KeyValue, LeaseId, Range, Result, Revision, Store, StoreError, WatchBatch, WatchStream,
};
use parking_lot::Mutex;
use tokio::sync::broadcast;

pub struct MemoryStore {
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
}

#[derive(Default)]
struct State {
    revision: u64,
    items: BTreeMap<String, KeyValue>,
    history: Vec<Event>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore { state: Mutex::default(), events: broadcast::Sender::new(4096) }
    }
}

fn revision_of(event: &Event) -> Revision {
    let (Event::Put { current, .. } | Event::Delete { current, .. }) = event;
    current.mod_revision
}

fn check(key: &str, expect: Expect, current: Option<&KeyValue>) -> Result<()> {
    let holds = match expect {
        Expect::Absent => current.is_none(),
        Expect::Revision(revision) => current.is_some_and(|c| c.mod_revision == revision),
        Expect::Any => true,
    };
    if holds { Ok(()) } else { Err(StoreError::Conflict { key: key.into(), current: current.cloned().map(Box::new) }) }
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        Ok(self.state.lock().items.get(key).cloned())
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Range> {
        let state = self.state.lock();
        let at = at.unwrap_or(Revision(state.revision));
        let mut items: BTreeMap<String, KeyValue> = BTreeMap::new();
        for event in state.history.iter().filter(|e| revision_of(e) <= at) {
            match event {
                Event::Put { current, .. } => drop(items.insert(current.key.clone(), current.clone())),
                Event::Delete { current, .. } => drop(items.remove(&current.key)),
            }
        }
        let mut found: Vec<KeyValue> = items
            .into_values()
            .filter(|kv| kv.key.starts_with(prefix) && after.is_none_or(|a| kv.key.as_str() > a))
            .collect();
        let more = limit > 0 && found.len() > limit;
        found.truncate(if limit == 0 { usize::MAX } else { limit });
        Ok(Range { items: found, more, revision: Revision(state.revision) })
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, _lease: Option<LeaseId>) -> Result<Revision> {
        let mut state = self.state.lock();
        let previous = state.items.get(key).cloned();
        check(key, expect, previous.as_ref())?;
        state.revision += 1;
        let revision = Revision(state.revision);
        let create_revision = previous.as_ref().map_or(revision, |p| p.create_revision);
        let current = KeyValue { key: key.into(), value, create_revision, mod_revision: revision };
        state.items.insert(key.into(), current.clone());
        let event = Event::Put { current, previous };
        state.history.push(event.clone());
        let _ = self.events.send(event);
        Ok(revision)
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, KeyValue)> {
        let mut state = self.state.lock();
        let previous = state.items.get(key).cloned();
        check(key, expect, previous.as_ref())?;
        let previous = previous.ok_or(StoreError::Conflict { key: key.into(), current: None })?;
        state.revision += 1;
        let revision = Revision(state.revision);
        state.items.remove(key);
        let current = KeyValue { value: Bytes::new(), mod_revision: revision, ..previous.clone() };
        let event = Event::Delete { current, previous: previous.clone() };
        state.history.push(event.clone());
        let _ = self.events.send(event);
        Ok((revision, previous))
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let state = self.state.lock();
        let past: Vec<Event> = state.history.iter().filter(|e| revision_of(e) > after).cloned().collect();
        let receiver = self.events.subscribe();
        drop(state);
        let live = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|event| (event, receiver))
        });
        let prefix = prefix.to_string();
        let batches = stream::iter(past).chain(live).map(move |event| {
            let (Event::Put { current, .. } | Event::Delete { current, .. }) = &event;
            let (mine, revision) = (current.key.starts_with(&prefix), current.mod_revision);
            Ok(WatchBatch { revision, events: if mine { vec![event] } else { Vec::new() } })
        });
        Ok(batches.boxed())
    }

    async fn revision(&self) -> Result<Revision> {
        Ok(Revision(self.state.lock().revision))
    }

    async fn compact(&self, _revision: Revision) -> Result<()> {
        Ok(())
    }

    async fn grant_lease(&self, _ttl_seconds: u32) -> Result<LeaseId> {
        Ok(LeaseId(1))
    }
}
