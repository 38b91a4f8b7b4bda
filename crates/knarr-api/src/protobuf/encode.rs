//! Trees to protobuf, as upstream's generated code writes them: fields by number, scalars and structs held by value always,
//! maps by key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::wire::Writer;
use super::{MAX_DEPTH, ProtobufError};
use crate::schema::{Field, Presence, Schema, Shape, Special, Type, TypeId};

pub struct Encoder<'s> {
    pub schema: &'s Schema,
}

/// What stands at a field number of a message.
enum Slot<'s> {
    Field(&'s Field, u32),
    /// Fields that JSON shows in the outer object.
    Nested(Vec<&'s Field>),
}

/// The slots of the fields that are nested `depth` messages deep.
fn slots<'s>(fields: impl Iterator<Item = &'s Field>, depth: usize) -> BTreeMap<u32, Slot<'s>> {
    let mut out = BTreeMap::new();
    for field in fields {
        let Some(proto) = &field.proto else { continue };
        match proto.nested_in.get(depth) {
            None => {
                out.insert(proto.number, Slot::Field(field, proto.number));
            }
            Some(number) => match out.entry(*number).or_insert_with(|| Slot::Nested(Vec::new())) {
                Slot::Nested(fields) => fields.push(field),
                Slot::Field(..) => {}
            },
        }
    }
    out
}

impl<'s> Encoder<'s> {
    /// The message of an object or value of this type.
    pub fn message(&self, ty: TypeId, value: &Value, depth: usize) -> Result<Vec<u8>, ProtobufError> {
        let ty = self.schema.get(ty);
        let mut out = Writer::default();
        let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
        match ty.special {
            Special::None => {
                let empty = Map::new();
                self.fields(ty.fields.iter(), 0, value.as_object().unwrap_or(&empty), &mut out, depth)?;
            }
            Special::Quantity => out.bytes(1, quantity(value).as_bytes()),
            Special::Time | Special::MicroTime => time(value, &mut out),
            Special::IntOrString => int_or_string(value, &mut out),
            Special::AnyObject => out.bytes(1, value.to_string().as_bytes()),
            Special::Any => self.any(ty, value, &mut out, depth)?,
        }
        Ok(out.0)
    }

