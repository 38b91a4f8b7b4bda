//! Custom resources: kinds that users define.
//!
//! [`follow`] watches the definitions. For each it settles the names ([`names`]), puts its versions into the registry's table
//! ([`rows`]), says so in the definition's status, and empties and lets go the definitions that are deleted ([`deletion`]). From
//! there on a custom resource takes the registry's one path; what differs by kind is in [`Custom`] and in its strategy.

pub mod conversion;
mod deletion;
mod follow;
mod names;
mod rows;
pub mod rules;
mod webhook;

use std::collections::HashMap;
use std::sync::Arc;

use knarr_api::custom_resource::embedded::Malformed;
use knarr_api::custom_resource::{Structural, decode, default};
use knarr_api::decode::{Decoded, Encoding, FieldValidation};
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};

use conversion::Converter;
pub(crate) use deletion::mark as mark_terminating;
pub use follow::start;

/// Where the definitions are.
pub fn definitions() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// What all versions of a custom kind share.
pub struct Kind {
    /// Of the definition.
    pub name: String,
    /// Names the definition and its state.
    pub state: String,
    /// Of every version, served or not, by its name.
    pub schemas: HashMap<String, Arc<Structural>>,
    /// `spec.preserveUnknownFields`: nothing is pruned.
    pub keeps_unknown: bool,
    /// The definition is being deleted.
    pub terminating: bool,
    /// Who converts between versions; `None` where they differ in nothing but their name.
    pub converter: Option<Converter>,
}

/// One version of a custom kind.
pub struct Custom {
    pub kind: Arc<Kind>,
    pub schema: Arc<Structural>,
    pub list_kind: String,
    /// What a request for a deprecated version is warned of.
    pub deprecation: Option<String>,
    /// Paths that field selectors may name.
    pub selectable: Vec<String>,
}

impl Custom {
    pub fn asks_webhook(&self) -> bool {
        self.kind.converter.is_some()
    }

    pub fn decode(
        &self,
        body: &[u8],
        encoding: Encoding,
        kind: &GroupVersionKind,
        validation: FieldValidation,
    ) -> Result<Decoded, StatusError> {
        decode::decode(body, encoding, kind, &self.schema, self.kind.keeps_unknown, validation)
    }

    pub fn apply_defaults(&self, object: &mut Object) {
        default::apply(object, &self.schema);
    }

    /// Prunes and defaults what admission may have changed.
    pub fn shape_admitted(&self, object: &mut Object) -> Result<(), StatusError> {
        self.kind.shape(object, Malformed::Refuse)?;
        self.apply_defaults(object);
        Ok(())
    }

    /// Converts to another version, by webhook where the definition says so.
    pub async fn convert(&self, objects: Vec<Object>, to: &GroupVersionKind) -> Result<Vec<Object>, StatusError> {
        match &self.kind.converter {
            Some(converter) => conversion::convert(converter, &self.kind, objects, to).await,
            None => Ok(objects.into_iter().map(|object| self.convert_plainly(object, to)).collect()),
        }
    }

    /// Changes the version's name, and drops what the other version's schema does not know.
    pub fn convert_plainly(&self, mut object: Object, to: &GroupVersionKind) -> Object {
        object["apiVersion"] = to.api_version().into();
        if let Err(error) = self.kind.shape(&mut object, Malformed::Drop) {
            tracing::error!(%error, "an object does not fit its schema");
        }
        object
    }
}

impl Kind {
    /// The schema of the version that an object says it is of.
    fn schema_of(&self, object: &Object) -> Option<&Arc<Structural>> {
        let version = object.get("apiVersion")?.as_str()?.rsplit('/').next()?;
        self.schemas.get(version)
    }

    /// Prunes an object by the schema of its version.
    fn shape(&self, object: &mut Object, malformed: Malformed) -> Result<(), StatusError> {
        let Some(schema) = self.schema_of(object).cloned() else { return Ok(()) };
        decode::shape(object, &schema, self.keeps_unknown, malformed).map_err(StatusError::bad_request)?;
        Ok(())
    }

    /// Brings a stored object into the form that its kind has now; true if that changed it.
    fn read_stored(&self, object: &mut Object, stored_version: &str) -> bool {
        let before = object.clone();
        let shaped = self.shape(object, Malformed::Drop);
        if let Some(schema) = self.schema_of(object).cloned() {
            default::apply(object, &schema);
        }
        if self.converter.is_none() && object["apiVersion"] != stored_version {
            object["apiVersion"] = stored_version.into();
            if let Err(error) = self.shape(object, Malformed::Drop) {
                tracing::error!(%error, "a stored object does not fit its schema");
            }
        }
        if let Err(error) = shaped {
            tracing::error!(%error, "a stored object does not fit its schema");
        }
        *object != before
    }
}
