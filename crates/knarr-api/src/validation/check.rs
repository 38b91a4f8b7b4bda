//! The checker: walks an object, knows where it is, gathers what is wrong.

use std::net::IpAddr;

use serde_json::Value;

use crate::field::{ErrorKind, ErrorList, FieldError};
use crate::internal;
use crate::names::Rule;
use crate::quantity::Quantity;

/// Gathers errors at the current path.
#[derive(Default)]
pub struct Checker {
    path: String,
    errors: ErrorList,
    /// Bytes of what the errors show.
    shown: usize,
}

/// An object may be wrong in so many places that telling of all would take more than the object; the rest goes untold.
const MOST_SHOWN: usize = 4 * 1024 * 1024;

/// The string in a field; empty where there is none.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The integer in a field.
pub fn int(value: &Value, field: &str) -> Option<i64> {
    value[field].as_i64()
}

/// Whether a field holds `true`.
pub fn flag(value: &Value, field: &str) -> bool {
    value[field] == true
}

/// The list in a field; empty where there is none.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The entries of the map in a field.
pub fn entries<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[field].as_object().into_iter().flatten()
}

/// Whether a field holds anything but null.
pub fn has(value: &Value, field: &str) -> bool {
    !value[field].is_null()
}

/// Whether a field holds nothing, or something empty.
pub fn is_empty(value: &Value, field: &str) -> bool {
    match &value[field] {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// Whether two fields hold the same; nothing and something empty count as the same.
pub fn same(a: &Value, b: &Value, field: &str) -> bool {
    equal(&a[field], &b[field])
}

/// Equality as upstream's semantic comparison: absent, null and empty are one; quantities are canonical already.
pub fn equal(a: &Value, b: &Value) -> bool {
    let hollow = |v: &Value| match v {
        Value::Null => true,
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| equal(v, y.get(k).unwrap_or(&Value::Null)))
                && y.iter().all(|(k, v)| x.contains_key(k) || hollow(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b)),
        _ => a == b || (hollow(a) && hollow(b)),
    }
}

/// A parsed quantity, zero where the text is none (decoding has refused those).
pub fn quantity(value: &Value) -> Quantity {
    value.as_str().and_then(|t| t.parse().ok()).unwrap_or(Quantity::ZERO)
}

impl Checker {
    pub fn new() -> Self {
        Self::default()
    }

    /// A checker that starts at a path.
    pub fn starting_at(path: &str) -> Self {
        Checker { path: path.to_string(), ..Self::default() }
    }

    pub fn into_errors(self) -> ErrorList {
        self.errors
    }

    /// A checker at the same path, with no errors yet.
    pub fn fresh(&self) -> Checker {
        Checker::starting_at(&self.path)
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Takes errors with their full paths.
    pub fn extend_errors(&mut self, errors: ErrorList) {
        self.errors.extend(errors);
    }

    /// Takes errors whose paths start here; those without a path stand here too.
    pub fn extend_below(&mut self, errors: ErrorList) {
        for mut error in errors {
            error.path = match error.path.as_str() {
                "<nil>" => self.path.clone(),
                path => self.path_of(path),
            };
            self.errors.push(error);
        }
    }

    /// A required field at a path of its own.
    pub fn required_at(&mut self, path: &str, detail: &str) {
        let path = path.to_string();
        self.errors.push(FieldError { kind: ErrorKind::Required, path, value: None, detail: detail.into() });
    }

    /// Takes over what another found.
    pub fn extend(&mut self, other: Checker) {
        self.shown += other.shown;
        self.errors.extend(other.errors);
    }

    pub fn error_count(&self) -> usize {
        self.errors.len()
    }

    /// Forgets the errors from `count` on.
    pub fn truncate(&mut self, count: usize) {
        self.errors.truncate(count);
    }

    fn path_of(&self, field: &str) -> String {
        if field.is_empty() {
            self.path.clone()
        } else if self.path.is_empty() || field.starts_with('[') {
            format!("{}{field}", self.path)
        } else {
            format!("{}.{field}", self.path)
        }
    }

    fn push(&mut self, kind: ErrorKind, field: &str, value: Option<&Value>, detail: impl Into<String>) {
        if self.shown > MOST_SHOWN {
            return;
        }
        self.keep(kind, field, value.map(Value::to_string), detail.into());
    }

    fn push_shown(&mut self, kind: ErrorKind, field: &str, value: String, detail: &str) {
        if self.shown <= MOST_SHOWN {
            self.keep(kind, field, Some(value), detail.into());
        }
    }

    fn keep(&mut self, kind: ErrorKind, field: &str, value: Option<String>, detail: String) {
        let path = self.path_of(field);
        self.shown += path.len() + detail.len() + value.as_ref().map_or(0, String::len);
        self.errors.push(FieldError { kind, path, value, detail });
    }

    pub fn required(&mut self, field: &str, detail: &str) {
        self.push(ErrorKind::Required, field, None, detail);
    }

    pub fn forbidden(&mut self, field: &str, detail: &str) {
        self.push(ErrorKind::Forbidden, field, None, detail);
    }

    pub fn invalid(&mut self, field: &str, value: &Value, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, field, Some(value), detail);
    }

    /// As [`Checker::invalid`], without showing what.
    pub fn invalid_without_value(&mut self, field: &str, detail: &str) {
        self.push(ErrorKind::Invalid, field, None, detail);
    }

    /// As [`Checker::invalid`], showing the value as a type of upstream's memory ([`crate::internal`]).
    pub fn invalid_as(&mut self, ty: &str, field: &str, value: &Value, detail: &str) {
        self.push_shown(ErrorKind::Invalid, field, internal::show(ty, value), detail);
    }

    /// As [`Checker::invalid`], of a value that has been shown already.
    pub fn invalid_shown(&mut self, field: &str, shown: String, detail: &str) {
        self.push_shown(ErrorKind::Invalid, field, shown, detail);
    }

    /// As [`Checker::duplicate`], showing the value as a type of upstream's memory.
    pub fn duplicate_as(&mut self, ty: &str, field: &str, value: &Value, detail: &str) {
        self.push_shown(ErrorKind::Duplicate, field, internal::show(ty, value), detail);
    }

    pub fn invalid_text(&mut self, field: &str, value: &str, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, field, Some(&value.into()), detail);
    }

    pub fn duplicate(&mut self, field: &str, value: &Value) {
        self.push(ErrorKind::Duplicate, field, Some(value), "");
    }

    pub fn not_found(&mut self, field: &str, value: &Value) {
        self.push(ErrorKind::NotFound, field, Some(value), "");
    }

    /// As [`Checker::not_found`], saying what there is.
    pub fn not_found_because(&mut self, field: &str, value: &Value, detail: &str) {
        self.push(ErrorKind::NotFound, field, Some(value), detail);
    }

    pub fn type_invalid(&mut self, field: &str, value: &Value, detail: impl Into<String>) {
        self.push(ErrorKind::TypeInvalid, field, Some(value), detail);
    }

    /// What upstream calls its own failure.
    pub fn internal(&mut self, field: &str, detail: &str) {
        self.push(ErrorKind::InternalError, field, None, detail);
    }

    pub fn too_long(&mut self, field: &str, max: usize) {
        self.push(ErrorKind::TooLong, field, None, format!("may not be more than {max} bytes"));
    }

    pub fn too_many(&mut self, field: &str, actual: usize, max: usize) {
        let actual = Value::from(actual);
        self.push(ErrorKind::TooMany, field, Some(&actual), format!("must have at most {max} items"));
    }

    /// `supported values: "a", "b"`, in the order given.
    pub fn not_supported(&mut self, field: &str, value: &Value, supported: &[&str]) {
        let names: Vec<String> = supported.iter().map(|s| Value::from(*s).to_string()).collect();
        let detail = if names.is_empty() { String::new() } else { format!("supported values: {}", names.join(", ")) };
        self.push(ErrorKind::NotSupported, field, Some(value), detail);
    }

    /// As [`Checker::not_supported`], showing the value as a type of upstream's memory.
    pub fn not_supported_as(&mut self, ty: &str, field: &str, value: &Value, supported: &[&str]) {
        let names: Vec<String> = supported.iter().map(|s| Value::from(*s).to_string()).collect();
        let detail = format!("supported values: {}", names.join(", "));
        self.push_shown(ErrorKind::NotSupported, field, internal::show(ty, value), &detail);
    }

    /// Runs `check` on the value of a field, with the path there. Absent is null.
    pub fn at(&mut self, value: &Value, field: &str, check: impl FnOnce(&mut Self, &Value)) {
        self.within(field, |c| check(c, &value[field]));
    }

    /// As [`Checker::at`], only where the field is there.
    pub fn if_set(&mut self, value: &Value, field: &str, check: impl FnOnce(&mut Self, &Value)) {
        if has(value, field) {
            self.at(value, field, check);
        }
    }

    /// Runs `check` with the path extended.
    pub fn within(&mut self, field: &str, check: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path = self.path_of(field);
        check(self);
        self.path.truncate(length);
    }

    /// Runs `check` on every item of the list in a field.
    pub fn each(&mut self, value: &Value, field: &str, mut check: impl FnMut(&mut Self, &Value)) {
        self.each_indexed(value, field, |c, _, item| check(c, item));
    }

    pub fn each_indexed(&mut self, value: &Value, field: &str, mut check: impl FnMut(&mut Self, usize, &Value)) {
        for (i, item) in list(value, field).iter().enumerate() {
            self.within(&format!("{field}[{i}]"), |c| check(c, i, item));
        }
    }

    /// Runs `check` on every entry of the map in a field.
    pub fn each_key(&mut self, value: &Value, field: &str, mut check: impl FnMut(&mut Self, &str, &Value)) {
        for (key, item) in entries(value, field) {
            self.within(&format!("{field}[{key}]"), |c| check(c, key, item));
        }
    }

    /// Checks a text by a rule.
    pub fn rule(&mut self, field: &str, value: &str, rule: Rule) {
        for message in rule(value) {
            self.invalid_text(field, value, message);
        }
    }

    /// A required name: missing, or checked by a rule.
    pub fn name(&mut self, value: &Value, field: &str, rule: Rule) {
        match text(value, field) {
            "" => self.required(field, ""),
            name => self.rule(field, name, rule),
        }
    }

    /// A required text of any form.
    pub fn need(&mut self, value: &Value, field: &str) {
        if is_empty(value, field) {
            self.required(field, "");
        }
    }

    /// A required choice.
    pub fn choice(&mut self, value: &Value, field: &str, supported: &[&str]) {
        match text(value, field) {
            "" => self.required(field, ""),
            chosen if supported.contains(&chosen) => {}
            _ => self.not_supported(field, &value[field], supported),
        }
    }

    /// A choice that must be made; made of nothing, it is just not supported.
    pub fn given_choice(&mut self, value: &Value, field: &str, supported: &[&str]) {
        if has(value, field) {
            self.supported(value, field, supported);
        } else {
            self.required(field, "");
        }
    }

    /// A choice whose absence is also just not supported.
    pub fn supported(&mut self, value: &Value, field: &str, supported: &[&str]) {
        if !supported.contains(&text(value, field)) {
            self.not_supported(field, &Value::from(text(value, field)), supported);
        }
    }

    /// A choice that may be absent.
    pub fn optional_choice(&mut self, value: &Value, field: &str, supported: &[&str]) {
        if has(value, field) {
            self.supported(value, field, supported);
        }
    }

    pub fn not_negative(&mut self, value: &Value, field: &str) {
        if int(value, field).is_some_and(|n| n < 0) {
            self.invalid(field, &value[field], "must be greater than or equal to 0");
        }
    }

    pub fn positive(&mut self, value: &Value, field: &str) {
        if int(value, field).is_some_and(|n| n <= 0) {
            self.invalid(field, &value[field], "must be greater than 0");
        }
    }

    pub fn in_range(&mut self, value: &Value, field: &str, low: i64, high: i64) {
        if int(value, field).is_some_and(|n| n < low || n > high) {
            self.invalid(field, &value[field], format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// A port number, required to be there.
    pub fn port(&mut self, value: &Value, field: &str) {
        let number = int(value, field).unwrap_or(0);
        if !(1..=65535).contains(&number) {
            self.invalid(field, &number.into(), "must be between 1 and 65535, inclusive");
        }
    }

    /// A port number or name.
    pub fn port_or_name(&mut self, value: &Value, field: &str) {
        match &value[field] {
            Value::String(name) => self.rule(field, name, crate::names::port_name),
            _ => self.port(value, field),
        }
    }

    /// The field may not change.
    pub fn immutable(&mut self, value: &Value, old: &Value, field: &str) {
        if !same(value, old, field) {
            self.invalid(field, &value[field], "field is immutable");
        }
    }

    /// As [`Checker::immutable`], showing the value as a type of upstream's memory.
    pub fn immutable_as(&mut self, ty: &str, value: &Value, old: &Value, field: &str) {
        if !same(value, old, field) {
            self.invalid_as(ty, field, &value[field], "field is immutable");
        }
    }

    /// An IP address; old fields allow leading zeros.
    pub fn ip(&mut self, field: &str, value: &str) {
        if parse_ip(value).is_none() {
            self.invalid_text(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
    }

    /// An IP address in its canonical form.
    pub fn canonical_ip(&mut self, field: &str, value: &str) {
        let Some(address) = parse_ip(value) else {
            self.invalid_text(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
            return;
        };
        if value.parse::<IpAddr>().is_err() {
            self.invalid_text(field, value, "must not have leading 0s");
        } else if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
            self.invalid_text(field, value, "must not be an IPv4-mapped IPv6 address");
        } else if address.to_string() != value {
            self.invalid_text(field, value, format!("must be in canonical form (\"{address}\")"));
        }
    }

    /// A CIDR; `strict` refuses leading zeros and bits beyond the prefix.
    pub fn cidr(&mut self, field: &str, value: &str, strict: bool) {
        let Some((address, bits)) = parse_cidr(value) else {
            self.invalid_text(field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
            return;
        };
        if !strict {
            return;
        }
        let network = ipnet::IpNet::new(address, bits).map(|n| n.trunc());
        match network {
            Ok(network) if network.addr() != address => {
                self.invalid_text(field, value, "must not have bits set beyond the prefix length");
            }
            Ok(network) if network.to_string() != value => {
                self.invalid_text(field, value, format!("must be in canonical form (\"{network}\")"));
            }
            _ => {}
        }
    }
}

/// Parses an address; in IPv4, leading zeros are passed over.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let plain = |p: &&str| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit());
    if parts.len() != 4 || !parts.iter().all(plain) {
        return None;
    }
    let stripped: Vec<&str> = parts.iter().map(|p| p.trim_start_matches('0')).collect();
    let stripped: Vec<&str> = stripped.into_iter().map(|p| if p.is_empty() { "0" } else { p }).collect();
    stripped.join(".").parse().ok()
}

/// Parses `address/bits`.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = parse_ip(address)?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.parse().ok().filter(|b| *b <= max)?;
    Some((address, bits))
}

/// Which items of a list have a key that stood before them in it.
pub fn repeated<K: std::hash::Hash + Eq>(items: &[Value], key: impl Fn(&Value) -> K) -> Vec<bool> {
    let mut seen = std::collections::HashSet::with_capacity(items.len());
    items.iter().map(|item| !seen.insert(key(item))).collect()
}

/// As [`repeated`], by the text of a field.
pub fn repeated_text(items: &[Value], field: &str) -> Vec<bool> {
    let mut seen = std::collections::HashSet::with_capacity(items.len());
    items.iter().map(|item| !seen.insert(text(item, field))).collect()
}

/// As [`repeated`], by the item itself.
pub fn repeated_items(items: &[Value]) -> Vec<bool> {
    repeated(items, Value::to_string)
}
