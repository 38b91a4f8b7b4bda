//! What one look at a job finds: the facts that every decision of that look stands on.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::index_set::Indexes;
use super::{indexes, per_index, spec, tracking};
use crate::{meta, pods};

pub(super) struct Look<'a> {
    pub job: &'a Job,
    /// The job's pods, whatever became of them.
    pub pods: &'a [Arc<Pod>],
    pub active: Vec<Arc<Pod>>,
    /// Being deleted and not ended yet.
    pub terminating: Vec<Arc<Pod>>,
    /// Indexes that have succeeded; empty for jobs without indexes.
    pub succeeded: Indexes,
    /// Indexes that have failed for good, where each has a limit of its own.
    pub failed: Option<Indexes>,
    /// Failed pods that stay uncounted until their successor exists, by index.
    pub awaiting: BTreeMap<i32, Arc<Pod>>,
}

impl<'a> Look<'a> {
    pub(super) fn at(job: &'a Job, pods: &'a [Arc<Pod>]) -> Look<'a> {
        let active: Vec<_> = pods.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let terminating = pods.iter().filter(|pod| meta::is_deleted(&***pod) && !pods::is_finished(pod));
        let terminating: Vec<_> = terminating.cloned().collect();
        let succeeded = indexes::succeeded(job, pods);
        let failed = per_index::failed(job, pods, &succeeded);
        let settled = failed.iter().fold(succeeded.union(&indexes_of(&active)), |all, failed| all.union(failed));
        let awaiting = per_index::awaiting_successor(job, pods, &settled);
        Look { job, pods, active, terminating, succeeded, failed, awaiting }
    }

    /// Pods that ended and are in no count yet.
    fn uncounted(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let listed = self.job.status.as_ref().and_then(|status| status.uncounted_terminated_pods.clone());
        let listed = listed.unwrap_or_default();
        let listed = [listed.succeeded.unwrap_or_default(), listed.failed.unwrap_or_default()].concat();
        self.pods.iter().filter(move |pod| {
            tracking::is_tracked(pod)
                && (!indexes::is_indexed(self.job) || indexes::valid_index(self.job, pod).is_some())
                && !listed.iter().any(|uid| uid == meta::uid_of(&***pod))
        })
    }

    /// Successes: counted ones, those on their way into the count, and those just seen.
    pub(super) fn successes(&self) -> i64 {
        if indexes::is_indexed(self.job) {
            return self.succeeded.len();
        }
        let Some(status) = &self.job.status else { return self.just_succeeded() };
        let listed = status.uncounted_terminated_pods.as_ref().and_then(|listed| listed.succeeded.as_ref());
        i64::from(status.succeeded.unwrap_or(0)) + listed.map_or(0, |list| list.len() as i64) + self.just_succeeded()
    }

    fn just_succeeded(&self) -> i64 {
        self.uncounted().filter(|pod| pods::phase(pod) == "Succeeded").count() as i64
    }

    /// Failures, as [`successes`](Self::successes) counts.
    pub(super) fn failures(&self) -> i64 {
        let just = self.uncounted().filter(|pod| tracking::counts_as_failed(self.job, pod)).count() as i64;
        let Some(status) = &self.job.status else { return just };
        let listed = status.uncounted_terminated_pods.as_ref().and_then(|listed| listed.failed.as_ref());
        i64::from(status.failed.unwrap_or(0)) + listed.map_or(0, |list| list.len() as i64) + just
    }

    /// Pods whose places are taken: those at work, and where only ended ones are replaced, those on their way out.
    pub(super) fn holding(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let waiting_for = if tracking::replaces_only_ended(self.job) { &self.terminating[..] } else { &[] };
        self.active.iter().chain(waiting_for)
    }

    /// The lowest indexes that have neither succeeded nor failed nor a pod in their place.
    pub(super) fn missing_indexes(&self, count: usize) -> Vec<i32> {
        let taken = self.succeeded.union(&self.holding().filter_map(|pod| indexes::index_of(pod)).collect());
        let taken = self.failed.iter().fold(taken, |taken, failed| taken.union(failed));
        taken.missing(spec(self.job).completions.unwrap_or(0)).take(count).collect()
    }

    /// At least so many of the pods at work, those first of which there is one too many.
    pub(super) fn dispensable(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut doomed = match indexes::is_indexed(self.job) {
            true => indexes::superfluous(self.job, &self.active),
            false => Vec::new(),
        };
        let goes = |pod: &Arc<Pod>, doomed: &[Arc<Pod>]| doomed.iter().any(|other| Arc::ptr_eq(other, pod));
        if doomed.len() < at_least {
            let mut rest: Vec<_> = self.active.iter().filter(|pod| !goes(pod, &doomed)).cloned().collect();
            rest.sort_by(|a, b| pods::by_dispensability(a, b, |_| 0));
            doomed.extend(rest.into_iter().take(at_least - doomed.len()));
        }
        doomed
    }
}

