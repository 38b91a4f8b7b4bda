//! Whether this node can take a pod that was bound to it: the scheduler may have been wrong, or absent.

use std::collections::BTreeMap;

use knarr_api::sysctl;

use crate::pod::{DesiredPod, resources};
use crate::worker::status::Verdict;

/// Refuses a pod that does not fit beside `others`; amounts are in thousandths.
pub fn refuse<'a>(
    pod: &DesiredPod,
    others: impl Iterator<Item = &'a DesiredPod>,
    allocatable: &BTreeMap<String, i64>,
    node_labels: &BTreeMap<String, String>,
) -> Option<Verdict> {
    let others: Vec<_> = others.filter(|other| other.uid != pod.uid && !other.is_terminal()).collect();
    refuse_by_selector(pod, node_labels)
        .or_else(|| refuse_by_sysctls(pod))
        .or_else(|| refuse_by_resources(pod, &others, allocatable))
}

fn refuse_by_selector(pod: &DesiredPod, node_labels: &BTreeMap<String, String>) -> Option<Verdict> {
    let mut selector = pod.spec().node_selector.iter().flatten();
    let matches = selector.all(|(key, value)| node_labels.get(key) == Some(value));
    let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
    (!matches).then(|| Verdict { reason: "NodeAffinity".to_owned(), message: message.to_owned() })
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
    use crate::pod::PodSource;
    use std::sync::Arc;

    fn pod(uid: &str, cpu: &str) -> DesiredPod {
        let json = serde_json::json!({
            "metadata": {"uid": uid},
            "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        });
        DesiredPod::new(Arc::new(serde_json::from_value(json).expect("a pod")), PodSource::Api)
    }

    #[test]
    fn a_pod_too_many_is_refused_in_upstreams_words() {
        let allocatable = BTreeMap::from([("cpu".to_owned(), 2000), ("pods".to_owned(), 110_000)]);
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let held = [pod("1", "1500m")];
        let verdict = refuse(&pod("2", "1"), held.iter(), &allocatable, &labels).expect("a refusal");
        assert_eq!(verdict.reason, "OutOfcpu");
        assert!(verdict.message.ends_with("requested: 1000, used: 1500, capacity: 2000"));
        assert_eq!(refuse(&pod("2", "500m"), held.iter(), &allocatable, &labels), None);
        let elsewhere = refuse(&pod("2", "500m"), held.iter(), &allocatable, &BTreeMap::new()).expect("a refusal");
        assert_eq!(elsewhere.reason, "NodeAffinity");
    }
}
