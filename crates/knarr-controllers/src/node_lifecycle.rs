//! Nodes that fall silent: their conditions become Unknown, their pods not ready, and taints keep pods away or drive them out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use knarr_client::error::found;
use knarr_client::events::reference_to;
use knarr_client::{Action, Controller, Error, EventType, Informer, Reconciler, Recorder, Selection};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::Context;
use crate::{meta, pods};

const CONTROLLER: &str = "node-controller";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const BY_NODE: &str = "node";
/// Conditions and the value for which each keeps new pods away, with the taint that does so.
const CONDITION_TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

pub(crate) async fn run(context: Arc<Context>) {
    let nodes = context.informers.all::<Node>();
    let leases = context.informers.selected::<Lease>(Selection::namespace("kube-node-lease"));
    let pods = context.informers.all::<Pod>();
    pods.add_index(BY_NODE, |pod| pods::node_name(pod).map(str::to_string).into_iter().collect());
    let client = context.client(CONTROLLER);
    let recorder = context.recorder(&client, CONTROLLER);
    let loop_ = NodeLifecycle {
        nodes: nodes.clone(),
        leases: leases.clone(),
        pods: pods.clone(),
        client,
        recorder,
        grace: context.config.node_grace_period,
        signs: Mutex::new(HashMap::new()),
    };
    Controller::new(loop_)
        .after(&pods)
        .watch(&nodes, |event| vec![meta::name_of(&**event.object()).to_string()])
        .watch(&leases, |event| vec![meta::name_of(&**event.object()).to_string()])
        .run(context.shutdown.clone())
        .await;
}

struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    client: Client,
    recorder: Recorder,
    grace: Duration,
    /// The last sign of life of each node and when by our own clock it came: the node's clock is not trusted.
    signs: Mutex<HashMap<String, (Sign, Instant)>>,
}

/// What a living node keeps changing: its lease, or the heartbeat of its Ready condition.
type Sign = (Option<jiff::Timestamp>, Option<jiff::Timestamp>);

#[async_trait::async_trait]
impl Reconciler for NodeLifecycle {
    type Key = String;

    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(node) = self.nodes.get("", name) else {
            self.signs.lock().remove(name);
            return Ok(Action::Done);
        };
        let silent_for = self.silence(name, &node);
        let mut current = (*node).clone();
        if silent_for >= self.grace {
            current = self.mark_unknown(&node).await?;
        }
        self.sync_taints(&current).await?;
        if ready_status(&current) != "True" {
            self.mark_pods_not_ready(&current).await?;
        }
        // The next sign of life brings the next look; its absence is noticed then.
        let wait = self.grace.saturating_sub(silent_for);
        Ok(if wait.is_zero() { Action::Done } else { Action::RequeueAfter(wait) })
    }
}

impl NodeLifecycle {
    fn silence(&self, name: &str, node: &Node) -> Duration {
        let lease = self.leases.get("kube-node-lease", name);
        let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
        let heartbeat =
            condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref()).map(|time| time.0);
        let sign = (renewed, heartbeat);
        let mut signs = self.signs.lock();
        let known = signs.entry(name.to_string()).or_insert((sign, Instant::now()));
        if known.0 != sign {
            *known = (sign, Instant::now());
        }
        known.1.elapsed()
    }

    async fn mark_unknown(&self, node: &Node) -> Result<Node, Error> {
        let mut updated = node.clone();
        let status = updated.status.get_or_insert_default();
        let conditions = status.conditions.get_or_insert_default();
        for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
            make_unknown(conditions, kind);
        }
        if updated.status == node.status {
            return Ok(updated);
        }
        let name = meta::name_of(node);
        let message = format!("Node {name} status is now: NodeNotReady");
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api.replace_status(name, &PostParams::default(), &updated).await?;
        self.recorder.event(&reference_to(node), EventType::Normal, "NodeNotReady", message);
        Ok(written)
    }

    /// Sets the taints that follow from the conditions, leaving all others alone.
    async fn sync_taints(&self, node: &Node) -> Result<(), Error> {
        let known = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let wanted = wanted_taints(node);
        let is_ours = |taint: &Taint| {
            let of_condition =
                CONDITION_TAINTS.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
            let drives_out = taint.effect == "NoExecute" && (taint.key == NOT_READY || taint.key == UNREACHABLE);
            (of_condition && taint.effect == "NoSchedule") || drives_out
        };
        let stands = |taint: &Taint| wanted.iter().any(|(key, effect)| *key == taint.key && *effect == taint.effect);
        let mut taints: Vec<Taint> = known.iter().filter(|taint| !is_ours(taint) || stands(taint)).cloned().collect();
        for (key, effect) in &wanted {
            if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
                let since = (*effect == "NoExecute").then(meta::now);
                taints.push(Taint { key: (*key).into(), effect: (*effect).into(), time_added: since, value: None });
            }
        }
        if taints == known {
            return Ok(());
        }
        // Against the revision that was read: taints are a list that others write too.
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": node.metadata.resource_version }, "spec": { "taints": taints }
        });
        let api: Api<Node> = Api::all(self.client.clone());
        found(api.patch(meta::name_of(node), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// What runs on a node that is not ready must not get traffic.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), Error> {
        for pod in self.pods.indexed(BY_NODE, meta::name_of(node)) {
            if !pods::is_ready(&pod) || meta::is_deleted(&*pod) {
                continue;
            }
            let patch = serde_json::json!({ "status": { "conditions": [
                { "type": "Ready", "status": "False", "lastTransitionTime": meta::now() }
            ] } });
            let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace_of(&*pod));
            found(api.patch_status(meta::name_of(&*pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
            self.recorder.event(&reference_to(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn ready_status(node: &Node) -> &str {
    condition(node, "Ready").map_or("Unknown", |ready| ready.status.as_str())
}

fn make_unknown(conditions: &mut Vec<NodeCondition>, kind: &str) {
    match conditions.iter_mut().find(|condition| condition.type_ == kind) {
        Some(known) if known.status == "Unknown" => {}
        Some(known) => {
            known.status = "Unknown".into();
            known.reason = Some("NodeStatusUnknown".into());
            known.message = Some("Kubelet stopped posting node status.".into());
            known.last_transition_time = Some(meta::now());
        }
        None => conditions.push(NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusNeverUpdated".into()),
            message: Some("Kubelet never posted node status.".into()),
            last_transition_time: Some(meta::now()),
            last_heartbeat_time: None,
        }),
    }
}

fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted: Vec<_> = CONDITION_TAINTS
        .iter()
        .filter(|(kind, value, _)| condition(node, kind).is_some_and(|condition| condition.status == *value))
        .map(|(_, _, key)| (*key, "NoSchedule"))
        .collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    match condition(node, "Ready").map(|ready| ready.status.as_str()) {
        Some("False") => wanted.push((NOT_READY, "NoExecute")),
        Some("Unknown") => wanted.push((UNREACHABLE, "NoExecute")),
        _ => {}
    }
    wanted
}
