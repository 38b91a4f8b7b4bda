//! The notation of signatures. It is ours alone: a wrong one is a bug that the first test finds.

use std::sync::Arc;

use super::{Implementation, Overload};
use crate::types::Type;

/// Reads `list(A)::indexOf(A) -> int`.
pub fn parse(text: &'static str, call: Implementation) -> (&'static str, Overload) {
    let (head, result) = text.split_once(" -> ").expect("a signature says its result");
    let (receiver, head) = match head.split_once("::") {
        Some((receiver, head)) => (Some(receiver), head),
        None => (None, head),
    };
    let (name, arguments) = head.split_once('(').expect("a signature has parentheses");
    let arguments = arguments.strip_suffix(')').expect("a signature closes its parentheses");
    let parameters: Vec<Type> = receiver.into_iter().chain(split(arguments)).map(parse_type).collect();
    let result = parse_type(result);
    let generic = parameters.iter().chain([&result]).any(has_parameter);
    (name, Overload { method: receiver.is_some(), parameters, result, generic, call })
}

/// Splits at the commas that stand in no parentheses.
fn split(text: &'static str) -> Vec<&'static str> {
    let (mut out, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() {
        out.push(last);
    }
    out
}

fn parse_type(text: &'static str) -> Type {
    if let Some((name, inner)) = text.split_once('(') {
        let mut inner =
            split(inner.strip_suffix(')').expect("a type closes its parentheses")).into_iter().map(parse_type);
        let first = inner.next().expect("a type with parentheses has a parameter");
        return match name {
            "list" => Type::list(first),
            "map" => Type::map(first, inner.next().expect("a map has two parameters")),
            "optional" => Type::optional(first),
            "type" => Type::Type(Some(Arc::new(first))),
            other => unreachable!("no type {other}"),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "net.IP" | "net.CIDR" => Type::opaque(text),
        _ if text.len() == 1 => Type::Named(text.chars().next().expect("it has one character")),
        _ => Type::hidden(text),
    }
}

fn has_parameter(parameter: &Type) -> bool {
    match parameter {
        Type::Named(_) => true,
        Type::List(element) => has_parameter(element),
        Type::Map(entry) => has_parameter(&entry.0) || has_parameter(&entry.1),
        Type::Type(of) | Type::Opaque(_, of) => of.as_deref().is_some_and(has_parameter),
        _ => false,
    }
}
