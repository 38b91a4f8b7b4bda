//! Whether this node can take a pod that was bound to it: the scheduler may have been wrong, or absent.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use knarr_api::sysctl;
use knarr_client::fit::{HostPort, Labels, RequiredNodes, tolerated};

use crate::pod::{DesiredPod, PodSource, resources};
use crate::worker::status::Verdict;

/// What a node demands of the pods that it takes on.
pub struct Demands {
    pub node_name: String,
    pub labels: Labels,
    pub taints: Vec<Taint>,
}

impl Demands {
    /// Refuses a pod that asks for another node, or does not tolerate this one.
    pub fn refuse(&self, pod: &DesiredPod) -> Option<Verdict> {
        refuse_by_affinity(pod, self).or_else(|| refuse_by_taints(pod, &self.taints))
    }
}

/// Refuses a pod that does not fit beside `others`, in upstream's order. Amounts are in thousandths.
pub fn refuse<'a>(
    pod: &DesiredPod,
    others: impl Iterator<Item = &'a DesiredPod>,
    allocatable: &BTreeMap<String, i64>,
    node: &Demands,
) -> Option<Verdict> {
    let others: Vec<_> = others.filter(|other| other.uid != pod.uid && !other.is_terminal()).collect();
    refuse_by_sysctls(pod)
        .or_else(|| refuse_by_resources(pod, &others, allocatable))
        .or_else(|| refuse_by_affinity(pod, node))
        .or_else(|| refuse_by_ports(pod, &others))
        .or_else(|| refuse_by_taints(pod, &node.taints))
}

fn failed(predicate: &str, why: &str) -> Verdict {
    let message = format!("Pod was rejected: Predicate {predicate} failed: {why}");
    Verdict { reason: predicate.to_owned(), message }
}

fn refuse_by_affinity(pod: &DesiredPod, node: &Demands) -> Option<Verdict> {
    let affinity = pod.spec().affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let wanted = RequiredNodes::parse(pod.spec().node_selector.as_ref(), required);
    let matches = wanted.matches(&node.node_name, &node.labels);
    (!matches).then(|| failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

fn refuse_by_ports(pod: &DesiredPod, others: &[&DesiredPod]) -> Option<Verdict> {
    let wanted = HostPort::of(pod.spec());
    let mut taken = others.iter().flat_map(|other| HostPort::of(other.spec()));
    let clash = !wanted.is_empty() && taken.any(|taken| wanted.iter().any(|port| port.conflicts(&taken)));
    clash.then(|| failed("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
}

/// Those of manifests stay whatever the node's taints.
fn refuse_by_taints(pod: &DesiredPod, taints: &[Taint]) -> Option<Verdict> {
    if pod.source == PodSource::Static {
        return None;
    }
    let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
    let mut hard = taints.iter().filter(|taint| taint.effect == "NoExecute");
    let driven_out = hard.any(|taint| !tolerated(taint, tolerations));
    driven_out.then(|| failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
}

fn refuse_by_sysctls(pod: &DesiredPod) -> Option<Verdict> {
    let context = pod.spec().security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    let complaint = |name: &str| {
        if !sysctl::SAFE.contains(&name) {
            return Some(format!("\"{name}\" not allowlisted"));
        }
        let of_network = pod.host_network() && name.starts_with("net.");
        of_network.then(|| format!("\"{name}\" not allowed with host net enabled"))
    };
    // Both ways of writing a name mean the same.
    let complaint = sysctls.map(|sysctl| sysctl.name.replace('/', ".")).find_map(|name| complaint(&name))?;
    let message = format!("Pod was rejected: forbidden sysctl: {complaint}");
    Some(Verdict { reason: "SysctlForbidden".to_owned(), message })
}

fn refuse_by_resources(
    pod: &DesiredPod,
    others: &[&DesiredPod],
    allocatable: &BTreeMap<String, i64>,
) -> Option<Verdict> {
    let held: Vec<_> = others.iter().map(|other| resources::pod_requests(other.spec())).collect();
    let mut requested = resources::pod_requests(pod.spec());
    requested.insert("pods".to_owned(), 1000);
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX / 1000) * 1000;
    for (name, request) in requested.into_iter().filter(|(_, request)| *request > 0) {
        let capacity = allocatable.get(&name).copied().unwrap_or(0);
        let used = if name == "pods" { count } else { held.iter().filter_map(|held| held.get(&name)).sum() };
        if request > capacity - used {
            return Some(out_of(&name, request, used, capacity));
        }
    }
    None
}

/// CPU is told in thousandths, all else in whole numbers.
fn out_of(name: &str, request: i64, used: i64, capacity: i64) -> Verdict {
    let unit = if name == "cpu" { 1 } else { 1000 };
    let message = format!(
        "Pod was rejected: Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
        request / unit,
        used / unit,
        capacity / unit
    );
    Verdict { reason: format!("OutOf{name}"), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pod(uid: &str, cpu: &str) -> DesiredPod {
        let json = serde_json::json!({
            "metadata": {"uid": uid},
            "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        });
        DesiredPod::new(Arc::new(serde_json::from_value(json).expect("a pod")), PodSource::Api)
    }

    fn refused(pod: &DesiredPod, held: &[DesiredPod], labels: &Labels, taints: &[Taint]) -> Option<Verdict> {
        let allocatable = BTreeMap::from([("cpu".to_owned(), 2000), ("pods".to_owned(), 110_000)]);
        let node = Demands { node_name: "n".into(), labels: labels.clone(), taints: taints.to_vec() };
        refuse(pod, held.iter(), &allocatable, &node)
    }

    #[test]
    fn a_pod_too_many_is_refused_in_upstreams_words() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let held = [pod("1", "1500m")];
        let verdict = refused(&pod("2", "1"), &held, &labels, &[]).expect("a refusal");
        assert_eq!(verdict.reason, "OutOfcpu");
        assert!(verdict.message.ends_with("requested: 1000, used: 1500, capacity: 2000"));
        assert_eq!(refused(&pod("2", "500m"), &held, &labels, &[]), None);
        let elsewhere = refused(&pod("2", "500m"), &held, &BTreeMap::new(), &[]).expect("a refusal");
        assert_eq!(elsewhere.reason, "NodeAffinity");
    }

    #[test]
    fn a_port_is_taken_once_and_taints_keep_out_who_does_not_tolerate_them() {
        let of = |uid: &str, spec: serde_json::Value| {
            let pod = serde_json::json!({"metadata": {"uid": uid}, "spec": spec});
            DesiredPod::new(Arc::new(serde_json::from_value(pod).expect("a pod")), PodSource::Api)
        };
        let web = |uid: &str, port: i32| {
            of(
                uid,
                serde_json::json!({"containers": [{"name": "c", "ports": [{"hostPort": port, "containerPort": 80}]}]}),
            )
        };
        let labels = BTreeMap::new();
        let clash = refused(&web("2", 8080), &[web("1", 8080)], &labels, &[]).expect("a refusal");
        assert_eq!(clash.reason, "NodePorts");
        assert_eq!(
            clash.message,
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
        );
        assert_eq!(refused(&web("2", 8081), &[web("1", 8080)], &labels, &[]), None);
        let taints = [Taint { key: "k".into(), effect: "NoExecute".into(), ..Taint::default() }];
        let driven_out = refused(&web("2", 8080), &[], &labels, &taints).expect("a refusal");
        assert_eq!(driven_out.reason, "TaintToleration");
        let tolerant = serde_json::json!({"containers": [], "tolerations": [{"operator": "Exists"}]});
        assert_eq!(refused(&of("3", tolerant), &[], &labels, &taints), None);
    }
}
