//! The queue between the cache and one watcher: bounded in bytes, never blocking the sender.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes a watcher may be behind before it is dropped; it then starts over, as with any closed watch.
const MAX_QUEUED_BYTES: usize = 32 * 1024 * 1024;

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    queued: usize,
    closed: bool,
    waker: Option<Waker>,
}

/// The cache's end.
#[derive(Clone, Default)]
pub struct Sender(Arc<Mutex<Queue>>);

/// The watcher's end; dropping it closes the mailbox.
pub struct Receiver(Arc<Mutex<Queue>>);

pub fn mailbox() -> (Sender, Receiver) {
    let sender = Sender::default();
    let receiver = Receiver(sender.0.clone());
    (sender, receiver)
}

impl Sender {
    /// Hands over a run of events; false where the watcher is gone or too slow and must be forgotten.
    pub fn send(&self, chunk: Bytes) -> bool {
        let mut queue = self.0.lock();
        if queue.closed {
            return false;
        }
        queue.queued += chunk.len();
        if queue.queued > MAX_QUEUED_BYTES {
            queue.chunks.clear();
            queue.closed = true;
        } else {
            queue.chunks.push_back(chunk);
        }
        let (open, waker) = (!queue.closed, queue.waker.take());
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
        open
    }

    /// Ends the watch politely: what is queued is still delivered.
    pub fn close(&self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }

    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }
}

impl Receiver {
    /// The next run of events; `None` once closed and drained.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut queue = self.0.lock();
        if let Some(chunk) = queue.chunks.pop_front() {
            queue.queued -= chunk.len();
            return Poll::Ready(Some(chunk));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        queue.chunks.clear();
    }
}
