//! A structural schema: `openAPIV3Schema` of a version, compiled.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::schema::{ListKind, MapKind};

/// A compiled pattern may take so many bytes: patterns are written by users.
const PATTERN_SIZE: usize = 1 << 20;

/// What `type` may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

impl JsonType {
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "array" => JsonType::Array,
            "boolean" => JsonType::Boolean,
            "integer" => JsonType::Integer,
            "number" => JsonType::Number,
            "object" => JsonType::Object,
            "string" => JsonType::String,
            _ => return None,
        })
    }

    pub fn as_str(self) -> &'static str {
        match self {
            JsonType::Array => "array",
            JsonType::Boolean => "boolean",
            JsonType::Integer => "integer",
            JsonType::Number => "number",
            JsonType::Object => "object",
            JsonType::String => "string",
        }
    }
}

/// `additionalProperties`
#[derive(Debug, Default)]
pub enum Additional {
    /// Not said.
    #[default]
    Unset,
    Any(bool),
    Schema(Box<Structural>),
}

/// One node of a schema. Nested schemas of `allOf`, `anyOf`, `oneOf` and `not` are nodes too.
#[derive(Debug, Default)]
pub struct Structural {
    pub json_type: Option<JsonType>,
    pub nullable: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Structural>,
    pub items: Option<Box<Structural>>,
    pub additional: Additional,
    pub preserve_unknown_fields: bool,
    pub embedded_resource: bool,
    pub int_or_string: bool,
    pub list: ListKind,
    pub map: MapKind,
    /// `None` where nothing is demanded of values beyond their type.
    pub demands: Option<Box<Demands>>,
}

/// What is demanded of a value beyond its type.
#[derive(Debug, Default)]
pub struct Demands {
    /// Empty where none is said, or none that is known for the type.
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub enumeration: Vec<Value>,
    pub all_of: Vec<Structural>,
    pub any_of: Vec<Structural>,
    pub one_of: Vec<Structural>,
    pub not: Option<Box<Structural>>,
}

/// A regular expression that is compiled when a value first meets it.
#[derive(Debug)]
pub struct Pattern {
    pub text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Pattern { text: text.to_string(), compiled: OnceLock::new() }
    }

    /// Why the text is no pattern.
    pub fn matches(&self, value: &str) -> Result<bool, &str> {
        match self.compiled.get_or_init(|| compile_pattern(&self.text)) {
            Ok(regex) => Ok(regex.is_match(value)),
            Err(why) => Err(why),
        }
    }
}

/// Compiles a pattern of a schema; the error is one line.
pub fn compile_pattern(text: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(text).size_limit(PATTERN_SIZE).build();
    compiled.map_err(|error| error.to_string().lines().last().unwrap_or("error parsing regexp").trim().to_string())
}

impl Structural {
    /// Compiles a schema that validation has accepted; what it does not know it passes over.
    pub fn compile(schema: &Value) -> Structural {
        let text = |field: &str| schema.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| schema.get(field) == Some(&Value::Bool(true));
        let object = |field: &str| schema.get(field).filter(|v| v.is_object());
        Structural {
            json_type: JsonType::parse(text("type")),
            nullable: flag("nullable"),
            default: schema.get("default").filter(|v| !v.is_null()).cloned(),
            properties: properties(schema),
            items: object("items").map(|items| Box::new(Structural::compile(items))),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(allowed)) => Additional::Any(*allowed),
                Some(nested @ Value::Object(_)) => Additional::Schema(Box::new(Structural::compile(nested))),
                _ => Additional::Unset,
            },
            preserve_unknown_fields: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list: match text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => ListKind::Map(strings(schema, "x-kubernetes-list-map-keys")),
                "atomic" => ListKind::Atomic,
                _ => ListKind::Unset,
            },
            map: match text("x-kubernetes-map-type") {
                "atomic" => MapKind::Atomic,
                "granular" => MapKind::Granular,
                _ => MapKind::Unset,
            },
            demands: Demands::compile(schema).map(Box::new),
        }
    }

    /// The schema of an entry of an object.
    pub fn entry(&self, key: &str) -> Option<&Structural> {
        self.properties.get(key).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether this node or one below it satisfies `predicate`; junctors are not looked into.
    pub fn any(&self, predicate: &dyn Fn(&Structural) -> bool) -> bool {
        predicate(self)
            || self.properties.values().any(|s| s.any(predicate))
            || self.items.as_ref().is_some_and(|s| s.any(predicate))
            || matches!(&self.additional, Additional::Schema(s) if s.any(predicate))
    }

    /// The words of `type`, as messages show them.
    pub fn type_words(&self) -> &'static str {
        match (self.int_or_string, self.json_type) {
            (true, _) => "integer,string",
            (false, Some(json_type)) => json_type.as_str(),
            (false, None) => "",
        }
    }
}

fn properties(schema: &Value) -> BTreeMap<String, Structural> {
    let entries = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    entries.map(|(name, nested)| (name.clone(), Structural::compile(nested))).collect()
}

fn strings(schema: &Value, field: &str) -> Vec<String> {
    let list = schema.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

impl Demands {
    /// `None` where the schema demands nothing.
    fn compile(schema: &Value) -> Option<Demands> {
        const WORDS: [&str; 19] = [
            "format",
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "maxProperties",
            "minProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !WORDS.iter().any(|word| schema.get(*word).is_some()) {
            return None;
        }
        let number = |field: &str| schema.get(field).and_then(Value::as_f64);
        let count = |field: &str| schema.get(field).and_then(Value::as_i64).map(|n| n.max(0) as u64);
        let flag = |field: &str| schema.get(field) == Some(&Value::Bool(true));
        let list = |field: &str| schema.get(field).and_then(Value::as_array).into_iter().flatten();
        let schemas = |field: &str| list(field).map(Structural::compile).collect();
        let json_type = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
        let int_or_string = flag("x-kubernetes-int-or-string");
        Some(Demands {
            format: match super::format::is_known(if int_or_string { "" } else { json_type }, format) {
                true => format.to_string(),
                false => String::new(),
            },
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            multiple_of: number("multipleOf"),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            pattern: schema.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty()).map(Pattern::new),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: strings(schema, "required"),
            enumeration: list("enum").cloned().collect(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: schema.get("not").filter(|v| v.is_object()).map(|v| Box::new(Structural::compile(v))),
        })
    }
}
