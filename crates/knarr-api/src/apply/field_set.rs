//! Sets of field paths, and their wire form `FieldsV1`.
//!
//! A path element is kept in its wire form (`f:spec`, `k:{"name":"x"}`, `v:"a"`), which orders and compares as it must and
//! is what is read and written on every request.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::tree::MAX_FIELDS_DEPTH;

/// A path from the root, in wire form.
pub type FieldPath = Vec<Box<str>>;

/// A set of paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldSet {
    children: BTreeMap<Box<str>, Entry>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Entry {
    /// Whether the path to here is itself in the set.
    member: bool,
    below: FieldSet,
}

impl FieldSet {
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }

    pub fn insert(&mut self, path: &[Box<str>]) {
        let mut set = self;
        for (i, element) in path.iter().enumerate() {
            if !set.children.contains_key(element) {
                set.children.insert(element.clone(), Entry::default());
            }
            let Some(entry) = set.children.get_mut(element) else { return };
            entry.member |= i + 1 == path.len();
            set = &mut entry.below;
        }
    }

    /// Fills in what lies under an element; `fill` says whether the element is itself in the set. One that leaves nothing leaves no
    /// trace.
    pub fn fill(&mut self, element: Box<str>, fill: impl FnOnce(&mut FieldSet) -> bool) {
        let mut entry = self.children.remove(&element).unwrap_or_default();
        entry.member |= fill(&mut entry.below);
        if entry.member || !entry.below.is_empty() {
            self.children.insert(element, entry);
        }
    }

    /// Whether the path of this one element is in the set.
    pub fn has(&self, element: &str) -> bool {
        self.children.get(element).is_some_and(|e| e.member)
    }

    pub fn has_path(&self, path: &[Box<str>]) -> bool {
        match path.split_first() {
            None => false,
            Some((last, [])) => self.has(last),
            Some((first, rest)) => self.below(first).is_some_and(|set| set.has_path(rest)),
        }
    }

    /// What the set holds under an element; `None` where that is nothing.
    pub fn below(&self, element: &str) -> Option<&FieldSet> {
        self.children.get(element).map(|e| &e.below).filter(|set| !set.is_empty())
    }

    pub fn union(mut self, other: &FieldSet) -> FieldSet {
        self.extend(other);
        self
    }

    fn extend(&mut self, other: &FieldSet) {
        for (element, theirs) in &other.children {
            match self.children.get_mut(element) {
                Some(ours) => {
                    ours.member |= theirs.member;
                    ours.below.extend(&theirs.below);
                }
                None => {
                    self.children.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    /// The paths that `other` does not have; a path in `other` says nothing of the paths below it.
    pub fn difference(&self, other: &FieldSet) -> FieldSet {
        self.filtered(other, |ours, theirs| ours && !theirs, true)
    }

    pub fn intersection(&self, other: &FieldSet) -> FieldSet {
        self.filtered(other, |ours, theirs| ours && theirs, false)
    }

    fn filtered(&self, other: &FieldSet, keep: fn(bool, bool) -> bool, keep_alone: bool) -> FieldSet {
        let mut out = FieldSet::default();
        for (element, ours) in &self.children {
            match other.children.get(element) {
                Some(theirs) => {
                    let below = ours.below.filtered(&theirs.below, keep, keep_alone);
                    let member = keep(ours.member, theirs.member);
                    if member || !below.is_empty() {
                        out.children.insert(element.clone(), Entry { member, below });
                    }
                }
                None if keep_alone => {
                    out.children.insert(element.clone(), ours.clone());
                }
                None => {}
            }
        }
        out
    }

    /// Takes a path and everything below it out.
    pub fn remove_tree(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let element = format!("f:{first}");
        if rest.is_empty() {
            self.children.remove(element.as_str());
            return;
        }
        if let Some(entry) = self.children.get_mut(element.as_str()) {
            entry.below.remove_tree(rest);
            if !entry.member && entry.below.is_empty() {
                self.children.remove(element.as_str());
            }
        }
    }

    /// Takes only the path of these elements itself out.
    pub fn remove(&mut self, path: &[&str]) {
        let Some((&first, rest)) = path.split_first() else { return };
        if let Some(entry) = self.children.get_mut(first) {
            if rest.is_empty() {
                entry.member = false;
            } else {
                entry.below.remove(rest);
            }
            if !entry.member && entry.below.is_empty() {
                self.children.remove(first);
            }
        }
    }

    /// The same set in which `member` may add elements on the way, asked with each element's place.
    pub fn map_members<N: Copy>(&self, at: N, step: &impl Fn(N, &str) -> (bool, N)) -> FieldSet {
        let mut out = FieldSet::default();
        for (element, entry) in &self.children {
            let (named, next) = step(at, element);
            let member = entry.member || (named && !entry.below.is_empty());
            out.children.insert(element.clone(), Entry { member, below: entry.below.map_members(next, step) });
        }
        out
    }

    /// Every path: of each level first the members, and then what lies below them.
    pub fn paths(&self) -> Vec<FieldPath> {
        let mut out = Vec::new();
        self.collect(&mut Vec::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut FieldPath, out: &mut Vec<FieldPath>) {
        for (element, _) in self.children.iter().filter(|(_, entry)| entry.member) {
            prefix.push(element.clone());
            out.push(prefix.clone());
            prefix.pop();
        }
        for (element, entry) in &self.children {
            prefix.push(element.clone());
            entry.below.collect(prefix, out);
            prefix.pop();
        }
    }

    /// Reads `FieldsV1`; `None` where it is not well-formed.
    pub fn parse(fields: &Map<String, Value>) -> Option<FieldSet> {
        Self::parse_at(fields, MAX_FIELDS_DEPTH)
    }

    fn parse_at(fields: &Map<String, Value>, depth: usize) -> Option<FieldSet> {
        let mut out = FieldSet::default();
        for (key, value) in fields {
            if key == "." {
                continue;
            }
            let below = value.as_object()?;
            let member = below.is_empty() || below.contains_key(".");
            let below = Self::parse_at(below, depth.checked_sub(1)?)?;
            out.children.insert(canonical(key)?, Entry { member, below });
        }
        Some(out)
    }

    /// The wire form.
    pub fn to_value(&self) -> Value {
        let mut out = Map::new();
        for (element, entry) in &self.children {
            let mut below = entry.below.to_value();
            if entry.member && !entry.below.is_empty() {
                below["."] = Value::Object(Map::new());
            }
            out.insert(element.to_string(), below);
        }
        Value::Object(out)
    }
}

/// An element as this process writes it: JSON inside it compact and in key order.
fn canonical(key: &str) -> Option<Box<str>> {
    let (kind, rest) = key.split_once(':')?;
    match kind {
        "f" => Some(key.into()),
        "i" => rest.parse::<i64>().ok().map(|_| key.into()),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|v| format!("v:{v}").into()),
        "k" => {
            let mut keys: BTreeMap<String, Value> = serde_json::from_str(rest).ok()?;
            keys.retain(|_, v| !v.is_null());
            serde_json::to_string(&keys).ok().map(|keys| format!("k:{keys}").into())
        }
        _ => None,
    }
}

/// A path as messages show it: `.spec.containers[name="web"].image`.
pub fn shown(path: &[Box<str>]) -> String {
    let mut out = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("f", name)) => {
                out.push('.');
                out.push_str(name);
            }
            Some(("k", keys)) => out.push_str(&shown_keys(keys)),
            Some(("v", value)) => _ = write!(out, "[={value}]"),
            Some((_, index)) => _ = write!(out, "[{index}]"),
            None => {}
        }
    }
    out
}

