//! Fairness, limits and waiting, on a paused clock.

use std::time::Duration;

use knarr_api::object::ObjectExt;
use serde_json::json;
use tokio::time::Instant;

use super::level::{Asked, Level, Limits, Request, Seat, Settings};
use super::queue_set::{Arrival, Kind, QueueSet, Refusal, Slot, Ticket};
use super::work::Work;
use super::*;
use crate::authentication::User;
use crate::chain::request_info::RequestInfo;

const QUEUES: Kind = Kind::Queue { queues: 8, hand: 2, length: 4 };

/// A queue set whose requests are named.
struct Set {
    set: QueueSet<String>,
    now: Instant,
    waiting: Vec<(String, Ticket, tokio::sync::oneshot::Receiver<Slot>)>,
}

impl Set {
    fn new(kind: Kind, limit: u32) -> Self {
        let now = Instant::now();
        Set { set: QueueSet::new(now, kind, limit), now, waiting: Vec::new() }
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    /// `Ok(Some)`: seated; `Ok(None)`: waits.
    fn arrive(&mut self, flow: u64, name: &str, work: Work) -> Result<Option<Slot>, Refusal> {
        match self.set.arrive(self.now, flow, work, name.to_string()) {
            Arrival::Seated(slot) => Ok(Some(slot)),
            Arrival::Refused(why) => Err(why),
            Arrival::Queued { ticket, mut seated, .. } => {
                if let Ok(slot) = seated.try_recv() {
                    return Ok(Some(slot));
                }
                self.waiting.push((name.to_string(), ticket, seated));
                Ok(None)
            }
        }
    }

    /// Ends a request; the names of those who are served instead, with their slots.
    fn finish(&mut self, slot: Slot) -> Vec<(String, Slot)> {
        assert!(self.set.finish(self.now, slot).is_none());
        self.seated()
    }

    fn seated(&mut self) -> Vec<(String, Slot)> {
        let mut seated = Vec::new();
        self.waiting.retain_mut(|(name, _, channel)| match channel.try_recv() {
            Ok(slot) => {
                seated.push((name.clone(), slot));
                false
            }
            Err(_) => true,
        });
        seated
    }
}

#[test]
fn a_level_without_queues_refuses_at_its_limit() {
    let mut set = Set::new(Kind::Reject, 2);
    let first = set.arrive(1, "a", Work::ONE).expect("a seat").expect("at once");
    assert!(set.arrive(1, "b", Work::ONE).expect("a seat").is_some());
    assert_eq!(set.arrive(1, "c", Work::ONE), Err(Refusal::ConcurrencyLimit));
    set.finish(first);
    assert!(set.arrive(1, "d", Work::ONE).expect("a seat again").is_some());
}

#[test]
fn the_exempt_level_never_refuses() {
    let mut set = Set::new(Kind::Exempt, 0);
    for _ in 0..1_000 {
        assert!(set.arrive(1, "a", Work::ONE).expect("a seat").is_some());
    }
    assert_eq!(set.set.executing(), 1_000);
}

#[test]
fn a_queue_has_a_length_and_a_greedy_flow_fills_only_its_own() {
    let mut set = Set::new(QUEUES, 1);
    let running = set.arrive(1, "first", Work::ONE).expect("a seat").expect("at once");
    let mut refused = 0;
    for i in 0..20 {
        refused += usize::from(set.arrive(1, &format!("greedy {i}"), Work::ONE) == Err(Refusal::QueueFull));
    }
    assert_eq!(refused, 20 - 2 * 4, "two queues of four");
    assert_eq!(set.arrive(17, "modest", Work::ONE), Ok(None), "another flow has queues of its own");
    // The modest flow is served after at most one of each greedy queue, not after all eight.
    let mut order = Vec::new();
    let mut slot = running;
    while !set.waiting.is_empty() {
        set.pass(3);
        let mut next = set.finish(slot);
        assert_eq!(next.len(), 1, "one seat, one request");
        let (name, taken) = next.remove(0);
        order.push(name);
        slot = taken;
    }
    let place = order.iter().position(|name| name == "modest").expect("served");
    assert!(place <= 2, "{order:?}");
}

#[test]
fn wide_requests_take_their_seats_and_are_not_overtaken() {
    let mut set = Set::new(QUEUES, 4);
    let one = set.arrive(1, "one", Work::ONE).expect("a seat").expect("at once");
    let wide = Work { initial: 4, ..Work::ONE };
    assert_eq!(set.arrive(2, "wide", wide), Ok(None), "three of its four seats are free");
    set.pass(20);
    assert_eq!(set.arrive(3, "late", Work::ONE), Ok(None), "nobody overtakes the one whose turn it is");
    let seated = set.finish(one);
    assert_eq!(seated.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["wide"]);
    let huge = Work { initial: 9, ..Work::ONE };
    assert_eq!(set.arrive(4, "huge", huge), Ok(None));
    for (_, slot) in seated {
        let next = set.finish(slot);
        assert!(next.iter().any(|(name, _)| name == "late"));
        for (_, slot) in next {
            let last = set.finish(slot);
            assert!(last.iter().all(|(name, _)| name == "huge"));
        }
    }
    assert_eq!(set.set.seats_in_use(), 9, "wider than the limit: served alone");
}

#[test]
fn seats_linger_after_a_write_that_many_watch() {
    let mut set = Set::new(QUEUES, 2);
    let work = Work { initial: 1, last: 2, linger: Duration::from_millis(5) };
    let slot = set.arrive(1, "write", work).expect("a seat").expect("at once");
    assert_eq!(set.arrive(2, "read", Work::ONE), Ok(None));
    let (slot, time) = set.set.finish(set.now, slot).expect("it lingers");
    assert_eq!((time, set.seated().len()), (Duration::from_millis(5), 0));
    set.pass(5);
    set.set.release(set.now, slot);
    assert_eq!(set.seated().len(), 1);
}

#[test]
fn who_leaves_makes_room_and_a_changed_limit_counts_at_once() {
    let mut set = Set::new(QUEUES, 1);
    set.arrive(1, "a", Work::ONE).expect("a seat").expect("at once");
    assert_eq!(set.arrive(1, "b", Work::ONE), Ok(None));
    assert_eq!(set.arrive(1, "c", Work::ONE), Ok(None));
    let (_, ticket, _channel) = set.waiting.remove(0);
    assert!(set.set.leave(set.now, ticket, Refusal::TimeOut));
    assert!(!set.set.leave(set.now, ticket, Refusal::TimeOut), "only once");
    assert_eq!((set.set.waiting(), set.set.counted.timed_out), (1, 1));
    set.set.configure(set.now, QUEUES, 2);
    assert_eq!(set.seated().len(), 1);
    set.set.configure(set.now, Kind::Queue { queues: 1, hand: 1, length: 1 }, 2);
    assert_eq!(set.arrive(5, "d", Work::ONE), Ok(None), "fewer queues: those at work go on");
}

fn level(limit: u32) -> (Arc<FlowControl>, Arc<Level>) {
    let flow_control = FlowControl::new(600, &prometheus::Registry::new());
    let level = flow_control.configuration().levels["workload-low"].clone();
    level.set_limits(Limits { nominal: limit, low: limit, high: limit, current: limit, ..Limits::default() });
    (flow_control, level)
}

fn request(flow_control: &FlowControl, user: &str) -> Request {
    let user = User::new(user, &["system:serviceaccounts", "system:authenticated"]);
    let info = RequestInfo::parse(&http::Method::GET, "/api/v1/namespaces/x/pods/p", "").expect("a path");
    let schema = flow_control.configuration().classify(&info, &user).cloned().expect("a schema");
    Request { schema, info: Arc::new(info), user: Arc::new(user) }
}

fn seated(asked: Asked) -> Seat {
    match asked {
        Asked::Seated(seat) => seat,
        _ => panic!("no free seat"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_is_served_or_given_up_in_time() {
    let (flow_control, level) = level(1);
    let ask = |user: &str| level.arrive(request(&flow_control, user), Work::ONE);
    let first = seated(ask("a"));
    let (Asked::Queued(in_vain), Asked::Queued(patient)) = (ask("b"), ask("c")) else { panic!("one seat") };
    let began = Instant::now();
    assert_eq!(in_vain.wait(Duration::from_secs(15)).await.err(), Some(Refusal::TimeOut));
    assert_eq!(began.elapsed(), Duration::from_secs(15));
    let waiting = tokio::spawn(patient.wait(Duration::from_secs(60)));
    tokio::task::yield_now().await;
    drop(first);
    let seat = waiting.await.expect("no panic").expect("a seat");
    assert!(matches!(ask("d"), Asked::Queued(_)), "dropped at once: a cancelled request leaves its queue");
    assert_eq!(level.set.lock().waiting(), 0);
    drop(seat);
    assert!(level.set.lock().is_idle());
}

#[test]
fn the_default_schemas_classify_as_upstream() {
    let flow_control = FlowControl::new(600, &prometheus::Registry::new());
    let all = ["system:authenticated"];
    let cases: &[(&str, &[&str], &str, &str)] = &[
        ("admin", &["system:masters", "system:authenticated"], "/api/v1/pods", "exempt exempt"),
        ("u", &all, "/readyz", "probes exempt"),
        ("u", &all, "/api/v1/pods", "global-default global-default"),
        ("system:node:n", &["system:nodes", "system:authenticated"], "/api/v1/nodes/n", "system-node-high node-high"),
        ("system:node:n", &["system:nodes", "system:authenticated"], "/api/v1/pods", "system-nodes system"),
        ("system:kube-scheduler", &all, "/api/v1/pods", "kube-scheduler workload-high"),
        (
            "system:kube-scheduler",
            &all,
            "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/l",
            "system-leader-election leader-election",
        ),
        (
            "system:serviceaccount:x:y",
            &["system:serviceaccounts", "system:authenticated"],
            "/api/v1/pods",
            "service-accounts workload-low",
        ),
        ("nobody", &[], "/api/v1/pods", "catch-all catch-all"),
    ];
    for (user, groups, path, expected) in cases {
        let info = RequestInfo::parse(&http::Method::GET, path, "").expect("a path");
        let configuration = flow_control.configuration();
        let schema = configuration.classify(&info, &User::new(user, groups)).expect("a schema");
        assert_eq!(format!("{} {}", schema.name, schema.level.name), *expected, "{user} {path}");
    }
}

/// Upstream's numbers for its default configuration and 600 seats.
#[test]
fn the_default_levels_have_upstreams_seats() {
    let flow_control = FlowControl::new(600, &prometheus::Registry::new());
    let seats = |name: &str| {
        let limits = *flow_control.configuration().levels[name].limits.lock();
        (limits.nominal, limits.low, limits.high)
    };
    assert_eq!(seats("exempt"), (0, 0, 600));
    assert_eq!(seats("catch-all"), (13, 13, 613));
    assert_eq!(seats("workload-low"), (245, 24, 845));
    assert_eq!(seats("node-high"), (98, 73, 698));
}

#[tokio::test(start_paused = true)]
async fn idle_seats_are_lent_to_the_busy() {
    let flow_control = FlowControl::new(600, &prometheus::Registry::new());
    let level = flow_control.configuration().levels["workload-low"].clone();
    let before = level.limits.lock().current;
    let mut held = Vec::new();
    while let Asked::Seated(seat) = level.arrive(request(&flow_control, "a"), Work::ONE) {
        held.push(seat);
    }
    let places: Vec<Asked> = (0..50).map(|_| level.arrive(request(&flow_control, "a"), Work::ONE)).collect();
    tokio::time::advance(Duration::from_secs(10)).await;
    flow_control.adjust();
    let after = level.limits.lock().current;
    assert!(held.len() as u32 == before && after > before, "{before} became {after}");
    drop((held, places));
    for _ in 0..200 {
        tokio::time::advance(Duration::from_secs(10)).await;
        flow_control.adjust();
    }
    let total: u32 = flow_control.configuration().levels.values().map(|l| l.limits.lock().current).sum();
    assert!((595..=615).contains(&total), "everything is given to somebody: {total}");
}

#[tokio::test(start_paused = true)]
async fn dangling_schemas_say_so_and_mandatory_objects_come_back() {
    let memory = crate::testing::Memory::new();
    let objects: Arc<dyn crate::objects::Objects> = memory.clone();
    crate::bootstrap::ensure_flow_control(&objects).await.expect("the default objects");
    let flow_control = FlowControl::new(600, &prometheus::Registry::new());
    let following = tokio::spawn(flow_control.clone().run(objects.clone()));
    let schemas = knarr_api::GroupResource::new("flowcontrol.apiserver.k8s.io", "flowschemas");
    let levels = knarr_api::GroupResource::new("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations");
    let condition = async |name: &str, reason: &str| {
        for _ in 0..1_000 {
            let object = objects.get(&schemas, "", name).await.expect("a map").expect("the schema");
            if object["status"]["conditions"][0]["reason"] == reason {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{name} never said {reason}");
    };
    let mine = json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "nothing"},
        "matchingPrecedence": 1, "rules": [{"subjects": [{"kind": "User", "user": {"name": "me"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    memory.put("flowcontrol.apiserver.k8s.io", "flowschemas", mine);
    let dangling = condition("mine", "NotFound").await;
    let message = r#"This FlowSchema references the PriorityLevelConfiguration object named "nothing" but there is no such object"#;
    assert_eq!(dangling["status"]["conditions"][0]["message"], message);
    assert_eq!(dangling["status"]["conditions"][0]["status"], "True");
    let level = json!({"metadata": {"name": "nothing"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}});
    memory.put("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", level);
    condition("mine", "Found").await;
    let info = RequestInfo::parse(&http::Method::GET, "/version", "").expect("a path");
    let schema = flow_control.configuration().classify(&info, &User::new("me", &[])).cloned().expect("a schema");
    assert_eq!(&*schema.name, "mine");
    for (resource, name) in [(&schemas, "catch-all"), (&levels, "exempt")] {
        objects.delete(resource, "", name, json!({})).await.expect("deleted");
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    for (resource, name) in [(&schemas, "catch-all"), (&levels, "exempt")] {
        let back = objects.get(resource, "", name).await.expect("a map");
        assert_eq!(back.map(|o| o.name().to_string()).as_deref(), Some(name), "made again within a minute");
    }
    following.abort();
}

#[test]
fn settings_that_contradict_themselves_are_left_out() {
    let read = |name: &str, spec: serde_json::Value| {
        Settings::read(name, &serde_json::from_value(spec).expect("a spec")).is_some()
    };
    assert!(read("exempt", json!({"type": "Exempt", "exempt": {}})));
    assert!(!read("other", json!({"type": "Exempt", "exempt": {}})));
    assert!(!read("other", json!({"type": "Limited"})));
    assert!(!read("other", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}})));
}
