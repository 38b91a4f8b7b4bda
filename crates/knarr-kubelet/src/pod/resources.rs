//! Requests and limits: what a pod asks for, its quality of service, and what that means to the kernel.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub type ResourceList = BTreeMap<String, Quantity>;

/// The kernel's smallest and largest CPU weight on control groups version 1.
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
/// The period CPU quotas refer to, in microseconds.
pub const QUOTA_PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1_000;

/// How well a pod is treated when the node runs out of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    BestEffort,
    Burstable,
    Guaranteed,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::BestEffort => "BestEffort",
            QosClass::Burstable => "Burstable",
            QosClass::Guaranteed => "Guaranteed",
        }
    }

    /// The class that a spec's CPU and memory requests and limits give it.
    pub fn of(spec: &PodSpec) -> QosClass {
        let containers: Vec<&Container> = spec.init_containers.iter().flatten().chain(&spec.containers).collect();
        if let Some(resources) = &spec.resources
            && asks_for_something(resources)
        {
            return if is_guaranteed(resources) { QosClass::Guaranteed } else { QosClass::Burstable };
        }
        let of_containers = || containers.iter().map(|container| container.resources.as_ref());
        if !of_containers().flatten().any(asks_for_something) {
            QosClass::BestEffort
        } else if of_containers().all(|resources| resources.is_some_and(is_guaranteed)) {
            QosClass::Guaranteed
        } else {
            QosClass::Burstable
        }
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

fn asks_for_something(resources: &ResourceRequirements) -> bool {
    let lists = [&resources.requests, &resources.limits];
    lists.into_iter().flatten().any(|list| COMPUTE.iter().any(|name| millis_of(list, name) > 0))
}

fn is_guaranteed(resources: &ResourceRequirements) -> bool {
    let empty = ResourceList::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(limits);
    COMPUTE.iter().all(|name| {
        let limit = millis_of(limits, name);
        limit > 0 && (!requests.contains_key(*name) || millis_of(requests, name) == limit)
    })
}

/// A quantity in thousandths, rounded up; zero where the list lacks it.
pub fn millis_of(list: &ResourceList, name: &str) -> i64 {
    list.get(name).map_or(0, millis)
}

/// A quantity as a whole number, rounded up; zero where the list lacks it.
pub fn whole_of(list: &ResourceList, name: &str) -> i64 {
    list.get(name).map_or(0, whole)
}

/// A quantity in thousandths, rounded up. The API lets no malformed one through; it counts as zero.
pub fn millis(quantity: &Quantity) -> i64 {
    quantity.0.parse::<knarr_api::quantity::Quantity>().map_or(0, |parsed| parsed.to_millis())
}

/// A quantity as a whole number, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    quantity.0.parse::<knarr_api::quantity::Quantity>().map_or(0, |parsed| parsed.to_i64())
}

/// The request of a container, or its limit where it names only that.
pub fn request_millis(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    let resources = resources?;
    let request = resources.requests.as_ref().and_then(|list| list.get(name));
    request.or_else(|| resources.limits.as_ref()?.get(name)).map(millis)
}

/// The limit of a container, if it has one.
pub fn limit_millis(resources: Option<&ResourceRequirements>, name: &str) -> Option<i64> {
    resources?.limits.as_ref()?.get(name).map(millis).filter(|limit| *limit > 0)
}

/// What a pod asks for in all: the larger of its running containers' sum and of each step of its init sequence, plus overhead.
pub fn pod_requests(spec: &PodSpec) -> BTreeMap<String, i64> {
    pod_total(spec, |resources| resources.requests.as_ref().or(resources.limits.as_ref()))
}

/// What a pod may use in all, of the resources that every container limits.
pub fn pod_limits(spec: &PodSpec) -> BTreeMap<String, i64> {
    let mut total = pod_total(spec, |resources| resources.limits.as_ref());
    let limited = |container: &Container, name: &str| limit_millis(container.resources.as_ref(), name).is_some();
    total.retain(|name, _| {
        let of_pod = limit_millis(spec.resources.as_ref(), name).is_some();
        of_pod
            || spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
                .all(|container| limited(container, name))
    });
    total
}

