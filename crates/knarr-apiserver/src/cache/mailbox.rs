//! The queue between the cache and one watcher: bounded in bytes and in time, never blocking the sender.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

/// Bytes a watcher may be behind before it is dropped; it then starts over, as with any closed watch.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Room for so many runs stays when all are taken.
const KEPT_CHUNKS: usize = 8;

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Bytes>,
    queued: usize,
    closed: bool,
    /// The watcher has taken something since the last [`Sender::is_stalled`].
    taken: bool,
    /// Something waited when that was asked.
    waiting_before: bool,
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

    /// Whether the watcher took nothing of what waits for it since this was last asked; it then is dropped, as one that is too far behind.
    pub fn is_stalled(&self) -> bool {
        let mut queue = self.0.lock();
        let stalled = !std::mem::take(&mut queue.taken) && queue.waiting_before;
        queue.waiting_before = !queue.chunks.is_empty();
        if stalled {
            queue.chunks.clear();
            queue.closed = true;
        }
        stalled
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
            queue.taken = true;
            if queue.chunks.is_empty() && queue.chunks.capacity() > KEPT_CHUNKS {
                // An idle watch keeps no room for what it once was behind.
                queue.chunks = VecDeque::new();
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn next(receiver: &mut Receiver) -> Poll<Option<Bytes>> {
        receiver.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_watcher_too_far_behind_is_ended() {
        let (sender, mut receiver) = mailbox();
        let chunk = Bytes::from(vec![b'x'; MAX_QUEUED_BYTES / 4]);
        assert!((0..4).all(|_| sender.send(chunk.clone())));
        assert!(!sender.send(chunk.clone()), "one more is too much");
        assert_eq!(next(&mut receiver), Poll::Ready(None), "the watch ends rather than show a gap");
        assert!(!sender.send(chunk));
    }

    #[test]
    fn a_watcher_that_takes_nothing_is_ended() {
        let (sender, mut receiver) = mailbox();
        assert!(!sender.is_stalled(), "idle is not stalled");
        sender.send(Bytes::from_static(b"1"));
        assert!(!sender.is_stalled(), "it has just come");
        assert_eq!(next(&mut receiver), Poll::Ready(Some(Bytes::from_static(b"1"))));
        sender.send(Bytes::from_static(b"2"));
        assert!(!sender.is_stalled(), "it has taken something meanwhile");
        assert!(sender.is_stalled());
        assert_eq!(next(&mut receiver), Poll::Ready(None));
    }

    #[test]
    fn a_polite_end_delivers_what_waits() {
        let (sender, mut receiver) = mailbox();
        sender.send(Bytes::from_static(b"1"));
        sender.close();
        assert_eq!(next(&mut receiver), Poll::Ready(Some(Bytes::from_static(b"1"))));
        assert_eq!(next(&mut receiver), Poll::Ready(None));
    }
}
