//! A pod as the scheduler sees it: everything that a cycle asks, computed once.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodCondition, PodSpec, Toleration, TopologySpreadConstraint};
use knarr_api::selector::{LabelSelector, Operator, Requirement};
use knarr_client::ObjectKey;
use knarr_client::fit::HostPort;

use crate::{
    resources::Requests,
    selector::{Labels, NodeTerm, RequiredNodes, label_selector},
};

/// A term of pod affinity or anti-affinity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    selector: LabelSelector,
    namespaces: BTreeSet<String>,
    namespace_selector: LabelSelector,
    pub topology_key: Arc<str>,
}

impl AffinityTerm {
    fn parse(term: &PodAffinityTerm, namespace: &str) -> AffinityTerm {
        let mut namespaces: BTreeSet<_> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        AffinityTerm {
            selector: label_selector(term.label_selector.as_ref()),
            namespaces,
            namespace_selector: label_selector(term.namespace_selector.as_ref()),
            topology_key: term.topology_key.as_str().into(),
        }
    }

    /// Whether the term is about a pod with these labels in that namespace, whose own labels are `namespace_labels`.
    pub fn matches(&self, namespace: &str, labels: &Labels, namespace_labels: &Labels) -> bool {
        let in_namespace = self.namespaces.contains(namespace) || self.namespace_selector.matches(namespace_labels);
        in_namespace && self.selector.matches(labels)
    }

    /// Whether whom it is about depends on the labels of namespaces.
    pub fn asks_for_namespace_labels(&self) -> bool {
        !self.namespace_selector.is_nothing() && !self.namespace_selector.is_everything()
    }
}

/// Affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default)]
pub struct PodAffinities {
    pub required: Vec<AffinityTerm>,
    pub required_anti: Vec<AffinityTerm>,
    /// With weights; those of anti-affinity are negative.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

impl PodAffinities {
    fn parse(spec: &PodSpec, namespace: &str) -> PodAffinities {
        let mut affinities = PodAffinities::default();
        let Some(affinity) = &spec.affinity else { return affinities };
        let parse = |term: &PodAffinityTerm| AffinityTerm::parse(term, namespace);
        if let Some(to) = &affinity.pod_affinity {
            let required = to.required_during_scheduling_ignored_during_execution.iter().flatten();
            affinities.required.extend(required.map(parse));
            let preferred = to.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            affinities.preferred.extend(preferred.map(|term| (term.weight.into(), parse(&term.pod_affinity_term))));
        }
        if let Some(from) = &affinity.pod_anti_affinity {
            let required = from.required_during_scheduling_ignored_during_execution.iter().flatten();
            affinities.required_anti.extend(required.map(parse));
            let preferred = from.preferred_during_scheduling_ignored_during_execution.iter().flatten();
            let negative = preferred.map(|term| (-i64::from(term.weight), parse(&term.pod_affinity_term)));
            affinities.preferred.extend(negative);
        }
        affinities
    }

    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.required_anti.is_empty() && self.preferred.is_empty()
    }
}

/// A constraint on how evenly pods spread over the domains of a topology.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    pub topology_key: Arc<str>,
    pub max_skew: i64,
    pub selector: LabelSelector,
    pub min_domains: i64,
    /// `DoNotSchedule`, otherwise `ScheduleAnyway`.
    pub hard: bool,
    pub honor_affinity: bool,
    pub honor_taints: bool,
}

impl SpreadConstraint {
    fn parse(constraint: &TopologySpreadConstraint, labels: &Labels) -> SpreadConstraint {
        let selector = label_selector(constraint.label_selector.as_ref());
        SpreadConstraint {
            topology_key: constraint.topology_key.as_str().into(),
            max_skew: constraint.max_skew.into(),
            selector: with_label_keys(selector, constraint.match_label_keys.iter().flatten(), labels),
            min_domains: constraint.min_domains.unwrap_or(1).into(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }
}

/// `matchLabelKeys`: as if the selector asked for the pod's own values of these labels.
fn with_label_keys<'a>(
    selector: LabelSelector,
    keys: impl Iterator<Item = &'a String>,
    labels: &Labels,
) -> LabelSelector {
    let own = keys.filter_map(|key| Requirement::new(key, Operator::In, vec![labels.get(key)?.clone()]).ok());
    let mut requirements: Vec<_> = own.collect();
    if requirements.is_empty() || selector.is_nothing() {
        return selector;
    }
    requirements.extend(selector.requirements().iter().cloned());
    LabelSelector::of(requirements)
}

/// A pod and what follows from its spec.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: ObjectKey,
    pub uid: Arc<str>,
    pub labels: Labels,
    pub priority: i32,
    pub requests: Requests,
    pub ports: Vec<HostPort>,
    pub tolerations: Vec<Toleration>,
    pub required_nodes: RequiredNodes,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub affinities: PodAffinities,
    pub spread: Vec<SpreadConstraint>,
    pub images: Vec<String>,
    /// Being deleted.
    pub terminating: bool,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> PodInfo {
        let spec = pod.spec.clone().unwrap_or_default();
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let key = ObjectKey::of(&*pod);
        let node_affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            node_affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            node_affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_ref());
        PodInfo {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            priority: spec.priority.unwrap_or(0),
            requests: Requests::of(&pod),
            ports: HostPort::of(&spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            required_nodes: RequiredNodes::parse(spec.node_selector.as_ref(), required),
            preferred_nodes: preferred
                .into_iter()
                .flatten()
                .map(|term| (i64::from(term.weight), NodeTerm::parse(&term.preference)))
                .collect(),
            affinities: PodAffinities::parse(&spec, &key.namespace),
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| SpreadConstraint::parse(constraint, &labels))
                .collect(),
            images: spec.containers.iter().filter_map(|container| container.image.clone()).collect(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            key,
            labels,
            pod,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The node that the pod names, bound or asked for.
    pub fn node_name(&self) -> Option<&str> {
        self.spec().node_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn nominated_node(&self) -> Option<&str> {
        self.pod.status.as_ref()?.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    /// Whether it is being deleted to make room for another.
    pub fn is_leaving_preempted(&self) -> bool {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
        let preempted = |condition: &PodCondition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        };
        self.terminating && conditions.into_iter().flatten().any(preempted)
    }

    /// When it started; a pod that has not is as young as can be.
    pub fn started_at(&self) -> jiff::Timestamp {
        let status = self.pod.status.as_ref();
        status.and_then(|status| status.start_time.as_ref()).map_or(jiff::Timestamp::MAX, |time| time.0)
    }

    /// Whether it has ended, and so takes up nothing.
    pub fn has_ended(&self) -> bool {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    }

    pub fn is_gated(&self) -> bool {
        self.spec().scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty())
    }

    pub fn scheduler_name(&self) -> &str {
        self.spec().scheduler_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default-scheduler")
    }
}
