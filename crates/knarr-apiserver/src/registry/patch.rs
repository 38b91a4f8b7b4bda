//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use bytes::Bytes;
use knarr_api::decode::{self, Decoded, FieldValidation};
use knarr_api::status::Reason;
use knarr_api::{Object, StatusError, patch};
use serde_json::{Map, Value};

use super::Served;
use super::commit::{self, Target};
use super::update::Change;
use crate::http::negotiate::{self, Encoding};

/// What a patch is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    /// Of a `Content-Type`; upstream's 415 where this resource does not take it.
    pub fn parse(media_type: &str, served: &Served) -> Result<Self, StatusError> {
        match media_type {
            "application/json-patch+json" => Ok(PatchType::Json),
            "application/merge-patch+json" => Ok(PatchType::Merge),
            "application/strategic-merge-patch+json" if served.custom.is_none() => Ok(PatchType::Strategic),
            "application/apply-patch+yaml" => Ok(PatchType::Apply),
            _ if served.custom.is_some() => Err(negotiate::unsupported(
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )),
            // Upstream's router has refused it before anybody asks for reasons.
            _ => Err(StatusError::unrouted(Reason::UnsupportedMediaType, "415: Unsupported Media Type")),
        }
    }
}

/// Applies a JSON, merge or strategic patch to any tree.
pub fn apply(kind: PatchType, served: &Served, body: &Bytes, current: Object) -> Result<Object, StatusError> {
    match kind {
        PatchType::Json => patch::json::apply(current, body),
        PatchType::Merge => patch::merge::apply(current, body),
        PatchType::Strategic => match served.type_id {
            Some(id) => patch::strategic::apply(&served.schema, id, current, body),
            None => patch::merge::apply(current, body),
        },
        PatchType::Apply => Err(commit::unexpected("an apply is no plain patch")),
    }
}

/// A patch on its way to an object.
pub struct Patch<'a> {
    kind: PatchType,
    served: &'a Served,
    target: &'a Target,
    body: Bytes,
    validation: FieldValidation,
    /// What decoding the result had to say.
    warnings: Vec<String>,
    says_empty: bool,
}

impl<'a> Patch<'a> {
    pub fn new(kind: PatchType, target: &'a Target, body: Bytes, validation: FieldValidation) -> Self {
        Patch { kind, served: &target.served, target, body, validation, warnings: Vec::new(), says_empty: false }
    }
}

impl Change for Patch<'_> {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        let mut patched = apply(self.kind, self.served, &self.body, current.clone())?;
        if self.kind == PatchType::Strategic {
            // Upstream puts the result into an object of the kind, which keeps its own.
            for field in ["apiVersion", "kind"] {
                patched[field] = current[field].clone();
            }
        }
        let unchanged = match self.served.custom {
            None => Unchanged::set_aside(&mut patched, current),
            Some(_) => Unchanged::default(),
        };
        match self.read(&patched) {
            Ok(mut decoded) => {
                unchanged.give_back(&mut decoded.object);
                self.warnings = decoded.warnings;
                self.says_empty = decoded.says_empty;
                commit::require_name(self.target, &decoded.object)?;
                Ok(decoded.object)
            }
            Err(unread) => {
                unchanged.give_back(&mut patched);
                let why = match unread {
                    Unread::Misfit(error) => self.misfit(&patched, &error),
                    Unread::NotStrict(why) => why,
                };
                Err(self.refusal(&patched, current, &why))
            }
        }
    }

    fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    fn says_empty(&self) -> bool {
        self.says_empty
    }
}

/// The parts of an object that a patch left as they were, set aside while the others are read: these were read before they were stored.
#[derive(Default)]
struct Unchanged {
    fields: Vec<(String, Value)>,
    owners: Option<Value>,
}

