//! `metadata.managedFields`: reading, writing, sorting and capping the entries.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::field_set::FieldSet;

/// Upstream keeps this many managers that update; older ones are folded into one entry.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT_CHANGES: &str = "ancient-changes";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One manager and what it owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339; empty where the entry has none.
    pub time: String,
    pub fields: FieldSet,
}

impl Manager {
    /// What makes it the manager it is: one that applies is the same in every version.
    fn identity(&self) -> (&str, Operation, &str, &str) {
        let version = if self.operation == Operation::Apply { "" } else { &self.api_version };
        (&self.name, self.operation, &self.subresource, version)
    }

    /// Whether both are the same manager.
    pub fn same(&self, other: &Manager) -> bool {
        self.identity() == other.identity()
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "apiVersion": self.api_version, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_value(),
            "operation": self.operation.as_str(),
        });
        for (key, value) in [("manager", &self.name), ("subresource", &self.subresource), ("time", &self.time)] {
            if !value.is_empty() {
                entry[key] = value.as_str().into();
            }
        }
        entry
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(pub Vec<Manager>);

impl Managers {
    /// Reads `metadata.managedFields`; an entry that is not well-formed spoils them all. Of several entries of one manager (a
    /// client may have renamed it) the last counts.
    pub fn parse(entries: Option<&Value>) -> Result<Managers, String> {
        let entries = match entries {
            None | Some(Value::Null) => return Ok(Managers::default()),
            Some(Value::Array(entries)) => entries,
            Some(_) => return Err("managedFields must be a list".into()),
        };
        let parsed = entries.iter().enumerate().map(|(index, entry)| parse_entry(index, entry));
        let mut managers: Vec<Manager> = parsed.collect::<Result<_, _>>()?;
        let lasts: HashMap<_, usize> = managers.iter().enumerate().map(|(i, m)| (m.identity(), i)).collect();
        if lasts.len() < managers.len() {
            let mut lasts: Vec<usize> = lasts.into_values().collect();
            lasts.sort_unstable();
            managers = lasts.into_iter().map(|index| managers[index].clone()).collect();
        }
        Ok(Managers(managers))
    }

    /// Writes them in upstream's order: operation, time, name, version, subresource.
    pub fn into_value(mut self) -> Option<Value> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| order(a).cmp(&order(b)));
        Some(self.0.iter().map(Manager::to_value).collect())
    }

    /// Takes the entry of this manager out.
    pub fn take(&mut self, like: &Manager) -> Option<Manager> {
        self.0.iter().position(|m| m.same(like)).map(|index| self.0.remove(index))
    }

    pub fn drop_empty(&mut self) {
        self.0.retain(|m| !m.fields.is_empty());
    }

    /// Folds the oldest updates of a version into one, where there are too many.
    pub fn cap(&mut self) {
        let updates = |all: &[Manager]| all.iter().filter(|m| m.operation == Operation::Update).count();
        let mut excess = updates(&self.0).saturating_sub(MAX_UPDATE_MANAGERS);
        if excess == 0 {
            return;
        }
        self.0.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
        let mut index = 0;
        let mut firsts: Vec<usize> = Vec::new();
        while excess > 0 && index < self.0.len() {
            let manager = &self.0[index];
            if manager.operation != Operation::Update {
                index += 1;
                continue;
            }
            match firsts.iter().copied().find(|&first| self.0[first].api_version == manager.api_version) {
                None => {
                    firsts.push(index);
                    index += 1;
                }
                Some(first) => {
                    let folded = self.0.remove(index);
                    let bucket = &mut self.0[first];
                    bucket.name = ANCIENT_CHANGES.into();
                    bucket.subresource.clear();
                    bucket.fields = std::mem::take(&mut bucket.fields).union(&folded.fields);
                    bucket.time = folded.time;
                    excess -= 1;
                }
            }
        }
    }
}

fn order(m: &Manager) -> (Operation, &str, &str, &str, &str) {
    (m.operation, &m.time, &m.name, &m.api_version, &m.subresource)
}

fn parse_entry(index: usize, entry: &Value) -> Result<Manager, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    let operation = match text("operation").as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err("operation must be `Apply` or `Update`".into()),
    };
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        return Err("apiVersion must not be empty".into());
    }
    match text("fieldsType").as_str() {
        "FieldsV1" => {}
        "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
        other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {index}")),
    }
    let empty = Map::new();
    let fields = entry.get("fieldsV1").and_then(Value::as_object).unwrap_or(&empty);
    let fields = FieldSet::parse(fields).ok_or("error decoding set: invalid field path")?;
    Ok(Manager {
        name: text("manager"),
        operation,
        api_version,
        subresource: text("subresource"),
        time: text("time"),
        fields,
    })
}
