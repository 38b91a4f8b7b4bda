//! Events on their way to a backend that must not hold up requests: buffered, gathered into batches, and not too many at once.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Takes batches of events.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Upstream's name of the plug-in, for its errors.
    fn name(&self) -> &'static str;

    async fn write(&self, events: &[Bytes]) -> Result<(), String>;
}

/// How events are gathered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Batching {
    /// Events that may wait; more are dropped.
    pub buffer: usize,
    pub most: usize,
    pub longest_wait: Duration,
    /// Batches a second, and how many at once after a quiet time; `None`: no limit.
    pub throttle: Option<(f64, u32)>,
}

impl Batching {
    /// Upstream's defaults for the log, for those who ask it to batch.
    pub const LOG: Batching = Batching { buffer: 10_000, most: 1, longest_wait: Duration::ZERO, throttle: None };
    /// Upstream's defaults for the webhook.
    pub const WEBHOOK: Batching =
        Batching { buffer: 10_000, most: 400, longest_wait: Duration::from_secs(30), throttle: Some((10.0, 15)) };
}

/// An event, and who waits for its being written.
type Entry = (Bytes, Option<oneshot::Sender<bool>>);

/// Once told to stop, so long without a new event ends it.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The buffer in front of a sink; [`Batcher::run`] empties it.
pub struct Batcher {
    sink: Box<dyn Sink>,
    batching: Batching,
    sender: mpsc::Sender<Entry>,
    receiver: Mutex<Option<mpsc::Receiver<Entry>>>,
    errors: IntCounterVec,
}

impl Batcher {
    pub fn new(sink: Box<dyn Sink>, batching: Batching, errors: IntCounterVec) -> Self {
        let (sender, receiver) = mpsc::channel(batching.buffer.max(1));
        Batcher { sink, batching, sender, receiver: Mutex::new(Some(receiver)), errors }
    }

    /// Leaves an event to be written; where the buffer is full it is lost, and counted.
    pub fn submit(&self, event: Bytes) {
        if self.sender.try_send((event, None)).is_err() {
            self.errors.with_label_values(&["buffered"]).inc();
            tracing::warn!(plugin = self.sink.name(), "the audit buffer is full: an event is lost");
        }
    }

    /// Leaves an event to be written; the receiver hears whether it was.
    pub fn submit_and_tell(&self, event: Bytes) -> oneshot::Receiver<bool> {
        let (told, hears) = oneshot::channel();
        if self.sender.try_send((event, Some(told))).is_err() {
            self.errors.with_label_values(&["buffered"]).inc();
        }
        hears
    }

    /// Writes until `shutdown`, and then what is left. The first call works, others return at once.
    pub async fn run(&self, shutdown: CancellationToken) {
        let Some(mut receiver) = self.receiver.lock().take() else { return };
        let mut bucket = Bucket::new(self.batching.throttle);
        loop {
            let first = tokio::select! {
                first = receiver.recv() => first,
                () = shutdown.cancelled() => {
                    // The last requests are still being answered.
                    tokio::time::timeout(LAST_WAIT, receiver.recv()).await.ok().flatten()
                }
            };
            let Some(first) = first else { return };
            let batch = self.gather(first, &mut receiver, &shutdown).await;
            if !shutdown.is_cancelled() {
                bucket.take().await;
            }
            self.write(batch).await;
        }
    }

    async fn gather(
        &self,
        first: Entry,
        receiver: &mut mpsc::Receiver<Entry>,
        shutdown: &CancellationToken,
    ) -> Vec<Entry> {
        let mut batch = vec![first];
        let until = Instant::now() + self.batching.longest_wait;
        while batch.len() < self.batching.most.max(1) {
            let next = tokio::select! {
                biased;
                next = receiver.recv() => next,
                () = tokio::time::sleep_until(until) => None,
                () = shutdown.cancelled() => receiver.try_recv().ok(),
            };
            match next {
                Some(entry) => batch.push(entry),
                None => break,
            }
        }
        batch
    }

