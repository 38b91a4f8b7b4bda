//! Amounts of resources as numbers: what is parsed once, so that a scheduling cycle only adds and compares.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use smallvec::SmallVec;

/// What a container without a request counts as, in scores only: otherwise such pods would all go to one node.
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource. CPU is in thousandths, everything else in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources and huge pages.
    pub scalars: SmallVec<[(Arc<str>, i64); 2]>,
}

/// The number of a quantity; what does not parse counts as nothing, the API having refused it long before.
fn amount(name: &str, quantity: &Quantity) -> i64 {
    let quantity: knarr_api::quantity::Quantity = quantity.0.parse().unwrap_or(knarr_api::quantity::Quantity::ZERO);
    if name == "cpu" { quantity.to_millis() } else { quantity.to_i64() }
}

impl Resources {
    pub fn parse(quantities: &BTreeMap<String, Quantity>) -> Resources {
        let mut resources = Resources::default();
        for (name, quantity) in quantities {
            *resources.slot(name) = amount(name, quantity);
        }
        resources
    }

    /// The place of a resource, made if it is not there.
    pub fn slot(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.milli_cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            name => {
                let position = self.scalars.iter().position(|(scalar, _)| &**scalar == name);
                let position = position.unwrap_or_else(|| {
                    self.scalars.push((name.into(), 0));
                    self.scalars.len() - 1
                });
                &mut self.scalars[position].1
            }
        }
    }

    pub fn scalar(&self, name: &str) -> i64 {
        self.scalars.iter().find(|(scalar, _)| &**scalar == name).map_or(0, |(_, amount)| *amount)
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_add(b));
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, |a, b| a.saturating_sub(b));
    }

    /// The larger of each.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.scalars {
            let slot = self.slot(name);
            *slot = with(*slot, *amount);
        }
    }

    pub fn is_zero(&self) -> bool {
        self.milli_cpu == 0
            && self.memory == 0
            && self.ephemeral_storage == 0
            && self.scalars.iter().all(|(_, amount)| *amount == 0)
    }

    /// These requests as scores see them.
    fn or_defaults(&self, asked: &BTreeMap<String, Quantity>) -> Resources {
        let mut resources = self.clone();
        if !asked.contains_key("cpu") {
            resources.milli_cpu = DEFAULT_MILLI_CPU;
        }
        if !asked.contains_key("memory") {
            resources.memory = DEFAULT_MEMORY;
        }
        resources
    }
}

/// What a pod asks for: exactly, for the filter, and with defaults for what is not said, for scores.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    pub exact: Resources,
    pub for_scores: Resources,
}

impl Requests {
    /// The sum over containers and sidecars, or what the most demanding initialisation step needs if that is more; pod-level
    /// requests instead of the sum where there are some; and the overhead. Of a pod that is being resized the most that it may take
    /// before or after counts.
    pub fn of(pod: &Pod) -> Requests {
        let Some(spec) = &pod.spec else { return Requests::default() };
        let resizing = Resizing::of(pod);
        let mut total = Requests::default();
        let mut peak = Requests::default();
        let mut sidecars = Requests::default();
        for container in spec.init_containers.iter().flatten() {
            if container.restart_policy.as_deref() == Some("Always") {
                let step = resizing.requests_of(container);
                total.add(&step);
                sidecars.add(&step);
                peak.raise_to(&sidecars);
            } else {
                let mut step = requests(asked(container));
                step.add(&sidecars);
                peak.raise_to(&step);
            }
        }
        spec.containers.iter().for_each(|container| total.add(&resizing.requests_of(container)));
        total.raise_to(&peak);
        if let Some(pod_level) = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()) {
            total.replace(&Resources::parse(&resizing.pod_level(pod_level)), pod_level);
        }
        if let Some(overhead) = &spec.overhead {
            let overhead = Resources::parse(overhead);
            total.add(&Requests { exact: overhead.clone(), for_scores: overhead });
        }
        total
    }

    fn add(&mut self, other: &Requests) {
        self.exact.add(&other.exact);
        self.for_scores.add(&other.for_scores);
    }

    fn raise_to(&mut self, other: &Requests) {
        self.exact.raise_to(&other.exact);
        self.for_scores.raise_to(&other.for_scores);
    }

    fn replace(&mut self, by: &Resources, named: &BTreeMap<String, Quantity>) {
        for resources in [&mut self.exact, &mut self.for_scores] {
            for name in named.keys() {
                *resources.slot(name) = *by.clone().slot(name);
            }
        }
    }
}

type Quantities = BTreeMap<String, Quantity>;

fn asked(container: &Container) -> &Quantities {
    static NONE: Quantities = BTreeMap::new();
    container.resources.as_ref().and_then(|resources| resources.requests.as_ref()).unwrap_or(&NONE)
}

fn requests(asked: &Quantities) -> Requests {
    let exact = Resources::parse(asked);
    Requests { for_scores: exact.or_defaults(asked), exact }
}

