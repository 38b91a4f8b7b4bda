//! Lists: Kubernetes' own (`isSorted`, `sum`, `min`, `max`, `indexOf`) and cel-go's extension (version 3).

use std::cmp::Ordering;
use std::sync::Arc;

use super::Row;
use super::strings::int;
use crate::error::EvalError;
use crate::value::{Duration, List, Value, compare, equal};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("list(int)::isSorted() -> bool", is_sorted),
    ("list(uint)::isSorted() -> bool", is_sorted),
    ("list(double)::isSorted() -> bool", is_sorted),
    ("list(bool)::isSorted() -> bool", is_sorted),
    ("list(duration)::isSorted() -> bool", is_sorted),
    ("list(timestamp)::isSorted() -> bool", is_sorted),
    ("list(string)::isSorted() -> bool", is_sorted),
    ("list(bytes)::isSorted() -> bool", is_sorted),
    ("list(int)::sum() -> int", |v| sum(v, Value::Int(0))),
    ("list(uint)::sum() -> uint", |v| sum(v, Value::Uint(0))),
    ("list(double)::sum() -> double", |v| sum(v, Value::Double(0.0))),
    ("list(duration)::sum() -> duration", |v| sum(v, Value::Duration(Duration(0)))),
    ("list(int)::max() -> int", max),
    ("list(uint)::max() -> uint", max),
    ("list(double)::max() -> double", max),
    ("list(bool)::max() -> bool", max),
    ("list(duration)::max() -> duration", max),
    ("list(timestamp)::max() -> timestamp", max),
    ("list(string)::max() -> string", max),
    ("list(bytes)::max() -> bytes", max),
    ("list(int)::min() -> int", min),
    ("list(uint)::min() -> uint", min),
    ("list(double)::min() -> double", min),
    ("list(bool)::min() -> bool", min),
    ("list(duration)::min() -> duration", min),
    ("list(timestamp)::min() -> timestamp", min),
    ("list(string)::min() -> string", min),
    ("list(bytes)::min() -> bytes", min),
    ("list(A)::indexOf(A) -> int", |v| position(v, false)),
    ("list(A)::lastIndexOf(A) -> int", |v| position(v, true)),
    ("list(T)::slice(int, int) -> list(T)", slice),
    ("list(list(T))::flatten() -> list(T)", flatten),
    ("list(dyn)::flatten(int) -> list(dyn)", flatten),
    ("list(int)::sort() -> list(int)", sort),
    ("list(uint)::sort() -> list(uint)", sort),
    ("list(double)::sort() -> list(double)", sort),
    ("list(bool)::sort() -> list(bool)", sort),
    ("list(duration)::sort() -> list(duration)", sort),
    ("list(timestamp)::sort() -> list(timestamp)", sort),
    ("list(string)::sort() -> list(string)", sort),
    ("list(bytes)::sort() -> list(bytes)", sort),
    ("list(T)::@sortByAssociatedKeys(list(int)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(uint)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(double)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(bool)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(duration)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(timestamp)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(string)) -> list(T)", sort),
    ("list(T)::@sortByAssociatedKeys(list(bytes)) -> list(T)", sort),
    ("lists.range(int) -> list(int)", range),
    ("list(T)::reverse() -> list(T)", reverse),
    ("list(T)::distinct() -> list(T)", distinct),
];

/// A list made by one call never holds more: the cost of a call is only known once it is done.
const RANGE_LIMIT: i64 = 1_000_000;

pub(super) fn list<'v, 'a>(values: &'v [Value<'a>], at: usize) -> Result<&'v List<'a>, EvalError> {
    match values.get(at) {
        Some(Value::List(list)) => Ok(list),
        _ => Err(EvalError::overload()),
    }
}

