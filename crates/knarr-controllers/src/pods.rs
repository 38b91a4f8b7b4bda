//! Pods as their controllers see them: whether they count, and how they are made, adopted, released and deleted.

use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use knarr_client::error::found;
use knarr_client::{Error, Informer};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::{ObjectMeta, Selector};
use kube::{Api, Client, Resource};

use crate::meta;

/// The most pods one look at one owner creates or deletes.
pub(crate) const BURST: usize = 500;

pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Neither finished nor being deleted.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !meta::is_deleted(pod)
}

pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod has been ready, if it is.
pub(crate) fn ready_since(pod: &Pod) -> Option<&Time> {
    condition(pod, "Ready").filter(|ready| ready.status == "True")?.last_transition_time.as_ref()
}

/// How long until a ready pod has been so for `min_ready`; zero if it has, `None` if it is not ready.
pub(crate) fn until_available(pod: &Pod, min_ready: Duration) -> Option<Duration> {
    if !is_ready(pod) {
        return None;
    }
    if min_ready.is_zero() {
        return Some(Duration::ZERO);
    }
    Some(min_ready.saturating_sub(meta::since(ready_since(pod)?)))
}

pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().map(|container| container.restart_count).max().unwrap_or(0)
}

fn deletion_cost(pod: &Pod) -> i32 {
    meta::annotation(pod, "controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

/// Orders pods by how little is lost with them, least first. `crowd` says how many pods of the owner share a pod's node.
pub(crate) fn by_dispensability(a: &Pod, b: &Pod, crowd: impl Fn(&Pod) -> usize) -> Ordering {
    let phase_rank = |pod: &Pod| match phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let first_rank = |pod: &Pod| (node_name(pod).is_some(), phase_rank(pod), is_ready(pod), deletion_cost(pod));
    let newer_first = |a: Option<&Time>, b: Option<&Time>| match (a, b) {
        (Some(a), Some(b)) => b.0.cmp(&a.0),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    first_rank(a)
        .cmp(&first_rank(b))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| newer_first(ready_since(a), ready_since(b)))
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| newer_first(a.metadata.creation_timestamp.as_ref(), b.metadata.creation_timestamp.as_ref()))
}

/// A pod as `template` says, owned by `owner`, its name generated from `prefix`.
pub(crate) fn from_template(template: &PodTemplateSpec, prefix: &str, owner: OwnerReference) -> Pod {
    let given = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{prefix}-")),
            labels: given.labels,
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Deletes the pod of that UID; one that is gone or is another by now is as good.
pub(crate) async fn delete(client: &Client, pod: &Pod) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace_of(pod));
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), ..Preconditions::default() };
    match api.delete(meta::name_of(pod), &DeleteParams::default().preconditions(preconditions)).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        other => other.map(drop).map_err(Error::from),
    }
}

/// Runs `make` `count` times in batches of 1, 2, 4, …, stopping after a batch with a failure, so that what is bound to be refused is
/// not asked five hundred times. Returns how many went well and the first error.
pub(crate) async fn slow_start<F>(count: usize, make: impl Fn(usize) -> F) -> (usize, Option<Error>)
where
    F: Future<Output = Result<(), Error>>,
{
    let (mut done, mut batch, mut succeeded) = (0, 1, 0);
    while done < count {
        let size = batch.min(count - done);
        let results: Vec<_> = futures::stream::iter(done..done + size).map(&make).buffer_unordered(64).collect().await;
        let failures = results.iter().filter(|result| result.is_err()).count();
        succeeded += size - failures;
        if let Some(error) = results.into_iter().find_map(Result::err) {
            return (succeeded, Some(error));
        }
        done += size;
        batch *= 2;
    }
    (succeeded, None)
}

/// The pods of an owner: those it controls and still selects, after adopting orphans it selects and releasing what it no longer does.
/// What is adopted gets the owner's `finalizer`, if it has one for its pods.
pub(crate) async fn claim<K>(
    client: &Client,
    pods: &Informer<Pod>,
    owner: &K,
    selector: &Selector,
    finalizer: Option<&str>,
) -> Result<Vec<Arc<Pod>>, Error>
where
    K: Resource<DynamicType = ()>,
{
    let mut claimed = Vec::new();
    for pod in pods.indexed(meta::BY_CONTROLLER, meta::uid_of(owner)) {
        if meta::selects(selector, &pod.metadata) {
            claimed.push(pod);
        } else if !meta::is_deleted(owner) && !meta::is_deleted(&*pod) {
            release(client, &pod, meta::uid_of(owner)).await?;
        }
    }
    if meta::is_deleted(owner) {
        return Ok(claimed);
    }
    for pod in pods.indexed(meta::ORPHANS, meta::namespace_of(owner)) {
        if is_active(&pod)
            && meta::selects(selector, &pod.metadata)
            && let Some(adopted) = adopt(client, &pod, meta::controller_reference(owner), finalizer).await?
        {
            claimed.push(Arc::new(adopted));
        }
    }
    Ok(claimed)
}

async fn adopt(
    client: &Client,
    pod: &Pod,
    owner: OwnerReference,
    finalizer: Option<&str>,
) -> Result<Option<Pod>, Error> {
    let mut patch = serde_json::json!({ "metadata": { "uid": pod.metadata.uid, "ownerReferences": [owner] } });
    if let Some(finalizer) = finalizer {
        patch["metadata"]["finalizers"] = serde_json::json!([finalizer]);
    }
    patch_owners(client, pod, patch).await
}

async fn release(client: &Client, pod: &Pod, owner_uid: &str) -> Result<Option<Pod>, Error> {
    let patch = serde_json::json!({
        "metadata": { "uid": pod.metadata.uid, "ownerReferences": [{ "$patch": "delete", "uid": owner_uid }] }
    });
    patch_owners(client, pod, patch).await
}

async fn patch_owners(client: &Client, pod: &Pod, patch: serde_json::Value) -> Result<Option<Pod>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace_of(pod));
    Ok(found(api.patch(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?)
}
