//! Counting each pod of a job exactly once.
//!
//! A finished pod's UID is first written into `uncountedTerminatedPods`; then the pod loses its finalizer; only when that is seen does
//! the UID leave the list and the counter go up, in one write. Whatever dies in between, the next look goes on from there. Successes of
//! numbered pods need no list: their index in `completedIndexes` cannot count twice.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use knarr_client::Error;
use knarr_client::error::found;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use super::failure_policy::{self, Consequence};
use super::look::Look;
use super::status::End;
use super::{indexes, spec};
use crate::{meta, pods};

pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The most pods that are listed as uncounted, so that a status stays small; the others have their turn at the next look.
const MOST_UNCOUNTED: usize = 500;

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether a pod must have ended before another takes its place. What a failure policy judges must have ended too.
pub(super) fn replaces_only_ended(job: &Job) -> bool {
    spec(job).pod_replacement_policy.as_deref() == Some("Failed") || failure_policy::has_policy(job)
}

/// A pod being deleted before it succeeded is a failure as well, unless its end is waited for.
pub(super) fn has_failed(job: &Job, pod: &Pod) -> bool {
    let ends = meta::is_deleted(pod) && pods::phase(pod) != "Succeeded";
    pods::phase(pod) == "Failed" || (ends && !replaces_only_ended(job))
}

/// Whether the pod has failed and that counts.
pub(super) fn counts_as_failed(job: &Job, pod: &Pod) -> bool {
    has_failed(job, pod) && !is_ignored(job, pod)
}

fn is_ignored(job: &Job, pod: &Pod) -> bool {
    failure_policy::consequence(job, pod) == Consequence::Ignored
}

pub(super) fn tracked_pod(job: &Job) -> Pod {
    let mut pod = pods::from_template(&spec(job).template, meta::name_of(job), meta::controller_reference(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    pod
}

/// Moves pods along: finished ones into the list of the uncounted, released ones from there into the counters. When the job comes to
/// its `end`, every pod is finished. Returns the pods that may be let go of once the status is written.
pub(super) fn count(job: &mut Job, look: &Look<'_>, end: Option<&End>) -> Vec<Arc<Pod>> {
    let tracked: HashSet<&str> =
        look.pods.iter().filter(|pod| is_tracked(pod)).map(|pod| meta::uid_of(&**pod)).collect();
    let indexed = indexes::is_indexed(job);
    let status = job.status.get_or_insert_default();
    let mut uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let mut lists = Lists {
        succeeded: uncounted.succeeded.take().unwrap_or_default(),
        failed: uncounted.failed.take().unwrap_or_default(),
    };
    let (more_succeeded, more_failed) = lists.leave(&tracked);
    let mut released = Vec::new();
    for pod in look.pods.iter().filter(|pod| is_tracked(pod) && may_go(look, pod, end)) {
        if lists.enter(look, pod, end) {
            released.push(pod.clone());
        }
    }
    let sum = |known: Option<i32>, more: usize| Some(known.unwrap_or(0) + more as i32).filter(|count| *count != 0);
    status.failed = sum(status.failed, more_failed);
    if indexed {
        status.succeeded = Some(look.succeeded.len() as i32).filter(|count| *count != 0);
        status.completed_indexes = Some(look.succeeded.to_string()).filter(|text| !text.is_empty());
        status.failed_indexes = look.failed.as_ref().map(ToString::to_string);
    } else {
        status.succeeded = sum(status.succeeded, more_succeeded);
    }
    let listed = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
    (uncounted.succeeded, uncounted.failed) = (listed(lists.succeeded), listed(lists.failed));
    status.uncounted_terminated_pods = Some(uncounted);
    released
}

/// Whether nobody needs to see the pod any more, once it is counted.
fn may_go(look: &Look<'_>, pod: &Arc<Pod>, end: Option<&End>) -> bool {
    if meta::is_deleted(look.job) || end.is_some() || pods::phase(pod) == "Succeeded" {
        return true;
    }
    has_failed(look.job, pod) && !look.awaiting.values().any(|awaiting| Arc::ptr_eq(awaiting, pod))
}

/// The UIDs of pods on their way into the counters.
struct Lists {
    succeeded: Vec<String>,
    failed: Vec<String>,
}

impl Lists {
    /// Takes those out that are not tracked any more; returns how many succeeded and failed.
    fn leave(&mut self, tracked: &HashSet<&str>) -> (usize, usize) {
        let leave = |list: &mut Vec<String>| {
            let before = list.len();
            list.retain(|uid| tracked.contains(uid.as_str()));
            before - list.len()
        };
        (leave(&mut self.succeeded), leave(&mut self.failed))
    }

    /// Lists the pod where it is to be counted. False if there is no room.
    fn enter(&mut self, look: &Look<'_>, pod: &Pod, end: Option<&End>) -> bool {
        let uid = meta::uid_of(pod);
        let known = |list: &[String]| list.iter().any(|listed| listed == uid);
        if known(&self.succeeded) || known(&self.failed) {
            return true;
        }
        let room = self.succeeded.len() + self.failed.len() < MOST_UNCOUNTED;
        let indexed = indexes::is_indexed(look.job);
        let list = match pods::phase(pod) == "Succeeded" {
            true if indexed => return true,
            true => &mut self.succeeded,
            false if !counts_at_the_end(look.job, pod, end) => return true,
            false if indexed && indexes::valid_index(look.job, pod).is_none() => return true,
            false => &mut self.failed,
        };
        if room {
            list.push(uid.into());
        }
        room
    }
}

/// Whether the pod, that did not succeed, counts as a failure: where the job fails, all its pods do.
fn counts_at_the_end(job: &Job, pod: &Pod, end: Option<&End>) -> bool {
    (has_failed(job, pod) || end.is_some_and(|end| !end.success)) && !is_ignored(job, pod)
}

/// The pod as it is without the tracking finalizer.
pub(super) fn forget_finalizer(pod: &mut Pod) {
    pod.metadata.finalizers.iter_mut().for_each(|finalizers| finalizers.retain(|finalizer| finalizer != FINALIZER));
}

/// Takes the tracking finalizer off a pod; false if it has none, or is gone.
pub(super) async fn release(client: &Client, pod: &Pod) -> Result<bool, Error> {
    if !is_tracked(pod) {
        return Ok(false);
    }
    let patch = serde_json::json!({
        "metadata": { "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [FINALIZER] }
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace_of(pod));
    Ok(found(api.patch(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?.is_some())
}
