//! What a `CustomResourceDefinition` says, read once.

use serde_json::Value;

use crate::object::{Object, ObjectExt};
use crate::table::PrinterColumn;

/// The name of the finalizer under which a definition's objects are deleted.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Where a version keeps what `Scale` shows, as simple JSON paths (`.spec.replicas`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub label_selector: Option<String>,
}

/// One version of a definition.
#[derive(Clone, Debug)]
pub struct Version<'a> {
    pub name: &'a str,
    pub served: bool,
    pub storage: bool,
    pub deprecated: bool,
    pub deprecation_warning: Option<&'a str>,
    /// Null where there is none.
    pub schema: &'a Value,
    pub has_status: bool,
    pub scale: Option<Scale>,
    /// JSON paths, the leading dot cut off.
    pub selectable: Vec<&'a str>,
    raw: &'a Value,
}

/// A view of a definition.
#[derive(Clone, Copy, Debug)]
pub struct Definition<'a>(pub &'a Object);

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn flag(value: &Value, field: &str) -> bool {
    value.get(field) == Some(&Value::Bool(true))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

impl<'a> Definition<'a> {
    pub fn spec(self) -> &'a Value {
        &self.0["spec"]
    }

    pub fn group(self) -> &'a str {
        text(self.spec(), "group")
    }

    pub fn namespaced(self) -> bool {
        text(self.spec(), "scope") == "Namespaced"
    }

    /// `spec.names`, what the user asks for.
    pub fn names(self) -> &'a Value {
        &self.spec()["names"]
    }

    pub fn accepted_names(self) -> &'a Value {
        &self.0["status"]["acceptedNames"]
    }

    pub fn keeps_unknown_fields(self) -> bool {
        flag(self.spec(), "preserveUnknownFields")
    }

    /// `spec.conversion.webhook`, where the strategy is `Webhook`.
    pub fn conversion_webhook(self) -> Option<&'a Value> {
        let conversion = &self.spec()["conversion"];
        (text(conversion, "strategy") == "Webhook").then(|| &conversion["webhook"])
    }

    pub fn versions(self) -> impl Iterator<Item = Version<'a>> {
        list(self.spec(), "versions").iter().map(Version::read)
    }

    pub fn storage_version(self) -> &'a str {
        list(self.spec(), "versions").iter().find(|v| flag(v, "storage")).map_or("", |v| text(v, "name"))
    }

    pub fn condition(self, kind: &str) -> Option<&'a Value> {
        list(&self.0["status"], "conditions").iter().find(|c| text(c, "type") == kind)
    }

    pub fn is(self, condition: &str) -> bool {
        self.condition(condition).is_some_and(|c| text(c, "status") == "True")
    }

    pub fn is_terminating(self) -> bool {
        self.0.is_deleting()
    }
}

impl<'a> Version<'a> {
    fn read(raw: &'a Value) -> Version<'a> {
        let subresources = &raw["subresources"];
        let scale = subresources.get("scale").filter(|s| s.is_object());
        Version {
            name: text(raw, "name"),
            served: flag(raw, "served"),
            storage: flag(raw, "storage"),
            deprecated: flag(raw, "deprecated"),
            deprecation_warning: raw.get("deprecationWarning").and_then(Value::as_str),
            schema: &raw["schema"]["openAPIV3Schema"],
            has_status: subresources.get("status").is_some_and(Value::is_object),
            scale: scale.map(|scale| Scale {
                spec_replicas: text(scale, "specReplicasPath").to_string(),
                status_replicas: text(scale, "statusReplicasPath").to_string(),
                label_selector: Some(text(scale, "labelSelectorPath")).filter(|p| !p.is_empty()).map(str::to_string),
            }),
            selectable: list(raw, "selectableFields")
                .iter()
                .map(|f| text(f, "jsonPath").trim_start_matches('.'))
                .collect(),
            raw,
        }
    }

    pub fn columns(&self) -> Vec<PrinterColumn> {
        let column = |c: &Value| PrinterColumn {
            name: text(c, "name").into(),
            kind: text(c, "type").into(),
            format: text(c, "format").into(),
            description: text(c, "description").into(),
            priority: c.get("priority").and_then(Value::as_i64).unwrap_or_default(),
            json_path: text(c, "jsonPath").into(),
        };
        list(self.raw, "additionalPrinterColumns").iter().map(column).collect()
    }
}
