//! The query of a CONNECT as the options object that admission sees, and back where admission changed it.

use knarr_api::Object;
use serde_json::{Map, Value};

use super::{is_true, parameters};

const FLAGS: [&str; 4] = ["stdin", "stdout", "stderr", "tty"];
const TEXTS: [&str; 2] = ["container", "path"];
const LISTS: [&str; 2] = ["command", "ports"];

/// The options of this kind.
pub(super) fn from_query(kind: &str, query: &str) -> Object {
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), "v1".into());
    for (name, value) in parameters(query) {
        match name.as_str() {
            "command" => push(&mut object, "command", value.into()),
            "ports" => {
                for port in value.split(',').filter_map(|port| port.parse::<i32>().ok()) {
                    push(&mut object, "ports", port.into());
                }
            }
            name if FLAGS.contains(&name) => drop(object.insert(name.into(), is_true(&value).into())),
            name if TEXTS.contains(&name) => drop(object.insert(name.into(), value.into())),
            _ => {}
        }
    }
    Value::Object(object)
}

fn push(object: &mut Map<String, Value>, list: &str, value: Value) {
    if let Value::Array(values) = object.entry(list).or_insert_with(|| Value::Array(Vec::new())) {
        values.push(value);
    }
}

/// The query that says what changed options say, beside what of the old one no options have.
pub(super) fn to_query(options: &Object, query: &str) -> String {
    let known = |name: &str| FLAGS.contains(&name) || TEXTS.contains(&name) || LISTS.contains(&name);
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    out.extend_pairs(parameters(query).iter().filter(|(name, _)| !known(name)));
    for (name, value) in options.as_object().into_iter().flatten().filter(|(name, _)| known(name)) {
        match value {
            Value::Array(values) => {
                out.extend_pairs(values.iter().map(|value| (name, shown(value))));
            }
            Value::Null => {}
            value => {
                out.append_pair(name, &shown(value));
            }
        }
    }
    out.finish()
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_options_make_another_query() {
        let query = "command=sh&command=-c&stdin=1&container=a&timeout=3";
        let mut options = from_query("PodExecOptions", query);
        options["container"] = "b c".into();
        let changed = to_query(&options, query);
        assert_eq!(changed, "timeout=3&command=sh&command=-c&container=b+c&stdin=true");
        assert_eq!(from_query("PodExecOptions", &changed), options);
    }
}
