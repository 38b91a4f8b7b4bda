use std::time::Duration;

use super::WorkQueue;

#[tokio::test]
async fn a_key_added_twice_is_handed_out_once() {
    let queue = WorkQueue::new();
    queue.add("a");
    queue.add("a");
    queue.add("b");
    assert_eq!(queue.len(), 2);
    assert_eq!(*queue.get().await.unwrap(), "a");
    assert_eq!(*queue.get().await.unwrap(), "b");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_in_work_is_not_handed_out_until_done_and_then_again() {
    let queue = WorkQueue::new();
    queue.add("a");
    let lease = queue.get().await.unwrap();
    queue.add("a");
    assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
    drop(lease);
    assert_eq!(*queue.get().await.unwrap(), "a");
}

#[tokio::test(start_paused = true)]
async fn failures_double_the_delay_until_forgotten() {
    let queue = WorkQueue::new();
    let mut waited = Vec::new();
    for _ in 0..4 {
        let before = tokio::time::Instant::now();
        queue.add_rate_limited("a");
        drop(queue.get().await);
        waited.push(before.elapsed().as_millis());
    }
    assert_eq!(waited, [5, 10, 20, 40]);
    assert_eq!(queue.failures(&"a"), 4);
    queue.forget(&"a");
    assert_eq!(queue.failures(&"a"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_delay_is_capped() {
    let queue = WorkQueue::new();
    for _ in 0..100 {
        queue.fail(&"a");
    }
    assert_eq!(queue.fail(&"a"), super::MAX_DELAY);
}

#[tokio::test(start_paused = true)]
async fn the_earliest_wish_wins() {
    let queue = WorkQueue::new();
    let start = tokio::time::Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(5));
    drop(queue.get().await);
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert!(tokio::time::timeout(Duration::from_secs(60), queue.get()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_worker_hears_of_an_earlier_delay() {
    let queue = WorkQueue::new();
    queue.add_after("late", Duration::from_secs(100));
    let worker = tokio::spawn({
        let queue = queue.clone();
        async move { queue.get().await.map(|key| *key) }
    });
    tokio::task::yield_now().await;
    queue.add_after("early", Duration::from_secs(1));
    assert_eq!(worker.await.unwrap(), Some("early"));
}

#[tokio::test]
async fn closing_drains_and_releases_every_worker() {
    let queue = WorkQueue::new();
    let waiting: Vec<_> = (0..4)
        .map(|_| {
            let queue: WorkQueue<&str> = queue.clone();
            tokio::spawn(async move { queue.get().await.is_none() })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    queue.add("ignored");
    for worker in waiting {
        assert!(worker.await.unwrap());
    }
}
