//! The OpenAPI v2 document in protobuf, as older clients ask for it: gnostic's `openapi.v2.Document`. Messages are tables of
//! JSON names and field numbers; one walk over the JSON document writes them.

use serde_json::{Map, Value};

use crate::protobuf::wire::Writer;

/// How a JSON value is written.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Flag,
    Integer,
    Double,
    Texts,
    /// Text or texts, in a message of their own (`TypeItem`).
    Type,
    /// Any JSON, as the text of an `Any`.
    Any,
    Anys,
    Message(&'static Message),
    Messages(&'static Message),
    /// The message in field 1 of another (`ItemsItem`, `AdditionalPropertiesItem`, `SchemaItem`).
    Wrapped(&'static Message),
    /// A boolean in field 2 of a message, or a message in its field 1.
    FlagOrMessage(&'static Message),
    Parameters,
}

struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// Where `x-` fields go.
    extensions: u32,
    /// For every other field: its number, and what its values are.
    others: Option<(u32, Form)>,
}

const fn message(fields: &'static [(&'static str, u32, Form)], extensions: u32) -> Message {
    Message { fields, extensions, others: None }
}

const fn map(number: u32, form: Form, extensions: u32) -> Message {
    Message { fields: &[], extensions, others: Some((number, form)) }
}

static DOCUMENT: Message = message(
    &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("host", 3, Form::Text),
        ("basePath", 4, Form::Text),
        ("schemes", 5, Form::Texts),
        ("consumes", 6, Form::Texts),
        ("produces", 7, Form::Texts),
        ("paths", 8, Form::Message(&PATHS)),
        ("definitions", 9, Form::Message(&SCHEMAS)),
        ("parameters", 10, Form::Message(&PARAMETERS)),
        ("security", 12, Form::Messages(&SECURITY)),
        ("securityDefinitions", 13, Form::Message(&SECURITY_DEFINITIONS)),
    ],
    16,
);
static INFO: Message =
    message(&[("title", 1, Form::Text), ("version", 2, Form::Text), ("description", 3, Form::Text)], 7);
static PATHS: Message = map(2, Form::Message(&PATH), 1);
static SCHEMAS: Message = map(1, Form::Message(&SCHEMA), 0);
static PARAMETERS: Message = map(1, Form::Parameters, 0);
static SECURITY: Message = map(1, Form::Wrapped(&SCOPES), 0);
static SCOPES: Message = message(&[], 0);
static SECURITY_DEFINITIONS: Message = map(1, Form::Message(&SECURITY_DEFINITION), 0);
/// Kubernetes knows one kind only: a token in a header (`apiKey`), which is field 2 of the choice.
static SECURITY_DEFINITION: Message = Message { fields: &[], extensions: 0, others: None };
static API_KEY: Message = message(
    &[("type", 1, Form::Text), ("name", 2, Form::Text), ("in", 3, Form::Text), ("description", 4, Form::Text)],
    5,
);
static PATH: Message = message(
    &[
        ("$ref", 1, Form::Text),
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("options", 6, Form::Message(&OPERATION)),
        ("head", 7, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::Parameters),
    ],
    10,
);
static OPERATION: Message = message(
    &[
        ("tags", 1, Form::Texts),
        ("summary", 2, Form::Text),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Texts),
        ("consumes", 7, Form::Texts),
        ("parameters", 8, Form::Parameters),
        ("responses", 9, Form::Message(&RESPONSES)),
        ("schemes", 10, Form::Texts),
        ("deprecated", 11, Form::Flag),
    ],
    13,
);
static RESPONSES: Message = map(1, Form::Wrapped(&RESPONSE), 2);
static RESPONSE: Message = message(&[("description", 1, Form::Text), ("schema", 2, Form::Wrapped(&SCHEMA))], 5);
static REFERENCE: Message = message(&[("$ref", 1, Form::Text), ("description", 2, Form::Text)], 0);
static BODY_PARAMETER: Message = message(
    &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Flag),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    6,
);
/// Of parameters in the path and in headers; those of the query have one field more before the type.
static PATH_PARAMETER: Message = message(
    &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("format", 6, Form::Text),
        ("collectionFormat", 8, Form::Text),
        ("uniqueItems", 19, Form::Flag),
    ],
    22,
);
static QUERY_PARAMETER: Message = message(
    &[
        ("required", 1, Form::Flag),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("allowEmptyValue", 5, Form::Flag),
        ("type", 6, Form::Text),
        ("format", 7, Form::Text),
        ("collectionFormat", 9, Form::Text),
        ("uniqueItems", 20, Form::Flag),
    ],
    23,
);
static SCHEMA: Message = message(
    &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("title", 3, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("multipleOf", 6, Form::Double),
        ("maximum", 7, Form::Double),
        ("exclusiveMaximum", 8, Form::Flag),
        ("minimum", 9, Form::Double),
        ("exclusiveMinimum", 10, Form::Flag),
        ("maxLength", 11, Form::Integer),
        ("minLength", 12, Form::Integer),
        ("pattern", 13, Form::Text),
        ("maxItems", 14, Form::Integer),
        ("minItems", 15, Form::Integer),
        ("uniqueItems", 16, Form::Flag),
        ("maxProperties", 17, Form::Integer),
        ("minProperties", 18, Form::Integer),
        ("required", 19, Form::Texts),
        ("enum", 20, Form::Anys),
        ("additionalProperties", 21, Form::FlagOrMessage(&SCHEMA)),
        ("type", 22, Form::Type),
        ("items", 23, Form::Wrapped(&SCHEMA)),
        ("allOf", 24, Form::Messages(&SCHEMA)),
        ("properties", 25, Form::Message(&SCHEMAS)),
        ("discriminator", 26, Form::Text),
        ("readOnly", 27, Form::Flag),
        ("example", 30, Form::Any),
    ],
    31,
);

