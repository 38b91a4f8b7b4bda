//! What a definition says of its versions.

use serde_json::Value;

use super::schema;
use crate::custom_resource::Structural;
use crate::custom_resource::structural::JsonType;
use crate::names;
use crate::validation::check::{Checker, flag, has, list, text};

const MAX_SELECTABLE_FIELDS: usize = 8;
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// Whether all versions say the same in a field, and say anything.
fn is_shared(versions: &[Value], field: &str) -> bool {
    versions.first().is_some_and(|first| versions.iter().all(|v| v[field] == first[field]))
}

const VERSIONS: &str = "[]apiextensions.CustomResourceDefinitionVersion";

/// The versions as upstream's memory has them: what they share stands elsewhere.
fn in_memory(spec: &Value) -> Value {
    let versions = list(spec, "versions");
    if !has(spec, "versions") {
        return Value::Null;
    }
    let mut kept = versions.to_vec();
    for field in ["schema", "subresources", "additionalPrinterColumns", "selectableFields"] {
        if is_shared(versions, field) {
            kept.iter_mut().filter_map(Value::as_object_mut).for_each(|version| drop(version.remove(field)));
        }
    }
    kept.into()
}

/// The version of this name.
fn named<'v>(spec: &'v Value, name: &Value) -> &'v Value {
    list(spec, "versions").iter().find(|v| v["name"] == *name).unwrap_or(&Value::Null)
}

fn has_status(version: &Value) -> bool {
    version["subresources"]["status"].is_object()
}

/// Each version, and what they must be together.
pub fn validate(c: &mut Checker, spec: &Value, old: &Value) {
    let versions = list(spec, "versions");
    for (i, version) in versions.iter().enumerate() {
        if !has(&version["schema"], "openAPIV3Schema") {
            c.required(&format!("versions[{i}].schema.openAPIV3Schema"), "");
        }
    }
    let mut unique = true;
    for (i, version) in versions.iter().enumerate() {
        unique &= !versions[..i].iter().any(|other| text(other, "name") == text(version, "name"));
        let wrong = names::dns_1035_label(text(version, "name"));
        if !wrong.is_empty() {
            c.invalid_text(&format!("versions[{i}].name"), text(version, "name"), wrong.join(","));
        }
        c.within(&format!("versions[{i}]"), |c| validate_version(c, spec, version, named(old, &version["name"])));
    }
    // In upstream's memory the first version's name stands at the spec, too.
    let first = versions.first().map(|version| text(version, "name")).unwrap_or_default();
    let wrong = names::dns_1035_label(first);
    if !first.is_empty() && !wrong.is_empty() {
        c.invalid_text("version", first, wrong.join(","));
    }
    if !unique {
        c.invalid_as(VERSIONS, "versions", &in_memory(spec), "must contain unique version names");
    }
    if versions.iter().filter(|v| flag(v, "storage")).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        c.invalid_as(VERSIONS, "versions", &in_memory(spec), why);
    }
}

fn validate_version(c: &mut Checker, spec: &Value, version: &Value, old: &Value) {
    let versions = list(spec, "versions");
    deprecation(c, version);
    if !is_shared(versions, "schema") {
        c.within("schema", |c| validate_schema(c, version, old, has_status(version)));
    }
    if !is_shared(versions, "subresources") {
        c.at(version, "subresources", subresources);
    }
    if !is_shared(versions, "additionalPrinterColumns") {
        c.each(version, "additionalPrinterColumns", column);
    }
    if !is_shared(versions, "selectableFields") {
        selectable_fields(c, version);
    }
}

/// What all versions share, at its place in the spec.
pub fn validate_shared(c: &mut Checker, spec: &Value, old: &Value) {
    let versions = list(spec, "versions");
    let Some(first) = versions.first() else { return };
    if is_shared(versions, "schema") {
        let status = versions.iter().any(has_status);
        c.within("validation", |c| validate_schema(c, first, named(old, &first["name"]), status));
    }
    if is_shared(versions, "subresources") {
        c.at(first, "subresources", subresources);
    }
    if is_shared(versions, "additionalPrinterColumns") {
        c.each(first, "additionalPrinterColumns", column);
    }
    if is_shared(versions, "selectableFields") {
        selectable_fields(c, first);
    }
}

