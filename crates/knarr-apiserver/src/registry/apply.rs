//! Server-side apply.

use bytes::Bytes;
use knarr_api::decode::{self, FieldValidation};
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{Object, StatusError, patch};

use super::commit::{self, Target};
use super::update::Change;
use super::{Writer, managed};
use crate::http::negotiate::Encoding;

/// A configuration that its manager wants to see.
pub struct Apply {
    target: Target,
    config: Object,
    /// The keys that stand twice in the configuration; the last ones count.
    repeated: Vec<String>,
    says_empty: bool,
    writer: Writer,
}

impl Apply {
    /// Reads the configuration; from here on, ownership is the apply's to record.
    pub fn new(target: &Target, body: &Bytes, writer: &mut Writer) -> Result<Self, StatusError> {
        let (config, strict) = target.served.decode_configuration(body)?;
        let repeated = match writer.options.field_validation {
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn | FieldValidation::Strict => strict.in_yaml(body),
        };
        Ok(Apply { repeated, ..Self::of(target, config, writer) })
    }

    /// An apply of this configuration; `target` may be a subresource that it stands for.
    pub fn of(target: &Target, config: Object, writer: &mut Writer) -> Self {
        writer.fields_managed = true;
        Apply { target: target.clone(), config, repeated: Vec::new(), says_empty: false, writer: writer.clone() }
    }

    /// Whoever is strict is refused once there is nothing else wrong.
    fn refuse_repeated(&self) -> Result<(), StatusError> {
        if self.repeated.is_empty() || self.writer.options.field_validation != FieldValidation::Strict {
            return Ok(());
        }
        let why = decode::unmarshal_errors(&self.repeated);
        Err(StatusError::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {why}")))
    }

    fn merged(&mut self, live: Option<&Object>) -> Result<Object, StatusError> {
        let served = &self.target.served;
        let merged = managed::apply(served, live, &self.config, &self.target.subresource, &self.writer)?;
        let text = serde_json::to_vec(&merged).map_err(StatusError::internal)?;
        let decoded = served.decode_as_said(&text.into(), Encoding::Json, FieldValidation::Ignore);
        let decoded = decoded.map_err(|error| self.unfit(&error))?;
        self.says_empty = decoded.says_empty;
        self.refuse_repeated()?;
        Ok(decoded.object)
    }

    /// What upstream says where the merged object is none of its kind.
    fn unfit(&self, error: &StatusError) -> StatusError {
        let kind = &self.target.served.kind;
        let why = patch::why_unreadable(error);
        let gvk = format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind);
        let object = format!("{}/{}; {gvk}", self.config.namespace(), self.config.name());
        // A time is read without the decoder.
        let decoder = if why.starts_with("parsing time ") { "" } else { "error decoding from json: " };
        let text = format!(
            "failed to convert new object ({object}) to proper version: unable to convert unstructured object to {gvk}: {decoder}{why}"
        );
        StatusError::new(Reason::Unknown, text)
    }
}

impl Change for Apply {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        self.merged(Some(current))
    }

    fn take_warnings(&mut self) -> Vec<String> {
        self.repeated.clone()
    }

    fn says_empty(&self) -> bool {
        self.says_empty
    }

    fn create(&mut self) -> Result<Option<Object>, StatusError> {
        if !self.target.subresource.is_empty() {
            return Ok(None);
        }
        let uid = self.config.uid();
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(self.target.conflict(why));
        }
        let mut object = self.merged(None)?;
        commit::ensure_name(&self.target, &mut object)?;
        Ok(Some(object))
    }
}
