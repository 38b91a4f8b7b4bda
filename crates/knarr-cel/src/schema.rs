//! What a structural schema says of values: how JSON is read, which types the checker sees, and how large things may get.

mod escaping;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::types::Type;
use crate::value::ListKind;
pub use escaping::{escape, unescape};

/// The largest request that the server accepts, which bounds whatever the schema does not.
pub const MAX_REQUEST_SIZE: u64 = 3 * 1024 * 1024;

/// One node of a schema.
#[derive(Clone, Debug)]
pub struct Declaration {
    pub kind: Kind,
    pub nullable: bool,
    /// The most elements, entries or characters there can be.
    pub max_elements: u64,
    /// The least bytes that it takes in JSON.
    pub min_serialized_size: u64,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    Date,
    DateTime,
    IntOrString,
    List {
        element: Box<Declaration>,
        list: ListType,
    },
    Map(Box<Declaration>),
    Object(ObjectDeclaration),
    /// Anything (`x-kubernetes-preserve-unknown-fields` without a type): kept, but unknown to expressions.
    Preserved,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ListType {
    Atomic,
    Set,
    Map(Vec<String>),
}

impl ListType {
    pub(crate) fn as_kind(&self) -> ListKind<'_> {
        match self {
            ListType::Atomic => ListKind::Atomic,
            ListType::Set => ListKind::Set,
            ListType::Map(keys) => ListKind::Map(keys),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ObjectDeclaration {
    /// By the names that expressions write ([`escape`]).
    pub fields: BTreeMap<String, FieldDeclaration>,
}

#[derive(Clone, Debug)]
pub struct FieldDeclaration {
    /// The name in JSON.
    pub name: String,
    pub declaration: Declaration,
}

/// Reads a structural schema; `None` for what expressions cannot see. At the root of a resource, `apiVersion`, `kind` and
/// the names in `metadata` are there whether the schema says so or not.
pub fn declare(schema: &Json, resource_root: bool) -> Option<Declaration> {
    let mut declaration = declare_kind(schema, resource_root)?;
    declaration.nullable = schema["nullable"] == true;
    Some(declaration)
}

pub(crate) fn is_embedded(schema: &Json) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

fn declare_kind(schema: &Json, resource_root: bool) -> Option<Declaration> {
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(sized(Kind::IntOrString, string_length(schema, MAX_REQUEST_SIZE - 2), 1));
    }
    let with_metadata = if resource_root { metadata_fields() } else { BTreeMap::new() };
    match schema["type"].as_str().unwrap_or_default() {
        "array" => declare_list(schema),
        "object" => match schema.get("additionalProperties").filter(|values| values.is_object()) {
            Some(values) if !resource_root || schema["properties"].is_null() => declare_map(schema, values),
            _ => Some(declare_object(schema, with_metadata)),
        },
        "string" => Some(declare_string(schema)),
        "boolean" => Some(sized(Kind::Bool, 1, 4)),
        "number" => Some(sized(Kind::Double, 1, 1)),
        "integer" => Some(sized(Kind::Int, 1, 1)),
        _ => None,
    }
}

fn sized(kind: Kind, max_elements: u64, min_serialized_size: u64) -> Declaration {
    Declaration { kind, nullable: false, max_elements, min_serialized_size }
}

/// `maxLength` counts characters of up to four bytes.
fn string_length(schema: &Json, otherwise: u64) -> u64 {
    bound(schema, "maxLength").map_or(otherwise, |max| max.saturating_mul(4))
}

/// A bound that the schema says; negative ones count as zero.
fn bound(schema: &Json, name: &str) -> Option<u64> {
    let value = schema.get(name)?;
    value.as_i64().map(|n| n.max(0).unsigned_abs()).or_else(|| value.as_u64())
}

fn declare_string(schema: &Json) -> Declaration {
    match schema["format"].as_str().unwrap_or_default() {
        "byte" => sized(Kind::Bytes, bound(schema, "maxLength").unwrap_or(MAX_REQUEST_SIZE - 2), 2),
        "duration" => sized(Kind::Duration, 32, 3),
        "date" => sized(Kind::Date, 12, 12),
        "date-time" => sized(Kind::DateTime, 32, 21),
        _ => sized(Kind::String, string_length(schema, enum_length(schema).unwrap_or(MAX_REQUEST_SIZE - 2)), 2),
    }
}

/// The length of the longest text of an enum.
fn enum_length(schema: &Json) -> Option<u64> {
    let values = schema["enum"].as_array().filter(|values| !values.is_empty())?;
    Some(values.iter().filter_map(Json::as_str).map(|text| text.len() as u64).max().unwrap_or(0))
}

fn declare_list(schema: &Json) -> Option<Declaration> {
    let items = schema.get("items").filter(|items| items.is_object())?;
    let element = declare(items, is_embedded(items))?;
    let max = bound(schema, "maxItems").unwrap_or((MAX_REQUEST_SIZE - 2) / (element.min_serialized_size + 1));
    let list = match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListType::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten().filter_map(Json::as_str);
            ListType::Map(keys.map(|key| escape(key).unwrap_or_else(|| key.to_string())).collect())
        }
        _ => ListType::Atomic,
    };
    Some(sized(Kind::List { element: Box::new(element), list }, max, 2))
}

