//! Requests with large bodies: reading, merging and checking megabytes takes longer than a worker of the runtime may be held.

use std::future::{Future, poll_fn};
use std::pin::pin;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// From here on a body is large; below, giving the worker's other tasks away costs more than they would wait.
const LARGE: u64 = 256 * 1024;

/// Whether a body of this size is; one of which nobody knows the size may be.
pub fn is_large(hint: &http_body::SizeHint) -> bool {
    hint.exact().is_none_or(|size| size >= LARGE)
}

/// Runs `work` so that the other tasks of its worker go on elsewhere meanwhile.
pub async fn in_place<T>(work: impl Future<Output = T>) -> T {
    if Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
        return work.await;
    }
    let mut work = pin!(work);
    poll_fn(|cx| block_in_place(|| work.as_mut().poll(cx))).await
}
