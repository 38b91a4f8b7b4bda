//! Events sent to a server, as `EventList`s.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use super::batch::Sink;
use crate::outbound::{self, CallError, Client, Limits, OpenError};

/// Times that a batch is sent, as upstream.
const ATTEMPTS: u32 = 5;
/// Each wait is so much longer than the one before.
const GROWTH: f64 = 1.5;
/// What is read of an answer; nothing of it is used.
const LONGEST_ANSWER: usize = 64 << 10;

/// The server of a kubeconfig file.
pub struct Webhook {
    client: Client,
    initial_backoff: Duration,
}

impl Webhook {
    /// Fails where the kubeconfig cannot be used.
    pub fn open(kubeconfig: &Path, initial_backoff: Duration) -> Result<Self, OpenError> {
        Ok(Webhook { client: outbound::from_kubeconfig(kubeconfig)?, initial_backoff })
    }
}

#[async_trait]
impl Sink for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), String> {
        let body = event_list(events);
        let limits = Limits { size: LONGEST_ANSWER, ..Limits::default() };
        let mut wait = self.initial_backoff;
        for attempt in 1..=ATTEMPTS {
            match self.client.post_bytes(body.clone(), limits).await {
                Ok(_) => return Ok(()),
                Err(error) if attempt < ATTEMPTS && may_succeed(&error) => {
                    tracing::warn!(%error, "audit events are not taken; they are sent again");
                    tokio::time::sleep(wait).await;
                    wait = wait.mul_f64(GROWTH);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// A server that says it is the request that is wrong will say so again.
fn may_succeed(error: &CallError) -> bool {
    match error {
        CallError::Status(status) => !(400..500).contains(&status.code) || matches!(status.code, 408 | 429),
        CallError::TooLarge(_) => false,
        _ => true,
    }
}

fn event_list(events: &[Bytes]) -> Bytes {
    let mut body = BytesMut::with_capacity(128 + events.iter().map(|e| e.len() + 1).sum::<usize>());
    body.put_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            body.put_u8(b',');
        }
        body.put_slice(event);
    }
    body.put_slice(b"]}");
    body.freeze()
}
