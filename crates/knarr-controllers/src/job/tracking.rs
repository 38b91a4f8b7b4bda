//! Counting each pod of a job exactly once.
//!
//! A finished pod's UID is first written into `uncountedTerminatedPods`; then the pod loses its finalizer; only when that is seen does
//! the UID leave the list and the counter go up, in one write. Whatever dies in between, the next look goes on from there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use knarr_client::Error;
use knarr_client::error::found;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use super::failure_policy::{self, Consequence};
use super::{indexes, spec};
use crate::{meta, pods};

pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// A pod being deleted before it succeeded is a failure as well; but what a policy judges must have ended.
pub(super) fn has_failed(job: &Job, pod: &Pod) -> bool {
    let ends = meta::is_deleted(pod) && pods::phase(pod) != "Succeeded";
    pods::phase(pod) == "Failed" || (ends && !failure_policy::has_policy(job))
}

/// Whether the pod has failed and that counts.
pub(super) fn counts_as_failed(job: &Job, pod: &Pod) -> bool {
    has_failed(job, pod) && !is_ignored(job, pod)
}

fn is_ignored(job: &Job, pod: &Pod) -> bool {
    has_failed(job, pod) && failure_policy::consequence(job, pod) == Consequence::Ignored
}

pub(super) fn tracked_pod(job: &Job) -> Pod {
    let mut pod = pods::from_template(&spec(job).template, meta::name_of(job), meta::controller_reference(job));
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    pod
}

/// Moves pods along: finished ones into the list of the uncounted, released ones from there into the counters.
pub(super) fn count(job: &mut Job, owned: &[Arc<Pod>]) {
    let by_uid: HashMap<&str, &Arc<Pod>> = owned.iter().map(|pod| (meta::uid_of(&**pod), pod)).collect();
    let still_tracked = |uid: &String| by_uid.get(uid.as_str()).is_some_and(|pod| is_tracked(pod));
    let done = indexes::succeeded_in(job, owned);
    let indexed = indexes::is_indexed(job);
    let failures: HashSet<&str> =
        owned.iter().filter(|pod| counts_as_failed(job, pod)).map(|pod| meta::uid_of(&**pod)).collect();
    let status = job.status.get_or_insert_default();
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let (mut succeeded, mut failed) =
        (uncounted.succeeded.take().unwrap_or_default(), uncounted.failed.take().unwrap_or_default());
    let released = |list: &mut Vec<String>| {
        let before = list.len();
        list.retain(still_tracked);
        (before - list.len()) as i32
    };
    let (more_succeeded, more_failed) = (released(&mut succeeded), released(&mut failed));
    for pod in owned.iter().filter(|pod| is_tracked(pod)) {
        let uid = meta::uid_of(&**pod).to_string();
        if succeeded.contains(&uid) || failed.contains(&uid) {
            continue;
        }
        match pods::phase(pod) == "Succeeded" {
            true => succeeded.push(uid),
            false if failures.contains(uid.as_str()) => failed.push(uid),
            false => {}
        }
    }
    let sum = |known: Option<i32>, more: i32| Some(known.unwrap_or(0) + more).filter(|count| *count != 0);
    status.failed = sum(status.failed, more_failed);
    if indexed {
        // An index counts once, however many of its pods succeeded.
        status.succeeded = Some(done.len() as i32).filter(|count| *count != 0);
        status.completed_indexes = Some(indexes::format(&done)).filter(|text| !text.is_empty());
    } else {
        status.succeeded = sum(status.succeeded, more_succeeded);
    }
    let listed = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    (uncounted.succeeded, uncounted.failed) = (listed(succeeded), listed(failed));
    status.uncounted_terminated_pods = Some(uncounted);
}

/// Lets go of the pods that the status just written lists as uncounted, and of those that are not to be counted.
pub(super) async fn release_counted(client: &Client, job: &Job, owned: &[Arc<Pod>]) -> Result<(), Error> {
    let uncounted = job.status.as_ref().and_then(|status| status.uncounted_terminated_pods.clone()).unwrap_or_default();
    let listed = [uncounted.succeeded.unwrap_or_default(), uncounted.failed.unwrap_or_default()].concat();
    let counted = |pod: &Pod| listed.iter().any(|uid| uid == meta::uid_of(pod));
    for pod in owned.iter().filter(|pod| counted(pod) || is_ignored(job, pod)) {
        release(client, pod).await?;
    }
    Ok(())
}

/// Takes the tracking finalizer off a pod that has it.
pub(super) async fn release(client: &Client, pod: &Pod) -> Result<(), Error> {
    if !is_tracked(pod) {
        return Ok(());
    }
    let patch = serde_json::json!({
        "metadata": { "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] }
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace_of(pod));
    found(api.patch(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
    Ok(())
}