fn declare_map(schema: &Json, values: &Json) -> Option<Declaration> {
    let value = declare(values, is_embedded(values))?;
    let max = bound(schema, "maxProperties").unwrap_or((MAX_REQUEST_SIZE - 2) / (value.min_serialized_size + 6));
    Some(sized(Kind::Map(Box::new(value)), max, 2))
}

fn declare_object(schema: &Json, mut fields: BTreeMap<String, FieldDeclaration>) -> Declaration {
    let required = |name: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|r| r == name));
    let mut size = 2;
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(declaration) = declare(property, is_embedded(property)) else { continue };
        if required(name) && property.get("default").is_none() {
            size += name.len() as u64 + declaration.min_serialized_size + 4;
        }
        let Some(escaped) = escape(name) else { continue };
        match fields.get_mut(&escaped) {
            Some(known) => merge_metadata(known, declaration),
            None => drop(fields.insert(escaped, FieldDeclaration { name: name.clone(), declaration })),
        }
    }
    sized(Kind::Object(ObjectDeclaration { fields }), 1, size)
}

/// What the schema says of `apiVersion`, `kind` and `metadata` replaces what every resource has, but for the type.
fn merge_metadata(known: &mut FieldDeclaration, declared: Declaration) {
    match (&mut known.declaration.kind, declared.kind) {
        (Kind::Object(known), Kind::Object(declared)) => known.fields.extend(declared.fields),
        (_, Kind::String) => known.declaration.max_elements = declared.max_elements,
        _ => {}
    }
}

/// What the root of every resource has.
fn metadata_fields() -> BTreeMap<String, FieldDeclaration> {
    let text = |name: &str| {
        let declaration = sized(Kind::String, MAX_REQUEST_SIZE - 2, 2);
        (name.to_string(), FieldDeclaration { name: name.to_string(), declaration })
    };
    let names = ObjectDeclaration { fields: BTreeMap::from([text("name"), text("generateName")]) };
    let metadata = FieldDeclaration { name: "metadata".to_string(), declaration: sized(Kind::Object(names), 1, 2) };
    BTreeMap::from([text("apiVersion"), text("kind"), ("metadata".to_string(), metadata)])
}

impl Declaration {
    /// The type that the checker gives it; objects take their names from where they stand.
    pub fn cel_type(&self, name: &str) -> Type {
        match &self.kind {
            Kind::Bool => Type::Bool,
            Kind::Int => Type::Int,
            Kind::Double => Type::Double,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Duration => Type::Duration,
            Kind::Date | Kind::DateTime => Type::Timestamp,
            Kind::IntOrString | Kind::Preserved => Type::Dyn,
            Kind::List { element, .. } => Type::list(element.cel_type(&format!("{name}.@idx"))),
            Kind::Map(value) => Type::map(Type::String, value.cel_type(&format!("{name}.@elem"))),
            Kind::Object(object) => {
                let field = |(field, declared): (&String, &FieldDeclaration)| {
                    (field.clone(), declared.declaration.cel_type(&format!("{name}.{field}")))
                };
                Type::object(name, object.fields.iter().map(field))
            }
        }
    }

    /// The declaration that a path of the cost estimator leads to.
    pub(crate) fn at(&self, step: &str) -> Option<&Declaration> {
        match (&self.kind, step) {
            (Kind::List { element, .. }, "@items" | "@values") => Some(element),
            (Kind::Map(value), "@items" | "@values") => Some(value),
            (Kind::Object(object), field) => object.fields.get(field).map(|f| &f.declaration),
            _ => None,
        }
    }
}
