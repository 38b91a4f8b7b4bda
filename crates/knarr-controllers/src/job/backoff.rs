//! How long a job waits before it replaces a failed pod.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::{per_index, tracking};
use crate::{meta, pods};

/// The first delay after a failed pod; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_secs(600);

/// How long to wait before the next pod, after the failures since the last success. Failures that count for nothing delay as well.
pub(super) fn of_job(job: &Job, owned: &[Arc<Pod>]) -> Duration {
    let last_success = owned.iter().filter(|pod| pods::phase(pod) == "Succeeded").map(|pod| ended_at(pod)).max();
    // Pods that the job itself removed are not tracked any more and on their way out.
    let failed = owned
        .iter()
        .filter(|pod| tracking::has_failed(job, pod) && (tracking::is_tracked(pod) || !meta::is_deleted(&***pod)));
    let recent: Vec<_> =
        failed.map(|pod| ended_at(pod)).filter(|end| last_success.is_none_or(|success| *end > success)).collect();
    recent.iter().max().map_or(Duration::ZERO, |last| left(recent.len(), *last))
}

/// How long to wait before the pod in whose place another is to come has one.
pub(super) fn of_index(failed: &Pod) -> Duration {
    left(per_index::failures(failed).all() as usize + 1, ended_at(failed))
}

fn left(failures: usize, last: Timestamp) -> Duration {
    let doublings = (failures.max(1) - 1).min(16) as u32;
    let delay = (FIRST_DELAY * 2u32.pow(doublings)).min(MAX_DELAY);
    delay.saturating_sub(Duration::try_from(Timestamp::now().duration_since(last)).unwrap_or_default())
}

/// When the pod ended: by its containers, its readiness, its deletion; at the least, when it was made.
pub(super) fn ended_at(pod: &Pod) -> Timestamp {
    containers_ended(pod)
        .or_else(|| unready_since(pod))
        .or_else(|| deletion_began(pod))
        .unwrap_or_else(|| pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |created| created.0))
}

/// When the last of the containers ended, sidecars too; `None` as long as one has not.
fn containers_ended(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let initial = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: HashSet<&str> = initial
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let beside = status.init_container_statuses.iter().flatten().filter(|s| sidecars.contains(s.name.as_str()));
    let end = |status: &ContainerStatus| Some(status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    let ends: Option<Vec<_>> = status.container_statuses.iter().flatten().chain(beside).map(end).collect();
    ends?.into_iter().max()
}

fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
    Some(ready.last_transition_time.as_ref()?.0)
}

fn deletion_began(pod: &Pod) -> Option<Timestamp> {
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0).max(0) as u64;
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(Duration::from_secs(grace)).ok()
}