/// What a pod's status says of the resources it was given. A resize that is not done yet takes the most of what is asked, what the
/// node has promised and what is in force; one that the node can never do is not asked for.
struct Resizing<'a> {
    status: Option<&'a PodStatus>,
    infeasible: bool,
}

impl<'a> Resizing<'a> {
    fn of(pod: &'a Pod) -> Resizing<'a> {
        let status = pod.status.as_ref();
        let mut conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
        let pending = conditions.find(|condition| condition.type_ == "PodResizePending");
        Resizing { status, infeasible: pending.is_some_and(|c| c.reason.as_deref() == Some("Infeasible")) }
    }

    fn requests_of(&self, container: &Container) -> Requests {
        let asked = asked(container);
        let given = self.status_of(&container.name).and_then(|status| {
            let in_force = status.resources.as_ref()?.requests.as_ref();
            Some(self.most(asked, in_force, status.allocated_resources.as_ref()))
        });
        requests(given.as_ref().unwrap_or(asked))
    }

    fn status_of(&self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.status?;
        let mut all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
        all.find(|status| status.name == name)
    }

    fn pod_level<'b>(&self, asked: &'b Quantities) -> Cow<'b, Quantities> {
        let Some(status) = self.status.filter(|status| status.resources.is_some()) else { return Cow::Borrowed(asked) };
        let in_force = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Cow::Owned(self.most(asked, in_force, status.allocated_resources.as_ref()))
    }

    fn most(&self, asked: &Quantities, in_force: Option<&Quantities>, promised: Option<&Quantities>) -> Quantities {
        let asked = Some(asked).filter(|_| !self.infeasible);
        let mut most = Quantities::new();
        for (name, quantity) in [asked, in_force, promised].into_iter().flatten().flatten() {
            match most.get_mut(name) {
                Some(known) if amount(name, known) >= amount(name, quantity) => {}
                Some(known) => *known = quantity.clone(),
                None => drop(most.insert(name.clone(), quantity.clone())),
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requests(spec: serde_json::Value) -> Resources {
        Requests::of(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()).exact
    }

    #[test]
    fn the_most_demanding_moment_counts() {
        let asks = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let found = requests(json!({
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": asks("100m")},
                {"name": "big", "resources": asks("2")},
            ],
            "containers": [{"name": "a", "resources": asks("500m")}, {"name": "b", "resources": asks("500m")}],
            "overhead": {"cpu": "50m", "memory": "1Mi"},
        }));
        assert_eq!((found.milli_cpu, found.memory), (2100 + 50, 1 << 20));
    }

    #[test]
    fn pod_level_requests_stand_for_the_sum() {
        let found = requests(json!({
            "resources": {"requests": {"cpu": "3"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}}}],
        }));
        assert_eq!((found.milli_cpu, found.scalar("example.com/gpu")), (3000, 2));
    }

    /// Asked, in force, promised; what counts while the resize is done, and what counts when it never can be.
    #[test]
    fn a_resize_takes_the_most_and_one_that_cannot_be_done_what_the_pod_has() {
        let list = |cpu: &str| json!({"cpu": cpu});
        for (asked, in_force, promised, counts, infeasible) in [
            ("3", "1", "1", 3000, 1000),
            ("1", "3", "1", 3000, 3000),
            ("1", "1", "2", 2000, 2000),
            ("500m", "1", "500m", 1000, 1000),
        ] {
            for (reason, expected) in [("Deferred", counts), ("Infeasible", infeasible)] {
                let status = json!({"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                    "resources": {"requests": list(in_force)}, "allocatedResources": list(promised)});
                let mut pod = json!({
                    "metadata": {},
                    "spec": {"containers": [{"name": "a", "resources": {"requests": list(asked)}}]},
                    "status": {
                        "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                        "containerStatuses": [status],
                    },
                });
                let found = |pod: &serde_json::Value| {
                    Requests::of(&serde_json::from_value(pod.clone()).unwrap()).exact.milli_cpu
                };
                assert_eq!(found(&pod), expected, "{asked} {in_force} {promised} {reason}");
                pod["spec"]["containers"][0]["resources"] = json!({});
                pod["spec"]["resources"] = json!({"requests": list(asked)});
                pod["status"]["resources"] = json!({"requests": list(in_force)});
                pod["status"]["allocatedResources"] = list(promised);
                assert_eq!(found(&pod), expected, "pod-level {asked} {in_force} {promised} {reason}");
            }
        }
    }

    #[test]
    fn what_a_container_has_that_nothing_says_is_in_force_is_what_it_asks() {
        let pod = json!({
            "metadata": {},
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "allocatedResources": {"cpu": "7"}}]},
        });
        assert_eq!(Requests::of(&serde_json::from_value(pod).unwrap()).exact.milli_cpu, 1000);
    }
}
