//! Validation of values against a schema, with kube-openapi's verdicts and texts.
//!
//! On an update, what was wrong before and has not changed is let pass (ratcheting, KEP-4008): the errors of a node are
//! dropped where its old value, found by field or by list key, is equal to the new one.

use serde_json::{Map, Value};

use super::format;
use super::number;
use super::structural::{Additional, Demands, JsonType, Structural};
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::schema::{ListKind, MapKind};

/// What stands for the path of errors that upstream gives none.
const NO_PATH: &str = "<nil>";

/// Everything wrong with `value`; `old` is what it was before this update.
pub fn validate(value: &Value, old: Option<&Value>, schema: &Structural) -> ErrorList {
    ratcheted(&Path::ROOT, value, old, schema).errors
}

/// As [`validate`], of the status alone: its errors stand under `status`.
pub fn validate_status(status: &Value, old: Option<&Value>, schema: &Structural) -> ErrorList {
    let mut errors = validate(status, old, schema);
    for error in &mut errors {
        error.path = match error.path.as_str() {
            NO_PATH | "" => "status".to_string(),
            path => format!("status.{path}"),
        };
    }
    errors
}

#[derive(Default)]
struct Outcome {
    errors: ErrorList,
    /// How much of the schema applied: upstream shows the failures of the alternative that fits best by this count.
    matched: usize,
}

impl Outcome {
    fn merge(&mut self, other: Outcome) {
        self.matched += other.matched;
        other.errors.into_iter().for_each(|error| self.push(error));
    }

    fn push(&mut self, error: FieldError) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    fn fail(&mut self, kind: ErrorKind, path: &Path<'_>, value: Option<Value>, detail: impl Into<String>) {
        let value = value.map(|v| v.to_string());
        self.push(FieldError { kind, path: path.to_string(), value, detail: detail.into() });
    }

    /// An error without a path of its own.
    fn fail_anywhere(&mut self, detail: String) {
        let value = Some("\"\"".to_string());
        self.push(FieldError { kind: ErrorKind::Invalid, path: NO_PATH.into(), value, detail });
    }

    fn is_valid(&self) -> bool {
        self.errors.is_empty()
    }
}

fn ratcheted(path: &Path<'_>, value: &Value, old: Option<&Value>, schema: &Structural) -> Outcome {
    let mut outcome = check(path, value, old, schema);
    if !outcome.is_valid() && old == Some(value) {
        outcome.errors.clear();
    }
    outcome
}

fn check(path: &Path<'_>, value: &Value, old: Option<&Value>, schema: &Structural) -> Outcome {
    let mut out = Outcome::default();
    let demands = schema.demands.as_deref();
    check_type(path, value, schema, &mut out);
    if value.is_null() {
        demands.iter().for_each(|demands| check_enumeration(path, value, demands, &mut out));
        return out;
    }
    if let Some(demands) = demands {
        check_junctors(path, value, old, demands, &mut out);
        match value {
            Value::String(text) => check_string(path, text, demands, &mut out),
            Value::Number(number) => check_number(path, number, schema, demands, &mut out),
            _ => {}
        }
    }
    out.matched += 1;
    match value {
        Value::Array(items) => check_items(path, items, old, schema, &mut out),
        Value::Object(map) => {
            demands.iter().for_each(|demands| check_enumeration(path, value, demands, &mut out));
            check_entries(path, map, old, schema, &mut out);
            return out;
        }
        _ => {}
    }
    demands.iter().for_each(|demands| check_enumeration(path, value, demands, &mut out));
    out
}

/// The words for a value's own type and format.
fn type_of(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Number(n) if n.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn check_type(path: &Path<'_>, value: &Value, schema: &Structural, out: &mut Outcome) {
    let wanted = schema.type_words();
    let format = schema.demands.as_ref().map_or("", |d| d.format.as_str());
    if wanted.is_empty() && format.is_empty() {
        return;
    }
    out.matched += 1;
    let (actual, actual_format) = type_of(value);
    if value.is_null() {
        if !wanted.is_empty() && !schema.nullable {
            wrong_type(path, wanted, "null", out);
        }
        return;
    }
    let contains = |word: &str| wanted.split(',').any(|w| w == word);
    let float_as_integer = value.as_f64().is_some_and(number::is_integral) && contains("integer");
    let numeric = actual == "number" && float_as_integer || actual == "integer" && contains("number");
    let textual = value.is_string() || value.is_array();
    let fits = format.is_empty() || contains(actual) || actual_format == format || numeric;
    if !textual && !fits {
        return wrong_type(path, format, actual_format, out);
    }
    // A format says enough of texts.
    if textual && !format.is_empty() && !contains("number") && !contains("integer") {
        return;
    }
    if !contains(actual) && !numeric {
        wrong_type(path, wanted, actual, out);
    }
}

fn wrong_type(path: &Path<'_>, wanted: &str, actual: &str, out: &mut Outcome) {
    let detail = format!("{path} in body must be of type {wanted}: {actual:?}");
    out.fail(ErrorKind::TypeInvalid, path, Some(actual.into()), detail);
}

fn check_enumeration(path: &Path<'_>, value: &Value, demands: &Demands, out: &mut Outcome) {
    let allowed = &demands.enumeration;
    if allowed.is_empty() || allowed.iter().any(|one| number::same(one, value)) {
        return;
    }
    let shown: Vec<String> = allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_string)).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    out.push(FieldError::not_supported(path, value, &shown));
}

