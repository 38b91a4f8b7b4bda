//! Jobs whose pods are numbered: each index from 0 to `completions` must succeed once.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::index_set::Indexes;
use super::{spec, tracking};
use crate::{meta, pods};

const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Names are made of this many bytes and a random end.
const LONGEST_PREFIX: usize = 58;

pub(super) fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    meta::annotation(pod, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// The pod's index, if the job has such a one.
pub(super) fn valid_index(job: &Job, pod: &Pod) -> Option<i32> {
    index_of(pod).filter(|index| *index < spec(job).completions.unwrap_or(0))
}

/// The indexes that have succeeded, by the status and by the pods not counted yet.
pub(super) fn succeeded(job: &Job, owned: &[Arc<Pod>]) -> Indexes {
    if !is_indexed(job) {
        return Indexes::default();
    }
    let noted = job.status.as_ref().and_then(|status| status.completed_indexes.as_deref()).unwrap_or_default();
    let newly = owned.iter().filter(|pod| pods::phase(pod) == "Succeeded" && tracking::is_tracked(pod));
    let newly = newly.filter_map(|pod| valid_index(job, pod)).collect();
    Indexes::parse(noted, spec(job).completions.unwrap_or(0)).union(&newly)
}

/// Of the pods at work those that are not wanted: without an index, with one that the job does not have, or with another's.
/// Of those that share one, the least dispensable stays.
pub(super) fn superfluous(job: &Job, active: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut superfluous = Vec::new();
    let mut of_index: HashMap<i32, &Arc<Pod>> = HashMap::new();
    for pod in active {
        let Some(index) = valid_index(job, pod) else {
            superfluous.push(pod.clone());
            continue;
        };
        let Some(other) = of_index.get(&index).copied() else {
            of_index.insert(index, pod);
            continue;
        };
        let (goes, stays) = match pods::by_dispensability(pod, other, |_| 0).is_lt() {
            true => (pod, other),
            false => (other, pod),
        };
        superfluous.push(goes.clone());
        of_index.insert(index, stays);
    }
    superfluous
}

pub(super) fn pod(job: &Job, index: i32) -> Pod {
    let mut pod = tracking::tracked_pod(job);
    pod.metadata.generate_name = Some(generate_name(meta::name_of(job), index));
    pod.metadata.annotations.get_or_insert_default().insert(INDEX.into(), index.to_string());
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{}-{index}", meta::name_of(job)));
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let variables = container.env.get_or_insert_default();
            if variables.iter().all(|variable| variable.name != VARIABLE) {
                variables.push(variable());
            }
        }
    }
    pod
}

/// The index stays readable in the names of jobs with long ones.
fn generate_name(job: &str, index: i32) -> String {
    let end = format!("-{index}-");
    let kept = job.len().min(LONGEST_PREFIX - end.len());
    format!("{}{end}", &job[..job.floor_char_boundary(kept)])
}

fn variable() -> EnvVar {
    let field =
        ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: VARIABLE.into(), value_from: Some(source), ..EnvVar::default() }
}
