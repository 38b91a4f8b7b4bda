//! Merging an applied configuration into the live object, and taking paths out of an object.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::typed::{Atom, MAX_DEPTH, Typed};

impl<'s> Typed<'s> {
    /// The live object with the configuration laid over it.
    pub fn merge(self, atom: Atom<'s>, live: &Value, config: &Value) -> Value {
        self.merge_at(atom, live, config, MAX_DEPTH)
    }

    fn merge_at(self, atom: Atom<'s>, live: &Value, config: &Value, depth: usize) -> Value {
        match (atom, live, config) {
            (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(live), Value::Object(config))
                if depth > 0 =>
            {
                Value::Object(self.merge_maps(atom, live, config, depth - 1))
            }
            (Atom::Set | Atom::Keyed(..), Value::Array(live), Value::Array(config))
                if !live.is_empty() && depth > 0 =>
            {
                Value::Array(self.merge_lists(atom, live, config, depth - 1))
            }
            // A null says nothing of the entries of a map or list that is merged entry by entry.
            (Atom::Struct(_) | Atom::Map(_) | Atom::Set | Atom::Keyed(..), _, Value::Null) => live.clone(),
            _ => config.clone(),
        }
    }

    fn merge_maps(
        self,
        atom: Atom<'s>,
        live: &Map<String, Value>,
        config: &Map<String, Value>,
        depth: usize,
    ) -> Map<String, Value> {
        let kept = live.iter().filter(|(key, _)| !config.contains_key(*key));
        let mut out: Map<String, Value> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        for (key, value) in config {
            let merged = match (live.get(key), self.entry(atom, key)) {
                (Some(old), Some(entry)) => self.merge_at(entry, old, value, depth),
                _ => value.clone(),
            };
            // A null takes away what stands, which may be somebody's; of nothing it says nothing.
            if !merged.is_null() || live.get(key).is_some_and(|old| !old.is_null()) {
                out.insert(key.clone(), merged);
            }
        }
        out
    }

    /// Items of both keep the configuration's order, items only in the live list stay where they stand among them.
    fn merge_lists(self, atom: Atom<'s>, live: &[Value], config: &[Value], depth: usize) -> Vec<Value> {
        let named = |list: &[Value]| -> Vec<Option<Box<str>>> {
            list.iter().map(|item| self.element(atom, item).ok()).collect()
        };
        let (live_names, config_names) = (named(live), named(config));
        // The first of a name counts.
        let index = |names: &'_ [Option<Box<str>>]| -> HashMap<Box<str>, usize> {
            names.iter().enumerate().rev().filter_map(|(i, name)| Some((name.clone()?, i))).collect()
        };
        let (live_index, config_index) = (index(&live_names), index(&config_names));
        let in_config = |name: &Option<Box<str>>| name.as_ref().is_some_and(|name| config_index.contains_key(name));
        let in_live = |name: &Option<Box<str>>| live_index.get(name.as_ref()?).copied();
        let mut out = Vec::with_capacity(live.len().max(config.len()));
        let mut shared = config_names.iter().filter(|name| in_live(name).is_some()).peekable();
        let mut config_items = config_names.iter().zip(config).peekable();
        let mut at = 0;
        loop {
            while at < live.len() {
                let name = &live_names[at];
                if !in_config(name) {
                    out.push(live[at].clone());
                } else if shared.peek() == Some(&name) {
                    break;
                }
                // An item of both that is out of the configuration's order is merged when its turn comes.
                at += 1;
            }
            let Some((name, item)) = config_items.next() else { break };
            let merged = match in_live(name) {
                Some(index) => self.merge_at(self.list_item(atom), &live[index], item, depth),
                None => item.clone(),
            };
            out.push(merged);
            if shared.peek() == Some(&name) {
                at += usize::from(live_names.get(at) == Some(name));
                shared.next();
            }
        }
        out
    }

    /// The object without these paths. Emptied maps and lists stay, empty.
    pub fn remove(self, atom: Atom<'s>, value: &mut Value, paths: &FieldSet) {
        match (atom, value) {
            (Atom::Struct(_) | Atom::Map(_) | Atom::Deduced, Value::Object(map)) => {
                map.retain(|key, value| {
                    let element = format!("f:{key}");
                    if paths.has(&element) {
                        return false;
                    }
                    if let (Some(below), Some(entry)) = (paths.below(&element), self.entry(atom, key)) {
                        self.remove(entry, value, below);
                    }
                    true
                });
            }
            (Atom::Set | Atom::Keyed(..), Value::Array(list)) => {
                list.retain_mut(|item| {
                    let Ok(element) = self.element(atom, item) else { return true };
                    if paths.has(&element) {
                        return false;
                    }
                    if let Some(below) = paths.below(&element) {
                        self.remove(self.list_item(atom), item, below);
                    }
                    true
                });
            }
            _ => {}
        }
    }

    /// The set with every struct field on the way to a path made a member of its own, so that whole structs are compared.
    pub fn with_named_fields(self, atom: Atom<'s>, set: &FieldSet) -> FieldSet {
        set.map_members(Some(atom), &|at: Option<Atom<'s>>, element| {
            let Some(at) = at else { return (false, None) };
            match element.strip_prefix("f:") {
                Some(name) => (matches!(at, Atom::Struct(ty) if ty.field(name).is_some()), self.entry(at, name)),
                None => (false, Some(self.list_item(at))),
            }
        })
    }
}
