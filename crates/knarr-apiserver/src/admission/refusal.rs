use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};
use serde_json::Value;

use super::Request;

/// `pods "x" is forbidden: why`; a name that is yet to be generated shows its beginning.
pub fn forbidden(request: &Request, why: impl std::fmt::Display) -> StatusError {
    let object = request.object.as_ref();
    let given = object.map(|o| if o.name().is_empty() { o.meta_str("generateName") } else { o.name() });
    let name = given.filter(|n| !n.is_empty()).unwrap_or(&request.name);
    StatusError::forbidden(&request.resource.group_resource(), if name.is_empty() { "Unknown" } else { name }, why)
}

/// Several reasons as Go shows an aggregate: one as it is, more in brackets.
pub fn all_of(reasons: &[String]) -> String {
    match reasons {
        [one] => one.clone(),
        more => format!("[{}]", more.join(", ")),
    }
}

/// Whether a request is for this resource, its subresources left out.
pub fn is_main(request: &Request, group: &str, resource: &str) -> bool {
    request.subresource.is_empty() && request.resource.group == group && request.resource.resource == resource
}

/// A string at a JSON pointer; empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list at a JSON pointer.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The list at a field, made if missing.
pub fn list_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Vec<Value>> {
    if !value.is_object() {
        return None;
    }
    if !value[field].is_array() {
        value[field] = Value::Array(Vec::new());
    }
    value[field].as_array_mut()
}

/// An annotation's value.
pub fn annotation<'a>(object: &'a Object, key: &str) -> Option<&'a str> {
    object.metadata()?.get("annotations")?.get(key)?.as_str()
}
