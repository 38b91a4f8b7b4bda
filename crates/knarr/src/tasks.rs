//! The parts of a running process: who is still at work when it is to end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the parts may take to end once they are told to.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Named tasks that end with one token.
#[derive(Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    /// The end is near: the API server says so and goes on serving.
    pub leaving: CancellationToken,
    pub stop: CancellationToken,
    /// For what the parts need until the last of them has ended.
    pub ended: CancellationToken,
}

impl Tasks {
    /// Runs `part`, which must end soon after [`Tasks::stop`].
    pub fn spawn(&self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.spawn_boxed(name, Box::pin(part));
    }

    fn spawn_boxed(&self, name: &'static str, part: BoxFuture<'static, ()>) {
        *self.running.lock().entry(name).or_default() += 1;
        let running = self.running.clone();
        self.tracker.spawn(async move {
            part.await;
            running.lock().entry(name).and_modify(|count| *count -= 1);
        });
    }

    /// Whether a part of this name is at work.
    pub fn is_running(&self, name: &str) -> bool {
        self.running.lock().get(name).is_some_and(|count| *count > 0)
    }

    /// Tells every part to end and waits for them, but not for ever: a part that hangs must not keep the machine's owner waiting,
    /// and everything acknowledged is on disk already.
    pub async fn end(&self) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_LIMIT, self.tracker.wait()).await.is_err() {
            let running = self.running.lock();
            let names: Vec<&str> = running.iter().filter(|(_, count)| **count > 0).map(|(name, _)| *name).collect();
            tracing::warn!("did not end in time: {}", names.join(", "));
        }
        self.ended.cancel();
    }
}
