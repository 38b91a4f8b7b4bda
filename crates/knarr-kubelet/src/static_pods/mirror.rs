//! Mirror pods: what the API shows of static pods. Changing one changes nothing on the node; it is made again as it was.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use knarr_client::informer::Informer;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;

use super::{MIRROR, StaticPods, mirrored};
use crate::context::NodeContext;
use crate::pod::DesiredPod;

/// What the API refused is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps a mirror of every static pod in the API for as long as it is polled. A mirror whose pod is gone goes when `ended` says
/// that nothing of the pod with its hash runs any more.
pub async fn keep(
    node: Arc<NodeContext>,
    own_node: Informer<Node>,
    mut statics: watch::Receiver<StaticPods>,
    ended: impl Fn(&str) -> bool,
) {
    node.pods.synced().await;
    own_node.synced().await;
    let mut changes = node.pods.subscribe();
    loop {
        let wanted = statics.borrow_and_update().clone();
        let settled = reconcile(&node, &own_node, &wanted, &ended).await;
        let retry = async {
            match settled {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            changed = statics.changed() => if changed.is_err() { return },
            change = changes.recv() => if change.is_none() { return },
            () = retry => {}
        }
    }
}

/// True if there is nothing left to do.
async fn reconcile(
    node: &NodeContext,
    own_node: &Informer<Node>,
    wanted: &StaticPods,
    ended: &impl Fn(&str) -> bool,
) -> bool {
    let mirrors: Vec<Arc<Pod>> = node.pods.list().into_iter().filter(|pod| mirrored(pod).is_some()).collect();
    let mut settled = true;
    for mirror in &mirrors {
        match fate(mirror, wanted, ended) {
            Fate::Stays => {}
            Fate::Waits => settled = false,
            Fate::Goes => settled &= told("deleted", delete(node, mirror).await),
        }
    }
    let present: HashSet<(&str, &str)> = mirrors.iter().map(|mirror| name_of(mirror)).collect();
    let owner = own_node.get("", &node.config.node_name).map(|own| owner_reference(&own));
    for pod in wanted.values().filter(|pod| !present.contains(&(pod.namespace.as_str(), pod.name.as_str()))) {
        settled &= match &owner {
            Some(owner) => told("made", create(node, pod, owner).await),
            None => false,
        };
    }
    settled
}

enum Fate {
    Stays,
    /// Its pod still ends.
    Waits,
    Goes,
}

fn fate(mirror: &Pod, wanted: &StaticPods, ended: &impl Fn(&str) -> bool) -> Fate {
    let (namespace, name) = name_of(mirror);
    let hash = mirrored(mirror).unwrap_or_default();
    match wanted.get(&(namespace.to_owned(), name.to_owned())) {
        Some(pod) if pod.uid == hash && mirror.metadata.deletion_timestamp.is_none() => Fate::Stays,
        Some(_) => Fate::Goes,
        None if ended(hash) => Fate::Goes,
        None => Fate::Waits,
    }
}

fn name_of(pod: &Pod) -> (&str, &str) {
    (pod.metadata.namespace.as_deref().unwrap_or_default(), pod.metadata.name.as_deref().unwrap_or_default())
}

fn owner_reference(node: &Node) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

async fn create(node: &NodeContext, pod: &DesiredPod, owner: &OwnerReference) -> Result<(), kube::Error> {
    let of_pod = &pod.object.metadata;
    let mut annotations = of_pod.annotations.clone().unwrap_or_default();
    annotations.insert(MIRROR.to_owned(), pod.uid.clone());
    let mirror = Pod {
        metadata: ObjectMeta {
            name: of_pod.name.clone(),
            namespace: of_pod.namespace.clone(),
            labels: of_pod.labels.clone(),
            annotations: Some(annotations),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: pod.object.spec.clone(),
        status: None,
    };
    let pods: Api<Pod> = Api::namespaced(node.client.clone(), &pod.namespace);
    match pods.create(&PostParams::default(), &mirror).await {
        // The informer is behind, or somebody else has the name: it is seen when that changes.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

async fn delete(node: &NodeContext, mirror: &Pod) -> Result<(), kube::Error> {
    let (namespace, name) = name_of(mirror);
    let preconditions = Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match Api::<Pod>::namespaced(node.client.clone(), namespace).delete(name, &params).await {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn told(what: &str, outcome: Result<(), kube::Error>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!(%error, "a mirror pod cannot be {what}");
    }
    outcome.is_ok()
}
