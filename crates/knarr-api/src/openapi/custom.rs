//! Custom resources in the OpenAPI documents: their schemas as their users wrote them, with what every object has.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::definitions::{Definitions, closure};
use super::descriptions::Descriptions;
use super::paths::Paths;
use super::{Dialect, referenced};
use crate::resource::{GroupVersion, GroupVersionKind, Resource};
use crate::schema::schema;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// The texts of the fields that every object and every list has, as built-in kinds have them.
struct CommonTexts {
    api_version: String,
    kind: String,
    metadata: String,
    list_metadata: String,
}

static COMMON: LazyLock<CommonTexts> = LazyLock::new(|| {
    let names = ["io.k8s.api.core.v1.Pod", "io.k8s.api.core.v1.PodList"];
    let types: Vec<_> = names.iter().filter_map(|name| schema().by_name(name)).collect();
    let all = Descriptions::of(schema(), &types);
    let text = |name: &str, field: &str| all.of_field(name, field).unwrap_or_default().to_owned();
    let [object, list] = names;
    CommonTexts {
        api_version: text(object, "apiVersion"),
        kind: text(object, "kind"),
        metadata: text(object, "metadata"),
        list_metadata: text(list, "metadata"),
    }
});

/// One version of a custom resource as the documents show it.
pub struct Published<'a> {
    pub resource: &'a Resource,
    pub list_kind: &'a str,
    /// `openAPIV3Schema`; null where there is none.
    pub schema: &'a Value,
    /// `spec.preserveUnknownFields`
    pub keeps_unknown: bool,
    /// Paths of the fields that selectors may name.
    pub selectable: &'a [String],
}

/// `com.example.stable.v1.CronTab`
pub fn definition_name(kind: &GroupVersionKind) -> String {
    let mut words: Vec<&str> = kind.group.split('.').rev().collect();
    words.extend([&*kind.version, &*kind.kind]);
    words.join(".")
}

/// The version 3 document of a group version of custom resources.
pub fn v3(gv: &GroupVersion, resources: &[Published<'_>]) -> Value {
    let mut paths = Paths { schema: schema(), dialect: Dialect::V3, out: Map::new() };
    paths.group_version(gv);
    resources.iter().for_each(|one| paths.resource(one.resource));
    let own: Map<String, Value> = resources.iter().flat_map(|one| definitions(one, Dialect::V3)).collect();
    let metadata = [OBJECT_META, LIST_META].iter().filter_map(|name| schema().by_name(name));
    let named = referenced(schema(), &paths.out).into_iter().map(crate::schema::TypeId);
    let types = closure(schema(), named.chain(metadata));
    let descriptions = Descriptions::of(schema(), &types);
    let mut all = Definitions { schema: schema(), dialect: Dialect::V3, descriptions: &descriptions }.render(types);
    all.extend(own);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths.out,
        "components": {"schemas": all},
    })
}

