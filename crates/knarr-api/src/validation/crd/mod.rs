//! Custom resource definitions.
//!
//! Upstream checks them in their internal version, and its field paths show it: what all versions share stands at the spec
//! (`spec.validation`, `spec.subresources`, ...), and only what differs stands at `spec.versions[i]`.

mod defaults;
mod schema;
mod structural;
mod versions;

use serde_json::{Value, json};

use super::check::{Checker, flag, has, list, text};
use crate::custom_resource::format;
use crate::names;
use crate::object::Object;

/// Checks a new definition.
pub fn custom_resource_definition(c: &mut Checker, object: &Value) {
    let wanted = format!("{}.{}", text(&object["spec"]["names"], "plural"), text(&object["spec"], "group"));
    let name = text(&object["metadata"], "name");
    if !name.is_empty() && name != wanted {
        c.invalid_text("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
    }
    validate(c, object, &Value::Null);
    stored_versions(c, object);
    approval(c, object, &Value::Null);
    preserve_unknown_fields(c, object);
}

/// Checks a changed definition.
pub fn update(c: &mut Checker, object: &Value, old: &Value) {
    validate(c, object, old);
    c.within("spec", |c| {
        let (spec, before) = (&object["spec"], &old["spec"]);
        if established(old) {
            c.immutable(spec, before, "scope");
            c.within("names", |c| c.immutable(&spec["names"], &before["names"], "kind"));
        }
        c.immutable(spec, before, "group");
        c.within("names", |c| c.immutable(&spec["names"], &before["names"], "plural"));
    });
    stored_versions(c, object);
    approval(c, object, old);
    if !flag(&old["spec"], "preserveUnknownFields") {
        preserve_unknown_fields(c, object);
    }
}

/// Checks a changed status.
pub fn update_status(c: &mut Checker, object: &Value, _old: &Value) {
    c.within("status.acceptedNames", |c| check_names(c, &object["status"]["acceptedNames"]));
}

fn established(object: &Value) -> bool {
    list(&object["status"], "conditions")
        .iter()
        .any(|c| text(c, "type") == "Established" && text(c, "status") == "True")
}

fn preserve_unknown_fields(c: &mut Checker, object: &Value) {
    if flag(&object["spec"], "preserveUnknownFields") {
        let why =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        c.invalid("spec.preserveUnknownFields", &Value::Bool(true), why);
    }
}

fn validate(c: &mut Checker, object: &Value, old: &Value) {
    let spec = &object["spec"];
    c.within("spec", |c| {
        match text(spec, "group") {
            "" => c.required("group", ""),
            group => match names::dns_subdomain(group).as_slice() {
                [] if group.contains('.') => {}
                [] => c.invalid_text("group", group, "should be a domain with at least one dot"),
                wrong => c.invalid_text("group", group, wrong.join(",")),
            },
        }
        c.choice(spec, "scope", &["Cluster", "Namespaced"]);
        versions::validate(c, spec, &old["spec"]);
        c.within("names", |c| {
            for field in ["plural", "singular", "kind", "listKind"] {
                c.need(&spec["names"], field);
            }
            check_names(c, &spec["names"]);
        });
        versions::validate_shared(c, spec, &old["spec"]);
        c.if_set(spec, "conversion", |c, conversion| check_conversion(c, conversion, spec));
    });
    c.within("status.acceptedNames", |c| check_names(c, &object["status"]["acceptedNames"]));
}

fn check_names(c: &mut Checker, given: &Value) {
    for (field, mixed_case) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = text(given, field);
        if name.is_empty() {
            continue;
        }
        let checked = if mixed_case { name.to_lowercase() } else { name.to_string() };
        let wrong = names::dns_1035_label(&checked);
        if !wrong.is_empty() {
            let may = if mixed_case { "may have mixed case, but should otherwise match: " } else { "" };
            c.invalid_text(field, name, format!("{may}{}", wrong.join(",")));
        }
    }
    labels(c, given, "shortNames");
    if !text(given, "kind").is_empty() && text(given, "kind") == text(given, "listKind") {
        c.invalid("listKind", &given["listKind"], "kind and listKind may not be the same");
    }
    labels(c, given, "categories");
}

fn labels(c: &mut Checker, given: &Value, field: &str) {
    for (i, name) in list(given, field).iter().enumerate() {
        let wrong = names::dns_1035_label(name.as_str().unwrap_or_default());
        if !wrong.is_empty() {
            c.invalid(&format!("{field}[{i}]"), name, wrong.join(","));
        }
    }
}

fn check_conversion(c: &mut Checker, conversion: &Value, spec: &Value) {
    if text(conversion, "strategy") != "None" && flag(spec, "preserveUnknownFields") {
        let why = "must be None if spec.preserveUnknownFields is true";
        c.invalid("strategy", &conversion["strategy"], why);
    }
    c.choice(conversion, "strategy", &["None", "Webhook"]);
    let webhook = &conversion["webhook"];
    if text(conversion, "strategy") != "Webhook" {
        if has(webhook, "clientConfig") {
            c.forbidden("webhookClientConfig", "should not be set when strategy is not set to Webhook");
        }
        if !list(webhook, "conversionReviewVersions").is_empty() {
            c.forbidden("conversionReviewVersions", "should not be set when strategy is not set to Webhook");
        }
        return;
    }
    match has(webhook, "clientConfig") {
        false => c.required("webhookClientConfig", "required when strategy is set to Webhook"),
        true => c.within("webhookClientConfig", |c| super::admission::client_config(c, &webhook["clientConfig"])),
    }
    let versions = list(webhook, "conversionReviewVersions");
    if versions.is_empty() {
        return c.required("conversionReviewVersions", "");
    }
    for (i, version) in versions.iter().enumerate() {
        let field = format!("conversionReviewVersions[{i}]");
        if versions[..i].contains(version) {
            c.invalid(&field, version, "duplicate version");
            continue;
        }
        c.rule(&field, version.as_str().unwrap_or_default(), names::dns_1035_label);
    }
    if !versions.iter().any(|v| v == "v1" || v == "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        c.invalid("conversionReviewVersions", &webhook["conversionReviewVersions"], why);
    }
}

