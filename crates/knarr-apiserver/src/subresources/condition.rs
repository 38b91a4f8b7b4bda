use knarr_api::Object;
use knarr_api::object::ObjectExt;
use serde_json::{Value, json};

/// Sets a condition of a pod to `True`; one that already is stays as it was.
pub fn set_pod_condition(pod: &mut Object, kind: &str, reason: &str, message: &str) {
    let now = jiff::Timestamp::from_second(crate::tokens::now()).unwrap_or_default().to_string();
    let mut condition = json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    for (field, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            condition[field] = value.into();
        }
    }
    if pod.generation() != 0 {
        condition["observedGeneration"] = pod.generation().into();
    }
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(current) => {
            if current["status"] == "True" {
                condition["lastTransitionTime"] = current.get("lastTransitionTime").cloned().unwrap_or(Value::Null);
            }
            *current = condition;
        }
        None => conditions.push(condition),
    }
}
