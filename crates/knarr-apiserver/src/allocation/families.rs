//! `ipFamilies` and `ipFamilyPolicy` on a cluster with one address family.

use knarr_api::field::{ErrorList, FieldError, Path};
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde_json::{Value, json};

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

pub fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None"
}

/// Fills in the families of a service that is not an ExternalName; refuses what this cluster cannot give.
pub fn complete(object: &mut Object, name: &str, family: &str) -> Result<(), StatusError> {
    let spec = &mut object["spec"];
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    if is_headless(spec) && !selects {
        complete_selectorless(spec, family);
        return Ok(());
    }
    let errors = check(spec, family);
    if !errors.is_empty() {
        return Err(StatusError::invalid(&GroupVersionKind::new("", "v1", "Service"), name, errors));
    }
    if spec.get("ipFamilies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec["ipFamilies"] = json!([family]);
    }
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        spec["ipFamilyPolicy"] = "SingleStack".into();
    }
    Ok(())
}

/// A headless service without a selector may have endpoints of any family, whatever the cluster has.
fn complete_selectorless(spec: &mut Value, family: &str) {
    let mut families: Vec<Value> = spec.get("ipFamilies").and_then(Value::as_array).cloned().unwrap_or_default();
    if families.is_empty() {
        families.push(family.into());
    }
    if families.len() < 2 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        families.push(if families[0] == "IPv4" { "IPv6".into() } else { "IPv4".into() });
    }
    spec["ipFamilies"] = families.into();
    if spec.get("ipFamilyPolicy").is_none_or(Value::is_null) {
        spec["ipFamilyPolicy"] = "RequireDualStack".into();
    }
}

fn check(spec: &Value, family: &str) -> ErrorList {
    let root = Path::ROOT;
    let path = root.child("spec");
    let mut errors = ErrorList::new();
    if let Some(policy) = spec.get("ipFamilyPolicy").filter(|p| *p == "RequireDualStack") {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), policy, why));
    }
    let families = path.child("ipFamilies");
    let wanted = spec.get("ipFamilies").and_then(Value::as_array).into_iter().flatten().enumerate();
    for (i, other) in wanted.filter(|(_, f)| *f != family && (*f == "IPv4" || *f == "IPv6")) {
        errors.push(FieldError::invalid(&families.index(i), other, "not configured on this cluster"));
    }
    errors
}
