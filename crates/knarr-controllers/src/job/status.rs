//! What the counts of a job mean: whether it goes on, has reached its end, and how many pods should be active.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{self, Consequence};
use super::look::Look;
use super::{spec, success_policy, tracking};
use crate::{meta, pods};

/// Why a job ends, in the words of its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub success: bool,
    reason: String,
    message: String,
}

impl End {
    fn success(reason: &str, message: impl Into<String>) -> End {
        End { success: true, reason: reason.into(), message: message.into() }
    }

    fn failure(reason: &str, message: impl Into<String>) -> End {
        End { success: false, reason: reason.into(), message: message.into() }
    }

    /// The end that an earlier look decided on.
    fn decided(job: &Job) -> Option<End> {
        let decided = |kind: &str| conditions(job).find(|c| c.type_ == kind && c.status == "True");
        let (condition, success) =
            decided(SUCCESS).map(|c| (c, true)).or_else(|| decided(FAILURE).map(|c| (c, false)))?;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        Some(End { success, reason: text(&condition.reason), message: text(&condition.message) })
    }
}

/// The conditions that say that the end is decided; the last ones follow when no pod is left.
const SUCCESS: &str = "SuccessCriteriaMet";
const FAILURE: &str = "FailureTarget";

#[derive(Clone, Debug)]
pub(super) struct Verdict {
    pub end: Option<End>,
    pub suspended: bool,
    /// When the deadline passes.
    pub look_again: Option<Duration>,
}

fn conditions(job: &Job) -> impl Iterator<Item = &JobCondition> {
    job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default().iter()
}

pub(super) fn is_true(job: &Job, kind: &str) -> bool {
    conditions(job).any(|condition| condition.type_ == kind && condition.status == "True")
}

/// The condition that says that the job has ended.
pub(super) fn finished(job: &Job) -> Option<&JobCondition> {
    conditions(job).find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")
}

pub(super) fn judge(look: &Look<'_>) -> Verdict {
    let job = look.job;
    let suspended = spec(job).suspend == Some(true);
    let left = time_left(job).filter(|_| !suspended);
    let end = End::decided(job)
        .or_else(|| fails_by_policy(job, look.pods).map(|how| End::failure("PodFailurePolicy", how)))
        .or_else(|| exceeds_backoff_limit(look))
        .or_else(|| {
            (left? == Duration::ZERO)
                .then(|| End::failure("DeadlineExceeded", "Job was active longer than specified deadline"))
        })
        .or_else(|| fails_by_indexes(look))
        .or_else(|| Some(End::success("SuccessPolicy", success_policy::fulfilled(job, &look.succeeded)?)))
        .or_else(|| {
            is_complete(look).then(|| End::success("CompletionsReached", "Reached expected number of succeeded pods"))
        });
    let look_again = left.filter(|_| end.is_none());
    Verdict { end, suspended, look_again }
}

/// Until the job's deadline; zero if it has passed. A job that has not started yet has all of it.
fn time_left(job: &Job) -> Option<Duration> {
    let deadline = Duration::from_secs(spec(job).active_deadline_seconds?.max(0) as u64);
    let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
    Some(started.map_or(deadline, |started| deadline.saturating_sub(meta::since(started))))
}

