//! Server-side apply.

use bytes::Bytes;
use knarr_api::{Object, StatusError};

use super::Writer;
use super::commit::Target;
use super::update::Change;
use crate::http::negotiate::Encoding;

/// A configuration that its manager wants to see.
pub struct Apply {
    config: Object,
}

impl Apply {
    pub fn new(target: &Target, body: Bytes, writer: &Writer) -> Result<Self, StatusError> {
        let decoded = target.served.decode(&body, Encoding::Yaml, writer.options.field_validation)?;
        Ok(Apply { config: decoded.object })
    }
}

impl Change for Apply {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        let config = serde_json::to_vec(&self.config).map_err(StatusError::internal)?;
        knarr_api::patch::merge::apply(current.clone(), &config)
    }

    fn create(&mut self) -> Option<Object> {
        Some(self.config.clone())
    }
}
