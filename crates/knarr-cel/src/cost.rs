//! What a call costs at run time, in cel-go's and Kubernetes' units: one unit is about 50 ns.

use crate::error::EvalError;
use crate::value::{List, Map, Value};

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations of one validation may cost together.
pub const VALIDATION_BUDGET: u64 = 10_000_000;
/// What all match conditions of one request may cost together.
pub const MATCH_CONDITIONS_BUDGET: u64 = VALIDATION_BUDGET / 4;

pub(crate) const STRING_TRAVERSAL: f64 = 0.1;
pub(crate) const REGEX_LENGTH: f64 = 0.25;
pub(crate) const LIST_CREATION: u64 = 10;
pub(crate) const MAP_CREATION: u64 = 30;
pub(crate) const STRUCT_CREATION: u64 = 40;
pub(crate) const AUTHORIZATION_CHECK: u64 = 350_000;

/// What several evaluations may still cost together.
#[derive(Clone, Debug)]
pub struct Budget {
    remaining: u64,
}

impl Default for Budget {
    /// The budget of a validation.
    fn default() -> Self {
        Budget::new(VALIDATION_BUDGET)
    }
}

impl Budget {
    pub fn new(units: u64) -> Self {
        Budget { remaining: units }
    }

    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    pub fn is_spent(&self) -> bool {
        self.remaining == 0
    }

    /// Pays for an evaluation; what cannot be paid leaves nothing.
    pub fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.remaining.checked_sub(cost) {
            Some(rest) => {
                self.remaining = rest;
                Ok(())
            }
            None => {
                self.remaining = 0;
                Err(EvalError::OutOfBudget)
            }
        }
    }
}

fn size(values: &[Value<'_>], at: usize) -> u64 {
    values.get(at).and_then(Value::size).map_or(1, |size| size as u64)
}

fn times(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// What a finished call cost.
pub(crate) fn of_call(function: &str, values: &[Value<'_>], result: &Result<Value<'_>, EvalError>) -> u64 {
    let first = || size(values, 0);
    match function {
        "check" => AUTHORIZATION_CHECK,
        "fieldSelector" | "labelSelector" => selector(size(values, 1)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => values.first().map_or(0, traversal),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "strings.quote"
        | "format" => times(first(), STRING_TRAVERSAL),
        "ip" if matches!(values, [Value::Cidr(_)]) => 1,
        "ip" => times(first(), STRING_TRAVERSAL),
        "ip.isCanonical" | "replace" | "split" => times(first(), 2.0 * STRING_TRAVERSAL),
        "join" => times(result.as_ref().ok().and_then(Value::size).unwrap_or(1) as u64, 2.0 * STRING_TRAVERSAL),
        "matches" | "find" | "findAll" => pattern(first(), size(values, 1)),
        "containsIP" | "containsCIDR" => network(function, values),
        "validate" => match values.first() {
            Some(Value::Format(format)) => pattern(size(values, 1), format.regex_size),
            _ => 1,
        },
        "contains" => times(first(), STRING_TRAVERSAL) * times(size(values, 1), STRING_TRAVERSAL),
        "sets.contains" | "sets.intersects" => 1 + first() * size(values, 1),
        "sets.equivalent" => 1 + 2 * first() * size(values, 1),
        "slice" | "lists.range" | "reverse" => {
            1 + LIST_CREATION + result.as_ref().ok().and_then(Value::size).unwrap_or(0) as u64
        }
        "flatten" => flatten(values),
        "distinct" | "sort" => self_comparison(values.first()),
        "@sortByAssociatedKeys" => self_comparison(values.last()),
        "startsWith" | "endsWith" => times(first(), STRING_TRAVERSAL),
        "bytes" if matches!(values, [Value::String(_)]) => times(first(), STRING_TRAVERSAL),
        "string" if matches!(values, [Value::Bytes(_)]) => times(first(), STRING_TRAVERSAL),
        _ => operator(function, values),
    }
}

fn operator(function: &str, values: &[Value<'_>]) -> u64 {
    let texts = |v: &Value<'_>| matches!(v, Value::String(_) | Value::Bytes(_));
    match (function, values) {
        ("_==_", [Value::Ip(_) | Value::Cidr(_), _]) => 1,
        ("_==_" | "_!=_", [_, _]) => times(size(values, 0).min(size(values, 1)), STRING_TRAVERSAL),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, _]) if texts(a) => {
            times(size(values, 0).min(size(values, 1)), STRING_TRAVERSAL)
        }
        ("_+_", [a, _]) if texts(a) => times(size(values, 0) + size(values, 1), STRING_TRAVERSAL),
        ("@in", [_, Value::List(list)]) => list.len() as u64,
        _ => 1,
    }
}

fn pattern(text: u64, regex: u64) -> u64 {
    times(text + 1, STRING_TRAVERSAL).saturating_mul(times(regex, REGEX_LENGTH))
}

/// A selector's text is parsed into requirements, at least one for each two characters.
fn selector(length: u64) -> u64 {
    let requirements = times(length, 0.5);
    LIST_CREATION + times(length, STRING_TRAVERSAL) + requirements * (LIST_CREATION + STRUCT_CREATION)
}

fn network(function: &str, values: &[Value<'_>]) -> u64 {
    let own = size(values, 0);
    let mut cost = times(own + own, STRING_TRAVERSAL);
    if function == "containsCIDR" {
        cost += times(own, STRING_TRAVERSAL) + 1;
    }
    if matches!(values.get(1), Some(Value::String(_))) {
        cost += times(size(values, 1), STRING_TRAVERSAL);
    }
    cost
}

fn flatten(values: &[Value<'_>]) -> u64 {
    let depth = match values.get(1) {
        Some(Value::Int(depth)) => *depth as f64,
        _ => 1.0,
    };
    1 + LIST_CREATION + (size(values, 0) as f64 * depth) as u64
}

fn self_comparison(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let texts = matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))));
    let factor = if texts { 2.0 + STRING_TRAVERSAL } else { 2.0 };
    let size = list.len() as f64;
    1 + LIST_CREATION + (size * size * factor) as u64
}

/// What it costs to look at all of a value once.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * STRING_TRAVERSAL) as u64,
        Value::List(list) => of_list(list),
        Value::Map(map) => of_map(map),
        _ => 1,
    }
}

fn of_list(list: &List<'_>) -> u64 {
    list.iter().map(|item| item.map_or(1, |item| traversal(&item))).sum()
}

fn of_map(map: &Map<'_>) -> u64 {
    let entries = map.entries().unwrap_or_default();
    entries.iter().map(|(key, value)| traversal(key) + traversal(value)).sum()
}
