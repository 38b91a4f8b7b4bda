//! A served resource's type at work: decoding, defaulting, checking metadata, and what each kind of write may not touch.

use bytes::Bytes;
use knarr_api::decode::{self, Decoded, FieldValidation};
use knarr_api::field::ErrorList;
use knarr_api::validation::metadata;
use knarr_api::{Object, StatusError, default};

use super::Served;
use crate::http::negotiate::Encoding;

impl Served {
    /// Reads a body that should be one of these objects.
    pub fn decode(
        &self,
        body: &Bytes,
        encoding: Encoding,
        validation: FieldValidation,
    ) -> Result<Decoded, StatusError> {
        let encoding = decode_encoding(encoding)?;
        match self.type_id {
            Some(id) => decode::decode_typed(body, encoding, &self.schema, id, &self.kind, validation),
            None => Err(StatusError::internal(format!("no type for {}", self.kind.kind))),
        }
    }

    /// Fills in what was left out.
    pub fn apply_defaults(&self, object: &mut Object) {
        match (&self.defaults, self.type_id) {
            (Some(defaults), Some(id)) => defaults.apply(&self.schema, id, object),
            _ => default::apply_defaults(&self.kind, object),
        }
        self.strategy.default(object);
    }

    pub fn validate_metadata(&self, object: &Object, old: Option<&Object>) -> ErrorList {
        match old {
            None => metadata::validate_create(object, self.namespaced(), &*self.strategy),
            Some(old) => metadata::validate_update(object, old),
        }
    }

    pub(super) fn has_status(&self) -> bool {
        self.resource.subresource("status").is_some()
    }

    /// A creator may not set the status of a kind that has the subresource.
    pub fn reset_for_create(&self, object: &mut Object) {
        if self.custom
            && self.has_status()
            && let Some(root) = object.as_object_mut()
        {
            root.remove("status");
        }
    }

    /// Carries over from `old` what an update through this door may not change.
    pub fn reset_for_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        let (Some(root), Some(old)) = (object.as_object_mut(), old.as_object()) else { return };
        let mut carry = |field: &str| match old.get(field) {
            Some(value) => drop(root.insert(field.to_string(), value.clone())),
            None => drop(root.remove(field)),
        };
        match subresource {
            "" if self.has_status() => carry("status"),
            "status" => {
                let fields: Vec<String> = old.keys().chain(["spec".to_string()].iter()).cloned().collect();
                for field in fields.iter().filter(|f| !STATUS_KEEPS.contains(&f.as_str())) {
                    carry(field);
                }
                root.retain(|field, _| STATUS_KEEPS.contains(&field.as_str()) || old.contains_key(field));
            }
            _ => {}
        }
    }
}

/// What an update of `status` takes from the request.
const STATUS_KEEPS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The decoder's name for an encoding.
pub fn decode_encoding(encoding: Encoding) -> Result<decode::Encoding, StatusError> {
    match encoding {
        Encoding::Json => Ok(decode::Encoding::Json),
        Encoding::Yaml => Ok(decode::Encoding::Yaml),
        Encoding::Protobuf => Err(crate::http::negotiate::unsupported("application/json, application/yaml")),
    }
}