/// A schema that was accepted once stays so.
fn validate_schema(c: &mut Checker, version: &Value, old: &Value, with_status: bool) {
    let root = &version["schema"]["openAPIV3Schema"];
    let known = !root.is_null() && old["schema"]["openAPIV3Schema"] == *root && has_status(old) == with_status;
    if !root.is_null() && !known {
        c.within("openAPIV3Schema", |c| schema::validate(c, root, with_status));
    }
}

fn deprecation(c: &mut Checker, version: &Value) {
    let Some(warning) = version["deprecationWarning"].as_str() else { return };
    let mut invalid = |why: &str| c.invalid_text("deprecationWarning", warning, why);
    if !flag(version, "deprecated") {
        return invalid("can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        invalid("must be <= 256 characters long");
    }
    if warning.is_empty() {
        invalid("must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, ch)| ch.is_control() || (ch.is_whitespace() && *ch != ' '))
    {
        let why = "must only contain printable UTF-8 characters; non-printable character found at index";
        invalid(&format!("{why} {at}"));
    }
}

fn subresources(c: &mut Checker, subresources: &Value) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    let mut path = |field: &str, roots: &[&str], why: &str| {
        let place = format!("scale.{field}");
        match text(scale, field) {
            "" => c.required(&place, ""),
            given if !given.starts_with('.') => {
                c.invalid_text(&place, given, "must be a simple json path starting with .");
            }
            given if !roots.iter().any(|root| given.starts_with(root)) => c.invalid_text(&place, given, why),
            _ => {}
        }
    };
    path("specReplicasPath", &[".spec."], "should be a json path under .spec");
    path("statusReplicasPath", &[".status."], "should be a json path under .status");
    if !text(scale, "labelSelectorPath").is_empty() {
        path("labelSelectorPath", &[".spec.", ".status."], "should be a json path under either .spec or .status");
    }
}

fn column(c: &mut Checker, column: &Value) {
    c.need(column, "name");
    let one_of = |words: &[&str]| format!("must be one of {}", words.join(","));
    match text(column, "type") {
        "" => c.required("type", &one_of(&COLUMN_TYPES)),
        given if COLUMN_TYPES.contains(&given) => {}
        given => c.invalid_text("type", given, one_of(&COLUMN_TYPES)),
    }
    let format = text(column, "format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        c.invalid_text("format", format, one_of(&COLUMN_FORMATS));
    }
    match text(column, "jsonPath") {
        "" => c.required("JSONPath", ""),
        path if path.starts_with('.') => {}
        path => c.invalid_text("JSONPath", path, "must be a simple json path starting with ."),
    }
}

fn selectable_fields(c: &mut Checker, version: &Value) {
    let fields = list(version, "selectableFields");
    if fields.is_empty() {
        return;
    }
    let root = &version["schema"]["openAPIV3Schema"];
    if root.is_null() {
        return c.invalid_text("selectableFields", "", "may only be set when validations.schema is included");
    }
    let root = Structural::compile(root);
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let place = format!("selectableFields[{i}].jsonPath");
        let path = text(field, "jsonPath");
        if path.is_empty() {
            c.required(&place, "");
            continue;
        }
        let Some(found) = find(&root, path) else {
            c.invalid_text(&place, path, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if path.split('.').find(|p| !p.is_empty()) == Some("metadata") {
            c.invalid_text(&place, path, "must not point to fields in metadata");
        }
        if !matches!(found.json_type, Some(JsonType::String | JsonType::Boolean | JsonType::Integer)) {
            c.invalid_text(
                &place,
                path,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            );
        }
        if seen.contains(&path) {
            c.duplicate(&place, &path.into());
        }
        seen.push(path);
    }
    seen.sort_unstable();
    seen.dedup();
    if seen.len() > MAX_SELECTABLE_FIELDS {
        c.too_many("selectableFields", seen.len(), MAX_SELECTABLE_FIELDS);
    }
}

/// The schema that a path of fields leads to.
fn find<'s>(root: &'s Structural, path: &str) -> Option<&'s Structural> {
    let names = path.strip_prefix('.')?.split('.');
    names.into_iter().try_fold(root, |node, name| if name.is_empty() { None } else { node.properties.get(name) })
}
