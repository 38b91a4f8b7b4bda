//! What a pod's failure means for its job: `podFailurePolicy` (KEP-3329). The first rule that fits a pod decides; none: the failure counts.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod, PodCondition};

use super::spec;
use crate::meta;

/// What follows from a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Consequence {
    /// It counts towards the backoff limit.
    Counts,
    /// It counts, and its index fails, however often that may.
    FailsIndex,
    /// It is as if it had never been.
    Ignored,
    /// The whole job fails, and this is why.
    FailsJob(String),
}

pub(super) fn has_policy(job: &Job) -> bool {
    spec(job).pod_failure_policy.is_some()
}

/// What the failed `pod` means for its job.
pub(super) fn consequence(job: &Job, pod: &Pod) -> Consequence {
    let rules = spec(job).pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (index, rule) in rules.enumerate() {
        let Some(found) = fits(rule, pod) else { continue };
        match rule.action.as_str() {
            "Ignore" => return Consequence::Ignored,
            "Count" => return Consequence::Counts,
            "FailJob" => return Consequence::FailsJob(format!("{found} matching FailJob rule at index {index}")),
            "FailIndex" => return Consequence::FailsIndex,
            _ => {}
        }
    }
    Consequence::Counts
}

/// How the rule fits the pod, if it does.
fn fits(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    match &rule.on_exit_codes {
        Some(requirement) => exit_code(requirement, pod),
        None => condition(rule.on_pod_conditions.as_deref()?, pod),
    }
}

fn exit_code(requirement: &PodFailurePolicyOnExitCodesRequirement, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    let mut named = all.filter(|container| requirement.container_name.as_ref().is_none_or(|n| *n == container.name));
    named.find_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        code_fits(requirement, ended).then(|| {
            let (namespace, name) = (meta::namespace_of(pod), meta::name_of(pod));
            format!("Container {} for pod {namespace}/{name} failed with exit code {}", container.name, ended.exit_code)
        })
    })
}

/// A container that ended well fits no rule.
fn code_fits(requirement: &PodFailurePolicyOnExitCodesRequirement, ended: &ContainerStateTerminated) -> bool {
    let listed = requirement.values.contains(&ended.exit_code);
    ended.exit_code != 0
        && match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
}

fn condition(patterns: &[PodFailurePolicyOnPodConditionsPattern], pod: &Pod) -> Option<String> {
    let fits = |condition: &&PodCondition| {
        let of_status = |pattern: &&PodFailurePolicyOnPodConditionsPattern| {
            condition.status == pattern.status.as_deref().unwrap_or("True")
        };
        patterns.iter().filter(of_status).any(|pattern| condition.type_ == pattern.type_)
    };
    let found = pod.status.as_ref()?.conditions.iter().flatten().find(fits)?;
    let (namespace, name) = (meta::namespace_of(pod), meta::name_of(pod));
    Some(format!("Pod {namespace}/{name} has condition {}", found.type_))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(rules: serde_json::Value) -> Job {
        serde_json::from_value(json!({"metadata": {}, "spec": {"template": {}, "podFailurePolicy": {"rules": rules}}}))
            .expect("a job")
    }

    fn pod(code: i32, condition: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "p"}, "status": {"phase": "Failed",
            "conditions": [{"type": condition, "status": "True"}],
            "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code}}}]}}))
        .expect("a pod")
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let job = job(json!([
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
        ]));
        assert_eq!(consequence(&job, &pod(42, "DisruptionTarget")), Consequence::Ignored);
        let message = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(consequence(&job, &pod(42, "Ready")), Consequence::FailsJob(message.into()));
        assert_eq!(consequence(&job, &pod(7, "Ready")), Consequence::FailsIndex);
        assert_eq!(consequence(&job, &pod(1, "Ready")), Consequence::Counts);
        assert_eq!(consequence(&job, &pod(0, "Ready")), Consequence::Counts);
    }
}
