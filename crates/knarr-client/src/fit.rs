//! Whether a pod may be on a node, by what both of them say: the scheduler asks before it binds, the kubelet before it takes a pod on, and
//! taints ask for as long as the pod is there.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use knarr_api::selector::{Operator, Requirement};

pub type Labels = BTreeMap<String, String>;

const ANY_IP: &str = "0.0.0.0";

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    ip: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// The ports that a pod takes for as long as it runs.
    pub fn of(spec: &PodSpec) -> Vec<HostPort> {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
        let taken = ports.filter_map(|port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| ANY_IP.into());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some(HostPort { ip, protocol, port: number })
        });
        taken.collect()
    }

    pub fn conflicts(&self, other: &HostPort) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || self.ip == ANY_IP || other.ip == ANY_IP)
    }
}

/// The operator of that name in selectors of nodes and labels.
pub fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    })
}

/// One term of a node selector: all of its requirements. A term without any selects nothing.
#[derive(Clone, Debug)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// Demands on the node's name: whether it must be among these.
    names: Vec<(bool, Vec<String>)>,
    empty: bool,
}

impl NodeTerm {
    pub fn parse(term: &NodeSelectorTerm) -> NodeTerm {
        let labels: Option<Vec<_>> = term.match_expressions.iter().flatten().map(node_requirement).collect();
        let fields = term.match_fields.iter().flatten();
        let names: Vec<_> =
            fields.map(|field| (field.operator == "In", field.values.clone().unwrap_or_default())).collect();
        let empty = labels.as_ref().is_none_or(Vec::is_empty) && names.is_empty();
        NodeTerm { labels: labels.unwrap_or_default(), names, empty }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !self.empty
            && self.names.iter().all(|(among, names)| names.iter().any(|other| other == name) == *among)
            && self.labels.iter().all(|requirement| requirement.matches(labels))
    }

    /// The node names that the term is bound to, if it is.
    fn required_names(&self) -> Option<Vec<&str>> {
        let (_, names) = self.names.iter().find(|(among, _)| *among)?;
        Some(names.iter().map(String::as_str).collect())
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement) -> Option<Requirement> {
    let values = requirement.values.clone().unwrap_or_default();
    Requirement::new(&requirement.key, operator(&requirement.operator)?, values).ok()
}

/// Which nodes a pod may run on by its `nodeSelector` and required node affinity.
#[derive(Clone, Debug, Default)]
pub struct RequiredNodes {
    labels: Labels,
    /// Any of these, if it is there.
    terms: Option<Vec<NodeTerm>>,
}

impl RequiredNodes {
    pub fn parse(node_selector: Option<&Labels>, affinity: Option<&NodeSelector>) -> RequiredNodes {
        RequiredNodes {
            labels: node_selector.cloned().unwrap_or_default(),
            terms: affinity.map(|affinity| affinity.node_selector_terms.iter().map(NodeTerm::parse).collect()),
        }
    }

    pub fn is_any(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The only nodes worth a look, if every term names its nodes (as daemon pods do).
    pub fn only_names(&self) -> Option<Vec<&str>> {
        let terms = self.terms.as_ref()?;
        let names: Option<Vec<Vec<&str>>> = terms.iter().map(NodeTerm::required_names).collect();
        names.map(|names| names.concat())
    }
}

/// Whether one of the tolerations tolerates the taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Whether a toleration tolerates a taint, whatever its effect.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let value = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => wanted == value,
        "Gt" => numbers(value, wanted).is_some_and(|(value, wanted)| value > wanted),
        "Lt" => numbers(value, wanted).is_some_and(|(value, wanted)| value < wanted),
        _ => false,
    }
}

fn numbers(a: &str, b: &str) -> Option<(i64, i64)> {
    Some((a.parse().ok()?, b.parse().ok()?))
}
