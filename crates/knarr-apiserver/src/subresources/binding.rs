//! `pods/binding` and `bindings`: a pod gets its node.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::field::{FieldError, Path};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};
use serde_json::{Value, json};

use super::condition::set_pod_condition;
use super::{Answer, Call, Handler};
use crate::objects::Objects;

pub struct Bindings {
    pub objects: Arc<dyn Objects>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[async_trait]
impl Handler for Bindings {
    /// The pod must be this very one, as the binder has seen it.
    fn preconditions(&self) -> bool {
        true
    }

    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        if call.name != call.object.name() {
            return Err(StatusError::bad_request("name in URL does not match name in Binding object"));
        }
        check(call)
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let binding = call.object;
        let pods = GroupResource::new("", "pods");
        if !call.dry_run {
            let mut bind = |pod: &mut Object| assign(pod, &binding);
            let bound = self.objects.modify(&pods, &call.namespace, &call.name, &mut bind).await;
            bound.map_err(|error| conflicting(&call.name, error))?;
        }
        Ok(Answer::success())
    }
}

/// An assignment that cannot be is a conflict about the binding, whatever the pod's own error was.
fn conflicting(name: &str, error: StatusError) -> StatusError {
    if error.reason == knarr_api::status::Reason::NotFound || error.reason == knarr_api::status::Reason::Conflict {
        return error;
    }
    StatusError::conflict(&GroupResource::new("", "pods/binding"), name, error)
}

fn check(call: &Call) -> Result<(), StatusError> {
    let root = Path::ROOT;
    let target = root.child("target");
    let mut errors = Vec::new();
    let kind = text(&call.object, "/target/kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(&target.child("kind"), &json!(kind), &["Node", "<empty>"]));
    }
    if text(&call.object, "/target/name").is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(StatusError::invalid(&GroupVersionKind::new("", "v1", "Binding"), &call.name, errors))
}

fn assign(pod: &mut Object, binding: &Object) -> Result<(), StatusError> {
    let name = pod.name().to_string();
    let refuse = |why: String| Err(StatusError::conflict(&GroupResource::new("", "pods/binding"), &name, why));
    for (field, wanted, is) in
        [("UID", binding.uid(), pod.uid()), ("ResourceVersion", binding.resource_version(), pod.resource_version())]
    {
        if !wanted.is_empty() && wanted != is {
            return refuse(format!(
                "Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {is}"
            ));
        }
    }
    if pod.is_deleting() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(pod, "/spec/nodeName");
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|g| !g.is_empty()) {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = text(binding, "/target/name").into();
    for field in ["annotations", "labels"] {
        let Some(added) = binding.metadata().and_then(|m| m.get(field)).and_then(Value::as_object) else { continue };
        for (key, value) in added {
            pod["metadata"][field][key] = value.clone();
        }
    }
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
    set_pod_condition(pod, "PodScheduled", "", "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let mut pod = json!({"metadata": {"name": "p", "uid": "1"}, "spec": {}, "status": {"phase": "Pending"}});
        let binding =
            json!({"metadata": {"name": "p", "uid": "1", "annotations": {"a": "b"}}, "target": {"name": "n"}});
        assign(&mut pod, &binding).unwrap();
        assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["annotations"]["a"]), (&json!("n"), &json!("b")));
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let error = assign(&mut pod, &binding).unwrap_err();
        assert_eq!(
            error.message,
            r#"Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n""#
        );
    }
}
