//! JSON to a tree, led by the schema, as Go's decoder with Kubernetes' strictness does it.
//!
//! The input was checked by [`super::syntax`]; a byte out of place here only ends the walk early. Three kinds of trouble
//! are told apart, as upstream does: a value that a type's own parser refuses ends decoding at once; of values of a wrong
//! JSON type the first is remembered and reported at the end; unknown and duplicate fields are collected.
//!
//! The tree comes out in the form Go would show it: `null` and, where Go leaves it out, zero are absent; what Go always
//! shows is there. Lists and maps that the text says are empty are there too (see [`super::empties`]).

use std::borrow::Cow;

use base64::Engine;
use serde_json::{Map, Number, Value};

use super::{empties, scalar};
use crate::quantity::Quantity;
use crate::schema::{Field, GoField, Presence, Schema, Shape, Special, Type, TypeId};
use crate::tree::MAX_DEPTH;

/// At most so many strict errors are collected.
const MAX_STRICT_ERRORS: usize = 100;

/// What decoding found.
pub struct Outcome {
    pub value: Value,
    /// `unknown field "x"`, `duplicate field "y"`, in the order met.
    pub strict: Vec<String>,
    /// Whether the tree holds what [`super::empties`] is about.
    pub says_empty: bool,
}

/// Where the decoder is; rendered only when something is wrong.
#[derive(Clone, Copy)]
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p Type, &'p Field),
    Key(&'p str),
    Index(usize),
}

impl<'p> Place<'p> {
    const ROOT: Place<'static> = Place { parent: None, step: Step::Root, depth: 0 };

