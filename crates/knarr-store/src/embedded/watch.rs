//! A watch: a cursor that reads the window, or the engine where the window no longer reaches back far enough.

use std::sync::Arc;

use super::{
    Shared,
    window::{Recent, Watcher},
};
use crate::follower::{Follower, follow};
use crate::{Event, Revision, StoreError, WatchBatch, WatchStream};

/// Events that one batch carries at most.
const BATCH: usize = 1024;
/// Versions that one look at the engine reads at most.
const LOOK_BACK: usize = 512;

struct Watch {
    shared: Arc<Shared>,
    watcher: Arc<Watcher>,
    cursor: u64,
    /// A progress mark was asked for and not yet delivered.
    mark_due: bool,
}

/// Everything under `prefix` after `after`.
pub(super) fn open(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream, StoreError> {
    shared.require_kept(after.0)?;
    let watcher = shared.window.register(prefix);
    let watch = Watch { shared, watcher, cursor: after.0, mark_due: false };
    Ok(follow(watch))
}

impl Follower for Watch {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            // Both before the look, so that a mark asked for during it, or an event after it, is not lost.
            self.mark_due |= self.watcher.take_mark();
            let head = self.shared.window.head();
            let batch = match self.shared.window.after(&self.watcher.prefix, self.cursor, BATCH) {
                Recent::Batch(batch) => batch,
                Recent::StartsAfter(revision) => self.look_back(revision).await?,
            };
            let caught_up = batch.revision.0 >= head;
            let moved = batch.revision.0 > self.cursor;
            self.cursor = batch.revision.0;
            if !batch.events.is_empty() || (caught_up && self.mark_due) {
                self.mark_due &= !caught_up;
                return Ok(batch);
            }
            if !moved {
                if self.shared.window.is_closed() {
                    return Err(StoreError::Closed);
                }
                self.watcher.rung().await;
            }
        }
    }
}

impl Watch {
    /// The next batch out of the engine; not past `until`, where the window begins.
    async fn look_back(&self, until: u64) -> Result<WatchBatch, StoreError> {
        let (shared, watcher, cursor) = (self.shared.clone(), self.watcher.clone(), self.cursor);
        tokio::task::spawn_blocking(move || read_history(&shared, &watcher.prefix, cursor, until))
            .await
            .map_err(|_| StoreError::Closed)?
    }
}

fn read_history(shared: &Shared, prefix: &str, cursor: u64, until: u64) -> Result<WatchBatch, StoreError> {
    // The view first: compaction after it does not show, compaction before it shows in the check.
    let view = shared.engine.view();
    shared.require_kept(cursor)?;
    let mut batch = WatchBatch { revision: Revision(until), events: Vec::new() };
    for (count, version) in view.versions(cursor + 1, until).enumerate() {
        let version = version?;
        if count == LOOK_BACK {
            batch.revision = Revision(version.revision - 1);
            break;
        }
        if !version.key.starts_with(prefix) {
            continue;
        }
        let value = if version.is_deletion() { Some(Default::default()) } else { view.value(version.revision)? };
        let previous = version.previous.map(|previous| view.value(previous.revision)).transpose()?.flatten();
        let event = version.into_event(value.ok_or_else(|| missing(cursor))?, previous);
        batch.events.push(require_whole(event)?);
    }
    Ok(batch)
}

fn missing(revision: u64) -> StoreError {
    StoreError::Backend(format!("the store is damaged: a value after revision {revision} is missing"))
}

fn require_whole(event: Event) -> Result<Event, StoreError> {
    match &event {
        Event::Put { current, .. } if current.create_revision.0 == 0 => Err(missing(current.mod_revision.0)),
        _ => Ok(event),
    }
}
