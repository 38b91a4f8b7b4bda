//! PATCH: JSON patch, merge patch, strategic merge patch and server-side apply.

use bytes::Bytes;
use knarr_api::decode::FieldValidation;
use knarr_api::status::Reason;
use knarr_api::{Object, StatusError, patch};

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

impl PatchType {
    /// What a message shows of a patch whose result cannot be read: of a strategic one itself, else the result.
    fn shown(self, body: &Bytes, patched: &Object) -> String {
        match (self, serde_json::from_slice(body)) {
            (PatchType::Strategic, Ok(body)) => patch::strategic::go_text(&body),
            _ => patched.to_string(),
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
    pub kind: PatchType,
    pub served: &'a Served,
    pub target: &'a Target,
    pub body: Bytes,
    pub validation: FieldValidation,
    /// What decoding the result had to say.
    pub warnings: Vec<String>,
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
        // The result is read like any body: a patch may have put anything anywhere.
        let text = serde_json::to_vec(&patched).map_err(StatusError::internal)?;
        let decoded = self.served.decode(&text.into(), Encoding::Json, self.validation);
        let decoded =
            decoded.map_err(|error| patch::undecodable_result(self.kind.shown(&self.body, &patched), &error))?;
        self.warnings = decoded.warnings;
        commit::require_name(self.target, &decoded.object)?;
        Ok(decoded.object)
    }

    fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
