//! Operations: what a verb on a path takes and answers, in both versions of OpenAPI.

use serde_json::{Map, Value, json};

use super::Dialect;
use crate::resource::GroupVersionKind;
use crate::schema::schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const READ_TYPES: [&str; 4] =
    ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"];
const STREAM_TYPES: [&str; 3] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch", "application/cbor-seq"];
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const PATCH_TYPES: [&str; 5] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    STRATEGIC,
    "application/apply-patch+yaml",
    "application/apply-patch+cbor",
];

/// (name, type, description) of every query parameter.
const PARAMETERS: [(&str, &str, &str); 32] = [
    ("allowWatchBookmarks", "boolean", "Ask for BOOKMARK events in a watch."),
    ("command", "string", "The command to run, one argument a parameter; no shell is involved."),
    ("container", "string", "The container meant; may be left out where the pod has only one."),
    ("continue", "string", "The token of a previous, limited list from where to go on."),
    ("dryRun", "string", "With All, every stage but persisting is done."),
    ("fieldManager", "string", "The name of who makes these changes; required for apply."),
    ("fieldSelector", "string", "Restrict the objects by their fields."),
    ("fieldValidation", "string", "What happens to unknown and duplicate fields: Ignore, Warn or Strict."),
    ("follow", "boolean", "Keep the log stream open."),
    ("force", "boolean", "Take over fields that other managers own. Apply only."),
    ("gracePeriodSeconds", "integer", "Seconds before the object is deleted; zero is at once."),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read from the store, without its finalizers.",
    ),
    ("insecureSkipTLSVerifyBackend", "boolean", "Do not verify the certificate of the kubelet that serves the log."),
    ("labelSelector", "string", "Restrict the objects by their labels."),
    ("limit", "integer", "The most objects in one answer; the rest is reached by continue."),
    ("limitBytes", "integer", "The most bytes of log to send."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("path", "string", "The path of the request to what is proxied."),
    ("ports", "integer", "The ports to forward; required with WebSockets."),
    ("pretty", "string", "If 'true', the output is indented."),
    ("previous", "boolean", "The logs of the container's last run."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
    ("resourceVersion", "string", "Constrains which version the answer may be of."),
    ("resourceVersionMatch", "string", "How resourceVersion constrains a list."),
    ("sendInitialEvents", "boolean", "Begin a watch with events for what is there, then a bookmark."),
    ("shardSelector", "string", "Restrict the objects to a range of a hash."),
    ("sinceSeconds", "integer", "Only logs of the last so many seconds."),
    ("stream", "string", "Which log stream: All, Stdout or Stderr."),
    ("tailLines", "integer", "The number of lines from the end of the log."),
    ("timeoutSeconds", "integer", "The longest that the list or watch may take."),
    ("timestamps", "boolean", "Put a time stamp before each line."),
    ("watch", "boolean", "Watch for changes instead of listing."),
];

const STREAM_PARAMETERS: [&str; 4] = ["stderr", "stdin", "stdout", "tty"];
pub const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
pub const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
pub const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
pub const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
pub const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];
pub const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];

/// What an operation answers.
#[derive(Clone)]
pub enum Answer {
    /// A definition by name.
    Definition(String),
    Text,
}

/// One operation, not yet rendered.
pub struct Operation {
    pub id: String,
    pub tag: String,
    pub description: String,
    /// `x-kubernetes-action`; empty where there is none.
    pub action: &'static str,
    pub gvk: Option<GroupVersionKind>,
    /// The definition of the body.
    pub body: Option<String>,
    pub body_required: bool,
    pub query: &'static [&'static str],
    pub answer: Answer,
    pub codes: &'static [&'static str],
}