fn stored_versions(c: &mut Checker, object: &Value) {
    let (stored, versions) = (&object["status"]["storedVersions"], list(&object["spec"], "versions"));
    let names = list(&object["status"], "storedVersions");
    if names.is_empty() {
        return c.invalid("status.storedVersions", &Value::Null, "must have at least one stored version");
    }
    // One name stands for one version: of two that share it, the second has none.
    let mut left: Vec<&Value> = names.iter().collect();
    for version in versions {
        if let Some(at) = left.iter().position(|name| **name == version["name"]) {
            left.swap_remove(at);
            continue;
        }
        if !flag(version, "storage") {
            continue;
        }
        let why = format!("must have the storage version {}", text(version, "name"));
        c.invalid("status.storedVersions", stored, why);
    }
    for (i, name) in names.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| v["name"] == **name)) {
        let shown = name.as_str().unwrap_or_default();
        c.invalid(
            &format!("status.storedVersions[{i}]"),
            name,
            format!(
                "missing from spec.versions; {shown} was previously a storage version, and must remain in spec.versions until a \
                 storage migration ensures no data remains persisted in {shown} and removes {shown} from status.storedVersions"
            ),
        );
    }
}

const APPROVED: &str = "api-approved.kubernetes.io";

/// How a definition in one of the project's own groups is approved: the word for a condition's reason, and a text.
fn approval_state(object: &Value) -> (&'static str, String) {
    let annotation = object["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
    const SEE: &str = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = annotation.split_once("://").is_some_and(|(scheme, host)| !scheme.is_empty() && !host.is_empty());
    match annotation {
        "" => ("MissingAnnotation", format!("protected groups must have approval annotation {APPROVED:?}, {SEE}")),
        text if text.starts_with("unapproved") => ("UnapprovedAnnotation", format!("not approved: {text:?}")),
        url if is_url => ("ApprovedAnnotation", format!("approved in {url}")),
        _ => (
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \
                 \"unapproved\", {SEE}"
            ),
        ),
    }
}

fn is_protected(object: &Value) -> bool {
    let group = text(&object["spec"], "group");
    ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")))
}

/// The condition that says whether a definition in a protected group is approved: whether it holds, its reason and its
/// message. `None` for all other groups.
pub fn approval_condition(object: &Object) -> Option<(bool, &'static str, String)> {
    let (reason, message) = is_protected(object).then(|| approval_state(object))?;
    Some((reason == "ApprovedAnnotation", reason, message))
}

fn approval(c: &mut Checker, object: &Value, old: &Value) {
    if !is_protected(object) {
        return;
    }
    let (state, why) = approval_state(object);
    if !old.is_null() && approval_state(old).0 == state {
        return;
    }
    let field = format!("metadata.annotations[{APPROVED}]");
    match state {
        "MissingAnnotation" => c.required(&field, &why),
        "InvalidAnnotation" => c.invalid(&field, &object["metadata"]["annotations"][APPROVED], why),
        _ => {}
    }
}

/// Clears the status of a new definition, and notes the version that its objects will be stored in.
pub fn prepare(object: &mut Value) {
    object["status"] = json!({
        "conditions": null, "storedVersions": [], "acceptedNames": {"plural": "", "kind": ""}
    });
    remember_stored_version(object);
}

/// Every version that objects were ever stored in is remembered.
pub fn remember_stored_version(object: &mut Value) {
    let stored = list(&object["spec"], "versions").iter().find(|v| flag(v, "storage")).map(|v| v["name"].clone());
    let Some(name) = stored else { return };
    if !object["status"]["storedVersions"].is_array() {
        object["status"]["storedVersions"] = json!([]);
    }
    if let Some(known) = object["status"]["storedVersions"].as_array_mut()
        && !known.contains(&name)
    {
        known.push(name);
    }
}

/// New formats that no value is checked for.
pub fn warnings(object: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(unknown_formats).unwrap_or_default();
    unknown_formats(object).into_iter().filter(|warning| !known.contains(warning)).collect()
}

fn unknown_formats(object: &Object) -> Vec<String> {
    let mut found = Vec::new();
    let schemas: Vec<&Value> =
        list(&object["spec"], "versions").iter().map(|v| &v["schema"]["openAPIV3Schema"]).collect();
    let shared = schemas.windows(2).all(|pair| pair[0] == pair[1]);
    let shown = if shared { &schemas[..schemas.len().min(1)] } else { &schemas[..] };
    for root in shown {
        schema::each(root, &mut |node| {
            let (json_type, name) = (text(node, "type"), text(node, "format"));
            if !name.is_empty() && !format::is_known(json_type, name) {
                found.push(format!("unrecognized format {name:?}"));
            }
        });
    }
    found
}
