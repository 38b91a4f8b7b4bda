//! Server-side apply.

use bytes::Bytes;
use knarr_api::decode::{FieldValidation, keep_said};
use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};

use super::commit::{self, Target};
use super::update::Change;
use super::{Writer, managed};
use crate::http::negotiate::Encoding;

/// A configuration that its manager wants to see.
pub struct Apply {
    target: Target,
    config: Object,
    writer: Writer,
}

impl Apply {
    /// Reads the configuration; from here on, ownership is the apply's to record.
    pub fn new(target: &Target, body: &Bytes, writer: &mut Writer) -> Result<Self, StatusError> {
        let decoded = target.served.decode_configuration(body, writer.options.field_validation)?;
        let mut config = decoded.object;
        keep_said(&mut config, body, knarr_api::decode::Encoding::Yaml);
        commit::ensure_name(target, &mut config)?;
        commit::ensure_namespace(target, &mut config)?;
        writer.warnings.extend(decoded.warnings);
        writer.fields_managed = true;
        Ok(Apply { target: target.clone(), config, writer: writer.clone() })
    }

    fn merged(&self, live: Option<&Object>) -> Result<Object, StatusError> {
        let served = &self.target.served;
        let merged = managed::apply(served, live, &self.config, &self.target.subresource, &self.writer)?;
        let text = serde_json::to_vec(&merged).map_err(StatusError::internal)?;
        Ok(served.decode(&text.into(), Encoding::Json, FieldValidation::Ignore)?.object)
    }
}

impl Change for Apply {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        self.merged(Some(current))
    }

    fn create(&mut self) -> Result<Option<Object>, StatusError> {
        if !self.target.subresource.is_empty() || !self.config.uid().is_empty() {
            return Ok(None);
        }
        self.merged(None).map(Some)
    }
}
