//! Values as upstream's server holds them in memory. Its messages show parts of objects in that form: Go's field names in Go's
//! order, with every zero. Only messages need it, so the table is read when the first one does.

mod unified;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Value, json};

struct Field<'t> {
    /// As Go shows it.
    name: &'t str,
    /// Where it stands in JSON, if not under the same letters.
    json: Option<&'t str>,
    /// Left out where it is not set.
    omitted: bool,
    embedded: bool,
    ty: &'t str,
}

static TYPES: LazyLock<HashMap<&'static str, Vec<Field<'static>>>> = LazyLock::new(|| {
    let lines = include_str!("../../generated/internal.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(name, fields)| (name, fields.split(' ').map(field).collect()))
        .collect()
});

fn field(text: &'static str) -> Field<'static> {
    if let Some(ty) = text.strip_prefix('+') {
        return Field { name: "", json: None, omitted: false, embedded: true, ty };
    }
    let (omitted, text) = text.strip_prefix('~').map_or((false, text), |rest| (true, rest));
    let (name, ty) = text.split_once(':').unwrap_or((text, "any"));
    let (name, json) = name.split_once('=').map_or((name, None), |(name, json)| (name, Some(json)));
    Field { name, json, omitted, embedded: false, ty }
}

/// A value in memory, ready to be shown.
enum Shown {
    Scalar(String),
    List(Vec<Shown>),
    Fields(Vec<(String, Shown)>),
}

/// A value of one of upstream's types (`core.PodSpec`, `*core.Affinity`, `[]core.Volume`), on one line.
pub fn show(ty: &str, value: &Value) -> String {
    let mut out = String::new();
    shown(ty, value).write(&mut out, None);
    out
}

/// What differs between two values of a type, as a unified diff of both, a field a line.
pub fn difference(ty: &str, old: &Value, new: &Value) -> String {
    let lines = |value: &Value| {
        let mut out = String::new();
        shown(ty, value).write(&mut out, Some(0));
        out
    };
    unified::difference(&lines(old), &lines(new))
}

fn shown(ty: &str, value: &Value) -> Shown {
    if let Some(inner) = ty.strip_prefix('*') {
        return if value.is_null() { null() } else { shown(inner, value) };
    }
    if let Some(item) = ty.strip_prefix("[]") {
        return match value {
            Value::Array(items) => Shown::List(items.iter().map(|v| shown(item, v)).collect()),
            Value::Null => null(),
            other => plain(other),
        };
    }
    if let Some(entry) = ty.strip_prefix("map:") {
        let Value::Object(entries) = value else { return null() };
        let mut fields: Vec<(String, Shown)> = entries.iter().map(|(k, v)| (k.clone(), shown(entry, v))).collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        return Shown::Fields(fields);
    }
    match TYPES.get(ty) {
        Some(fields) => {
            let alternative = alternative(ty, value);
            let mut out = Vec::with_capacity(fields.len());
            add_fields(ty, fields, alternative.as_ref().unwrap_or(value), &mut out);
            Shown::Fields(out)
        }
        None if value.is_null() => zero(ty),
        None => plain(value),
    }
}

/// What is one thing or another in JSON, and has a field for each in memory.
fn alternative(ty: &str, value: &Value) -> Option<Value> {
    let (other, schema) = match ty {
        "apiextensions.JSONSchemaPropsOrArray" => ("JSONSchemas", json!({"schema": value})),
        "apiextensions.JSONSchemaPropsOrBool" => ("Allows", json!({"schema": value, "Allows": true})),
        "apiextensions.JSONSchemaPropsOrStringArray" => ("Property", json!({"schema": value})),
        _ => return None,
    };
    Some(if value.is_object() { schema } else { json!({other: value}) })
}

fn add_fields(ty: &str, fields: &[Field<'_>], value: &Value, out: &mut Vec<(String, Shown)>) {
    for field in fields {
        if field.embedded {
            // A template's metadata has a name in JSON and none in memory.
            let inner = if field.ty == "meta.ObjectMeta" { &value["metadata"] } else { value };
            if let Some(fields) = TYPES.get(field.ty) {
                add_fields(field.ty, fields, inner, out);
            }
            continue;
        }
        let found = find(value, field.json.unwrap_or(field.name));
        if field.omitted && crate::decode::empties::is_hollow(found) {
            continue;
        }
        let moved = (ty == "core.PodSpec" && field.name == "SecurityContext").then(|| security_context(value, found));
        out.push((field.name.to_string(), shown(field.ty, moved.as_ref().unwrap_or(found))));
    }
}

/// In memory, what a pod shares with its host stands with its security context.
fn security_context(spec: &Value, context: &Value) -> Value {
    let mut context = context.clone();
    if context.is_null() {
        context = Value::Object(Default::default());
    }
    for field in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"] {
        context[field] = spec[field].clone();
    }
    context
}

fn find<'v>(value: &'v Value, name: &str) -> &'v Value {
    let entries = value.as_object().into_iter().flatten();
    entries.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or(&Value::Null)
}

fn null() -> Shown {
    Shown::Scalar("null".into())
}

fn zero(ty: &str) -> Shown {
    Shown::Scalar(
        match ty {
            "string" | "types.UID" | "types.NodeName" => "\"\"",
            "bool" => "false",
            "int32" | "int64" | "float64" | "intstr.IntOrString" => "0",
            "resource.Quantity" => "\"0\"",
            _ => "null",
        }
        .into(),
    )
}

fn plain(value: &Value) -> Shown {
    match value {
        Value::Array(items) => Shown::List(items.iter().map(plain).collect()),
        Value::Object(fields) => Shown::Fields(fields.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        Value::String(text) => Shown::Scalar(quoted(text)),
        scalar => Shown::Scalar(scalar.to_string()),
    }
}

/// As Go's encoder quotes: safe within HTML.
fn quoted(text: &str) -> String {
    let mut out = Value::from(text).to_string();
    for (from, to) in [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")] {
        if out.contains(from) {
            out = out.replace(from, to);
        }
    }
    out
}

impl Shown {
    /// On one line, or indented by a space for each level.
    fn write(&self, out: &mut String, indent: Option<usize>) {
        let (open, close, len) = match self {
            Shown::Scalar(text) => return out.push_str(text),
            Shown::List(items) => ('[', ']', items.len()),
            Shown::Fields(fields) => ('{', '}', fields.len()),
        };
        out.push(open);
        let inner = indent.map(|i| i + 1);
        for i in 0..len {
            if i > 0 {
                out.push(',');
            }
            new_line(out, inner);
            match self {
                Shown::List(items) => items[i].write(out, inner),
                Shown::Fields(fields) => {
                    let space = if indent.is_some() { " " } else { "" };
                    let _ = write!(out, "{}:{space}", quoted(&fields[i].0));
                    fields[i].1.write(out, inner);
                }
                Shown::Scalar(_) => {}
            }
        }
        if len > 0 {
            new_line(out, indent);
        }
        out.push(close);
    }
}

fn new_line(out: &mut String, indent: Option<usize>) {
    if let Some(indent) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    }
}

#[cfg(test)]
mod tests;
