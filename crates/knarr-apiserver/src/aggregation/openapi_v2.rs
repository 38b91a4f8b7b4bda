//! One OpenAPI v2 document of all servers' documents.

use std::collections::{BTreeMap, BTreeSet};

use knarr_api::GroupVersion;
use serde_json::{Map, Value};

use super::Aggregator;

const PREFIX: &str = "#/definitions/";

impl Aggregator {
    /// Adds the paths and definitions of remote servers to this server's own document.
    pub fn add_openapi_v2(&self, own: &mut Value) {
        let mut documents: Vec<(GroupVersion, _)> =
            self.documents.load().iter().map(|(version, document)| (version.clone(), document.clone())).collect();
        documents.sort_by(|a, b| a.0.cmp(&b.0));
        for (version, document) in documents {
            if let Some(remote) = &document.openapi_v2 {
                merge(own, remote, &version);
            }
        }
    }
}

/// Adds what `remote` says of one version: its paths and the definitions that they need. A definition that means something else here
/// gets another name.
fn merge(own: &mut Value, remote: &Value, version: &GroupVersion) {
    let base = format!("/apis/{version}");
    let paths: Map<String, Value> = remote["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(path, _)| path.strip_prefix(&base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        .map(|(path, item)| (path.clone(), item.clone()))
        .collect();
    let needed = closure(&paths, &remote["definitions"]);
    let mut renamed = BTreeMap::new();
    for name in &needed {
        let new = &remote["definitions"][name];
        let taken = |name: &str| own["definitions"].get(name).is_some_and(|there| there != new);
        if taken(name) {
            let other = (2..).map(|n| format!("{name}_v{n}")).find(|other| !taken(other));
            renamed.insert(name.clone(), other.unwrap_or_default());
        }
    }
    for name in needed {
        let mut definition = remote["definitions"][&name].clone();
        rename(&mut definition, &renamed);
        let shown = renamed.get(&name).cloned().unwrap_or(name);
        own["definitions"][&shown] = definition;
    }
    for (path, mut item) in paths {
        rename(&mut item, &renamed);
        own["paths"][&path] = item;
    }
}

/// The names of all definitions that these paths refer to, and those to others.
fn closure(paths: &Map<String, Value>, definitions: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&Value> = paths.values().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(PREFIX))
                    && let Some(definition) = definitions.get(name)
                    && found.insert(name.to_string())
                {
                    open.push(definition);
                }
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

fn rename(value: &mut Value, renamed: &BTreeMap<String, String>) {
    if renamed.is_empty() {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(other) = reference.strip_prefix(PREFIX).and_then(|name| renamed.get(name))
            {
                *reference = format!("{PREFIX}{other}");
            }
            map.values_mut().for_each(|value| rename(value, renamed));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, renamed)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn definitions_of_one_name_and_two_meanings_live_side_by_side() {
        let path =
            |name: &str| json!({"get": {"responses": {"200": {"schema": {"$ref": format!("#/definitions/{name}")}}}}});
        let mut own =
            json!({"paths": {"/api/": path("A")}, "definitions": {"A": {"type": "string"}, "B": {"type": "object"}}});
        let remote = json!({
            "paths": {"/apis/g/v1/as": path("A"), "/apis/g/v10/as": path("C"), "/apis/h/v1/as": path("C")},
            "definitions": {"A": {"properties": {"b": {"$ref": "#/definitions/B"}}}, "B": {"type": "object"}, "C": {}},
        });
        merge(&mut own, &remote, &GroupVersion::new("g", "v1"));
        let definitions: Vec<&String> = own["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(definitions, ["A", "A_v2", "B"]);
        assert_eq!(own["definitions"]["A_v2"]["properties"]["b"]["$ref"], "#/definitions/B");
        let schema = &own["paths"]["/apis/g/v1/as"]["get"]["responses"]["200"]["schema"];
        assert_eq!(schema["$ref"], "#/definitions/A_v2");
        assert_eq!(own["paths"].as_object().unwrap().len(), 2);
    }
}