    fn step(&'p self, step: Step<'p>) -> Place<'p> {
        Place { parent: Some(self), step, depth: self.depth + 1 }
    }

    fn steps(&'p self) -> Vec<Step<'p>> {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(place) = at {
            steps.push(place.step);
            at = place.parent;
        }
        steps.reverse();
        steps
    }

    /// `spec.containers[0].zzz`; the keys of maps may be left out.
    fn strict_path(&self, last: &str, keys: bool) -> String {
        let mut out = String::new();
        for step in self.steps() {
            match step {
                Step::Root => {}
                Step::Field(_, field) => push_dotted(&mut out, &field.name),
                Step::Key(key) if keys => push_dotted(&mut out, key),
                Step::Key(_) => {}
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        push_dotted(&mut out, last);
        out
    }

    /// `Go struct field PodSpec.spec.containers of type …`, or `Go value of type …`.
    fn type_error(&self, value: &str, wanted: &str) -> String {
        let mut path = String::new();
        let mut owner = None;
        for step in self.steps() {
            if let Step::Field(ty, field) = step {
                owner = Some(ty);
                field.go.embedded.iter().for_each(|e| push_dotted(&mut path, e));
                push_dotted(&mut path, &field.name);
            }
        }
        match owner {
            Some(ty) => format!(
                "json: cannot unmarshal {value} into Go struct field {}.{path} of type {wanted}",
                ty.short_name()
            ),
            None => format!("json: cannot unmarshal {value} into Go value of type {wanted}"),
        }
    }
}

fn push_dotted(out: &mut String, part: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(part);
}

/// A value that its own type's parser refuses, or a tree too deep: decoding stops.
struct Fatal(String);

type Decoded<T> = Result<T, Fatal>;

/// Decodes well-formed JSON as type `id`.
pub fn decode(src: &[u8], schema: &Schema, id: TypeId) -> Result<Outcome, String> {
    decode_with(Decoder::new(src, schema), id)
}

/// As [`decode`], of what a strategic patch has made: upstream's converter from trees to objects reads it, which tells of unknown fields by
/// paths without the keys of maps.
pub fn decode_merged(src: &[u8], schema: &Schema, id: TypeId) -> Result<Outcome, String> {
    decode_with(Decoder { keys: false, ..Decoder::new(src, schema) }, id)
}

fn decode_with(mut decoder: Decoder<'_>, id: TypeId) -> Result<Outcome, String> {
    let go = GoField::default();
    let value = decoder.typed(id, &go.type_name, Place::ROOT).map_err(|Fatal(text)| text)?;
    match decoder.type_error {
        Some(text) => Err(text),
        None => Ok(Outcome {
            value: value.unwrap_or_else(|| Value::Object(Map::new())),
            strict: decoder.strict,
            says_empty: decoder.says_empty,
        }),
    }
}

/// Decodes well-formed JSON as it is; of the strict errors, there are only duplicate fields.
pub fn decode_untyped(src: &[u8]) -> Result<Outcome, String> {
    let mut decoder = Decoder::new(src, crate::schema::schema());
    let value = decoder.untyped(Place::ROOT).map_err(|Fatal(text)| text)?;
    Ok(Outcome { value, strict: decoder.strict, says_empty: false })
}

struct Decoder<'a> {
    src: &'a [u8],
    pos: usize,
    schema: &'a Schema,
    type_error: Option<String>,
    strict: Vec<String>,
    /// How many types around here know of no strictness.
    lenient: usize,
    says_empty: bool,
    /// Whether the paths of strict errors show the keys of maps.
    keys: bool,
}

impl<'a> Decoder<'a> {
    fn new(src: &'a [u8], schema: &'a Schema) -> Self {
        Decoder { src, pos: 0, schema, type_error: None, strict: Vec::new(), lenient: 0, says_empty: false, keys: true }
    }

    fn peek(&mut self) -> u8 {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.src.get(self.pos) {
            self.pos += 1;
        }
        self.src.get(self.pos).copied().unwrap_or_default()
    }

    /// Consumes `byte` if it is next.
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        if found {
            self.pos += 1;
        }
        found
    }

    /// A value of `shape`; `None` where it is null or of a wrong type (which is then remembered).
    fn value(&mut self, shape: &Shape, go_type: &str, place: Place<'_>) -> Decoded<Option<Value>> {
        if place.depth > MAX_DEPTH {
            return Err(Fatal("exceeded max depth".to_string()));
        }
        match shape {
            Shape::Type(id) => self.typed(*id, go_type, place),
            Shape::List(item) => self.list(item, go_type, place),
            Shape::Map(item) => self.map(item, go_type, place),
            _ => Ok(self.scalar(shape, go_type, place)),
        }
    }

    fn scalar(&mut self, shape: &Shape, go_type: &str, place: Place<'_>) -> Option<Value> {
        match (self.peek(), shape) {
            (b'n', _) => {
                self.skip();
                None
            }
            (b'"', Shape::String) => Some(Value::String(self.string().into_owned())),
            (b'"', Shape::Bytes) => self.base64(),
            (b't' | b'f', Shape::Boolean) => Some(Value::Bool(self.skip() == b"true")),
            (b'-' | b'0'..=b'9', Shape::Int32 | Shape::Int64 | Shape::Double) => self.number(shape, go_type, place),
            (b'[', Shape::Bytes) => self.wrong_bytes(go_type, place),
            _ => self.wrong_type(go_type, place),
        }
    }

    /// A list of numbers would be bytes, too; Go tells of its first item that is none.
    fn wrong_bytes(&mut self, go_type: &str, place: Place<'_>) -> Option<Value> {
        let opening = self.peek();
        let first = self.src[self.pos..].iter().skip(1).copied().find(|b| !b.is_ascii_whitespace());
        let kind = match (opening, first) {
            (b'[', Some(b'"')) => "string",
            (b'[', Some(b'{')) => "object",
            (b'[', Some(b't' | b'f')) => "bool",
            _ => return self.wrong_type(go_type, place),
        };
        self.skip();
        self.remember(|| place.type_error(kind, "uint8"));
        None
    }

    /// Remembers that the value here is of a wrong type and passes over it.
    fn wrong_type(&mut self, go_type: &str, place: Place<'_>) -> Option<Value> {
        let kind = match self.peek() {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            _ => "number",
        };
        self.skip();
        self.remember(|| place.type_error(kind, go_type));
        None
    }

    fn remember(&mut self, text: impl FnOnce() -> String) {
        if self.type_error.is_none() {
            self.type_error = Some(text());
        }
    }

    fn number(&mut self, shape: &Shape, go_type: &str, place: Place<'_>) -> Option<Value> {
        let text = std::str::from_utf8(self.skip()).unwrap_or_default();
        let parsed = match shape {
            Shape::Int32 => text.parse::<i32>().ok().map(Number::from),
            Shape::Int64 => text.parse::<i64>().ok().map(Number::from),
            _ => scalar::number(text),
        };
        if parsed.is_none() {
            self.remember(|| place.type_error(&format!("number {text}"), go_type));
        }
        parsed.map(Value::Number)
    }

    fn base64(&mut self) -> Option<Value> {
        let text = self.string();
        let bytes = match scalar::base64(&text) {
            Ok(bytes) => bytes,
            Err(at) => {
                self.remember(|| format!("illegal base64 data at input byte {at}"));
                return None;
            }
        };
        Some(Value::String(base64::engine::general_purpose::STANDARD.encode(bytes)))
    }

    fn list(&mut self, item: &Shape, go_type: &str, place: Place<'_>) -> Decoded<Option<Value>> {
        match self.peek() {
            b'[' => self.pos += 1,
            b'n' => {
                self.skip();
                return Ok(None);
            }
            _ => return Ok(self.wrong_type(go_type, place)),
        }
        let item_type = go_type.strip_prefix("[]").map_or_else(|| element_name(self.schema, item), Cow::Borrowed);
        let mut items = Vec::new();
        while !self.eat(b']') && self.pos < self.src.len() {
            let value = self.value(item, &item_type, place.step(Step::Index(items.len())))?;
            items.push(value.unwrap_or_else(|| zero(self.schema, item)));
            self.eat(b',');
        }
        Ok(Some(Value::Array(items)))
    }

    fn map(&mut self, item: &Shape, go_type: &str, place: Place<'_>) -> Decoded<Option<Value>> {
        match self.peek() {
            b'{' => self.pos += 1,
            b'n' => {
                self.skip();
                return Ok(None);
            }
            _ => return Ok(self.wrong_type(go_type, place)),
        }
        let item_type =
            go_type.strip_prefix("map[string]").map_or_else(|| element_name(self.schema, item), Cow::Borrowed);
        let mut entries = Map::new();
        while !self.eat(b'}') && self.pos < self.src.len() {
            let key = self.string().into_owned();
            self.eat(b':');
            if entries.contains_key(&key) {
                self.strict("duplicate", &key, place);
            }
            let value = self.value(item, &item_type, place.step(Step::Key(&key)))?;
            let zero = || match item {
                // No bytes are none, and a map shows them so.
                Shape::Bytes => Value::String(String::new()),
                _ => zero(self.schema, item),
            };
            entries.insert(key, value.unwrap_or_else(zero));
            self.eat(b',');
        }
        Ok(Some(Value::Object(entries)))
    }

    /// Notes an `unknown` or `duplicate` field at a place.
    fn strict(&mut self, what: &str, field: &str, place: Place<'_>) {
        if self.strict.len() >= MAX_STRICT_ERRORS || self.lenient > 0 {
            return;
        }
        let text = format!("{what} field {:?}", place.strict_path(field, self.keys));
        if !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    fn typed(&mut self, id: TypeId, go_type: &str, place: Place<'_>) -> Decoded<Option<Value>> {
        let schema = self.schema;
        let ty = schema.get(id);
        match ty.special {
            Special::None => self.object(ty, go_type, place),
            Special::Any | Special::AnyObject => match self.peek() {
                b'n' => {
                    self.skip();
                    Ok(None)
                }
                _ => match OrSchema::of(ty.short_name()) {
                    Some(other) => self.schema_or(other, place),
                    None => self.untyped(place).map(Some),
                },
            },
            special => self.special(special, place),
        }
    }

    /// A schema within a schema, or something else in its place. These parse their own JSON, and know of no strictness.
    fn schema_or(&mut self, other: OrSchema, place: Place<'_>) -> Decoded<Option<Value>> {
        let first = self.peek();
        let Some(props) = self.schema.by_name(OrSchema::PROPS) else { return self.untyped(place).map(Some) };
        let props = Shape::Type(props);
        self.lenient += 1;
        let value = match (first, other) {
            (b'{', _) => self.value(&props, "v1.JSONSchemaProps", place),
            (b'[', OrSchema::List) => self.list(&props, "[]v1.JSONSchemaProps", place),
            (b'[', OrSchema::Texts) => self.list(&Shape::String, "[]string", place),
            (b't' | b'f', OrSchema::Flag) => self.untyped(place).map(Some),
            (_, OrSchema::Flag) => {
                self.skip();
                self.remember(|| "boolean or JSON schema expected".to_string());
                Ok(None)
            }
            (_, OrSchema::List | OrSchema::Texts) => {
                self.skip();
                Ok(None)
            }
        };
        self.lenient -= 1;
        value
    }

    /// Types that parse their own JSON. Null and wrong JSON types are their business too.
    fn special(&mut self, special: Special, place: Place<'_>) -> Decoded<Option<Value>> {
        let first = self.peek();
        if first == b'n' {
            self.skip();
            return Ok(match special {
                Special::Quantity => Some(Value::from("0")),
                _ => None,
            });
        }
        if special == Special::Quantity {
            return self.quantity().map(Some);
        }
        if first == b'"' {
            let text = self.string();
            return match special {
                Special::Time => scalar::time(&text).map_err(Fatal).map(Some),
                Special::MicroTime => scalar::micro_time(&text).map_err(Fatal).map(Some),
                _ => Ok(Some(Value::String(text.into_owned()))),
            };
        }
        if special == Special::IntOrString && matches!(first, b'-' | b'0'..=b'9') {
            let text = std::str::from_utf8(self.skip()).unwrap_or_default();
            return match text.parse::<i32>() {
                Ok(number) => Ok(Some(number.into())),
                Err(_) => Err(Fatal(place.type_error(&format!("number {text}"), "int32"))),
            };
        }
        let wanted = if special == Special::IntOrString { "int32" } else { "string" };
        let before = self.type_error.take();
        self.wrong_type(wanted, place);
        let text = std::mem::replace(&mut self.type_error, before);
        Err(Fatal(text.unwrap_or_default()))
    }

    fn quantity(&mut self) -> Decoded<Value> {
        let raw = self.skip();
        let text = raw.strip_prefix(b"\"").and_then(|r| r.strip_suffix(b"\"")).unwrap_or(raw);
        let text = String::from_utf8_lossy(text);
        match text.trim().parse::<Quantity>() {
            Ok(quantity) => Ok(Value::String(quantity.to_string())),
            Err(error) => Err(Fatal(error.to_string())),
        }
    }

    fn object(&mut self, ty: &'a Type, go_type: &str, place: Place<'_>) -> Decoded<Option<Value>> {
        match self.peek() {
            b'{' => self.pos += 1,
            b'n' => {
                self.skip();
                return Ok(None);
            }
            _ => return Ok(self.wrong_type(go_type, place)),
        }
        let mut out = Map::new();
        let mut seen = Seen::default();
        while !self.eat(b'}') && self.pos < self.src.len() {
            let key = self.string();
            self.eat(b':');
            match ty.fields.binary_search_by(|f| f.name.as_str().cmp(&*key)) {
                Ok(index) => self.field(ty, index, &mut seen, &mut out, place)?,
                Err(_) => {
                    self.strict("unknown", &key, place);
                    self.skip();
                }
            }
            self.eat(b',');
        }
        add_always_shown(self.schema, ty, &mut out);
        Ok(Some(Value::Object(out)))
    }

    fn field(
        &mut self,
        ty: &'a Type,
        index: usize,
        seen: &mut Seen,
        out: &mut Map<String, Value>,
        place: Place<'_>,
    ) -> Decoded<()> {
        let field = &ty.fields[index];
        if !seen.insert(index) {
            self.strict("duplicate", &field.name, place);
        }
        let pointer = matches!(field.go.presence, Presence::Optional | Presence::Nullable);
        if pointer && self.peek() == b'n' {
            self.skip();
            return Ok(());
        }
        let value = self.value(&field.shape, &field.go.type_name, place.step(Step::Field(ty, field)))?;
        let Some(value) = value else { return Ok(()) };
        let said = empties::is_said(&field.shape, &value);
        self.says_empty |= said;
        if said || field.go.presence != Presence::WhenSet || !is_zero(&value) {
            out.insert(field.name.clone(), value);
        }
        Ok(())
    }

    /// Any JSON, as it is.
    fn untyped(&mut self, place: Place<'_>) -> Decoded<Value> {
        if place.depth > MAX_DEPTH {
            return Err(Fatal("exceeded max depth".to_string()));
        }
        match self.peek() {
            b'{' => self.untyped_object(place),
            b'[' => {
                self.pos += 1;
                let mut items = Vec::new();
                while !self.eat(b']') && self.pos < self.src.len() {
                    items.push(self.untyped(place.step(Step::Index(items.len())))?);
                    self.eat(b',');
                }
                Ok(Value::Array(items))
            }
            b'"' => Ok(Value::String(self.string().into_owned())),
            b't' | b'f' => Ok(Value::Bool(self.skip() == b"true")),
            b'-' | b'0'..=b'9' => {
                let text = std::str::from_utf8(self.skip()).unwrap_or_default();
                Ok(scalar::number(text).map_or(Value::Null, Value::Number))
            }
            _ => {
                self.skip();
                Ok(Value::Null)
            }
        }
    }

    fn untyped_object(&mut self, place: Place<'_>) -> Decoded<Value> {
        self.pos += 1;
        let mut out = Map::new();
        while !self.eat(b'}') && self.pos < self.src.len() {
            let key = self.string().into_owned();
            self.eat(b':');
            if out.contains_key(&key) {
                self.strict("duplicate", &key, place);
            }
            let value = self.untyped(place.step(Step::Key(&key)))?;
            out.insert(key, value);
            self.eat(b',');
        }
        Ok(Value::Object(out))
    }

    /// Passes over one value and returns its bytes. Needs no recursion: depth is only counted.
    fn skip(&mut self) -> &'a [u8] {
        self.peek();
        let start = self.pos;
        let mut depth = 0usize;
        loop {
            match self.src.get(self.pos).copied() {
                None => break,
                Some(b'"') => self.skip_string(),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.pos += 1;
                }
                Some(b'}' | b']') => {
                    if depth == 0 {
                        break;
                    }
                    depth -= 1;
                    self.pos += 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') if depth == 0 => break,
                Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') => self.pos += 1,
                Some(_) => self.skip_word(),
            }
            if depth == 0 {
                break;
            }
        }
        &self.src[start..self.pos]
    }

    fn skip_word(&mut self) {
        while let Some(byte) = self.src.get(self.pos) {
            if matches!(byte, b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' | b'}' | b']' | b'{' | b'[' | b'"') {
                break;
            }
            self.pos += 1;
        }
    }

    fn skip_string(&mut self) {
        self.pos += 1;
        while let Some(byte) = self.src.get(self.pos) {
            self.pos += 1;
            match byte {
                b'"' => return,
                b'\\' => self.pos += 1,
                _ => {}
            }
        }
        self.pos = self.src.len();
    }

    /// The string here, borrowed where it has no escapes and is UTF-8.
    fn string(&mut self) -> Cow<'a, str> {
        self.peek();
        let start = self.pos + 1;
        self.skip_string();
        let raw = self.src.get(start..self.pos.saturating_sub(1)).unwrap_or_default();
        scalar::unquote(raw)
    }
}