impl Unchanged {
    fn set_aside(patched: &mut Object, current: &Object) -> Self {
        let (Some(fields), Some(before)) = (patched.as_object_mut(), current.as_object()) else {
            return Self::default();
        };
        let is_unchanged = |name: &str, value: &Value| match name {
            "apiVersion" | "kind" | "metadata" => false,
            _ => before.get(name) == Some(value),
        };
        let names = fields.iter().filter(|(name, value)| is_unchanged(name, value)).map(|(name, _)| name.clone());
        let names: Vec<String> = names.collect();
        Unchanged {
            fields: names.into_iter().filter_map(|name| fields.remove_entry(&name)).collect(),
            owners: owners_set_aside(fields, before),
        }
    }

    fn give_back(self, object: &mut Object) {
        if let Some(fields) = object.as_object_mut() {
            fields.extend(self.fields);
        }
        if let Some(owners) = self.owners {
            object["metadata"]["managedFields"] = owners;
        }
    }
}

fn owners_set_aside(patched: &mut Map<String, Value>, before: &Map<String, Value>) -> Option<Value> {
    let before = before.get("metadata")?.get("managedFields")?;
    let metadata = patched.get_mut("metadata")?.as_object_mut()?;
    if metadata.get("managedFields") == Some(before) { metadata.remove("managedFields") } else { None }
}

/// Why the result of a patch is not accepted as an object.
enum Unread {
    Misfit(StatusError),
    NotStrict(String),
}

impl Patch<'_> {
    /// The result is read like any body: a patch may have put anything anywhere.
    fn read(&self, patched: &Object) -> Result<Decoded, Unread> {
        let text = serde_json::to_vec(patched).map_err(|error| Unread::Misfit(StatusError::internal(error)))?;
        let decoded = match self.served.type_id {
            Some(id) if self.kind == PatchType::Strategic => {
                decode::decode_merged(&text, &self.served.schema, id, &self.served.kind)
            }
            _ => self.served.decode_as_said(&text.into(), Encoding::Json, FieldValidation::Warn),
        };
        let Decoded { object, warnings, says_empty } = decoded.map_err(Unread::Misfit)?;
        Ok(Decoded { object, warnings: self.settle(warnings).map_err(Unread::NotStrict)?, says_empty })
    }

    /// What becomes of what strict decoding does not accept: of the patch itself, and of what it made (`unknown`).
    fn settle(&self, mut unknown: Vec<String>) -> Result<Vec<String>, String> {
        if self.validation == FieldValidation::Ignore {
            return Ok(Vec::new());
        }
        let mut strict = match self.kind {
            PatchType::Json => patch::json::strict_errors(&self.body),
            _ => decode::duplicate_fields(&self.body),
        };
        if self.kind == PatchType::Strategic {
            unknown.sort_unstable();
        }
        strict.append(&mut unknown);
        match self.validation {
            FieldValidation::Strict if !strict.is_empty() => Err(decode::strict_error(&strict)),
            FieldValidation::Warn => Ok(strict),
            _ => Ok(Vec::new()),
        }
    }

    /// Why the patched object is none of its kind.
    fn misfit(&self, patched: &Object, error: &StatusError) -> String {
        let type_id = self.served.type_id.filter(|_| self.kind == PatchType::Strategic);
        let misfit = type_id.and_then(|id| patch::strategic::misfit(&self.served.schema, id, patched));
        misfit.unwrap_or_else(|| match patch::why_unreadable(error) {
            why if self.kind == PatchType::Strategic && why.starts_with("illegal base64") => {
                format!("error decoding from json: {why}")
            }
            why => why.to_string(),
        })
    }

    /// Upstream blames the patch: a strategic one is shown as it is, of others what they make of the object.
    fn refusal(&self, patched: &Object, current: &Object, why: &str) -> StatusError {
        let type_id = self.served.type_id.filter(|_| self.served.custom.is_none());
        let shown = match (self.kind, serde_json::from_slice(&self.body), type_id) {
            (PatchType::Strategic, Ok(body), _) => patch::strategic::go_text(&body),
            (_, _, Some(id)) => patch::result_text(&self.served.schema, id, patched, current),
            _ => patched.to_string(),
        };
        patch::undecodable_result(shown, why)
    }
}
