//! Equality and order across types: numbers compare by value whatever their type, everything else only with its own kind.

use std::cmp::Ordering;

use super::{List, ListKind, Map, Value, list};

/// Whether two values are equal. Values of different kinds are not.
pub fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    use Value::*;
    match (a, b) {
        (Null, Null) => true,
        (Bool(a), Bool(b)) => a == b,
        (Int(_) | Uint(_) | Double(_), Int(_) | Uint(_) | Double(_)) => numbers(a, b) == Some(Ordering::Equal),
        (String(a), String(b)) => **a == **b,
        (Bytes(a), Bytes(b)) => a == b,
        (List(a), List(b)) => lists_equal(a, b),
        (Map(a), Map(b)) => maps_equal(a, b),
        (Message(a), Message(b)) => {
            let same = |(name, value): &(std::sync::Arc<str>, Value<'_>)| {
                b.fields.iter().any(|(n, v)| n == name && equal(value, v))
            };
            a.type_name == b.type_name && a.fields.len() == b.fields.len() && a.fields.iter().all(same)
        }
        (Duration(a), Duration(b)) => a == b,
        (Timestamp(a), Timestamp(b)) => a == b,
        (Type(a), Type(b)) => a == b,
        (Optional(None), Optional(None)) => true,
        (Optional(Some(a)), Optional(Some(b))) => equal(a, b),
        (Quantity(a), Quantity(b)) => a == b,
        (Ip(a), Ip(b)) => a == b,
        (Cidr(a), Cidr(b)) => a == b,
        (Url(a), Url(b)) => a.text() == b.text(),
        (Semver(a), Semver(b)) => a.compare(b) == Ordering::Equal,
        (Format(a), Format(b)) => std::ptr::eq(*a, *b),
        (Authorization(a), Authorization(b)) => std::sync::Arc::ptr_eq(a, b),
        (Preserved(a), Preserved(b)) => a == b,
        (Preserved(a), other) | (other, Preserved(a)) => {
            super::Value::read(a, None).is_ok_and(|read| !matches!(read, Preserved(_)) && equal(&read, other))
        }
        _ => false,
    }
}

fn lists_equal(a: &List<'_>, b: &List<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut right = b.iter();
    match a.kind() {
        ListKind::Atomic => a.iter().zip(right).all(|pair| matches!(pair, (Ok(a), Ok(b)) if equal(&a, &b))),
        ListKind::Set => {
            let Ok(left) = a.to_vec() else { return false };
            right.all(|b| b.is_ok_and(|b| left.iter().any(|a| equal(a, &b))))
        }
        ListKind::Map(keys) => {
            let Ok(left) = a.to_vec() else { return false };
            right.all(|b| b.is_ok_and(|b| left.iter().any(|a| list::same_keys(a, &b, keys) && equal(a, &b))))
        }
    }
}

fn maps_equal(a: &Map<'_>, b: &Map<'_>) -> bool {
    if a.len() != b.len() {
        return false;
    }
    if let (Map::Object(a, declared), Map::Object(b, _)) = (a, b) {
        // Fields that the schema does not know compare as the JSON they are.
        let unknown = |name: &str| !declared.fields.values().any(|f| *f.name == *name);
        if a.iter().any(|(name, value)| unknown(name) && b.get(name).is_some_and(|other| other != value)) {
            return false;
        }
    }
    let Ok(entries) = a.entries() else { return false };
    entries.iter().all(|(key, value)| matches!(b.get(key), Some(Ok(other)) if equal(value, &other)))
}

/// The order of two values; `None` where they have none.
pub fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    use Value::*;
    match (a, b) {
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        (Int(_) | Uint(_) | Double(_), Int(_) | Uint(_) | Double(_)) => numbers(a, b),
        (String(a), String(b)) => Some((**a).cmp(&**b)),
        (Bytes(a), Bytes(b)) => Some(a.cmp(b)),
        (Duration(a), Duration(b)) => Some(a.cmp(b)),
        (Timestamp(a), Timestamp(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn numbers(a: &Value<'_>, b: &Value<'_>) -> Option<Ordering> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => whole_with_double(a, b),
        (None, Some(b)) => whole_with_double(b, a).map(Ordering::reverse),
        (None, None) => match (a, b) {
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            _ => None,
        },
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

fn whole_with_double(whole: i128, double: &Value<'_>) -> Option<Ordering> {
    let Value::Double(double) = double else { return None };
    if *double >= 2e19 {
        return Some(Ordering::Less);
    }
    if *double <= -2e19 {
        return Some(Ordering::Greater);
    }
    (whole as f64).partial_cmp(double)
}
