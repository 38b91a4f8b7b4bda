//! The node's status: what it has, how it does, where it is.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use knarr_cri::v1;

use super::machine;
use crate::context::NodeContext;
use crate::eviction::Pressure;

/// Images listed in the node's status, the largest first.
const MAX_IMAGES: usize = 50;

struct Finding {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

/// The node's status now; `old` are the conditions it had.
pub async fn of(node: &NodeContext, old: &[NodeCondition]) -> NodeStatus {
    let version = node.runtime.version().await;
    let runtime = node.runtime.status().await;
    let images = node.runtime.list_images().await.unwrap_or_default();
    let runtime_version = version
        .map(|version| format!("{}://{}", version.runtime_name, version.runtime_version.trim_start_matches('v')));
    let capacity = machine::quantities(&machine::capacity(&node.config));
    let now = Timestamp::now();
    let findings = [memory_pressure(node), disk_pressure(node), pid_pressure(node), ready(runtime.as_ref())];
    NodeStatus {
        addresses: Some(addresses(node)),
        allocatable: Some(machine::quantities(&node.allocatable)),
        capacity: Some(capacity),
        conditions: Some(findings.into_iter().map(|finding| condition(finding, old, now)).collect()),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(node.config.port) }),
        }),
        images: Some(container_images(images)),
        node_info: Some(machine::system_info(runtime_version.unwrap_or_default())),
        runtime_handlers: Some(vec![NodeRuntimeHandler { name: Some(String::new()), features: None }]),
        ..NodeStatus::default()
    }
}

fn addresses(node: &NodeContext) -> Vec<NodeAddress> {
    let ips = node.config.node_ips.iter();
    let mut addresses: Vec<_> =
        ips.map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() }).collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: node.config.node_name.clone() });
    addresses
}

fn container_images(mut images: Vec<v1::Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images.truncate(MAX_IMAGES);
    let shown = |image: v1::Image| ContainerImage {
        names: Some(image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect()),
        size_bytes: Some(i64::try_from(image.size).unwrap_or(i64::MAX)),
    };
    images.into_iter().map(shown).collect()
}

fn condition(finding: Finding, old: &[NodeCondition], now: Timestamp) -> NodeCondition {
    let status = if finding.holds { "True" } else { "False" };
    let before = old.iter().find(|condition| condition.type_ == finding.kind && condition.status == status);
    let since = before.and_then(|condition| condition.last_transition_time.clone());
    NodeCondition {
        type_: finding.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(finding.reason.to_owned()),
        message: Some(finding.message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    }
}

fn pressure(kind: &'static str, holds: bool, [bad, good]: [(&'static str, &str); 2]) -> Finding {
    let (reason, message) = if holds { bad } else { good };
    Finding { kind, holds, reason, message: message.to_owned() }
}

fn memory_pressure(node: &NodeContext) -> Finding {
    let holds = node.pressures.hold(Pressure::Memory);
    pressure(
        "MemoryPressure",
        holds,
        [
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ],
    )
}

fn disk_pressure(node: &NodeContext) -> Finding {
    let holds = node.pressures.hold(Pressure::Disk);
    pressure(
        "DiskPressure",
        holds,
        [
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ],
    )
}

fn pid_pressure(node: &NodeContext) -> Finding {
    let holds = node.pressures.hold(Pressure::Pids);
    pressure(
        "PIDPressure",
        holds,
        [
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ],
    )
}

fn ready(runtime: Result<&v1::StatusResponse, &knarr_cri::Error>) -> Finding {
    let complaint = match runtime {
        Err(error) => Some(format!("container runtime status check may not have completed yet: {error}")),
        Ok(answer) => {
            answer.status.iter().flat_map(|status| &status.conditions).find(|condition| !condition.status).map(unmet)
        }
    };
    match complaint {
        None => Finding {
            kind: "Ready",
            holds: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".to_owned(),
        },
        Some(message) => Finding { kind: "Ready", holds: false, reason: "KubeletNotReady", message },
    }
}

fn unmet(condition: &v1::RuntimeCondition) -> String {
    let what = if condition.r#type == "NetworkReady" {
        "container runtime network not ready"
    } else {
        "container runtime is down"
    };
    format!("{what}: {}=false reason:{} message:{}", condition.r#type, condition.reason, condition.message)
}
