//! What a backend's watch is, and the stream of it.

use std::future::Future;

use futures::stream;

use crate::{Result, WatchBatch, WatchStream};

/// Reads one batch after the other.
pub(crate) trait Follower: Send + 'static {
    /// The next batch, once there is one. After an error nothing more is asked.
    fn next(&mut self) -> impl Future<Output = Result<WatchBatch>> + Send;
}

/// The batches of a follower, its error the last item.
pub(crate) fn follow(follower: impl Follower) -> WatchStream {
    Box::pin(stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        let item = follower.next().await;
        let rest = item.is_ok().then_some(follower);
        Some((item, rest))
    }))
}
