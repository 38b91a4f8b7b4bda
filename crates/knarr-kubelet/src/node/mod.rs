//! The node's own object: its registration, its status and its lease.

pub mod machine;
mod status;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeSpec, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use knarr_client::events::EventType;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;

/// How long the API may take to say what the node's labels are.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
/// A status that did not change is told again this often.
const REPORT_PERIOD: Duration = Duration::from_secs(300);
/// While something is not yet well, it is looked at again this often.
const IMPATIENCE: Duration = Duration::from_millis(250);

/// Makes the node's object, or brings its labels up to date; tries until the API lets it.
pub async fn register(node: &NodeContext, shutdown: &CancellationToken) {
    node.recorder.event(&reference(node), EventType::Normal, "Starting", "Starting kubelet.");
    let mut wait = Duration::from_millis(100);
    while !shutdown.is_cancelled() {
        match try_register(node).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, node = node.config.node_name, "the node cannot be registered yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(Duration::from_secs(7));
    }
}

/// Tells in events what became of the node's conditions. The events' object has the node's name for a uid, as upstream's do.
fn tell_changes(node: &NodeContext, old: &[NodeCondition], new: &NodeStatus) {
    const REASONS: [(&str, [&str; 2]); 4] = [
        ("MemoryPressure", ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"]),
        ("DiskPressure", ["NodeHasDiskPressure", "NodeHasNoDiskPressure"]),
        ("PIDPressure", ["NodeHasInsufficientPID", "NodeHasSufficientPID"]),
        ("Ready", ["NodeReady", "NodeNotReady"]),
    ];
    for condition in new.conditions.iter().flatten() {
        let before = old.iter().find(|old| old.type_ == condition.type_);
        // That a new node is not ready yet is no news.
        let same = before
            .map_or(condition.type_ == "Ready" && condition.status == "False", |old| old.status == condition.status);
        let known = REASONS.iter().find(|(kind, _)| *kind == condition.type_);
        let Some((_, [holds, does_not])) = known.filter(|_| !same) else { continue };
        let reason = if condition.status == "True" { holds } else { does_not };
        let message = format!("Node {} status is now: {reason}", node.config.node_name);
        node.recorder.event(&reference(node), EventType::Normal, reason, message);
    }
}

fn reference(node: &NodeContext) -> ObjectReference {
    let name = Some(node.config.node_name.clone());
    ObjectReference { kind: Some("Node".to_owned()), name: name.clone(), uid: name, ..ObjectReference::default() }
}

async fn try_register(node: &NodeContext) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let name = &node.config.node_name;
    let labels = labels(node);
    if nodes.get_opt(name).await?.is_some() {
        let patch = json!({"metadata": {"labels": labels}});
        return nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop);
    }
    let object = Node {
        metadata: ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            taints: Some(node.config.node_taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status::of(node, &[]).await),
    };
    let made = nodes.create(&PostParams::default(), &object).await?;
    tell_changes(node, &[], &made.status.unwrap_or_default());
    Ok(())
}

/// The node as the API has it now; `None` if it does not say so soon: whoever asks has pods waiting.
pub async fn now(client: &kube::Client, name: &str) -> Option<Node> {
    let nodes: Api<Node> = Api::all(client.clone());
    tokio::time::timeout(ANSWER_WITHIN, nodes.get(name)).await.ok()?.ok()
}

/// The labels the node registers with.
pub fn labels(node: &NodeContext) -> BTreeMap<String, String> {
    let arch = machine::architecture();
    let well_known = [
        ("kubernetes.io/hostname", node.config.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch),
    ];
    let mut labels: BTreeMap<_, _> =
        well_known.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.extend(node.config.node_labels.clone());
    labels
}

/// Keeps the node's status true until `shutdown`.
pub async fn keep_status(node: Arc<NodeContext>, shutdown: CancellationToken) {
    let nodes: Api<Node> = Api::all(node.client.clone());
    let mut told: Option<(NodeStatus, Instant)> = None;
    loop {
        let old = told.as_ref().map(|(status, _)| status.conditions.clone().unwrap_or_default());
        let old = match old {
            Some(old) => old,
            None => conditions_in_api(&nodes, &node.config.node_name).await,
        };
        let status = status::of(&node, &old).await;
        let due = told.as_ref().is_none_or(|(last, at)| at.elapsed() >= REPORT_PERIOD || differ(last, &status));
        if due {
            let patch = json!({"status": status});
            match nodes.patch_status(&node.config.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => {
                    tell_changes(&node, &old, &status);
                    told = Some((status, Instant::now()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the node's status cannot be told");
                    told = None;
                }
            }
        }
        let well = told.as_ref().is_some_and(|(status, _)| is_ready(status));
        let wait = if well { node.config.node_status_frequency } else { IMPATIENCE };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn conditions_in_api(nodes: &Api<Node>, name: &str) -> Vec<k8s_openapi::api::core::v1::NodeCondition> {
    let found = nodes.get_opt(name).await.ok().flatten();
    found.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default()
}

fn is_ready(status: &NodeStatus) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Whether two statuses differ in more than their heartbeats.
fn differ(one: &NodeStatus, other: &NodeStatus) -> bool {
    without_heartbeats(one) != without_heartbeats(other)
}

fn without_heartbeats(status: &NodeStatus) -> NodeStatus {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
    }
    status
}

/// Renews the node's lease until `shutdown`.
pub async fn keep_lease(node: Arc<NodeContext>, shutdown: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(node.client.clone(), LEASE_NAMESPACE);
    let mut period = tokio::time::interval(node.config.lease_renewal);
    period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = period.tick() => {}
        }
        if let Err(error) = renew(&node, &leases).await {
            tracing::warn!(%error, "the node's lease cannot be renewed");
            period.reset_after(Duration::from_secs(1));
        }
    }
}

async fn renew(node: &NodeContext, leases: &Api<Lease>) -> Result<(), kube::Error> {
    let name = &node.config.node_name;
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}});
    match leases.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        outcome => return outcome.map(drop),
    }
    let owner = Api::<Node>::all(node.client.clone()).get_opt(name).await?.and_then(|node| node.metadata.uid);
    let owners = owner.map(|uid| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid,
            ..Default::default()
        }]
    });
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.clone()), owner_references: owners, ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_api_that_never_answers_is_not_waited_for() {
        let stuck = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
        });
        let client = kube::Client::new(stuck, "default");
        let began = Instant::now();
        assert_eq!(now(&client, "n").await, None);
        assert!(began.elapsed() <= ANSWER_WITHIN + Duration::from_secs(1));
    }
}