fn check_string(path: &Path<'_>, text: &str, demands: &Demands, out: &mut Outcome) {
    out.matched += 1;
    string_demand(path, text, demands, out);
    if !demands.format.is_empty() && !format::matches(&demands.format, text) {
        let detail = format!("{path} in body must be of type {}: {text:?}", demands.format);
        out.fail(ErrorKind::TypeInvalid, path, Some(text.into()), detail);
    }
}

/// The first that fails of length and pattern.
fn string_demand(path: &Path<'_>, text: &str, demands: &Demands, out: &mut Outcome) {
    let length = || text.chars().count() as u64;
    if let Some(max) = demands.max_length.filter(|max| length() > *max) {
        return out.push(FieldError::too_long(path, max as usize));
    }
    if let Some(min) = demands.min_length.filter(|min| length() < *min) {
        let detail = format!("{path} in body should be at least {min} chars long");
        return out.fail(ErrorKind::Invalid, path, Some(text.into()), detail);
    }
    let Some(pattern) = &demands.pattern else { return };
    let shown = match pattern.matches(text) {
        Ok(true) => return,
        Ok(false) => pattern.text.clone(),
        Err(why) => format!("{}, but pattern is invalid: {why}", pattern.text),
    };
    let detail = format!("{path} in body should match '{shown}'");
    out.fail(ErrorKind::Invalid, path, Some(text.into()), detail);
}

fn check_number(
    path: &Path<'_>,
    given: &serde_json::Number,
    schema: &Structural,
    demands: &Demands,
    out: &mut Outcome,
) {
    out.matched += 1;
    let json_type = match (schema.int_or_string, schema.json_type) {
        (false, Some(JsonType::Integer)) => "integer",
        (false, Some(JsonType::Number)) => "number",
        _ => "",
    };
    let value = given.as_f64().unwrap_or_default();
    let shown_path = path.to_string();
    let range = |number: f64, what: &str, out: &mut Outcome| {
        if let Err(why) = number::in_range(number, json_type, &demands.format, what, &shown_path) {
            out.fail_anywhere(why);
        }
    };
    let invalid = |detail: String, out: &mut Outcome| {
        out.fail(ErrorKind::Invalid, path, Some(Value::Number(given.clone())), detail);
    };
    range(value, "Checked", out);
    if let Some(factor) = demands.multiple_of {
        range(factor, "MultipleOf", out);
        if factor > 0.0 && !number::is_multiple(given, factor) {
            invalid(format!("{path} in body should be a multiple of {}", number::shown(factor)), out);
        }
    }
    if let Some(min) = demands.minimum {
        range(min, "Minimum boundary", out);
        match demands.exclusive_minimum {
            true if value <= min => {
                invalid(format!("{path} in body should be greater than {}", number::shown(min)), out)
            }
            false if value < min => {
                invalid(format!("{path} in body should be greater than or equal to {}", number::shown(min)), out);
            }
            _ => {}
        }
    }
    if let Some(max) = demands.maximum {
        range(max, "Maximum boundary", out);
        match demands.exclusive_maximum {
            true if value >= max => invalid(format!("{path} in body should be less than {}", number::shown(max)), out),
            false if value > max => {
                invalid(format!("{path} in body should be less than or equal to {}", number::shown(max)), out);
            }
            _ => {}
        }
    }
}

