//! Types of the schema table as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Dialect;
use super::descriptions::Descriptions;
use crate::resource::GroupVersionKind;
use crate::schema::{Field, ListKind, MapKind, PatchStrategy, Schema, Shape, Special, Type, TypeId};

pub struct Definitions<'s> {
    pub schema: &'s Schema,
    pub dialect: Dialect,
    pub descriptions: &'s Descriptions,
}

impl<'s> Definitions<'s> {
    /// The schemas of these types.
    pub fn render(&self, types: impl IntoIterator<Item = TypeId>) -> Map<String, Value> {
        types.into_iter().map(|id| self.schema.get(id)).map(|ty| (ty.name.clone(), self.definition(ty))).collect()
    }

    fn definition(&self, ty: &Type) -> Value {
        let mut out = self.base(ty);
        if let Some(text) = self.descriptions.of_type(&ty.name) {
            out["description"] = text.into();
        }
        if !ty.gvks.is_empty() {
            out["x-kubernetes-group-version-kind"] = ty.gvks.iter().map(gvk).collect();
        }
        if ty.map == MapKind::Atomic {
            out["x-kubernetes-map-type"] = "atomic".into();
        }
        out
    }

    fn base(&self, ty: &Type) -> Value {
        match (ty.special, self.dialect) {
            (Special::Quantity, Dialect::V2) => json!({"type": "string"}),
            (Special::Quantity, Dialect::V3) => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            (Special::IntOrString, Dialect::V2) => json!({"type": "string", "format": "int-or-string"}),
            (Special::IntOrString, Dialect::V3) => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            (Special::Time | Special::MicroTime, _) => json!({"type": "string", "format": "date-time"}),
            (Special::AnyObject, _) => json!({"type": "object"}),
            (Special::Any, _) => json!({}),
            (Special::None, _) => self.object(ty),
        }
    }

    fn object(&self, ty: &Type) -> Value {
        let mut out = json!({"type": "object"});
        if !ty.fields.is_empty() {
            let properties = ty.fields.iter().map(|f| (f.name.clone(), self.property(ty, f)));
            out["properties"] = Value::Object(properties.collect());
        }
        let required: Vec<&str> = ty.fields.iter().filter(|f| f.required).map(|f| f.name.as_str()).collect();
        if !required.is_empty() {
            out["required"] = required.into();
        }
        out
    }

    fn property(&self, ty: &Type, field: &Field) -> Value {
        let mut out = self.shape(&field.shape);
        let described = self.descriptions.of_field(&ty.name, &field.name);
        // A reference may have no siblings in version 3.
        if self.dialect == Dialect::V3 && matches!(field.shape, Shape::Type(_)) {
            out = json!({"allOf": [out]});
        }
        if let Some(text) = described {
            out["description"] = text.into();
        }
        if let Some(default) = &field.default {
            out["default"] = default.clone();
        }
        if !field.enumeration.is_empty() {
            out["enum"] = field.enumeration.clone().into();
        }
        extensions(field, &mut out);
        out
    }

    fn shape(&self, shape: &Shape) -> Value {
        match shape {
            Shape::String => json!({"type": "string"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Boolean => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::List(item) => json!({"type": "array", "items": self.shape(item)}),
            Shape::Map(value) => json!({"type": "object", "additionalProperties": self.shape(value)}),
            Shape::Type(id) => self.dialect.reference(&self.schema.get(*id).name),
        }
    }
}

fn extensions(field: &Field, out: &mut Value) {
    match &field.list {
        ListKind::Unset => {}
        ListKind::Atomic => out["x-kubernetes-list-type"] = "atomic".into(),
        ListKind::Set => out["x-kubernetes-list-type"] = "set".into(),
        ListKind::Map(keys) => {
            out["x-kubernetes-list-type"] = "map".into();
            out["x-kubernetes-list-map-keys"] = keys.clone().into();
        }
    }
    match field.map {
        MapKind::Unset => {}
        MapKind::Granular => out["x-kubernetes-map-type"] = "granular".into(),
        MapKind::Atomic => out["x-kubernetes-map-type"] = "atomic".into(),
    }
    if let Some(key) = &field.patch.merge_key {
        out["x-kubernetes-patch-merge-key"] = key.as_str().into();
    }
    let strategy = patch_strategy(&field.patch);
    if !strategy.is_empty() {
        out["x-kubernetes-patch-strategy"] = strategy.into();
    }
}

fn patch_strategy(patch: &PatchStrategy) -> String {
    let words = [(patch.merge, "merge"), (patch.retain_keys, "retainKeys"), (patch.replace, "replace")];
    words.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect::<Vec<_>>().join(",")
}

pub fn gvk(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version})
}

/// The types and all that they are made of.
pub fn closure(schema: &Schema, roots: impl IntoIterator<Item = TypeId>) -> Vec<TypeId> {
    let mut seen = BTreeSet::new();
    let mut open: Vec<TypeId> = roots.into_iter().collect();
    while let Some(id) = open.pop() {
        if seen.insert(id.0) {
            open.extend(schema.get(id).fields.iter().filter_map(|f| type_in(&f.shape)));
        }
    }
    seen.into_iter().map(TypeId).collect()
}

fn type_in(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Type(id) => Some(*id),
        Shape::List(inner) | Shape::Map(inner) => type_in(inner),
        _ => None,
    }
}
