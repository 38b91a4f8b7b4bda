//! Jobs whose pods are numbered: each index from 0 to `completions` must succeed once.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::{spec, tracking};
use crate::{meta, pods};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(super) fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

fn index_of(pod: &Pod) -> Option<i32> {
    meta::annotation(pod, INDEX)?.parse().ok()
}

/// The indexes that have succeeded, by the status and by the pods.
pub(super) fn succeeded_in(job: &Job, owned: &[Arc<Pod>]) -> BTreeSet<i32> {
    if !is_indexed(job) {
        return BTreeSet::new();
    }
    let noted = job.status.as_ref().and_then(|status| status.completed_indexes.as_deref()).unwrap_or_default();
    let mut done = parse(noted);
    done.extend(owned.iter().filter(|pod| pods::phase(pod) == "Succeeded").filter_map(|pod| index_of(pod)));
    done.retain(|index| *index < spec(job).completions.unwrap_or(0));
    done
}

/// The lowest indexes that have neither succeeded nor a pod in their place.
pub(super) fn missing(job: &Job, owned: &[Arc<Pod>], holding: &[Arc<Pod>], count: usize) -> Vec<i32> {
    let mut taken = succeeded_in(job, owned);
    taken.extend(holding.iter().filter_map(|pod| index_of(pod)));
    (0..spec(job).completions.unwrap_or(0)).filter(|index| !taken.contains(index)).take(count).collect()
}

pub(super) fn pod(job: &Job, index: i32) -> Pod {
    let mut pod = tracking::tracked_pod(job);
    let name = format!("{}-{index}", meta::name_of(job));
    pod.metadata.generate_name = Some(format!("{name}-"));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname.get_or_insert(name);
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let variables = container.env.get_or_insert_default();
            if variables.iter().all(|variable| variable.name != VARIABLE) {
                variables.push(variable());
            }
        }
    }
    pod
}

fn variable() -> EnvVar {
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: VARIABLE.into(), value_from: Some(source), ..EnvVar::default() }
}

/// Indexes as the status writes them: `0-2,5,7-9`.
pub(super) fn format(indexes: &BTreeSet<i32>) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => ranges.push((index, index)),
        }
    }
    let shown = ranges.into_iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn parse(text: &str) -> BTreeSet<i32> {
    let ranges = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
    });
    ranges.flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::super::status::holding;
    use super::{format, missing, parse};

    #[test]
    fn a_pod_on_its_way_out_keeps_its_index_where_only_ended_ones_are_replaced() {
        let pod = |index: &str, deleted: bool, phase: &str| -> Arc<Pod> {
            let mut metadata = json!({"annotations": {super::INDEX: index}});
            if deleted {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            Arc::new(serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase}})).expect("a pod"))
        };
        let owned = [pod("0", false, "Running"), pod("1", true, "Running"), pod("2", true, "Failed")];
        for (policy, expected) in [("Failed", [2, 3]), ("TerminatingOrFailed", [1, 2])] {
            let job: Job = serde_json::from_value(json!({"metadata": {}, "spec": {"template": {}, "completions": 4,
                "completionMode": "Indexed", "podReplacementPolicy": policy}}))
            .expect("a job");
            assert_eq!(missing(&job, &owned, &holding(&job, &owned), 2), expected, "{policy}");
        }
    }

    #[test]
    fn indexes_are_written_as_ranges_and_read_back() {
        for text in ["", "0", "0,1", "0-2", "0-2,5,7-9", "3,5,8,9"] {
            assert_eq!(format(&parse(text)), text);
        }
    }
}
