//! The types that expressions have.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use knarr_api::schema::TypeId;

/// A type, as declared or as found by the checker.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; decided at run time.
    Dyn,
    /// What has an error already: agrees with everything so that one mistake is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    Map(Arc<(Type, Type)>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// A parameter of a function's signature: `A` in `list(A)`.
    Named(char),
    /// A parameter being solved by the checker.
    Variable(u32),
    /// A type known by its name alone, such as `net.IP`, or `optional_type(int)`.
    Opaque(Arc<str>, Option<Arc<Type>>),
    /// An object with declared fields.
    Struct(Arc<StructType>),
}

/// An object with declared fields.
#[derive(Debug)]
pub struct StructType {
    pub name: Arc<str>,
    pub fields: Fields,
}

/// Where the fields of a [`StructType`] are declared.
#[derive(Debug)]
pub enum Fields {
    /// Nobody may look inside: quantities, authorizers.
    Hidden,
    /// By name, as expressions write them.
    Declared(BTreeMap<String, Type>),
    /// The fields of a type of knarr-api's schema table.
    BuiltIn(TypeId),
    /// Any name is a field of any type: objects that a mutation builds without a schema.
    Any,
}

impl StructType {
    pub fn new(name: &str, fields: Fields) -> Arc<Self> {
        Arc::new(StructType { name: name.into(), fields })
    }

    /// The type of a field; `None` where there is no such field.
    pub fn field(&self, name: &str) -> Option<Type> {
        match &self.fields {
            Fields::Hidden => None,
            Fields::Declared(fields) => fields.get(name).cloned(),
            Fields::BuiltIn(id) => crate::builtin::field_type(*id, name),
            Fields::Any => Some(Type::Dyn),
        }
    }
}

pub const OPTIONAL: &str = "optional_type";

impl Type {
    pub fn list(element: Type) -> Self {
        Type::List(Arc::new(element))
    }

    pub fn map(key: Type, value: Type) -> Self {
        Type::Map(Arc::new((key, value)))
    }

    pub fn optional(value: Type) -> Self {
        Type::Opaque(OPTIONAL.into(), Some(Arc::new(value)))
    }

    /// An object type with these fields.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (String, Type)>) -> Self {
        Type::Struct(StructType::new(name, Fields::Declared(fields.into_iter().collect())))
    }

    pub(crate) fn hidden(name: &str) -> Self {
        Type::Struct(StructType::new(name, Fields::Hidden))
    }

    pub(crate) fn opaque(name: &str) -> Self {
        Type::Opaque(name.into(), None)
    }

    /// What an optional holds.
    pub(crate) fn unwrap_optional(&self) -> Option<&Type> {
        match self {
            Type::Opaque(name, Some(value)) if **name == *OPTIONAL => Some(value),
            _ => None,
        }
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// The same type, parameters included.
    pub fn is_exactly(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a.is_exactly(b),
            (Type::Map(a), Type::Map(b)) => a.0.is_exactly(&b.0) && a.1.is_exactly(&b.1),
            (Type::Type(a), Type::Type(b)) => match (a, b) {
                (Some(a), Some(b)) => a.is_exactly(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Type::Named(a), Type::Named(b)) => a == b,
            (Type::Variable(a), Type::Variable(b)) => a == b,
            (Type::Opaque(a, x), Type::Opaque(b, y)) => {
                a == b && x.is_some() == y.is_some() && x.iter().zip(y).all(|(x, y)| x.is_exactly(y))
            }
            (Type::Struct(a), Type::Struct(b)) => a.name == b.name,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// The name that `type(x)` has at run time.
    pub fn runtime_name(&self) -> &str {
        match self {
            Type::Dyn | Type::Named(_) | Type::Variable(_) => "dyn",
            Type::Error => "!error!",
            Type::Null => "null_type",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Duration => "google.protobuf.Duration",
            Type::Timestamp => "google.protobuf.Timestamp",
            Type::List(_) => "list",
            Type::Map(_) => "map",
            Type::Type(_) => "type",
            Type::Opaque(name, _) => name,
            Type::Struct(declared) => &declared.name,
        }
    }
}

impl fmt::Display for Type {
    /// As checker errors show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Null => f.write_str("null"),
            Type::Duration => f.write_str("duration"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::List(element) => write!(f, "list({element})"),
            Type::Map(entry) => write!(f, "map({}, {})", entry.0, entry.1),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Opaque(name, Some(of)) => write!(f, "{name}({of})"),
            Type::Named(letter) => write!(f, "{letter}"),
            Type::Variable(number) => write!(f, "_var{number}"),
            other => f.write_str(other.runtime_name()),
        }
    }
}