fn order(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, EvalError> {
    compare(a, b).ok_or_else(EvalError::overload)
}

fn is_sorted<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let items = list(values, 0)?.to_vec()?;
    for pair in items.windows(2) {
        if order(&pair[0], &pair[1])?.is_gt() {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(values: &[Value<'a>], zero: Value<'a>) -> Answer<'a> {
    let (_, add) = super::find("_+_").expect("there is addition");
    list(values, 0)?.iter().try_fold(zero, |sum, item| {
        let pair = [sum, item?];
        let overload = add.overloads.iter().find(|o| o.fits(&pair)).ok_or_else(EvalError::overload)?;
        (overload.call)(&pair)
    })
}

fn extreme<'a>(values: &[Value<'a>], name: &str, better: Ordering) -> Answer<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(values, 0)?.iter() {
        let item = item?;
        match &best {
            Some(so_far) if order(&item, so_far)? != better => {}
            _ => best = Some(item),
        }
    }
    best.ok_or_else(|| EvalError::failed(format!("{name} called on empty list")))
}

fn max<'a>(values: &[Value<'a>]) -> Answer<'a> {
    extreme(values, "max", Ordering::Greater)
}

fn min<'a>(values: &[Value<'a>]) -> Answer<'a> {
    extreme(values, "min", Ordering::Less)
}

fn position<'a>(values: &[Value<'a>], last: bool) -> Answer<'a> {
    let items = list(values, 0)?.to_vec()?;
    let same = |item: &Value<'_>| equal(item, &values[1]);
    let found = if last { items.iter().rposition(same) } else { items.iter().position(same) };
    Ok(Value::Int(found.map_or(-1, |at| at as i64)))
}

fn slice<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let items = list(values, 0)?.to_vec()?;
    let (start, end) = (int(values, 1)?, int(values, 2)?);
    let refuse = |why: String| Err(EvalError::failed(format!("cannot slice({start}, {end}), {why}")));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(from), Ok(to)) if from <= to && to <= items.len() => Ok(Value::list(items[from..to].to_vec())),
        (Ok(from), Ok(to)) if from > to => refuse("start index must be less than or equal to end index".to_string()),
        (Ok(_), Ok(_)) => refuse(format!("list is length {}", items.len())),
        _ => refuse("negative indexes not supported".to_string()),
    }
}

fn flatten<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let depth = if values.len() > 1 { int(values, 1)? } else { 1 };
    if depth < 0 {
        return Err(EvalError::failed("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(list(values, 0)?, depth, &mut out)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), EvalError> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out)?,
            item => out.push(item),
        }
    }
    Ok(())
}

/// Sorts a list by itself, or by a list of keys.
fn sort<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let items = list(values, 0)?.to_vec()?;
    let keys = list(values, values.len() - 1)?.to_vec()?;
    if keys.len() != items.len() {
        return Err(EvalError::failed(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            items.len(),
            keys.len()
        )));
    }
    if keys.first().is_some_and(|first| keys.iter().any(|key| key.type_name() != first.type_name())) {
        return Err(EvalError::failed("list elements must have the same type"));
    }
    if keys.first().is_some_and(|first| compare(first, first).is_none() && !matches!(first, Value::Double(_))) {
        return Err(EvalError::failed("list elements must be comparable"));
    }
    let mut places: Vec<usize> = (0..items.len()).collect();
    places.sort_by(|a, b| compare(&keys[*a], &keys[*b]).unwrap_or(Ordering::Equal));
    Ok(Value::List(List::Owned(Arc::new(places.into_iter().map(|at| items[at].clone()).collect()))))
}

fn range<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let length = int(values, 0)?;
    if length > RANGE_LIMIT {
        return Err(EvalError::CostLimit);
    }
    Ok(Value::list((0..length).map(Value::Int).collect()))
}

fn reverse<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let mut items = list(values, 0)?.to_vec()?;
    items.reverse();
    Ok(Value::list(items))
}

fn distinct<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let items = list(values, 0)?;
    // The comparisons are quadratic: what the call may cost bounds how many there are.
    if items.len().saturating_mul(items.len()) as u64 > crate::cost::PER_CALL_LIMIT {
        return Err(EvalError::CostLimit);
    }
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in items.iter() {
        let item = item?;
        if !out.iter().any(|known| equal(known, &item)) {
            out.push(item);
        }
    }
    Ok(Value::list(out))
}