    async fn write(&self, batch: Vec<Entry>) {
        let events: Vec<Bytes> = batch.iter().map(|(event, _)| event.clone()).collect();
        let written = self.sink.write(&events).await;
        if let Err(why) = &written {
            self.errors.with_label_values(&[self.sink.name()]).inc_by(events.len() as u64);
            tracing::error!(plugin = self.sink.name(), events = events.len(), why, "audit events are lost");
        }
        for (_, told) in batch {
            if let Some(told) = told {
                // Whoever waited may have gone.
                let _ = told.send(written.is_ok());
            }
        }
    }
}

/// A token bucket.
struct Bucket {
    rate: Option<(f64, u32)>,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Option<(f64, u32)>) -> Self {
        Bucket { rate, tokens: rate.map_or(0.0, |(_, burst)| f64::from(burst)), filled: Instant::now() }
    }

    async fn take(&mut self) {
        let Some((per_second, burst)) = self.rate.filter(|(rate, _)| *rate > 0.0) else { return };
        let elapsed = self.filled.elapsed().as_secs_f64();
        self.filled = Instant::now();
        self.tokens = (self.tokens + elapsed * per_second).min(f64::from(burst.max(1)));
        if self.tokens < 1.0 {
            let wait = (1.0 - self.tokens) / per_second;
            tokio::time::sleep(Duration::from_secs_f64(wait)).await;
            self.filled = Instant::now();
            self.tokens = 1.0;
        }
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus::Opts;

    use super::*;

    #[derive(Clone, Default)]
    struct Sizes(Arc<Mutex<Vec<(usize, Duration)>>>, Option<Instant>);

    #[async_trait]
    impl Sink for Sizes {
        fn name(&self) -> &'static str {
            "test"
        }

        async fn write(&self, events: &[Bytes]) -> Result<(), String> {
            let at = self.1.map_or(Duration::ZERO, |start| start.elapsed());
            self.0.lock().push((events.len(), at));
            Ok(())
        }
    }

    fn batcher(sizes: &Sizes, batching: Batching) -> (Arc<Batcher>, IntCounterVec) {
        let errors = IntCounterVec::new(Opts::new("errors", "errors"), &["plugin"]).expect("a family");
        (Arc::new(Batcher::new(Box::new(sizes.clone()), batching, errors.clone())), errors)
    }

    #[tokio::test(start_paused = true)]
    async fn batches_fill_up_or_wait_their_time_and_are_throttled() {
        let sizes = Sizes(Arc::default(), Some(Instant::now()));
        let batching =
            Batching { buffer: 100, most: 10, longest_wait: Duration::from_secs(30), throttle: Some((1.0, 1)) };
        let (batcher, _) = batcher(&sizes, batching);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn({
            let (batcher, shutdown) = (batcher.clone(), shutdown.clone());
            async move { batcher.run(shutdown).await }
        });
        for _ in 0..25 {
            batcher.submit(Bytes::from_static(b"{}"));
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let seconds = |s: u64| Duration::from_secs(s);
        assert_eq!(*sizes.0.lock(), [(10, seconds(0)), (10, seconds(1)), (5, seconds(31))]);
        batcher.submit(Bytes::from_static(b"{}"));
        tokio::task::yield_now().await;
        shutdown.cancel();
        running.await.expect("it ends");
        assert_eq!(sizes.0.lock().len(), 4, "what is left is written at once");
    }

    #[tokio::test]
    async fn a_full_buffer_loses_events_and_counts_them() {
        let sizes = Sizes::default();
        let (batcher, errors) = batcher(&sizes, Batching { buffer: 2, ..Batching::LOG });
        for _ in 0..5 {
            batcher.submit(Bytes::new());
        }
        assert_eq!(errors.with_label_values(&["buffered"]).get(), 3);
    }
}