fn shown_keys(keys: &str) -> String {
    let keys: BTreeMap<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("[{}]", keys.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> FieldSet {
        FieldSet::parse(fields.as_object().expect("a map")).expect("well-formed")
    }

    #[test]
    fn the_wire_form_is_read_and_written() {
        let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:x": {}},
            "f:metadata": {"f:finalizers": {".": {}, "v:\"a\"": {}}}});
        assert_eq!(set(fields.clone()).to_value(), fields);
        let shown: Vec<String> = set(fields).paths().iter().map(|p| shown(p)).collect();
        assert_eq!(
            shown,
            [
                ".metadata.finalizers",
                ".metadata.finalizers[=\"a\"]",
                ".spec.x",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
        for bad in [json!({"x": {}}), json!({"f:a": 1}), json!({"k:x": {}}), json!({"v:{": {}})] {
            assert_eq!(FieldSet::parse(bad.as_object().expect("a map")), None, "{bad}");
        }
    }

    #[test]
    fn sets_have_an_algebra() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {}, "f:d": {}}));
        assert_eq!(a.difference(&b), set(json!({"f:a": {"f:b": {}}, "f:c": {}})));
        assert_eq!(a.intersection(&b), set(json!({"f:a": {}})));
        assert_eq!(a.clone().union(&b), set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}})));
        let mut c = a.clone();
        c.remove_tree(&["a"]);
        assert_eq!(c, set(json!({"f:c": {}})));
    }
}
