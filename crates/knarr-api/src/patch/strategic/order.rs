//! The order of merged lists: items the patch names keep the patch's order, items only the server has keep the server's,
//! and the two are interleaved by the server's order as far as it says.

use std::cmp::Ordering;

use serde_json::Value;

use super::{BAD_ORDER_LIST, DIRECTIVE, Failure, Merged, go_text, go_type, merge_key_of};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elements {
    Scalars,
    Maps,
}

/// What the lists hold; all items must be of one kind, and there must be one.
pub(super) fn elements(lists: &[&[Value]]) -> Merged<Elements> {
    let mut kind = None;
    for item in lists.iter().copied().flatten() {
        if item.is_array() && kind.is_none() {
            return Err(Failure::ListOfLists);
        }
        if kind.is_some_and(|k| k != go_type(item)) {
            let shown: Vec<String> = lists.iter().map(|list| go_text(&Value::Array(list.to_vec()))).collect();
            return Err(Failure::Other(format!("list element types are not identical: [{}]", shown.join(" "))));
        }
        kind = Some(go_type(item));
    }
    match kind {
        None => Err(Failure::Other("no elements in any of the given slices".into())),
        Some("map[string]interface {}") => Ok(Elements::Maps),
        Some(_) => Ok(Elements::Scalars),
    }
}

/// Whether two items are the same one: by the merge key, or by value where there is none.
fn same(left: &Value, right: &Value, merge_key: &str) -> Merged<bool> {
    if merge_key.is_empty() {
        return Ok(left == right);
    }
    Ok(merge_key_of(left, merge_key)? == merge_key_of(right, merge_key)?)
}

fn position(list: &[Value], item: &Value, merge_key: &str) -> Option<usize> {
    if merge_key.is_empty() {
        return list.iter().position(|other| other == item);
    }
    let key = item.get(merge_key)?;
    list.iter().position(|other| other.get(merge_key) == Some(key))
}

/// A patch must list its items in the order that it asks for.
pub(super) fn check(patch: &[Value], order: &[Value], merge_key: &str) -> Merged<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        let mut found = false;
        for next in wanted.by_ref() {
            if same(item, next, merge_key)? {
                found = true;
                break;
            }
        }
        if !found {
            let (patch, order) = (go_text(&Value::Array(patch.to_vec())), go_text(&Value::Array(order.to_vec())));
            return Err(Failure::Other(format!(
                "The order in patch list:\n{patch}\n doesn't match {} list:\n{order}\n",
                super::SET_ORDER
            )));
        }
    }
    Ok(())
}

/// Orders `merged` by `order` (the patch's) and `server` (the original's).
pub(super) fn in_order(merged: Vec<Value>, order: &[Value], server: &[Value], merge_key: &str) -> Merged<Vec<Value>> {
    if !merge_key.is_empty() {
        for item in order {
            if !item.is_object() {
                return Err(BAD_ORDER_LIST);
            }
            merge_key_of(item, merge_key)?;
        }
    }
    let (mut wanted, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, merge_key).is_some());
    wanted.sort_by_key(|item| position(order, item, merge_key));
    others.sort_by_key(|item| position(server, item, merge_key));
    Ok(interleave(others, wanted, server, merge_key))
}

/// Each of `others` goes before the first of `wanted` that stands behind it on the server.
fn interleave(others: Vec<Value>, wanted: Vec<Value>, server: &[Value], merge_key: &str) -> Vec<Value> {
    let mut out = Vec::with_capacity(others.len() + wanted.len());
    let mut others = others.into_iter().peekable();
    for next in wanted {
        let place = position(server, &next, merge_key);
        while let Some(other) = others.peek() {
            let before = position(server, other, merge_key).zip(place).map(|(a, b)| a.cmp(&b));
            if before != Some(Ordering::Less) {
                break;
            }
            out.extend(others.next());
        }
        out.push(next);
    }
    out.extend(others);
    out
}