fn indexes_of(pods: &[Arc<Pod>]) -> Indexes {
    pods.iter().filter_map(|pod| indexes::index_of(pod)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(index: i32, metadata: Value, phase: &str) -> Arc<Pod> {
        let mut all = json!({"uid": format!("{index}-{metadata}"), "finalizers": [tracking::FINALIZER],
            "annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()}});
        for (key, value) in metadata.as_object().expect("an object") {
            match key.as_str() {
                "annotations" => all["annotations"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone()),
                _ => all[key] = value.clone(),
            }
        }
        Arc::new(serde_json::from_value(json!({"metadata": all, "status": {"phase": phase}})).expect("a pod"))
    }

    fn job(mut more: Value) -> Job {
        more["template"] = json!({});
        more["completionMode"] = "Indexed".into();
        serde_json::from_value(json!({"metadata": {}, "spec": more})).expect("a job")
    }

    #[test]
    fn a_pod_on_its_way_out_keeps_its_index_where_only_ended_ones_are_replaced() {
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        let owned =
            [pod(0, json!({}), "Running"), pod(1, leaving.clone(), "Running"), pod(2, leaving.clone(), "Failed")];
        for (policy, expected) in [("Failed", [2, 3]), ("TerminatingOrFailed", [1, 2])] {
            let job = job(json!({"completions": 4, "podReplacementPolicy": policy}));
            assert_eq!(Look::at(&job, &owned).missing_indexes(2), expected, "{policy}");
        }
    }

    #[test]
    fn an_index_that_has_failed_too_often_has_failed_and_the_newest_failure_of_others_waits() {
        let failures =
            |count: i32| json!({"annotations": {"batch.kubernetes.io/job-index-failure-count": count.to_string()}});
        let owned = [
            pod(0, failures(1), "Failed"),
            pod(1, failures(0), "Failed"),
            pod(2, failures(0), "Failed"),
            pod(2, failures(1), "Running"),
            pod(3, json!({"annotations": {"batch.kubernetes.io/job-index-failure-count": "-7"}}), "Failed"),
        ];
        let job = job(json!({"completions": 5, "backoffLimitPerIndex": 1}));
        let look = Look::at(&job, &owned);
        assert_eq!(look.failed.as_ref().map(ToString::to_string).as_deref(), Some("0"));
        assert_eq!(look.awaiting.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(look.missing_indexes(9), [1, 3, 4]);
        assert_eq!((look.successes(), look.failures()), (0, 4));
    }

    #[test]
    fn a_deleted_pod_is_a_failure_until_it_was_let_go_of() {
        let job = job(json!({"completions": 2, "backoffLimitPerIndex": 0}));
        let mut owned = [pod(0, json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "Running")];
        let look = Look::at(&job, &owned);
        assert_eq!((look.failed.as_ref().map(Indexes::len), look.failures()), (Some(1), 1));
        tracking::forget_finalizer(Arc::make_mut(&mut owned[0]));
        let look = Look::at(&job, &owned);
        assert_eq!((look.failed.as_ref().map(Indexes::len), look.failures()), (Some(0), 0));
    }

    #[test]
    fn of_two_pods_with_one_index_one_goes_and_so_does_one_with_a_foreign_index() {
        let ready = |index| {
            let mut pod = (*pod(index, json!({"name": "ready"}), "Running")).clone();
            pod.spec = serde_json::from_value(json!({"nodeName": "n", "containers": []})).ok();
            Arc::new(pod)
        };
        let owned =
            [pod(0, json!({}), "Pending"), ready(0), pod(1, json!({}), "Pending"), pod(9, json!({}), "Running")];
        let job = job(json!({"completions": 3}));
        let look = Look::at(&job, &owned);
        let doomed =
            |at_least| -> Vec<_> { look.dispensable(at_least).iter().map(|pod| indexes::index_of(pod)).collect() };
        assert_eq!(doomed(0), [Some(0), Some(9)]);
        assert_eq!(doomed(3), [Some(0), Some(9), Some(1)]);
        assert!(look.dispensable(0).iter().all(|pod| meta::name_of(&**pod) != "ready"));
    }
}
