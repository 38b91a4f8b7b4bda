//! A served resource's type at work: decoding, defaulting, checking metadata, and what each kind of write may not touch.

use bytes::Bytes;
use knarr_api::decode::{self, Decoded, FieldValidation, Strict, empties};
use knarr_api::field::ErrorList;
use knarr_api::object::ObjectExt;
use knarr_api::validation::metadata;
use knarr_api::{GroupVersionKind, Object, StatusError, apply, default, protobuf, schema};

use super::Served;
use crate::http::negotiate::{self, Encoding};

impl Served {
    /// Reads a body that should be one of these objects, into the form that is stored.
    pub fn decode(
        &self,
        body: &Bytes,
        encoding: Encoding,
        validation: FieldValidation,
    ) -> Result<Decoded, StatusError> {
        let mut decoded = self.decode_as_said(body, encoding, validation)?;
        if std::mem::take(&mut decoded.says_empty) {
            self.settle_empties(&mut decoded.object);
        }
        Ok(decoded)
    }

    /// Takes from an object what it says is empty ([`decode::empties`]).
    fn settle_empties(&self, object: &mut Object) {
        if let Some(id) = self.type_id {
            empties::settle(&self.schema, id, object);
        }
    }

    /// As storing and reading it again would, for whoever has kept what the object says is empty.
    pub(super) fn settle(&self, object: &mut Object) {
        self.settle_empties(object);
        self.apply_defaults(object);
    }

    /// Reads a body that should be one of these objects, into the form that it is written in.
    pub fn decode_as_said(
        &self,
        body: &Bytes,
        encoding: Encoding,
        validation: FieldValidation,
    ) -> Result<Decoded, StatusError> {
        if let Some(custom) = &self.custom {
            return match encoding {
                Encoding::Protobuf => Err(negotiate::unsupported(CUSTOM_ENCODINGS)),
                Encoding::Json => custom.decode(body, decode::Encoding::Json, &self.kind, validation),
                Encoding::Yaml => custom.decode(body, decode::Encoding::Yaml, &self.kind, validation),
            };
        }
        let json;
        let (body, encoding) = match encoding {
            Encoding::Protobuf => {
                json = json_of_protobuf(body, &self.kind)?;
                (&json, decode::Encoding::Json)
            }
            Encoding::Json => (body, decode::Encoding::Json),
            Encoding::Yaml => (body, decode::Encoding::Yaml),
        };
        match self.type_id {
            Some(id) => decode::decode_as_said(body, encoding, &self.schema, id, &self.kind, validation),
            None => Err(StatusError::internal(format!("no type for {}", self.kind.kind))),
        }
    }

    /// Reads a configuration to apply, and finds the keys that stand twice in it.
    pub fn decode_configuration(&self, body: &Bytes) -> Result<(Object, Strict), StatusError> {
        match self.custom {
            Some(_) => knarr_api::custom_resource::decode::decode_configuration(body, &self.kind),
            None => decode::read_configuration(body, &self.kind),
        }
    }

    /// Fills in what was left out.
    pub fn apply_defaults(&self, object: &mut Object) {
        match &self.custom {
            Some(custom) => custom.apply_defaults(object),
            None => default::apply_defaults(&self.kind, object),
        }
        self.strategy.default(object);
    }

    /// Brings an object into form again once admission has changed it as it liked.
    pub(super) fn shape_admitted(&self, object: &mut Object) -> Result<(), StatusError> {
        self.custom.as_ref().map_or(Ok(()), |custom| custom.shape_admitted(object))
    }

    /// A kind whose definition is being deleted gets no new objects.
    pub(super) fn refuse_creation(&self, name: &str) -> Result<(), StatusError> {
        match &self.custom {
            Some(custom) if custom.kind.terminating => Err(StatusError::forbidden(
                &self.group_resource,
                name,
                "create not allowed while custom resource definition is terminating",
            )),
            _ => Ok(()),
        }
    }

    pub fn validate_metadata(&self, object: &Object) -> ErrorList {
        metadata::validate_create(object, self.namespaced(), &*self.strategy)
    }

    pub fn validate_metadata_update(&self, object: &Object, old: &Object, subresource: &str) -> ErrorList {
        metadata::validate_update(object, old, self.namespaced(), subresource, &*self.strategy)
    }

    pub(super) fn has_status(&self) -> bool {
        self.resource.subresource("status").is_some()
    }

    /// A creator may not set the status of a kind that has the subresource.
    pub fn reset_for_create(&self, object: &mut Object) {
        if self.custom.is_some()
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
                if self.custom.is_none() {
                    keep_metadata(apply::reset_fields(&self.kind.kind, true, "status"), object, old);
                }
            }
            _ => {}
        }
    }
}

/// Carries over the metadata that a kind's status leaves alone: the paths say which.
fn keep_metadata(reset: &[&[&str]], object: &mut Object, old: &serde_json::Map<String, serde_json::Value>) {
    const ALL: [&str; 4] = ["labels", "annotations", "finalizers", "ownerReferences"];
    let kept = reset.iter().flat_map(|path| match path {
        ["metadata"] => &ALL[..],
        ["metadata", field @ ..] => field,
        _ => &[],
    });
    let metadata = object.metadata_mut();
    for field in kept.copied() {
        match old.get("metadata").and_then(|metadata| metadata.get(field)) {
            Some(value) => drop(metadata.insert(field.to_string(), value.clone())),
            None => drop(metadata.remove(field)),
        }
    }
}

/// What an update of `status` takes from the request.
const STATUS_KEEPS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

const CUSTOM_ENCODINGS: &str = "application/json, application/yaml";

/// A body of any built-in kind, as decoding wants it: protobuf becomes JSON, which the one decoder then checks.
pub fn decode_any(
    body: &Bytes,
    encoding: Encoding,
    kind: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    match encoding {
        Encoding::Json => decode::decode_object(body, decode::Encoding::Json, kind, validation),
        Encoding::Yaml => decode::decode_object(body, decode::Encoding::Yaml, kind, validation),
        Encoding::Protobuf => {
            let json = json_of_protobuf(body, kind)?;
            decode::decode_object(&json, decode::Encoding::Json, kind, validation)
        }
    }
}

fn json_of_protobuf(body: &Bytes, kind: &GroupVersionKind) -> Result<Bytes, StatusError> {
    let object = protobuf::decode(schema::schema(), body, Some(kind));
    let object = object.map_err(|error| StatusError::bad_request(error.to_string()))?;
    Ok(serde_json::to_vec(&object).map_err(StatusError::internal)?.into())
}