fn exceeds_backoff_limit(look: &Look<'_>) -> Option<End> {
    let limit = spec(look.job).backoff_limit.unwrap_or(6);
    (look.failures() > i64::from(limit) || too_many_restarts(look.job, look.pods, limit))
        .then(|| End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
}

/// Whether too many indexes have failed, or no index is left that could still succeed.
fn fails_by_indexes(look: &Look<'_>) -> Option<End> {
    let failed = look.failed.as_ref().map(|failed| failed.len())?;
    if spec(look.job).max_failed_indexes.is_some_and(|most| failed > i64::from(most)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(End::failure("MaxFailedIndexesExceeded", message));
    }
    let all = i64::from(spec(look.job).completions.unwrap_or(0));
    (failed > 0 && failed + look.succeeded.len() >= all)
        .then(|| End::failure("FailedIndexes", "Job has failed indexes"))
}

/// Whether all has succeeded, and nothing is at work any more.
fn is_complete(look: &Look<'_>) -> bool {
    let succeeded = look.successes();
    let enough = spec(look.job).completions.map_or(succeeded > 0, |all| succeeded >= i64::from(all));
    enough && look.active.is_empty()
}

/// How a pod failed that takes the whole job with it.
fn fails_by_policy(job: &Job, owned: &[Arc<Pod>]) -> Option<String> {
    let mut failed = owned.iter().filter(|pod| tracking::has_failed(job, pod));
    failed.find_map(|pod| match failure_policy::consequence(job, pod) {
        Consequence::FailsJob(how) => Some(how),
        Consequence::Counts | Consequence::Ignored | Consequence::FailsIndex => None,
    })
}

/// Pods that restart in place fail without ending: their restarts count instead.
fn too_many_restarts(job: &Job, owned: &[Arc<Pod>], limit: i32) -> bool {
    let in_place =
        spec(job).template.spec.as_ref().is_some_and(|spec| spec.restart_policy.as_deref() == Some("OnFailure"));
    if !in_place {
        return false;
    }
    let running = owned.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let restarts: i32 = running
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| {
            status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
        })
        .map(|container| container.restart_count)
        .sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// The clock of a job starts at its first look, stops while it is suspended, and starts anew afterwards.
pub(super) fn start(job: &mut Job, suspended: bool) {
    let status = job.status.get_or_insert_default();
    match suspended {
        true => status.start_time = None,
        false => drop(status.start_time.get_or_insert_with(meta::now)),
    }
}

/// Writes what the look found into the status. Of a job that comes to its `end` all pods at work have been deleted by now.
pub(super) fn describe(job: &mut Job, look: &Look<'_>, suspended: bool, end: Option<&End>) {
    let was_suspended = is_true(job, "Suspended");
    let active = if end.is_some() { &[] } else { &look.active[..] };
    let terminating = look.terminating.len() + look.active.len() - active.len();
    let nothing_left = look.active.is_empty() && look.terminating.is_empty() && nothing_uncounted(job);
    let status = job.status.get_or_insert_default();
    status.active = Some(active.len() as i32).filter(|count| *count != 0);
    status.ready = Some(active.iter().filter(|pod| pods::is_ready(pod)).count() as i32);
    status.terminating = Some(terminating as i32);
    match (suspended, was_suspended) {
        (true, false) if end.is_none() => set(job, "Suspended", "True", "JobSuspended", "Job suspended"),
        (false, true) if end.is_none() => set(job, "Suspended", "False", "JobResumed", "Job resumed"),
        _ => {}
    }
    let Some(end) = end else { return };
    let (target, last) = if end.success { (SUCCESS, "Complete") } else { (FAILURE, "Failed") };
    set(job, target, "True", &end.reason, &end.message);
    if nothing_left {
        set(job, last, "True", &end.reason, &end.message);
        if end.success {
            job.status.get_or_insert_default().completion_time = Some(meta::now());
        }
    }
}

fn nothing_uncounted(job: &Job) -> bool {
    let uncounted = job.status.as_ref().and_then(|status| status.uncounted_terminated_pods.as_ref());
    uncounted.is_none_or(|uncounted| uncounted.succeeded.is_none() && uncounted.failed.is_none())
}

fn set(job: &mut Job, kind: &str, value: &str, reason: &str, message: &str) {
    let conditions = job.status.get_or_insert_default().conditions.get_or_insert_default();
    if conditions.iter().any(|c| c.type_ == kind && c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(JobCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(meta::now()),
        last_transition_time: Some(meta::now()),
    });
}

pub(super) fn wanted_active(look: &Look<'_>, suspended: bool) -> usize {
    if suspended {
        return 0;
    }
    let parallelism = spec(look.job).parallelism.unwrap_or(1).max(0) as usize;
    let succeeded = look.successes();
    match spec(look.job).completions {
        Some(completions) => parallelism.min((i64::from(completions) - succeeded).max(0) as usize),
        // Once one has succeeded the others may finish, and none is added.
        None if succeeded > 0 => look.active.len(),
        None => parallelism,
    }
}
