//! Jobs whose indexes fail one by one: `backoffLimitPerIndex` (KEP-3850).
//!
//! How often an index has failed stands in an annotation of its newest pod. A failed pod is therefore kept, uncounted, until the pod in
//! its place exists and has taken the number over.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::failure_policy::{self, Consequence};
use super::index_set::Indexes;
use super::{backoff, indexes, spec, tracking};
use crate::meta;

const COUNTED: &str = "batch.kubernetes.io/job-index-failure-count";
const IGNORED: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

/// Whether each index has a limit of its own.
pub(super) fn is_limited(job: &Job) -> bool {
    indexes::is_indexed(job) && spec(job).backoff_limit_per_index.is_some()
}

/// How often an index had failed before a pod of it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    counted: i32,
    ignored: i32,
}

impl Failures {
    pub(super) fn all(self) -> i64 {
        i64::from(self.counted) + i64::from(self.ignored)
    }
}

/// What the pod's annotations say; anybody may have written nonsense there.
pub(super) fn failures(pod: &Pod) -> Failures {
    let read = |key| meta::annotation(pod, key).and_then(|text| text.parse().ok()).filter(|n| *n >= 0).unwrap_or(0);
    Failures { counted: read(COUNTED), ignored: read(IGNORED) }
}

/// The indexes that have failed for good, by the status and by the pods; `None` if indexes have no limit.
pub(super) fn failed(job: &Job, owned: &[Arc<Pod>], succeeded: &Indexes) -> Option<Indexes> {
    let limit = spec(job).backoff_limit_per_index.filter(|_| indexes::is_indexed(job))?;
    let noted = job.status.as_ref().and_then(|status| status.failed_indexes.as_deref()).unwrap_or_default();
    let over = owned.iter().filter(|pod| tracking::is_tracked(pod) && fails_its_index(job, pod, limit));
    let newly: Indexes =
        over.filter_map(|pod| indexes::valid_index(job, pod)).filter(|index| !succeeded.contains(*index)).collect();
    Some(Indexes::parse(noted, spec(job).completions.unwrap_or(0)).union(&newly))
}

fn fails_its_index(job: &Job, pod: &Pod, limit: i32) -> bool {
    tracking::has_failed(job, pod)
        && match failure_policy::consequence(job, pod) {
            Consequence::FailsIndex => true,
            Consequence::Ignored => false,
            Consequence::Counts | Consequence::FailsJob(_) => failures(pod).counted >= limit,
        }
}

/// The failed pods that are to have a successor, by index: of several the one that knows of the most failures, or ended last.
pub(super) fn awaiting_successor(job: &Job, owned: &[Arc<Pod>], settled: &Indexes) -> BTreeMap<i32, Arc<Pod>> {
    let mut kept: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
    if !is_limited(job) {
        return kept;
    }
    let rank = |pod: &Pod| (failures(pod).all(), backoff::ended_at(pod));
    for pod in owned.iter().filter(|pod| tracking::is_tracked(pod) && tracking::has_failed(job, pod)) {
        let Some(index) = indexes::valid_index(job, pod).filter(|index| !settled.contains(*index)) else { continue };
        if kept.get(&index).is_none_or(|other| rank(other) <= rank(pod)) {
            kept.insert(index, pod.clone());
        }
    }
    kept
}

/// Writes into a new pod how often its index has failed, `before` being the pod whose place it takes.
pub(super) fn inherit(job: &Job, pod: &mut Pod, before: Option<&Pod>) {
    let mut known = before.map(failures).unwrap_or_default();
    if let Some(before) = before {
        match failure_policy::consequence(job, before) {
            Consequence::Ignored => known.ignored = known.ignored.saturating_add(1),
            _ => known.counted = known.counted.saturating_add(1),
        }
    }
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COUNTED.into(), known.counted.to_string());
    if known.ignored > 0 {
        annotations.insert(IGNORED.into(), known.ignored.to_string());
    }
}
