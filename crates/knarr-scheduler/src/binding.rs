//! What the scheduler writes: bindings, and the condition of pods that wait.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use knarr_client::pod_condition::condition;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// Binds a pod to a node.
pub async fn bind(client: Client, pod: &PodInfo, node: &str) -> kube::Result<()> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": &*pod.key.namespace, "name": &*pod.key.name, "uid": &*pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let pods: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    let _: serde_json::Value =
        pods.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await?;
    Ok(())
}

/// What to do about the pod's `status.nominatedNodeName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nominate {
    Keep,
    Clear,
    Set(Arc<str>),
}

/// Says on the pod why it has no node, and which it may hope for. Nothing is written if it says so already.
pub async fn report(
    client: Client,
    pod: &PodInfo,
    reason: &str,
    message: &str,
    nominate: Nominate,
) -> kube::Result<()> {
    if says(pod, reason, message) && nominate == Nominate::Keep {
        return Ok(());
    }
    let condition = condition(&pod.pod, "PodScheduled", false, reason, message);
    let mut status = json!({"conditions": [condition]});
    match nominate {
        Nominate::Keep => {}
        Nominate::Clear => status["nominatedNodeName"] = Value::Null,
        Nominate::Set(node) => status["nominatedNodeName"] = json!(&*node),
    }
    patch_status(client, pod, &status).await
}

/// Withdraws the nomination of a pod.
pub async fn clear_nomination(client: Client, pod: &PodInfo) -> kube::Result<()> {
    patch_status(client, pod, &json!({"nominatedNodeName": null})).await
}

/// Deletes a pod to make room for another. One that is gone already is fine.
pub async fn preempt(client: Client, victim: &PodInfo, scheduler: &str) -> kube::Result<()> {
    let why = format!("{scheduler}: preempting to accommodate a higher priority pod");
    let condition = condition(&victim.pod, "DisruptionTarget", true, "PreemptionByScheduler", &why);
    let marked = patch_status(client.clone(), victim, &json!({"conditions": [condition]})).await;
    let pods: Api<Pod> = Api::namespaced(client, &victim.key.namespace);
    let uid = Preconditions { uid: Some(victim.uid.to_string()), ..Preconditions::default() };
    let parameters = DeleteParams { preconditions: Some(uid), ..DeleteParams::default() };
    let deleted = match marked {
        Ok(()) => pods.delete(&victim.key.name, &parameters).await.map(drop),
        Err(error) => Err(error),
    };
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

async fn patch_status(client: Client, pod: &PodInfo, status: &Value) -> kube::Result<()> {
    let patch = Patch::Strategic(json!({"metadata": {"uid": &*pod.uid}, "status": status}));
    let pods: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    pods.patch_status(&pod.key.name, &PatchParams::default(), &patch).await.map(drop)
}

fn says(pod: &PodInfo, reason: &str, message: &str) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
            && condition.observed_generation == pod.pod.metadata.generation
    })
}
