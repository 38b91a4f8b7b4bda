//! Values at run time. JSON is not copied: lists, maps and texts of the objects under evaluation are borrowed.

mod compare;
mod json;
mod list;
mod map;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use knarr_api::quantity::Quantity;

use crate::authorizer::Authorization;
use crate::functions::format::Format;
use crate::functions::semver::Version;
use crate::functions::url::Url;

pub use compare::{compare, equal};
pub use list::{List, ListKind};
pub use map::{Map, Owned, is_key};

/// A text, borrowed from an object or shared.
#[derive(Clone)]
pub enum Text<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// Nanoseconds, as Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub i64);

/// A network: the address as written and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr(pub ipnet::IpNet);

/// An object that an expression built: `Object.spec{...}`, `JSONPatch{...}`.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    pub type_name: Arc<str>,
    pub fields: Vec<(Arc<str>, Value<'a>)>,
}

/// A value.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    List(List<'a>),
    Map(Map<'a>),
    Message(Arc<Message<'a>>),
    Duration(Duration),
    Timestamp(Timestamp),
    /// A type, by its name.
    Type(Arc<str>),
    Optional(Option<Arc<Value<'a>>>),
    Quantity(Quantity),
    Ip(IpAddr),
    Cidr(Cidr),
    Url(Arc<Url>),
    Semver(Arc<Version>),
    Format(&'static Format),
    Authorization(Arc<Authorization<'a>>),
    /// JSON of a place that the schema says nothing about: it can be compared and nothing else.
    Preserved(&'a serde_json::Value),
}

impl<'a> Value<'a> {
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Value::String(Text::Shared(text.into()))
    }

    pub fn list(elements: Vec<Value<'a>>) -> Self {
        Value::List(List::Owned(Arc::new(elements)))
    }

    pub fn strings<S: Into<Arc<str>>>(texts: impl IntoIterator<Item = S>) -> Self {
        Value::list(texts.into_iter().map(Value::string).collect())
    }

    /// A map with text keys.
    pub fn object(entries: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Self {
        let mut map = Owned::default();
        for (key, value) in entries {
            map.insert(Value::String(Text::Borrowed(key)), value);
        }
        Value::Map(Map::Owned(Arc::new(map)))
    }

    pub fn some(value: Value<'a>) -> Self {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// What `type(x)` says.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Message(message) => &message.type_name,
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Type(_) => "type",
            Value::Optional(_) => "optional_type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Authorization(authorization) => authorization.type_name(),
            Value::Preserved(_) => "unknown",
        }
    }

    /// What `size(x)` says, also for the types that only costs measure.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::Optional(Some(value)) => return value.size(),
            Value::Ip(ip) => address_size(ip),
            Value::Cidr(cidr) => (usize::from(cidr.0.prefix_len())).div_ceil(8),
            _ => return None,
        })
    }

    /// Whether it is what its type has when nothing is set.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::Duration(value) => value.0 == 0,
            Value::Optional(held) => held.is_none(),
            Value::Message(message) => message.fields.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            _ => false,
        }
    }
}

fn address_size(ip: &IpAddr) -> usize {
    if ip.is_ipv4() { 4 } else { 16 }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Value::Int(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Text::Borrowed(text))
    }
}

impl fmt::Debug for Value<'_> {
    /// As messages show it: `[1, "a"]`, `{"k": true}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Uint(value) => write!(f, "{value}u"),
            Value::Double(value) => write!(f, "{value:?}"),
            Value::String(text) => write!(f, "{:?}", &**text),
            Value::Bytes(bytes) => write!(f, "b{:?}", String::from_utf8_lossy(bytes)),
            Value::List(list) => f.debug_list().entries(list.iter().flatten()).finish(),
            Value::Map(map) => f.debug_map().entries(map.entries().into_iter().flatten()).finish(),
            Value::Message(message) => {
                write!(f, "{}", message.type_name)?;
                f.debug_map().entries(message.fields.iter().map(|(k, v)| (k, v))).finish()
            }
            Value::Duration(value) => write!(f, "duration({:?})", crate::functions::time::duration_text(*value)),
            Value::Timestamp(value) => write!(f, "timestamp({:?})", value.to_string()),
            Value::Type(name) => write!(f, "type({name})"),
            Value::Optional(None) => f.write_str("optional.none()"),
            Value::Optional(Some(value)) => write!(f, "optional.of({value:?})"),
            Value::Quantity(value) => write!(f, "quantity(\"{value}\")"),
            Value::Ip(value) => write!(f, "ip(\"{value}\")"),
            Value::Cidr(value) => write!(f, "cidr(\"{}\")", value.0),
            Value::Url(value) => write!(f, "url({:?})", value.text()),
            Value::Semver(value) => write!(f, "semver(\"{value}\")"),
            Value::Format(value) => write!(f, "format({})", value.name),
            Value::Authorization(_) => f.write_str(self.type_name()),
            Value::Preserved(json) => write!(f, "{json}"),
        }
    }
}
