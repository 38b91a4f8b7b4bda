//! Protobuf to trees. Whatever JSON would leave out, because it is empty, is left out here too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::encode::{JSON_SCHEMA, wrapped_list};
use super::wire::{Payload, Reader};
use super::{MAX_DEPTH, ProtobufError};
use crate::decode::syntax;
use crate::schema::{Field, Presence, Schema, Shape, Special, Type, TypeId};
use crate::tree;

type Decoded<T> = Result<T, ProtobufError>;

struct Decoder<'s> {
    schema: &'s Schema,
}

/// The object of this type that a message holds, without `apiVersion` and `kind`.
pub fn object(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Decoded<Value> {
    Decoder { schema }.message(ty, bytes, MAX_DEPTH)
}

impl<'s> Decoder<'s> {
    fn message(&self, id: TypeId, bytes: &[u8], depth: usize) -> Decoded<Value> {
        let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
        let ty = self.schema.get(id);
        match ty.special {
            Special::None => {
                let mut out = Map::new();
                self.fields(ty, &mut Vec::new(), bytes, &mut out, depth)?;
                fill_always(ty, &mut out);
                Ok(Value::Object(out))
            }
            Special::Quantity => Ok(Value::String(text_at(bytes, 1)?.unwrap_or_else(|| "0".into()))),
            Special::Time => time(bytes, false),
            Special::MicroTime => time(bytes, true),
            Special::IntOrString => int_or_string(bytes),
            Special::AnyObject => raw_json(bytes, 1),
            Special::Any => self.any(ty, bytes, depth),
        }
    }

    /// Reads the fields of a message; `nested` is the way of field numbers from the type's own message to this one.
    fn fields(
        &self,
        ty: &'s Type,
        nested: &mut Vec<u32>,
        bytes: &[u8],
        out: &mut Map<String, Value>,
        depth: usize,
    ) -> Decoded<()> {
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            let here =
                |field: &&Field| field.proto.as_ref().is_some_and(|p| p.number == number && p.nested_in == *nested);
            if let Some(field) = ty.fields.iter().find(here) {
                self.field(field, payload, out, depth)?;
                continue;
            }
            nested.push(number);
            let inner = ty.fields.iter().any(|f| f.proto.as_ref().is_some_and(|p| p.nested_in.starts_with(nested)));
            if let (true, Payload::Bytes(bytes)) = (inner, payload) {
                self.fields(ty, nested, bytes, out, depth)?;
            }
            nested.pop();
        }
        Ok(())
    }

    fn field(&self, field: &Field, payload: Payload<'_>, out: &mut Map<String, Value>, depth: usize) -> Decoded<()> {
        match &field.shape {
            Shape::List(item) => {
                let mut values = Vec::new();
                match payload {
                    Payload::Bytes(bytes) if wrapped_list(field) => self.wrapper(item, bytes, &mut values, depth)?,
                    payload => self.items(item, payload, &mut values, depth)?,
                }
                match out.entry(field.name.clone()).or_insert_with(|| Value::Array(Vec::new())) {
                    Value::Array(list) => list.extend(values),
                    other => *other = Value::Array(values),
                }
            }
            Shape::Map(item) => {
                let Payload::Bytes(bytes) = payload else { return Err(ProtobufError::WrongWireType) };
                let (key, value) = self.entry(item, bytes, depth)?;
                match out.entry(field.name.clone()).or_insert_with(|| Value::Object(Map::new())) {
                    Value::Object(map) => drop(map.insert(key, value)),
                    other => *other = Value::Object(Map::from_iter([(key, value)])),
                }
            }
            shape => {
                let value = self.single(shape, payload, depth)?;
                if field.go.presence == Presence::WhenSet && is_zero(&value) || value.is_null() {
                    out.remove(&field.name);
                } else {
                    out.insert(field.name.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn wrapper(&self, item: &Shape, bytes: &[u8], out: &mut Vec<Value>, depth: usize) -> Decoded<()> {
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            if number == 1 {
                out.push(self.single(item, payload, depth)?);
            }
        }
        Ok(())
    }

    /// One item, or a packed run of numbers.
    fn items(&self, item: &Shape, payload: Payload<'_>, out: &mut Vec<Value>, depth: usize) -> Decoded<()> {
        match (item, payload) {
            (Shape::Int32 | Shape::Int64 | Shape::Boolean, Payload::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    out.push(self.single(item, Payload::Varint(reader.varint()?), depth)?);
                }
            }
            (item, payload) => out.push(self.single(item, payload, depth)?),
        }
        Ok(())
    }

    fn entry(&self, item: &Shape, bytes: &[u8], depth: usize) -> Decoded<(String, Value)> {
        let (mut key, mut value) = (String::new(), None);
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            match (number, payload) {
                (1, Payload::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (2, Payload::Bytes(bytes)) if matches!(item, Shape::List(_)) => {
                    let Shape::List(inner) = item else { continue };
                    let mut list = Vec::new();
                    self.wrapper(inner, bytes, &mut list, depth)?;
                    value = Some(Value::Array(list));
                }
                (2, payload) => value = Some(self.single(item, payload, depth)?),
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            None => self.zero(item, depth)?,
        };
        Ok((key, value))
    }

    fn zero(&self, shape: &Shape, depth: usize) -> Decoded<Value> {
        Ok(match shape {
            Shape::String | Shape::Bytes => Value::from(""),
            Shape::Boolean => Value::from(false),
            Shape::Int32 | Shape::Int64 | Shape::Double => Value::from(0),
            Shape::List(_) => Value::Array(Vec::new()),
            Shape::Map(_) => Value::Object(Map::new()),
            Shape::Type(id) => self.message(*id, &[], depth)?,
        })
    }

    fn single(&self, shape: &Shape, payload: Payload<'_>, depth: usize) -> Decoded<Value> {
        Ok(match (shape, payload) {
            (Shape::String, Payload::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned().into(),
            (Shape::Bytes, Payload::Bytes(bytes)) => STANDARD.encode(bytes).into(),
            (Shape::Boolean, Payload::Varint(value)) => (value != 0).into(),
            // Upstream keeps the low 32 bits of what is declared int32.
            (Shape::Int32, Payload::Varint(value)) => (value as u32 as i32).into(),
            (Shape::Int64, Payload::Varint(value)) => (value as i64).into(),
            (Shape::Double, Payload::Fixed64(bits)) => double(f64::from_bits(bits)),
            (Shape::Type(id), Payload::Bytes(bytes)) => self.message(*id, bytes, depth)?,
            _ => return Err(ProtobufError::WrongWireType),
        })
    }

    fn any(&self, ty: &Type, bytes: &[u8], depth: usize) -> Decoded<Value> {
        if let Some((_, number, _)) = ty.proto_only.iter().find(|(name, ..)| name == "raw") {
            return raw_json(bytes, *number);
        }
        let schema = self.schema.by_name(JSON_SCHEMA).ok_or(ProtobufError::UnknownType)?;
        let mut value = Value::Null;
        let mut reader = Reader::new(bytes);
        while let Some((number, payload)) = reader.next()? {
            let name = ty.proto_only.iter().find(|(_, n, _)| *n == number).map_or("", |(name, ..)| name.as_str());
            match (name, payload) {
                ("schema", Payload::Bytes(bytes)) => value = self.message(schema, bytes, depth)?,
                ("allows", Payload::Varint(allows)) if !value.is_object() => value = (allows != 0).into(),
                ("jSONSchemas", Payload::Bytes(bytes)) => push(&mut value, self.message(schema, bytes, depth)?),
                ("property", Payload::Bytes(bytes)) => push(&mut value, String::from_utf8_lossy(bytes).into()),
                _ => {}
            }
        }
        Ok(value)
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// Scalars that are always shown in JSON are zero where the message leaves them out.
fn fill_always(ty: &Type, out: &mut Map<String, Value>) {
    let shown = |f: &&Field| matches!(f.go.presence, Presence::Always | Presence::Nullable) && f.proto.is_some();
    for field in ty.fields.iter().filter(shown) {
        let zero = match field.shape {
            _ if field.go.presence == Presence::Nullable => Value::Null,
            Shape::String => Value::from(""),
            Shape::Boolean => Value::from(false),
            Shape::Int32 | Shape::Int64 => Value::from(0),
            _ => continue,
        };
        out.entry(field.name.clone()).or_insert(zero);
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(_) => false,
    }
}

/// A whole number is written without a fraction, as Go writes it.
fn double(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn text_at(bytes: &[u8], wanted: u32) -> Decoded<Option<String>> {
    let mut found = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        if let (true, Payload::Bytes(bytes)) = (number == wanted, payload) {
            found = Some(String::from_utf8_lossy(bytes).into_owned());
        }
    }
    Ok(found)
}

fn raw_json(bytes: &[u8], number: u32) -> Decoded<Value> {
    match text_at(bytes, number)? {
        None => Ok(Value::Null),
        Some(text) if text.is_empty() => Ok(Value::Null),
        Some(text) => {
            syntax::check(text.as_bytes()).map_err(|_| ProtobufError::RawJson)?;
            tree::parse(text.as_bytes()).map_err(|_| ProtobufError::RawJson)
        }
    }
}

fn time(bytes: &[u8], micro: bool) -> Decoded<Value> {
    let (mut seconds, mut nanos) = (None, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Varint(value)) => seconds = Some(value as i64),
            (2, Payload::Varint(value)) => nanos = value as u32 as i32,
            _ => {}
        }
    }
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let nanos = if micro { nanos } else { 0 };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Time)?;
    Ok(if micro { format!("{time:.6}").into() } else { time.to_string().into() })
}

fn int_or_string(bytes: &[u8]) -> Decoded<Value> {
    let (mut kind, mut number_, mut text) = (0, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, payload)) = reader.next()? {
        match (number, payload) {
            (1, Payload::Varint(value)) => kind = value,
            (2, Payload::Varint(value)) => number_ = value as u32 as i32,
            (3, Payload::Bytes(bytes)) => text = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    Ok(if kind == 1 { text.into() } else { number_.into() })
}
