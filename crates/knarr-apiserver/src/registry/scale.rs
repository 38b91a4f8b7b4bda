//! The `scale` subresource: one view of how many replicas any workload has.

use knarr_api::object::ObjectExt;
use knarr_api::{FieldError, GroupVersionKind, Object, Path, StatusError};
use serde_json::{Value, json};

use super::update::Change;

/// Where a kind keeps what `Scale` shows, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    pub spec_replicas: String,
    pub status_replicas: String,
    /// The selector: a `LabelSelector` or a map of the built-in kinds, a string of a custom resource.
    pub selector: Option<String>,
}

impl Default for ScalePaths {
    fn default() -> Self {
        ScalePaths {
            spec_replicas: "/spec/replicas".into(),
            status_replicas: "/status/replicas".into(),
            selector: Some("/spec/selector".into()),
        }
    }
}

/// `autoscaling/v1.Scale` of an object.
pub fn scale_of(object: &Object, paths: &ScalePaths) -> Object {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default();
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.metadata().and_then(|m| m.get(field)) {
            metadata[field] = value.clone();
        }
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    let selector = paths.selector.as_deref().and_then(|p| object.pointer(p)).map(selector_text).unwrap_or_default();
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    if number(&paths.spec_replicas) != 0 {
        spec["replicas"] = number(&paths.spec_replicas).into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn selector_text(selector: &Value) -> String {
    use knarr_api::selector::LabelSelector;
    match selector {
        Value::String(text) => text.clone(),
        Value::Object(map) if map.contains_key("matchLabels") || map.contains_key("matchExpressions") => {
            LabelSelector::of_object(Some(selector)).map(|s| s.to_string()).unwrap_or_default()
        }
        Value::Object(map) => LabelSelector::of_map(map).to_string(),
        _ => String::new(),
    }
}

/// Makes the `Scale` that a request wants out of the one that stands.
pub type MakeScale<'a> = Box<dyn FnMut(&Object) -> Result<Object, StatusError> + Send + 'a>;

/// Sets the replicas of an object to what a `Scale` says.
pub struct SetReplicas<'a> {
    pub paths: ScalePaths,
    pub scale: MakeScale<'a>,
}

impl Change for SetReplicas<'_> {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        let scale = (self.scale)(&scale_of(current, &self.paths))?;
        check_scale(&scale)?;
        let mut object = current.clone();
        // The version and identity that the request names are checked like those of an update.
        for field in ["resourceVersion", "uid"] {
            object.set_meta_str(field, scale.meta_str(field));
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
        set_pointer(&mut object, &self.paths.spec_replicas, replicas.into());
        Ok(object)
    }
}

pub(super) fn check_scale(scale: &Object) -> Result<(), StatusError> {
    let replicas = &scale["spec"]["replicas"];
    if replicas.as_i64().unwrap_or_default() >= 0 {
        return Ok(());
    }
    let root = Path::ROOT;
    let spec = root.child("spec");
    let error = FieldError::invalid(&spec.child("replicas"), replicas, "must be greater than or equal to 0");
    Err(StatusError::invalid(&GroupVersionKind::new("autoscaling", "v1", "Scale"), scale.name(), vec![error]))
}

pub(super) fn set_pointer(object: &mut Object, pointer: &str, value: Value) {
    let mut at = object;
    for part in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[part];
    }
    *at = value;
}
