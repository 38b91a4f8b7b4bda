//! A watch: etcd's own over all keys, shown as far as it concerns a prefix, and begun again where it broke off.

use std::time::Duration;

use bytes::Bytes;
use etcd_client::{WatchClient, WatchOptions, WatchResponse};
use tokio::sync::watch::Receiver;

use super::{error, key_value};
use crate::follower::{Follower, follow};
use crate::{Event, Result, Revision, StoreError, WatchBatch, WatchStream};

const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// An etcd that nobody has written to is at this revision, the only one without a change.
const EMPTY: Revision = Revision(1);

struct Watch {
    client: WatchClient,
    prefix: Box<str>,
    /// Everything up to it has been delivered.
    cursor: Revision,
    /// Ticks when a progress mark is asked for.
    marks: Receiver<u64>,
    open: Option<etcd_client::WatchStream>,
    delay: Duration,
}

/// Everything under `prefix` after `after`. Connects with the first poll.
pub(super) fn open(client: WatchClient, prefix: &str, after: Revision, marks: Receiver<u64>) -> Result<WatchStream> {
    let watch = Watch {
        client: client.max_decoding_message_size(usize::MAX),
        prefix: prefix.into(),
        cursor: after.max(EMPTY),
        marks,
        open: None,
        delay: FIRST_DELAY,
    };
    Ok(follow(watch))
}

impl Follower for Watch {
    async fn next(&mut self) -> Result<WatchBatch> {
        loop {
            let Some(open) = &mut self.open else {
                self.connect().await;
                continue;
            };
            let message = tokio::select! {
                biased;
                message = open.message() => message,
                asked = self.marks.changed() => match asked {
                    Ok(()) => return Ok(WatchBatch { revision: self.cursor, events: Vec::new() }),
                    Err(_) => return Err(StoreError::Closed),
                },
            };
            match message {
                Ok(Some(message)) => {
                    if let Some(batch) = self.receive(&message)? {
                        return Ok(batch);
                    }
                }
                Ok(None) => self.break_off("etcd ended it"),
                Err(error) => self.break_off(&error::backend(error).to_string()),
            }
        }
    }
}

impl Watch {
    /// Opens etcd's watch, or waits a little.
    async fn connect(&mut self) {
        let options = WatchOptions::new().with_all_keys().with_prev_key().with_start_revision(self.cursor.0 as i64 + 1);
        match self.client.watch(vec![0], Some(options)).await {
            Ok(open) => self.open = Some(open),
            Err(error) => {
                self.break_off(&error::backend(error).to_string());
                tokio::time::sleep(self.delay).await;
                self.delay = (self.delay * 2).min(LONGEST_DELAY);
            }
        }
    }

    fn break_off(&mut self, why: &str) {
        tracing::warn!(why, revision = self.cursor.0, "the watch of etcd broke off; resuming");
        self.open = None;
    }

    /// What a message brings; `None` where it is not about events.
    fn receive(&mut self, message: &WatchResponse) -> Result<Option<WatchBatch>> {
        if message.compact_revision() > 0 {
            return Err(StoreError::Compacted {
                requested: self.cursor,
                oldest: Revision(message.compact_revision() as u64),
            });
        }
        if message.canceled() {
            self.break_off(message.cancel_reason());
            return Ok(None);
        }
        let Some(last) = message.events().last().and_then(|event| event.kv()) else { return Ok(None) };
        self.delay = FIRST_DELAY;
        self.cursor = Revision(last.mod_revision() as u64);
        let ours = message.events().iter().filter_map(|event| self.event(event));
        Ok(Some(WatchBatch { revision: self.cursor, events: ours.collect() }))
    }

    fn event(&self, event: &etcd_client::Event) -> Option<Event> {
        let kv = event.kv().filter(|kv| kv.key().starts_with(self.prefix.as_bytes()))?;
        let mut current = key_value(kv)?;
        let previous = event.prev_kv().and_then(key_value);
        // Only a deleted key was never made.
        if current.create_revision.0 > 0 {
            return Some(Event::Put { current, previous });
        }
        current.value = Bytes::new();
        Some(Event::Delete { current, previous: previous? })
    }
}
