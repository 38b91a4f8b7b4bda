//! The types that server-side apply merges custom objects by, made from their schema.

use std::collections::BTreeMap;

use super::structural::{Additional, JsonType, Structural};
use crate::openapi;
use crate::resource::GroupVersionKind;
use crate::schema::{Field, GoField, ListKind, MapKind, PatchStrategy, Schema, Shape, Special, Type, TypeId, schema};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A schema with the type of a kind, and that type.
pub fn types_of(structural: &Structural, keep_unknown: bool, kind: &GroupVersionKind) -> (Schema, TypeId) {
    let mut builder = Builder { types: Vec::new(), object_meta: TypeId(0) };
    builder.object_meta = builder.copy_metadata();
    let mut root = builder.object(structural);
    root.name = openapi::custom::definition_name(kind);
    root.gvks = vec![kind.clone()];
    root.open |= keep_unknown;
    builder.add_object_fields(&mut root);
    let root = builder.push(root);
    (Schema::new(builder.types), root)
}

struct Builder {
    types: Vec<Type>,
    object_meta: TypeId,
}

impl Builder {
    fn push(&mut self, ty: Type) -> TypeId {
        self.types.push(ty);
        TypeId(self.types.len() as u32 - 1)
    }

    /// Copies the metadata's types out of the table of built-in ones.
    fn copy_metadata(&mut self) -> TypeId {
        let Some(root) = schema().by_name(OBJECT_META) else { return TypeId(0) };
        let wanted = openapi::closure(schema(), [root]);
        let new_ids: BTreeMap<u32, TypeId> = wanted.iter().zip(0u32..).map(|(old, new)| (old.0, TypeId(new))).collect();
        for id in &wanted {
            let mut ty = schema().get(*id).clone();
            ty.fields.iter_mut().for_each(|field| renumber(&mut field.shape, &new_ids));
            self.types.push(ty);
        }
        new_ids.get(&root.0).copied().unwrap_or(TypeId(0))
    }

    /// A node whose fields are known.
    fn object(&mut self, node: &Structural) -> Type {
        let mut ty = plain_type(Special::None);
        ty.map = node.map;
        ty.open = node.preserve_unknown_fields;
        for (name, nested) in &node.properties {
            let shape = self.shape(nested);
            ty.fields.push(Field {
                default: nested.default.clone(),
                list: nested.list.clone(),
                map: nested.map,
                ..field(name, shape)
            });
        }
        if node.embedded_resource {
            self.add_object_fields(&mut ty);
        }
        ty
    }

    /// What every object has, whatever its schema says of it.
    fn add_object_fields(&self, ty: &mut Type) {
        let own = [("apiVersion", Shape::String), ("kind", Shape::String), ("metadata", Shape::Type(self.object_meta))];
        for (name, shape) in own {
            ty.fields.retain(|f| f.name != name);
            ty.fields.push(field(name, shape));
        }
        ty.fields.sort_by(|a, b| a.name.cmp(&b.name));
    }

    fn shape(&mut self, node: &Structural) -> Shape {
        if node.int_or_string {
            return Shape::Type(self.push(plain_type(Special::IntOrString)));
        }
        match node.json_type {
            Some(JsonType::String) => Shape::String,
            Some(JsonType::Boolean) => Shape::Boolean,
            Some(JsonType::Integer) => Shape::Int64,
            Some(JsonType::Number) => Shape::Double,
            Some(JsonType::Array) => {
                let item = node.items.as_ref().map_or(Shape::String, |items| self.shape(items));
                Shape::List(Box::new(item))
            }
            Some(JsonType::Object) | None => self.map_shape(node),
        }
    }

    fn map_shape(&mut self, node: &Structural) -> Shape {
        let has_fields = !node.properties.is_empty() || node.embedded_resource;
        match &node.additional {
            Additional::Schema(nested) if !has_fields => Shape::Map(Box::new(self.shape(nested))),
            _ if has_fields => {
                let ty = self.object(node);
                Shape::Type(self.push(ty))
            }
            _ => {
                let mut ty = plain_type(Special::AnyObject);
                ty.map = node.map;
                // What is kept as it is said is owned field by field.
                ty.open = node.preserve_unknown_fields;
                Shape::Type(self.push(ty))
            }
        }
    }
}

fn renumber(shape: &mut Shape, ids: &BTreeMap<u32, TypeId>) {
    match shape {
        Shape::Type(id) => *id = ids.get(&id.0).copied().unwrap_or(*id),
        Shape::List(inner) | Shape::Map(inner) => renumber(inner, ids),
        _ => {}
    }
}

fn plain_type(special: Special) -> Type {
    Type {
        name: String::new(),
        gvks: Vec::new(),
        special,
        map: MapKind::Unset,
        open: false,
        fields: Vec::new(),
        always: Vec::new(),
        inline: Vec::new(),
        proto_only: Vec::new(),
    }
}

fn field(name: &str, shape: Shape) -> Field {
    Field {
        name: name.to_string(),
        shape,
        required: false,
        default: None,
        enumeration: Vec::new(),
        list: ListKind::Unset,
        map: MapKind::Unset,
        patch: PatchStrategy::default(),
        proto: None,
        go: GoField::default(),
    }
}