    fn fields(
        &self,
        fields: impl Iterator<Item = &'s Field>,
        nesting: usize,
        object: &Map<String, Value>,
        out: &mut Writer,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        for (number, slot) in slots(fields, nesting) {
            match slot {
                Slot::Field(field, number) => self.field(field, number, object.get(&field.name), out, depth)?,
                Slot::Nested(fields) => {
                    let mut nested = Writer::default();
                    self.fields(fields.into_iter(), nesting + 1, object, &mut nested, depth)?;
                    out.bytes(number, &nested.0);
                }
            }
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        number: u32,
        value: Option<&Value>,
        out: &mut Writer,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let value = value.filter(|v| !v.is_null());
        match (&field.shape, value) {
            (Shape::List(item), Some(Value::Array(list))) => match wrapped_list(field) {
                true => {
                    let mut wrapper = Writer::default();
                    list.iter().try_for_each(|value| self.single(item, 1, value, &mut wrapper, depth))?;
                    out.bytes(number, &wrapper.0);
                    Ok(())
                }
                false => list.iter().try_for_each(|value| self.single(item, number, value, out, depth)),
            },
            (Shape::Map(item), Some(Value::Object(map))) => self.map(item, number, map, out, depth),
            (Shape::List(_) | Shape::Map(_), _) => Ok(()),
            (shape, Some(value)) => self.single(shape, number, value, out, depth),
            (_, None) if matches!(field.go.presence, Presence::Optional | Presence::Nullable) => Ok(()),
            // Bytes are a slice in Go: nothing is nothing.
            (Shape::Bytes, None) => Ok(()),
            (shape, None) => self.single(shape, number, &Value::Null, out, depth),
        }
    }

    fn map(
        &self,
        item: &Shape,
        number: u32,
        map: &Map<String, Value>,
        out: &mut Writer,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        let entries: BTreeMap<&String, &Value> = map.iter().collect();
        for (key, value) in entries {
            let mut entry = Writer::default();
            entry.bytes(1, key.as_bytes());
            match (item, value) {
                // A map of lists has a message around each list.
                (Shape::List(item), Value::Array(list)) => {
                    let mut wrapper = Writer::default();
                    list.iter().try_for_each(|value| self.single(item, 1, value, &mut wrapper, depth))?;
                    entry.bytes(2, &wrapper.0);
                }
                _ => self.single(item, 2, value, &mut entry, depth)?,
            }
            out.bytes(number, &entry.0);
        }
        Ok(())
    }

    /// One scalar or message; null is the zero of its type.
    fn single(
        &self,
        shape: &Shape,
        number: u32,
        value: &Value,
        out: &mut Writer,
        depth: usize,
    ) -> Result<(), ProtobufError> {
        match shape {
            Shape::String => out.bytes(number, value.as_str().unwrap_or_default().as_bytes()),
            Shape::Bytes => {
                let text = value.as_str().unwrap_or_default();
                out.bytes(number, &STANDARD.decode(text).map_err(|_| ProtobufError::Base64)?);
            }
            Shape::Boolean => out.integer(number, i64::from(value.as_bool().unwrap_or_default())),
            Shape::Int32 | Shape::Int64 => out.integer(number, integer(value)),
            Shape::Double => out.double(number, value.as_f64().unwrap_or_default()),
            Shape::Type(id) => out.bytes(number, &self.message(*id, value, depth)?),
            Shape::List(_) | Shape::Map(_) => {}
        }
        Ok(())
    }

    /// `JSON` holds its text; its relatives are a schema or something else.
    fn any(&self, ty: &Type, value: &Value, out: &mut Writer, depth: usize) -> Result<(), ProtobufError> {
        let number = |name: &str| ty.proto_only.iter().find(|(n, _, _)| n == name).map(|(_, number, _)| *number);
        if let Some(raw) = number("raw") {
            out.bytes(raw, value.to_string().as_bytes());
            return Ok(());
        }
        let schema = self.schema.by_name(JSON_SCHEMA).ok_or(ProtobufError::UnknownType)?;
        let one = |value: &Value| self.message(schema, value, depth);
        if let Some(allows) = number("allows") {
            // A schema allows; only `false` does not.
            out.integer(allows, i64::from(*value != Value::Bool(false)));
        }
        if let (Some(number), Value::Object(_)) = (number("schema"), value) {
            out.bytes(number, &one(value)?);
        }
        for item in value.as_array().into_iter().flatten() {
            match (number("jSONSchemas"), number("property")) {
                (Some(number), _) => out.bytes(number, &one(item)?),
                (None, Some(number)) => out.bytes(number, item.as_str().unwrap_or_default().as_bytes()),
                (None, None) => {}
            }
        }
        Ok(())
    }
}

pub const JSON_SCHEMA: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

/// A list of scalars whose Go type is a named one travels in a message of its own.
pub fn wrapped_list(field: &Field) -> bool {
    let scalar = matches!(&field.shape, Shape::List(item) if !matches!(**item, Shape::Type(_)));
    scalar && field.proto.as_ref().is_some_and(|proto| proto.proto_type.contains('.'))
}

fn integer(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_f64().map(|f| f as i64)).unwrap_or_default()
}

fn quantity(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "0".into(),
        other => other.to_string(),
    }
}

/// The zero time is an empty message.
fn time(value: &Value, out: &mut Writer) {
    let parsed: Option<jiff::Timestamp> = value.as_str().and_then(|text| text.parse().ok());
    if let Some(time) = parsed {
        let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
        if nanos < 0 {
            (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
        }
        out.integer(1, seconds);
        out.integer(2, i64::from(nanos));
    }
}

fn int_or_string(value: &Value, out: &mut Writer) {
    let (kind, text) = match value {
        Value::String(text) => (1, text.as_str()),
        _ => (0, ""),
    };
    out.integer(1, kind);
    out.integer(2, integer(value));
    out.bytes(3, text.as_bytes());
}

/// The message of an object of this type.
pub fn object(schema: &Schema, ty: TypeId, object: &Value) -> Result<Vec<u8>, ProtobufError> {
    Encoder { schema }.message(ty, object, MAX_DEPTH)
}
