//! Pods that nobody will ever delete: on nodes that are gone, never scheduled and being deleted, or finished and too many.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use knarr_client::error::found;
use knarr_client::pod_condition::condition;
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::context::Context;
use crate::{meta, pods};

const CONTROLLER: &str = "pod-garbage-collector";
/// How long a pod's node may be missing before the pod is taken for lost: a node may yet register.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How often the finished pods are counted.
const PERIOD: Duration = Duration::from_secs(20);
const BY_NODE: &str = "node";

pub(crate) async fn run(context: Arc<Context>) {
    let pods = context.informers.all::<Pod>();
    let nodes = context.informers.all::<Node>();
    pods.add_index(BY_NODE, |pod| pods::node_name(pod).map(str::to_string).into_iter().collect());
    let loop_ = PodGc {
        pods: pods.clone(),
        nodes: nodes.clone(),
        client: context.client(CONTROLLER),
        threshold: context.config.terminated_pod_threshold,
    };
    let known_nodes = nodes.clone();
    let controller = Controller::new(loop_).workers(2);
    let queue = controller.queue();
    queue.add(Work::Finished);
    controller
        .watch(&pods, move |event| match event {
            Event::Deleted(_) => Vec::new(),
            event => of_pod(event.object(), &known_nodes),
        })
        .watch(&nodes, move |event| {
            if let Event::Deleted(node) = event {
                queue.add_after(Work::Node(meta::name_of(&**node).into()), QUARANTINE);
            }
            Vec::new()
        })
        .run(context.shutdown.clone())
        .await;
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    /// Count the finished pods.
    Finished,
    /// The node may be gone for good.
    Node(String),
    /// The pod is being deleted and has no node to do it.
    Unscheduled(String, String),
}

fn of_pod(pod: &Pod, nodes: &Informer<Node>) -> Vec<Work> {
    match pods::node_name(pod) {
        None if meta::is_deleted(pod) => {
            vec![Work::Unscheduled(meta::namespace_of(pod).into(), meta::name_of(pod).into())]
        }
        Some(node) if nodes.has_synced() && nodes.get("", node).is_none() => vec![Work::Node(node.into())],
        _ => Vec::new(),
    }
}

fn lost_with_its_node(pod: &Pod) -> Value {
    condition(pod, "DisruptionTarget", true, "DeletionByPodGC", "PodGC: node no longer exists")
}

struct PodGc {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    client: Client,
    threshold: usize,
}

#[async_trait::async_trait]
impl Reconciler for PodGc {
    type Key = Work;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, work: &Work) -> Result<Action, Error> {
        match work {
            Work::Finished => {
                self.collect_finished().await?;
                return Ok(Action::RequeueAfter(PERIOD));
            }
            Work::Node(node) => return self.collect_of_node(node).await,
            Work::Unscheduled(namespace, name) => {
                let pod = self.pods.get(namespace, name);
                if let Some(pod) = pod.filter(|pod| meta::is_deleted(&**pod) && pods::node_name(pod).is_none()) {
                    self.mark_failed(&pod, None).await?;
                    self.force_delete(&pod).await?;
                }
            }
        }
        Ok(Action::Done)
    }
}

impl PodGc {
    async fn collect_of_node(&self, node: &str) -> Result<Action, Error> {
        let lost = self.pods.indexed(BY_NODE, node);
        if lost.is_empty() || self.nodes.get("", node).is_some() {
            return Ok(Action::Done);
        }
        let youngest = lost.iter().filter_map(|pod| pod.metadata.creation_timestamp.as_ref()).map(meta::since).min();
        if let Some(wait) = youngest.and_then(|age| QUARANTINE.checked_sub(age)).filter(|wait| !wait.is_zero()) {
            return Ok(Action::RequeueAfter(wait));
        }
        let api: Api<Node> = Api::all(self.client.clone());
        if api.get_opt(node).await?.is_some() {
            return Ok(Action::RequeueAfter(QUARANTINE));
        }
        for pod in lost {
            self.mark_failed(&pod, Some(lost_with_its_node(&pod))).await?;
            self.force_delete(&pod).await?;
        }
        Ok(Action::Done)
    }

    /// Says that the pod is over, and why, for whoever counts its failures.
    async fn mark_failed(&self, pod: &Pod, why: Option<Value>) -> Result<(), Error> {
        if pods::is_finished(pod) {
            return Ok(());
        }
        let mut patch = json!({ "metadata": { "uid": pod.metadata.uid }, "status": {
            "phase": "Failed", "observedGeneration": pod.metadata.generation,
        } });
        if let Some(condition) = why {
            patch["status"]["conditions"] = json!([condition]);
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace_of(pod));
        found(api.patch_status(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        Ok(())
    }

    async fn force_delete(&self, pod: &Pod) -> Result<(), Error> {
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
        let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace_of(pod));
        found(api.delete(meta::name_of(pod), &parameters).await)?;
        Ok(())
    }

    async fn collect_finished(&self) -> Result<(), Error> {
        let mut finished = self.pods.list();
        finished.retain(|pod| pods::is_finished(pod) && !meta::is_deleted(&**pod));
        let excess = finished.len().saturating_sub(self.threshold);
        if excess == 0 || self.threshold == 0 {
            return Ok(());
        }
        finished.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
        for pod in finished.iter().take(excess) {
            self.force_delete(pod).await?;
        }
        Ok(())
    }
}