/// What may stand where a schema could.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OrSchema {
    List,
    Flag,
    Texts,
}

impl OrSchema {
    const PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";

    fn of(type_name: &str) -> Option<Self> {
        match type_name {
            "JSONSchemaPropsOrArray" => Some(OrSchema::List),
            "JSONSchemaPropsOrBool" => Some(OrSchema::Flag),
            "JSONSchemaPropsOrStringArray" => Some(OrSchema::Texts),
            _ => None,
        }
    }
}

/// Which fields of a type were met; no type has more than fits.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// `false` if it was there already.
    fn insert(&mut self, index: usize) -> bool {
        let Some(word) = self.0.get_mut(index / 64) else { return true };
        let bit = 1 << (index % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

fn element_name(schema: &Schema, shape: &Shape) -> Cow<'static, str> {
    Cow::Owned(schema.go_type_name(shape))
}

/// Whether Go leaves this value out of a field that is shown only when set.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

/// Adds the zero value of every missing field that Go always shows.
pub fn add_always_shown(schema: &Schema, ty: &Type, out: &mut Map<String, Value>) {
    for index in &ty.always {
        let field = &ty.fields[*index];
        if !out.contains_key(&field.name) {
            let value = match field.go.presence {
                Presence::Nullable => Value::Null,
                _ => zero(schema, &field.shape),
            };
            out.insert(field.name.clone(), value);
        }
    }
}

/// Go's zero value of a shape, as it is shown.
fn zero(schema: &Schema, shape: &Shape) -> Value {
    match shape {
        Shape::String => Value::String(String::new()),
        Shape::Boolean => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::Double => Value::from(0),
        Shape::Bytes | Shape::List(_) | Shape::Map(_) => Value::Null,
        Shape::Type(id) => match schema.get(*id).special {
            Special::None => {
                let mut out = Map::new();
                add_always_shown(schema, schema.get(*id), &mut out);
                Value::Object(out)
            }
            Special::Quantity => Value::from("0"),
            Special::IntOrString => Value::from(0),
            _ => Value::Null,
        },
    }
}