/// Adds custom resources to the version 2 document.
pub fn add_to_v2(document: &mut Value, resources: &[Published<'_>]) {
    let mut paths = Paths { schema: schema(), dialect: Dialect::V2, out: Map::new() };
    let mut seen = Vec::new();
    for one in resources {
        let gv = one.resource.group_version();
        if !seen.contains(&gv) {
            paths.group(&gv.group);
            paths.group_version(&gv);
            seen.push(gv);
        }
        paths.resource(one.resource);
    }
    if let Some(known) = document["paths"].as_object_mut() {
        known.extend(paths.out);
    }
    if let Some(known) = document["definitions"].as_object_mut() {
        known.extend(resources.iter().flat_map(|one| definitions(one, Dialect::V2)));
    }
}

/// The definitions of a kind and of its list.
fn definitions(one: &Published<'_>, dialect: Dialect) -> [(String, Value); 2] {
    let kind = one.resource.gvk();
    let name = definition_name(&kind);
    let list = GroupVersionKind::new(kind.group.clone(), kind.version.clone(), one.list_kind.to_string());
    let mut item = object_definition(one, dialect);
    item["x-kubernetes-group-version-kind"] = json!([super::definitions::gvk(&kind)]);
    let mut items = list_definition(one, &name, dialect);
    items["x-kubernetes-group-version-kind"] = json!([super::definitions::gvk(&list)]);
    if !one.selectable.is_empty() {
        let fields: Value = one.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
        item["x-kubernetes-selectable-fields"] = fields.clone();
        items["x-kubernetes-selectable-fields"] = fields;
    }
    [(name.clone(), item), (format!("{name}List"), items)]
}

fn object_definition(one: &Published<'_>, dialect: Dialect) -> Value {
    let open = one.keeps_unknown || one.schema[PRESERVE] == true;
    if one.schema.is_null() || (dialect == Dialect::V2 && open) {
        return json!({"type": "object"});
    }
    let mut out = one.schema.clone();
    shape(&mut out, dialect);
    add_object_properties(&mut out, dialect);
    out
}

fn list_definition(one: &Published<'_>, item: &str, dialect: Dialect) -> Value {
    let described = |mut value: Value, text: &str| {
        value["description"] = text.into();
        value
    };
    let items = json!({"type": "array", "items": dialect.reference(item)});
    json!({
        "type": "object",
        "description": format!("{} is a list of {}", one.list_kind, one.resource.kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": described(json!({"type": "string"}), &COMMON.api_version),
            "kind": described(json!({"type": "string"}), &COMMON.kind),
            "items": described(items, &format!("List of {}.", one.resource.resource)),
            "metadata": referring(LIST_META, &COMMON.list_metadata, dialect),
        },
    })
}

/// A reference may have no siblings in version 3.
fn referring(definition: &str, description: &str, dialect: Dialect) -> Value {
    let reference = dialect.reference(definition);
    let mut out = match dialect {
        Dialect::V2 => reference,
        Dialect::V3 => json!({"allOf": [reference]}),
    };
    out["description"] = description.into();
    out
}

fn add_object_properties(schema: &mut Value, dialect: Dialect) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    schema["properties"]["apiVersion"] = json!({"type": "string", "description": COMMON.api_version});
    schema["properties"]["kind"] = json!({"type": "string", "description": COMMON.kind});
    schema["properties"]["metadata"] = referring(OBJECT_META, &COMMON.metadata, dialect);
}

/// Makes a node, and all below it, what the dialect and its clients understand.
fn shape(schema: &mut Value, dialect: Dialect) {
    if !schema.is_object() {
        return;
    }
    if schema["x-kubernetes-int-or-string"] == true && schema["anyOf"].is_null() && schema["allOf"].is_null() {
        schema["anyOf"] = json!([{"type": "integer"}, {"type": "string"}]);
    }
    if dialect == Dialect::V2 {
        simplify(schema);
    }
    for nested in schema["properties"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        shape(nested, dialect);
    }
    for field in ["items", "additionalProperties"] {
        if schema[field].is_object() {
            shape(&mut schema[field], dialect);
        }
    }
    let hidden = dialect == Dialect::V2 && schema[PRESERVE] == true;
    if schema[EMBEDDED] == true && !hidden {
        add_object_properties(schema, dialect);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut required: Vec<Value> = required.into_iter().collect();
        for word in ["kind", "apiVersion"] {
            if !required.iter().any(|r| r == word) {
                required.push(word.into());
            }
        }
        schema["required"] = required.into();
    }
    if let Some(map) = schema.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}

/// Version 2 knows no junctors and no null, and its clients take no properties beside unknown fields.
fn simplify(schema: &mut Value) {
    let nullable = |value: &Value| value["nullable"] == true;
    let Some(map) = schema.as_object_mut() else { return };
    let mut remove = |fields: &[&str]| fields.iter().for_each(|field| drop(map.remove(*field)));
    remove(&["allOf", "anyOf", "oneOf", "not"]);
    if map.get("nullable") == Some(&Value::Bool(true)) {
        ["type", "nullable", "items", "properties"].iter().for_each(|field| drop(map.remove(*field)));
    }
    let open = map.get(PRESERVE) == Some(&Value::Bool(true));
    if open {
        ["items", "properties"].iter().for_each(|field| drop(map.remove(*field)));
    }
    let word = map.get("type").and_then(Value::as_str).unwrap_or_default();
    if (word == "array" && !map.contains_key("items")) || (word == "object" && open) {
        map.remove("type");
    }
    let optional: Vec<String> = map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, value)| nullable(value))
        .map(|(name, _)| name.clone())
        .collect();
    let values_nullable = map.get("additionalProperties").is_some_and(nullable);
    if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !values_nullable && !optional.iter().any(|o| name == o.as_str()));
        if required.is_empty() {
            map.remove("required");
        }
    }
}