fn pod_total(
    spec: &PodSpec,
    list_of: impl Fn(&ResourceRequirements) -> Option<&ResourceList>,
) -> BTreeMap<String, i64> {
    let of = |container: &Container| container.resources.as_ref().and_then(&list_of).cloned().unwrap_or_default();
    let mut running = BTreeMap::new();
    for container in &spec.containers {
        add_to(&mut running, &of(container));
    }
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::new());
    for container in spec.init_containers.iter().flatten() {
        if container.restart_policy.as_deref() == Some("Always") {
            add_to(&mut sidecars, &of(container));
            raise_to(&mut peak, &sidecars);
        } else {
            let mut step = sidecars.clone();
            add_to(&mut step, &of(container));
            raise_to(&mut peak, &step);
        }
    }
    for (name, amount) in sidecars {
        *running.entry(name).or_default() += amount;
    }
    raise_to(&mut running, &peak);
    if let Some(of_pod) = spec.resources.as_ref().and_then(&list_of) {
        running.extend(of_pod.iter().map(|(name, quantity)| (name.clone(), millis(quantity))));
    }
    add_to(&mut running, spec.overhead.as_ref().unwrap_or(&ResourceList::new()));
    running
}

fn add_to(total: &mut BTreeMap<String, i64>, list: &ResourceList) {
    for (name, quantity) in list {
        *total.entry(name.clone()).or_default() += millis(quantity);
    }
}

fn raise_to(total: &mut BTreeMap<String, i64>, floor: &BTreeMap<String, i64>) {
    for (name, amount) in floor {
        let held = total.entry(name.clone()).or_default();
        *held = (*held).max(*amount);
    }
}

/// The CPU weight of a request, as control groups version 1 count it (1024 a core). The runtime converts for version 2.
pub fn cpu_shares(millis: i64) -> i64 {
    if millis <= 0 {
        return MIN_SHARES;
    }
    millis.saturating_mul(1024).div_euclid(1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The CPU quota of a limit, in microseconds a period; zero is no limit.
pub fn cpu_quota(millis: i64) -> i64 {
    if millis <= 0 {
        return 0;
    }
    millis.saturating_mul(QUOTA_PERIOD).div_euclid(1000).max(MIN_QUOTA)
}

/// How readily the kernel kills a container's processes when memory runs out: the less of the node's memory a burstable container
/// asked for, the sooner.
pub fn oom_score_adjust(qos: QosClass, memory_request: i64, node_memory: i64, critical: bool) -> i64 {
    match qos {
        _ if critical => -997,
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = 1000 - 1000 * i128::from(memory_request) / i128::from(node_memory.max(1));
            i64::try_from(share).unwrap_or(999).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: serde_json::Value) -> PodSpec {
        serde_json::from_value(json).expect("a pod spec")
    }

    fn class_of(resources: &str) -> QosClass {
        let resources: serde_json::Value = serde_json::from_str(resources).expect("JSON");
        QosClass::of(&spec(serde_json::json!({"containers": [{"name": "c", "resources": resources}]})))
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        for (resources, class) in [
            ("{}", QosClass::BestEffort),
            (r#"{"requests": {"cpu": "1"}}"#, QosClass::Burstable),
            (r#"{"limits": {"cpu": "1", "memory": "1Gi"}}"#, QosClass::Guaranteed),
            (
                r#"{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}}"#,
                QosClass::Guaranteed,
            ),
            (r#"{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}"#, QosClass::Burstable),
            (r#"{"limits": {"memory": "1Gi"}}"#, QosClass::Burstable),
        ] {
            assert_eq!(class_of(resources), class, "{resources}");
        }
    }

    #[test]
    fn a_pod_asks_for_the_larger_of_its_init_steps_and_its_running_containers() {
        let spec = spec(serde_json::json!({
            "initContainers": [
                {"name": "sidecar", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "big", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Ki"}}},
                {"name": "b", "resources": {"requests": {"cpu": "500m"}}}],
        }));
        let requests = pod_requests(&spec);
        assert_eq!(requests["cpu"], 2100);
        assert_eq!(requests["memory"], 1_024_000);
    }

    #[test]
    fn kernel_values_are_upstreams() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(250), 256);
        assert_eq!(cpu_quota(500), 50_000);
        assert_eq!(cpu_quota(5), 1_000);
        assert_eq!(oom_score_adjust(QosClass::Burstable, 4 << 30, 8 << 30, false), 500);
        assert_eq!(oom_score_adjust(QosClass::Burstable, 0, 8 << 30, false), 999);
    }
}
