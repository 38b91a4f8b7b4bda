use serde_json::json;

use super::*;
use crate::node::NodeInfo;

fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"priority": priority, "containers": []},
    });
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
}

fn next(queue: &mut Queue) -> Option<String> {
    queue.pop().map(|waiting| waiting.pod.uid.to_string())
}

#[tokio::test(start_paused = true)]
async fn priority_comes_before_age() {
    let mut queue = Queue::default();
    for (name, priority) in [("old", 0), ("young", 0), ("high", 5)] {
        queue.add(pod(name, priority));
    }
    let order: Vec<_> = std::iter::from_fn(|| next(&mut queue)).collect();
    assert_eq!(order, ["high", "old", "young"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_waits_for_a_change_that_may_help_and_then_backs_off() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0));
    let waiting = queue.pop().unwrap();
    queue.unschedulable(waiting, &[Plugin::NodeUnschedulable]);
    let mut cordoned = NodeInfo::named("n", 0);
    cordoned.unschedulable = true;
    queue.changed(&Change::Node(&cordoned));
    assert_eq!(queue.next_tick(), Some(Instant::now() + LONGEST_UNSCHEDULABLE));
    queue.changed(&Change::Node(&NodeInfo::named("n", 0)));
    queue.add(pod("b", -1));
    assert_eq!(next(&mut queue).as_deref(), Some("b"), "the other was tried just now");
    assert_eq!(next(&mut queue).as_deref(), Some("a"), "there is nothing else to do");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_placing_failed_waits_in_any_case() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0));
    let waiting = queue.pop().unwrap();
    queue.failed(waiting);
    assert_eq!(next(&mut queue), None);
    tokio::time::advance(FIRST_BACKOFF).await;
    queue.tick();
    assert_eq!(next(&mut queue).as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn an_unschedulable_pod_is_tried_again_in_the_end() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0));
    let waiting = queue.pop().unwrap();
    queue.unschedulable(waiting, &[Plugin::NodeName]);
    tokio::time::advance(LONGEST_UNSCHEDULABLE).await;
    queue.tick();
    assert_eq!(next(&mut queue).as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_pod_is_not_handed_out() {
    let mut queue = Queue::default();
    queue.add(pod("a", 0));
    queue.remove("a");
    assert_eq!(next(&mut queue), None);
}