fn check_items(path: &Path<'_>, items: &[Value], old: Option<&Value>, schema: &Structural, out: &mut Outcome) {
    if let Some(nested) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            let before = old.and_then(|old| old_item(old, item, &schema.list));
            out.merge(ratcheted(&path.index(index), item, before, nested));
        }
    }
    out.matched += 1;
    let Some(demands) = &schema.demands else { return };
    let size = items.len() as u64;
    if let Some(min) = demands.min_items.filter(|min| size < *min) {
        let detail = format!("{path} in body should have at least {min} items");
        out.fail(ErrorKind::Invalid, path, Some(size.into()), detail);
    }
    if let Some(max) = demands.max_items.filter(|max| size > *max) {
        out.push(FieldError::too_many(path, items.len(), max as usize));
    }
}

/// The item that had the same keys: items of other lists cannot be told apart.
fn old_item<'v>(old: &'v Value, item: &Value, list: &ListKind) -> Option<&'v Value> {
    let ListKind::Map(keys) = list else { return None };
    old.as_array()?.iter().find(|before| keys.iter().all(|key| before.get(key) == item.get(key)))
}

fn check_entries(
    path: &Path<'_>,
    map: &Map<String, Value>,
    old: Option<&Value>,
    schema: &Structural,
    out: &mut Outcome,
) {
    out.matched += 1;
    let demands = schema.demands.as_deref();
    let size = map.len() as u64;
    if let Some(min) = demands.and_then(|d| d.min_properties).filter(|min| size < *min) {
        let detail = format!("{path} in body should have at least {min} properties");
        out.fail(ErrorKind::Invalid, path, Some(size.into()), detail);
    }
    if let Some(max) = demands.and_then(|d| d.max_properties).filter(|max| size > *max) {
        out.push(FieldError::too_many(path, map.len(), max as usize));
    }
    let old = old.filter(|_| schema.map != MapKind::Atomic);
    for (key, value) in map {
        let nested = match (schema.properties.get(key), &schema.additional) {
            (Some(nested), _) => nested,
            (None, Additional::Schema(nested)) => nested,
            (None, Additional::Any(false)) => {
                let detail = format!("{} in body is a forbidden property", path.child(key));
                out.fail(ErrorKind::Invalid, path, Some(key.as_str().into()), detail);
                continue;
            }
            (None, _) => continue,
        };
        let before = old.and_then(|old| old.get(key));
        out.merge(ratcheted(&path.child(key), value, before, nested));
    }
    for name in demands.map(|d| d.required.as_slice()).unwrap_or_default() {
        if !map.contains_key(name) {
            out.push(FieldError::required(&path.child(name), ""));
        }
    }
}

fn check_junctors(path: &Path<'_>, value: &Value, old: Option<&Value>, demands: &Demands, out: &mut Outcome) {
    let judge = |schema: &Structural| check(path, value, old, schema);
    out.matched += 1;
    if !demands.any_of.is_empty() {
        let (valid, best) = alternatives(demands.any_of.iter().map(judge), true);
        if valid == 0 {
            out.fail_anywhere(format!("{:?} must validate at least one schema (anyOf)", path.to_string()));
        }
        best.into_iter().for_each(|best| out.merge(best));
    }
    if !demands.one_of.is_empty() {
        let (valid, best) = alternatives(demands.one_of.iter().map(judge), false);
        if valid != 1 {
            let found =
                if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
            let text = path.to_string();
            out.fail_anywhere(format!("{text:?} must validate one and only one schema (oneOf). {found}"));
        }
        best.into_iter().for_each(|best| out.merge(best));
    }
    if !demands.all_of.is_empty() {
        let outcomes: Vec<Outcome> = demands.all_of.iter().map(judge).collect();
        let valid = outcomes.iter().filter(|o| o.is_valid()).count();
        outcomes.into_iter().for_each(|outcome| out.merge(outcome));
        if valid != demands.all_of.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            out.fail_anywhere(format!("{:?} must validate all the schemas (allOf){none}", path.to_string()));
        }
    }
    if demands.not.as_deref().is_some_and(|not| judge(not).is_valid()) {
        out.fail_anywhere(format!("{:?} must not validate the schema (not)", path.to_string()));
    }
}

/// How many are valid, and what to merge: the first valid one, or else the failures of the one that fits best.
fn alternatives(outcomes: impl Iterator<Item = Outcome>, first_is_enough: bool) -> (usize, Option<Outcome>) {
    let (mut valid, mut chosen) = (0, None::<Outcome>);
    for outcome in outcomes {
        if outcome.is_valid() {
            valid += 1;
            if valid == 1 {
                chosen = Some(outcome);
            }
            if first_is_enough {
                break;
            }
        } else if valid == 0 && chosen.as_ref().is_none_or(|best| outcome.matched > best.matched) {
            chosen = Some(outcome);
        }
    }
    // Several valid alternatives have no failures to show.
    (valid, chosen.filter(|_| valid <= 1))
}