impl Operation {
    fn produces(&self) -> Vec<&'static str> {
        match (&self.answer, self.action) {
            (Answer::Text, "connect") => vec!["*/*"],
            (Answer::Text, _) => [&["text/plain"], &READ_TYPES[..]].concat(),
            (_, "list" | "watch" | "watchlist") => [&READ_TYPES[..], &STREAM_TYPES[..]].concat(),
            _ => READ_TYPES.to_vec(),
        }
    }

    /// Of a kind that users defined: it has no strategic merge, which `kubectl apply` reads off its document.
    fn is_custom(&self) -> bool {
        self.gvk.as_ref().is_some_and(|gvk| schema().by_gvk(gvk).is_none())
    }

    fn consumes(&self) -> Vec<&'static str> {
        match self.action {
            "patch" => PATCH_TYPES.into_iter().filter(|name| *name != STRATEGIC || !self.is_custom()).collect(),
            _ => vec!["*/*"],
        }
    }

    pub fn render(&self, dialect: Dialect) -> Value {
        let mut out = match dialect {
            Dialect::V2 => self.version_2(),
            Dialect::V3 => self.version_3(),
        };
        out["operationId"] = self.id.as_str().into();
        out["tags"] = json!([self.tag]);
        out["description"] = self.description.as_str().into();
        if !self.action.is_empty() {
            out["x-kubernetes-action"] = self.action.into();
        }
        if let Some(gvk) = &self.gvk {
            out["x-kubernetes-group-version-kind"] = super::definitions::gvk(gvk);
        }
        out
    }

    fn version_2(&self) -> Value {
        let schema = match &self.answer {
            Answer::Text => json!({"type": "string"}),
            Answer::Definition(name) => Dialect::V2.reference(name),
        };
        let mut parameters = Vec::new();
        if let Some(body) = &self.body {
            let mut parameter = json!({"in": "body", "name": "body", "schema": Dialect::V2.reference(body)});
            if self.body_required {
                parameter["required"] = true.into();
            }
            parameters.push(parameter);
        }
        parameters.extend(self.query.iter().map(|name| query(Dialect::V2, name)));
        let answers = responses(self.codes, |_| json!({"schema": schema}));
        let mut out = json!({"consumes": self.consumes(), "produces": self.produces(), "schemes": ["https"], "responses": answers});
        if !parameters.is_empty() {
            out["parameters"] = parameters.into();
        }
        out
    }

    fn version_3(&self) -> Value {
        let schema = match &self.answer {
            Answer::Text => json!({"type": "string"}),
            Answer::Definition(name) => Dialect::V3.reference(name),
        };
        let content = |types: &[&str], schema: &Value| -> Value {
            Value::Object(types.iter().map(|t| (t.to_string(), json!({"schema": schema}))).collect())
        };
        let answer = content(&self.produces(), &schema);
        let mut out = json!({"responses": responses(self.codes, |_| json!({"content": answer}))});
        if let Some(body) = &self.body {
            out["requestBody"] = json!({"content": content(&self.consumes(), &Dialect::V3.reference(body))});
            if self.body_required {
                out["requestBody"]["required"] = true.into();
            }
        }
        if !self.query.is_empty() {
            out["parameters"] = self.query.iter().map(|name| query(Dialect::V3, name)).collect();
        }
        out
    }
}

fn responses(codes: &[&str], answer: impl Fn(&str) -> Value) -> Value {
    let mut out = Map::new();
    for code in codes {
        let mut response = answer(code);
        response["description"] = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        }
        .into();
        out.insert((*code).to_string(), response);
    }
    out.insert("401".into(), json!({"description": "Unauthorized"}));
    Value::Object(out)
}

/// A query parameter.
pub fn query(dialect: Dialect, name: &str) -> Value {
    let stream = STREAM_PARAMETERS.contains(&name);
    let known = PARAMETERS.iter().find(|(n, _, _)| *n == name);
    let (kind, text) = match known {
        Some((_, kind, text)) => (*kind, *text),
        None if stream => ("boolean", "Whether this stream of the container is connected."),
        None => ("string", ""),
    };
    parameter(dialect, name, "query", kind, text)
}

/// A parameter in a path.
pub fn in_path(dialect: Dialect, name: &str, text: &str) -> Value {
    let mut out = parameter(dialect, name, "path", "string", text);
    out["required"] = true.into();
    out
}

fn parameter(dialect: Dialect, name: &str, place: &str, kind: &str, text: &str) -> Value {
    let mut out = json!({"name": name, "in": place, "description": text, "uniqueItems": true});
    match dialect {
        Dialect::V2 => out["type"] = kind.into(),
        Dialect::V3 => {
            out = json!({"name": name, "in": place, "description": text, "schema": {"type": kind, "uniqueItems": true}})
        }
    }
    out
}

/// The definition of a meta type.
pub fn meta(name: &str) -> String {
    format!("{META}.{name}")
}
