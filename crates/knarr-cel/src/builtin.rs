//! The types of built-in kinds, read from knarr-api's schema table as the checker asks for them.

use knarr_api::resource::GroupVersionKind;
use knarr_api::schema::{Shape, Special, TypeId, schema};

use crate::schema::unescape;
use crate::types::{Fields, StructType, Type};

/// The type of a built-in kind's objects.
pub fn kind_type(kind: &GroupVersionKind) -> Option<Type> {
    schema().by_gvk(kind).map(type_of)
}

/// The type with this name in the table, such as `io.k8s.api.core.v1.Namespace`.
pub fn named_type(name: &str) -> Option<Type> {
    schema().by_name(name).map(type_of)
}

pub(crate) fn field_type(id: TypeId, name: &str) -> Option<Type> {
    let field = schema().get(id).field(&unescape(name)?)?;
    Some(shape_type(&field.shape))
}

fn shape_type(shape: &Shape) -> Type {
    match shape {
        Shape::String => Type::String,
        Shape::Bytes => Type::Bytes,
        Shape::Boolean => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Double => Type::Double,
        Shape::List(element) => Type::list(shape_type(element)),
        Shape::Map(value) => Type::map(Type::String, shape_type(value)),
        Shape::Type(id) => type_of(*id),
    }
}

fn type_of(id: TypeId) -> Type {
    let declared = schema().get(id);
    match declared.special {
        Special::None => Type::Struct(StructType::new(&declared.name, Fields::BuiltIn(id))),
        Special::Quantity => Type::String,
        Special::Time | Special::MicroTime => Type::Timestamp,
        Special::IntOrString | Special::AnyObject | Special::Any => Type::Dyn,
    }
}
