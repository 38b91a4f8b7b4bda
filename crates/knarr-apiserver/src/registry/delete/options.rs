//! `metav1.DeleteOptions`: what a delete may say, in its body or its query.

use http::HeaderMap;
use knarr_api::field::ErrorList;
use knarr_api::{FieldError, GroupVersionKind, Object, Path, StatusError, decode, protobuf, schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::http::negotiate::{self, Encoding};
use crate::registry::options::{Query, read_dry_run};

/// What becomes of the dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `metav1.Preconditions`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

/// `metav1.DeleteOptions`
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_seconds: Option<i64>,
    pub preconditions: Preconditions,
    pub propagation: Option<Propagation>,
    pub orphan_dependents: Option<bool>,
    pub dry_run: bool,
    /// As admission sees them.
    pub object: Object,
}

const KIND: &str = "DeleteOptions";

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct RawOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preconditions: Option<Preconditions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orphan_dependents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<Vec<String>>,
}

impl DeleteOptions {
    /// From a request: the body, or the query where there is none.
    pub fn read(headers: &HeaderMap, body: &[u8], query: &Query) -> Result<Self, StatusError> {
        if body.is_empty() {
            return Self::of_query(query);
        }
        Self::of_object(match negotiate::body_encoding(headers)? {
            Encoding::Json => decode::read_delete_options(body, decode::Encoding::Json)?,
            Encoding::Yaml => decode::read_delete_options(body, decode::Encoding::Yaml)?,
            Encoding::Protobuf => {
                let object = protobuf::decode(schema::schema(), body, None)?;
                let said = |field: &str| object[field].as_str().unwrap_or_default();
                decode::check_delete_options(said("apiVersion"), said("kind"))?;
                object
            }
        })
    }

    /// From an object that is a `DeleteOptions`.
    pub fn of_object(object: Object) -> Result<Self, StatusError> {
        let raw = RawOptions::deserialize(&object).map_err(|e| StatusError::bad_request(e.to_string()))?;
        Self::check(raw, object)
    }

    fn of_query(query: &Query) -> Result<Self, StatusError> {
        let text = |name| Some(query.get(name)).filter(|t| !t.is_empty()).map(str::to_string);
        let dry_run: Vec<String> = query.all("dryRun").map(str::to_string).collect();
        let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
        let raw = RawOptions {
            grace_period_seconds: query.number("gracePeriodSeconds")?,
            propagation_policy: text("propagationPolicy"),
            orphan_dependents: query.flag("orphanDependents"),
            dry_run: (!dry_run.is_empty()).then_some(dry_run),
            preconditions: (preconditions != Preconditions::default()).then_some(preconditions),
        };
        let object = serde_json::to_value(&raw).map_err(StatusError::internal)?;
        Self::check(raw, object)
    }

    fn check(raw: RawOptions, mut object: Object) -> Result<Self, StatusError> {
        let root = Path::ROOT;
        let mut errors = ErrorList::new();
        if let (Some(policy), Some(_)) = (&raw.propagation_policy, raw.orphan_dependents) {
            let path = root.child("propagationPolicy");
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, &json!(policy), why));
        }
        let propagation = match raw.propagation_policy.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let path = root.child("propagationPolicy");
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, &json!(other), &supported));
                None
            }
        };
        let dry_run = read_dry_run(raw.dry_run.iter().flatten().map(String::as_str), &mut errors);
        if !errors.is_empty() {
            return Err(StatusError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", KIND), "", errors));
        }
        object["kind"] = KIND.into();
        object["apiVersion"] = "meta.k8s.io/v1".into();
        Ok(DeleteOptions {
            grace_seconds: raw.grace_period_seconds,
            preconditions: raw.preconditions.unwrap_or_default(),
            propagation,
            orphan_dependents: raw.orphan_dependents,
            dry_run,
            object,
        })
    }
}
