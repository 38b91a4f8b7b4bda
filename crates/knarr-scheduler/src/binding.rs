//! What the scheduler writes: bindings, and the condition of pods that wait.

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

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

/// Says on the pod why it has no node. Nothing is written if it says so already.
pub async fn report(client: Client, pod: &PodInfo, reason: &str, message: &str) -> kube::Result<()> {
    if says(pod, reason, message) {
        return Ok(());
    }
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": reason, "message": message, "lastTransitionTime": now,
    });
    let patch = Patch::Strategic(json!({"metadata": {"uid": &*pod.uid}, "status": {"conditions": [condition]}}));
    let pods: Api<Pod> = Api::namespaced(client, &pod.key.namespace);
    pods.patch_status(&pod.key.name, &PatchParams::default(), &patch).await?;
    Ok(())
}

fn says(pod: &PodInfo, reason: &str, message: &str) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message)
    })
}