/// The document in protobuf. What gnostic has no field for is left out.
pub fn document(document: &Value) -> Vec<u8> {
    encode(&DOCUMENT, document)
}

fn encode(message: &'static Message, value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    if std::ptr::eq(message, &SECURITY_DEFINITION) {
        out.bytes(2, &encode(&API_KEY, value));
        return out.0;
    }
    let empty = Map::new();
    let fields = value.as_object().unwrap_or(&empty);
    for (name, number, form) in message.fields {
        if let Some(value) = fields.get(*name) {
            put(&mut out, *number, *form, value);
        }
    }
    for (name, value) in fields {
        if name.starts_with("x-") && message.extensions > 0 {
            out.bytes(message.extensions, &named(name, &any(value)));
        } else if let Some((number, form)) = message.others {
            out.bytes(number, &named(name, &item(form, value)));
        }
    }
    out.0
}

/// A map's entry: its key in field 1, its value in field 2.
fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, name.as_bytes());
    out.bytes(2, value);
    out.0
}

fn item(form: Form, value: &Value) -> Vec<u8> {
    match form {
        Form::Message(message) => encode(message, value),
        Form::Wrapped(message) => wrapped(message, value),
        Form::Parameters => parameter(value),
        _ => Vec::new(),
    }
}

fn wrapped(message: &'static Message, value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(1, &encode(message, value));
    out.0
}

/// JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    let mut out = Writer::default();
    out.bytes(2, format!("{value}\n").as_bytes());
    out.0
}

fn put(out: &mut Writer, number: u32, form: Form, value: &Value) {
    let items = || value.as_array().into_iter().flatten();
    match form {
        Form::Text => out.bytes(number, value.as_str().unwrap_or_default().as_bytes()),
        Form::Flag if *value == true => out.integer(number, 1),
        Form::Flag => {}
        Form::Integer => out.integer(number, value.as_i64().unwrap_or_default()),
        Form::Double => out.double(number, value.as_f64().unwrap_or_default()),
        Form::Texts => items().filter_map(Value::as_str).for_each(|text| out.bytes(number, text.as_bytes())),
        Form::Type => {
            let mut types = Writer::default();
            let texts = value.as_str().into_iter().chain(items().filter_map(Value::as_str));
            texts.for_each(|text| types.bytes(1, text.as_bytes()));
            out.bytes(number, &types.0);
        }
        Form::Any => out.bytes(number, &any(value)),
        Form::Anys => items().for_each(|item| out.bytes(number, &any(item))),
        Form::Message(message) => out.bytes(number, &encode(message, value)),
        Form::Messages(message) => items().for_each(|item| out.bytes(number, &encode(message, item))),
        Form::Wrapped(message) => out.bytes(number, &wrapped(message, value)),
        Form::FlagOrMessage(message) => {
            let mut choice = Writer::default();
            match value {
                Value::Bool(flag) => choice.integer(2, i64::from(*flag)),
                schema => choice.bytes(1, &encode(message, schema)),
            }
            out.bytes(number, &choice.0);
        }
        Form::Parameters => items().for_each(|item| {
            let mut choice = Writer::default();
            match item.get("$ref") {
                Some(_) => choice.bytes(2, &encode(&REFERENCE, item)),
                None => choice.bytes(1, &parameter(item)),
            }
            out.bytes(number, &choice.0);
        }),
    }
}

/// A choice: the body, or one of the other places a parameter can be in.
fn parameter(value: &Value) -> Vec<u8> {
    let (mut out, mut other) = (Writer::default(), Writer::default());
    match value["in"].as_str().unwrap_or_default() {
        "body" => {
            out.bytes(1, &encode(&BODY_PARAMETER, value));
            return out.0;
        }
        "header" => other.bytes(1, &encode(&PATH_PARAMETER, value)),
        "query" => other.bytes(3, &encode(&QUERY_PARAMETER, value)),
        _ => other.bytes(4, &encode(&PATH_PARAMETER, value)),
    }
    out.bytes(2, &other.0);
    out.0
}
