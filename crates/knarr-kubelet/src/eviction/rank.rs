//! Which pod goes first, and what it is told.

use std::fmt::Write as _;

use super::Signal;
use super::usage::{ContainerUsage, PodUsage, Room};
use crate::pod::{DesiredPod, resources};
use crate::worker::status::Verdict;

/// A pod and what it uses.
pub struct Used<'a> {
    pub pod: &'a DesiredPod,
    pub usage: PodUsage,
}

/// The pod to evict: one that uses more than it asked for before others, then the least important, then the one furthest above.
pub fn first<'a, 'b>(used: &'b [Used<'a>], signal: Signal) -> Option<&'b Used<'a>> {
    used.iter().min_by_key(|one| {
        let above = amount(signal, one) - request(signal, one.pod);
        (above <= 0, one.pod.spec().priority.unwrap_or(0), std::cmp::Reverse(above))
    })
}

fn amount(signal: Signal, used: &Used<'_>) -> i64 {
    match signal {
        Signal::Memory => used.usage.memory(),
        Signal::Pids => 0,
        _ => used.usage.disk(),
    }
}

fn request(signal: Signal, pod: &DesiredPod) -> i64 {
    let requests = resources::pod_requests(pod.spec());
    requests.get(resource(signal)).map_or(0, |millis| millis / 1000)
}

/// The resource that requests name.
fn resource(signal: Signal) -> &'static str {
    if signal == Signal::Memory { "memory" } else { "ephemeral-storage" }
}

/// What an evicted pod's status says.
pub fn verdict(used: &Used<'_>, signal: Signal, threshold: i64, room: Room) -> Verdict {
    let mut message = format!(
        "The node was low on resource: {}. Threshold quantity: {}, available: {}. ",
        signal.resource(),
        binary(threshold),
        binary(room.available)
    );
    for container in &used.usage.containers {
        let spec = used.pod.container(&container.name).and_then(|found| found.spec.resources.as_ref());
        let requested = resources::request_millis(spec, resource(signal)).unwrap_or(0) / 1000;
        let using = used_by(signal, container);
        if using > requested {
            let (using, requested, name) = (binary(using), binary(requested), &container.name);
            let resource = signal.resource();
            let _ = write!(
                message,
                "Container {name} was using {using}, request is {requested}, has larger consumption of {resource}. "
            );
        }
    }
    evicted(message)
}

fn used_by(signal: Signal, container: &ContainerUsage) -> i64 {
    if signal == Signal::Memory { container.memory } else { container.disk }
}

/// The verdict over a pod that uses more of the disk than it may, if it does.
pub fn over_its_limits(pod: &DesiredPod, usage: &PodUsage) -> Option<Verdict> {
    for volume in pod.spec().volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref());
        let Some(limit) = limit.filter(|limit| resources::whole(limit) > 0) else { continue };
        if usage.volumes.get(&volume.name).is_some_and(|used| *used > resources::whole(limit)) {
            return Some(evicted(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ",
                volume.name, limit.0
            )));
        }
    }
    if let Some(limit) = resources::pod_limits(pod.spec()).get("ephemeral-storage").map(|millis| millis / 1000)
        && usage.disk() > limit
    {
        let limit = binary(limit);
        return Some(evicted(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "
        )));
    }
    usage.containers.iter().find_map(|container| {
        let spec = pod.container(&container.name)?.spec.resources.as_ref();
        let limit = resources::limit_millis(spec, "ephemeral-storage")? / 1000;
        let (name, shown) = (&container.name, binary(limit));
        (container.disk > limit)
            .then(|| evicted(format!("Container {name} exceeded its local ephemeral storage limit \"{shown}\". ")))
    })
}

fn evicted(message: String) -> Verdict {
    Verdict { reason: super::EVICTED.to_owned(), message }
}

/// Bytes as a quantity with the largest binary unit that is exact.
fn binary(bytes: i64) -> String {
    let (mut amount, mut unit) = (bytes, "");
    for next in ["Ki", "Mi", "Gi", "Ti", "Pi"] {
        if amount == 0 || amount % 1024 != 0 {
            break;
        }
        (amount, unit) = (amount / 1024, next);
    }
    format!("{amount}{unit}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pod::PodSource;

    fn pod(name: &str, priority: i32, request: &str) -> DesiredPod {
        let json = serde_json::json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]},
        });
        DesiredPod::new(Arc::new(serde_json::from_value(json).expect("a pod")), PodSource::Api)
    }

    fn using(pod: &DesiredPod, memory: i64) -> Used<'_> {
        let container = ContainerUsage { name: "c".to_owned(), memory, disk: 0 };
        Used { pod, usage: PodUsage { containers: vec![container], ..PodUsage::default() } }
    }

    #[test]
    fn the_first_to_go_uses_more_than_it_asked_for() {
        let (modest, greedy, important) =
            (pod("modest", 0, "100Mi"), pod("greedy", 0, "1Mi"), pod("important", 9, "0"));
        let used = [using(&modest, 90 << 20), using(&important, 80 << 20), using(&greedy, 20 << 20)];
        let chosen = first(&used, Signal::Memory).expect("one of them");
        assert_eq!(chosen.pod.name, "greedy");
        let room = Room { available: 50 << 20, capacity: 1 << 30 };
        let verdict = verdict(chosen, Signal::Memory, 100 << 20, room);
        let expected = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
            Container c was using 20Mi, request is 1Mi, has larger consumption of memory. ";
        assert_eq!(verdict.message, expected);
        assert_eq!(first(&used[..2], Signal::Memory).expect("one of them").pod.name, "important");
    }

    #[test]
    fn a_volume_may_not_outgrow_its_limit() {
        let json = serde_json::json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]},
        });
        let pod = DesiredPod::new(Arc::new(serde_json::from_value(json).expect("a pod")), PodSource::Api);
        let usage = |bytes| PodUsage { volumes: [("v".to_owned(), bytes)].into(), ..PodUsage::default() };
        assert_eq!(over_its_limits(&pod, &usage(1 << 20)), None);
        let verdict = over_its_limits(&pod, &usage(2 << 20)).expect("too much");
        assert_eq!(verdict.message, "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    }
}
