//! Telling the API a pod's status, and at last that the pod is gone.

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use crate::pod::DesiredPod;

/// Whether the API still has the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    Done,
    Gone,
}

/// Patches what differs between the status the API has and the one there is. `uid` is that of the object in the API.
pub async fn status(
    client: Client,
    pod: &DesiredPod,
    uid: &str,
    old: &PodStatus,
    new: &PodStatus,
) -> Result<Pushed, kube::Error> {
    let difference = difference(old, new);
    if difference.is_empty() {
        return Ok(Pushed::Done);
    }
    // The uid keeps a later pod of the same name from getting this one's status.
    let patch = json!({"metadata": {"uid": uid}, "status": difference});
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    gone_if_missing(pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop))
}

/// Deletes the pod for good; another pod that took its name is left alone.
pub async fn deletion(client: Client, pod: &DesiredPod) -> Result<Pushed, kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client, &pod.namespace);
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let params =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    gone_if_missing(pods.delete(&pod.name, &params).await.map(drop))
}

fn gone_if_missing(outcome: Result<(), kube::Error>) -> Result<Pushed, kube::Error> {
    match outcome {
        Ok(()) => Ok(Pushed::Done),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 || is_anothers(&status) => {
            Ok(Pushed::Gone)
        }
        Err(error) => Err(error),
    }
}

/// Whether the name is another pod's by now.
fn is_anothers(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 422 && causes.into_iter().any(|cause| cause.field == "metadata.uid")
}

/// The fields of the status that changed, those that went as nulls.
fn difference(old: &PodStatus, new: &PodStatus) -> Map<String, Value> {
    let (old, new) = (as_map(old), as_map(new));
    let mut difference: Map<String, Value> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        difference.insert(key.clone(), Value::Null);
    }
    clear_fields_of_conditions(&mut difference, &old);
    for list in ["podIPs", "hostIPs"] {
        // These lists merge by address, so that an address of before would stay.
        if let (Some(Value::Array(addresses)), true) = (difference.get_mut(list), old.contains_key(list)) {
            addresses.insert(0, json!({"$patch": "replace"}));
        }
    }
    difference
}

/// Conditions merge by type, so that a reason of before would stay, and a condition that is gone: what a condition has no more is a
/// null, and what is no more is deleted.
fn clear_fields_of_conditions(difference: &mut Map<String, Value>, old: &Map<String, Value>) {
    let Some(Value::Array(conditions)) = difference.get_mut("conditions") else { return };
    let before = old.get("conditions").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let before: Vec<_> = before.collect();
    let gone =
        before.iter().filter(|other| !conditions.iter().any(|condition| condition.get("type") == other.get("type")));
    let gone: Vec<_> = gone.map(|other| json!({"$patch": "delete", "type": other.get("type")})).collect();
    for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
        let same = before.iter().find(|other| other.get("type") == condition.get("type"));
        let gone: Vec<_> =
            same.into_iter().flat_map(|other| other.keys()).filter(|key| !condition.contains_key(*key)).collect();
        gone.into_iter().for_each(|key| drop(condition.insert(key.clone(), Value::Null)));
    }
    conditions.extend(gone);
}

fn as_map(status: &PodStatus) -> Map<String, Value> {
    match knarr_client::kinds::to_tree(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_holds_what_changed_and_nulls_what_went() {
        let old: PodStatus = serde_json::from_value(
            json!({"phase": "Pending", "reason": "x", "hostIP": "192.0.2.1", "podIPs": [{"ip": "10.0.0.1"}]}),
        )
        .expect("a status");
        let new: PodStatus =
            serde_json::from_value(json!({"phase": "Running", "hostIP": "192.0.2.1", "podIPs": [{"ip": "10.0.0.2"}]}))
                .expect("a status");
        let expected =
            json!({"phase": "Running", "reason": null, "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}]});
        assert_eq!(Value::Object(difference(&old, &new)), expected);
        assert!(difference(&new, &new).is_empty());
    }

    #[test]
    fn a_condition_that_holds_again_loses_the_reason_why_it_did_not() {
        let status = |condition: Value| -> PodStatus {
            serde_json::from_value(json!({"conditions": [condition]})).expect("a status")
        };
        let old = status(json!({"type": "Ready", "status": "False", "reason": "x", "message": "y"}));
        let new = status(json!({"type": "Ready", "status": "True"}));
        let expected = json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]});
        assert_eq!(Value::Object(difference(&old, &new)), expected);
    }
}
