use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Action, Controller, Reconciler};
use crate::Error;

/// Fails so many times, then succeeds; notes how often it was asked.
struct Flaky {
    failures: usize,
    asked: Arc<AtomicUsize>,
    done: CancellationToken,
}

#[async_trait::async_trait]
impl Reconciler for Flaky {
    type Key = &'static str;

    fn name(&self) -> &'static str {
        "flaky"
    }

    async fn reconcile(&self, _: &&'static str) -> Result<Action, Error> {
        match self.asked.fetch_add(1, Ordering::SeqCst) {
            asked if asked < self.failures => Err(Error::other("not yet")),
            asked if asked == self.failures => Ok(Action::RequeueAfter(Duration::from_secs(60))),
            _ => {
                self.done.cancel();
                Ok(Action::Done)
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_and_requeues_come_when_due() {
    let (asked, done) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let controller = Controller::new(Flaky { failures: 3, asked: asked.clone(), done: done.clone() });
    controller.queue().add("key");
    let start = tokio::time::Instant::now();
    controller.run(done).await;
    assert_eq!(asked.load(Ordering::SeqCst), 5);
    assert!(start.elapsed() >= Duration::from_millis(60_035), "{:?}", start.elapsed());
}
