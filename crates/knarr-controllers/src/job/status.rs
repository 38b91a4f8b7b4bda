//! What the counts of a job mean: whether it goes on, has reached its end, and how many pods should be active.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{self, Consequence};
use super::{spec, tracking};
use crate::{meta, pods};

/// The first delay after a failed pod; it doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_secs(600);

/// Why a job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    CompletionsReached,
    BackoffLimitExceeded,
    DeadlineExceeded,
    /// A pod failed in a way that fails the job; how.
    PodFailurePolicy(String),
}

impl End {
    fn is_success(&self) -> bool {
        *self == End::CompletionsReached
    }

    fn reason(&self) -> &'static str {
        match self {
            End::CompletionsReached => "CompletionsReached",
            End::BackoffLimitExceeded => "BackoffLimitExceeded",
            End::DeadlineExceeded => "DeadlineExceeded",
            End::PodFailurePolicy(_) => "PodFailurePolicy",
        }
    }

    fn message(&self) -> &str {
        match self {
            End::CompletionsReached => "Reached expected number of succeeded pods",
            End::BackoffLimitExceeded => "Job has reached the specified backoff limit",
            End::DeadlineExceeded => "Job was active longer than specified deadline",
            End::PodFailurePolicy(how) => how,
        }
    }

    /// The end that an earlier look decided on.
    fn decided(job: &Job) -> Option<End> {
        let condition = conditions(job).find(|c| matches!(c.type_.as_str(), "SuccessCriteriaMet" | "FailureTarget"))?;
        let by_policy = End::PodFailurePolicy(condition.message.clone().unwrap_or_default());
        let ends = [End::CompletionsReached, End::BackoffLimitExceeded, End::DeadlineExceeded, by_policy];
        ends.into_iter().find(|end| condition.reason.as_deref() == Some(end.reason()))
    }
}

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

/// Successes and failures, those on their way into the counters too.
fn totals(job: &Job) -> (i32, i32) {
    let Some(status) = &job.status else { return (0, 0) };
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let listed = |list: Option<Vec<String>>| list.map_or(0, |list| list.len() as i32);
    let pending = if super::indexes::is_indexed(job) { 0 } else { listed(uncounted.succeeded) };
    (status.succeeded.unwrap_or(0) + pending, status.failed.unwrap_or(0) + listed(uncounted.failed))
}

pub(super) fn judge(job: &Job, owned: &[Arc<Pod>], active: &[Arc<Pod>]) -> Verdict {
    let suspended = spec(job).suspend == Some(true);
    let deadline = spec(job).active_deadline_seconds.map(|seconds| Duration::from_secs(seconds.max(0) as u64));
    let running_for = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(meta::since);
    let left = deadline.map(|deadline| deadline.saturating_sub(running_for.unwrap_or_default()));
    let (succeeded, failed) = totals(job);
    let complete = match spec(job).completions {
        Some(completions) => succeeded >= completions,
        None => succeeded > 0 && active.is_empty(),
    };
    let limit = spec(job).backoff_limit.unwrap_or(6);
    let by_policy = fails_by_policy(job, owned);
    let end = match End::decided(job) {
        Some(decided) => Some(decided),
        None if by_policy.is_some() => by_policy.map(End::PodFailurePolicy),
        None if failed > limit || too_many_restarts(job, owned, limit) => Some(End::BackoffLimitExceeded),
        None if !suspended && running_for.is_some() && left == Some(Duration::ZERO) => Some(End::DeadlineExceeded),
        None if complete => Some(End::CompletionsReached),
        None => None,
    };
    let look_again = left.filter(|_| end.is_none() && !suspended);
    Verdict { end, suspended, look_again }
}

/// How a pod failed that takes the whole job with it.
fn fails_by_policy(job: &Job, owned: &[Arc<Pod>]) -> Option<String> {
    let mut failed = owned.iter().filter(|pod| tracking::has_failed(job, pod));
    failed.find_map(|pod| match failure_policy::consequence(job, pod) {
        Consequence::FailsJob(how) => Some(how),
        Consequence::Counts | Consequence::Ignored => None,
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

pub(super) fn describe(job: &mut Job, owned: &[Arc<Pod>], active: &[Arc<Pod>], verdict: &Verdict) {
    let terminating = owned.iter().filter(|pod| meta::is_deleted(&***pod) && !pods::is_finished(pod)).count() as i32;
    let was_suspended = is_true(job, "Suspended");
    let nothing_left = active.is_empty() && terminating == 0 && nothing_uncounted(job);
    let status = job.status.get_or_insert_default();
    status.active = Some(active.len() as i32).filter(|count| *count != 0);
    status.ready = Some(active.iter().filter(|pod| pods::is_ready(pod)).count() as i32);
    status.terminating = Some(terminating);
    match (verdict.suspended, was_suspended) {
        (true, false) if verdict.end.is_none() => set(job, "Suspended", "True", "JobSuspended", "Job suspended"),
        (false, true) => set(job, "Suspended", "False", "JobResumed", "Job resumed"),
        _ => {}
    }
    let Some(end) = &verdict.end else { return };
    let (target, last) =
        if end.is_success() { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
    set(job, target, "True", end.reason(), end.message());
    if nothing_left {
        set(job, last, "True", end.reason(), end.message());
        if end.is_success() {
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

pub(super) fn wanted_active(job: &Job, active: usize, verdict: &Verdict) -> usize {
    if verdict.suspended || verdict.end.is_some() {
        return 0;
    }
    let parallelism = spec(job).parallelism.unwrap_or(1).max(0) as usize;
    let (succeeded, _) = totals(job);
    match spec(job).completions {
        Some(completions) => parallelism.min((completions - succeeded).max(0) as usize),
        // Once one has succeeded the others may finish, and none is added.
        None if succeeded > 0 => active.min(parallelism),
        None => parallelism,
    }
}

/// Pods whose places are taken: those at work, and where only ended ones are replaced, those on their way out.
pub(super) fn holding(job: &Job, owned: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let waits = spec(job).pod_replacement_policy.as_deref() == Some("Failed");
    let holds = |pod: &Pod| pods::is_active(pod) || (waits && meta::is_deleted(pod) && !pods::is_finished(pod));
    owned.iter().filter(|pod| holds(pod)).cloned().collect()
}

/// How long to wait before the next pod, after the failures since the last success.
pub(super) fn backoff(job: &Job, owned: &[Arc<Pod>]) -> Option<Duration> {
    let last_success = owned.iter().filter(|pod| pods::phase(pod) == "Succeeded").filter_map(|pod| ended_at(pod)).max();
    let failures = owned.iter().filter(|pod| tracking::counts_as_failed(job, pod)).filter_map(|pod| ended_at(pod));
    let recent: Vec<_> = failures.filter(|ended| last_success.is_none_or(|success| *ended > success)).collect();
    let last = recent.iter().max()?;
    let doublings = (recent.len() as u32 - 1).min(16);
    let delay = (FIRST_DELAY * 2u32.pow(doublings)).min(MAX_DELAY);
    let since = Duration::try_from(Timestamp::now().duration_since(*last)).unwrap_or_default();
    Some(delay.saturating_sub(since))
}

/// When the pod's last container ended, or when its deletion began.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let ends = statuses.iter().filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    ends.map(|end| end.0).max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
}
