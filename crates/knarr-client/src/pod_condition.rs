//! Conditions of pods, as controllers and the scheduler patch them into a status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// The condition `kind` of `pod` as it is now to be, for a strategic merge patch: it says the generation of the pod that it was found of
/// (KEP-5067), and since when it has this status.
pub fn condition(pod: &Pod, kind: &str, holds: bool, reason: &str, message: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let same = conditions.into_iter().flatten().find(|old| old.type_ == kind && old.status == status);
    let since = same.and_then(|old| old.last_transition_time.clone()).unwrap_or_else(|| Time(Timestamp::now()));
    json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
        "observedGeneration": pod.metadata.generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_says_what_it_saw_and_keeps_its_time_while_its_status_stays() {
        let since = "2026-01-02T03:04:05Z";
        let old = json!({"type": "PodScheduled", "status": "False", "lastTransitionTime": since});
        let pod = json!({"metadata": {"generation": 7}, "status": {"conditions": [old]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let still = condition(&pod, "PodScheduled", false, "Unschedulable", "no node");
        assert_eq!((&still["lastTransitionTime"], &still["observedGeneration"]), (&json!(since), &json!(7)));
        let changed = condition(&pod, "PodScheduled", true, "", "");
        assert_ne!(changed["lastTransitionTime"], json!(since));
    }
}
