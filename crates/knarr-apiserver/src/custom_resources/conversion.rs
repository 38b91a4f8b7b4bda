//! Conversion between versions by a webhook: `ConversionReview`.

use async_trait::async_trait;
use knarr_api::custom_resource::embedded::Malformed;
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::validation::check::Checker;
use knarr_api::validation::{labels, metadata};
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde_json::{Map, Value, json};

use super::Kind;

/// Sends a review to the webhook of a definition.
#[async_trait]
pub trait Reviewer: Send + Sync {
    /// The review as the webhook answers it, or why there is no answer.
    async fn review(&self, review: &Value) -> Result<Value, String>;
}

/// The webhook of a definition.
pub struct Converter {
    pub reviewer: Box<dyn Reviewer>,
    /// Of `ConversionReview`, the most wanted first.
    pub review_versions: Vec<String>,
}

/// Converts those objects that are of another version, and checks and prunes what came back.
pub(super) async fn convert(
    converter: &Converter,
    kind: &Kind,
    mut objects: Vec<Object>,
    to: &GroupVersionKind,
) -> Result<Vec<Object>, StatusError> {
    let wanted = to.api_version();
    let places: Vec<usize> = (0..objects.len()).filter(|i| objects[*i]["apiVersion"] != wanted.as_str()).collect();
    let Some(first) = places.first().map(|i| objects[*i].clone()) else { return Ok(objects) };
    let of = format!("{}, Kind={}", first["apiVersion"].as_str().unwrap_or_default(), to.kind);
    let asked: Vec<Object> = places.iter().map(|i| objects[*i].clone()).collect();
    let answered = converter.ask(asked, &wanted).await;
    let answered = answered.map_err(|why| error(format!("conversion webhook for {of} failed: {why}")))?;
    if answered.len() != places.len() {
        let (got, expected) = (answered.len(), places.len());
        return Err(error(format!("conversion webhook for {of} returned {got} objects, expected {expected}")));
    }
    for (index, (place, mut converted)) in places.into_iter().zip(answered).enumerate() {
        accept(&objects[place], &mut converted, to).map_err(|why| {
            error(format!("conversion webhook for {of} returned invalid converted object at index {index}: {why}"))
        })?;
        kind.shape(&mut converted, Malformed::Refuse)?;
        objects[place] = converted;
    }
    Ok(objects)
}

fn error(message: String) -> StatusError {
    StatusError::new(Reason::Unknown, message)
}

impl Converter {
    async fn ask(&self, objects: Vec<Object>, to: &str) -> Result<Vec<Object>, String> {
        let version = self.review_versions.iter().find(|v| matches!(v.as_str(), "v1" | "v1beta1"));
        let version = version.ok_or("no supported conversion review versions")?;
        let uid = uuid::Uuid::new_v4().to_string();
        let api_version = format!("apiextensions.k8s.io/{version}");
        let review = json!({
            "kind": "ConversionReview", "apiVersion": api_version,
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let mut answer = self.reviewer.review(&review).await?;
        if version == "v1" {
            let word = |field: &str| answer[field].as_str().unwrap_or_default();
            if word("kind") != "ConversionReview" || word("apiVersion") != api_version {
                return Err(format!(
                    "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {}, Kind={}",
                    word("apiVersion"),
                    word("kind")
                ));
            }
        }
        let response = &mut answer["response"];
        if !response.is_object() {
            return Err("no response provided".into());
        }
        let said = response["uid"].as_str().unwrap_or_default();
        if version == "v1" && said != uid {
            return Err(format!("expected response.uid={uid:?}, got {said:?}"));
        }
        let result = &response["result"];
        let status = result["status"].as_str().unwrap_or_default();
        match result["message"].as_str().filter(|m| !m.is_empty()) {
            _ if status == "Success" => {}
            Some(message) => return Err(message.to_string()),
            None => return Err(format!("response.result.status was '{status}', not 'Success'")),
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// A webhook may change labels and annotations, but not which object it is.
fn accept(original: &Object, converted: &mut Object, to: &GroupVersionKind) -> Result<(), String> {
    let word = |object: &Object, field: &str| object[field].as_str().unwrap_or_default().to_string();
    let (version, kind) = (word(converted, "apiVersion"), word(converted, "kind"));
    if version != to.api_version() {
        return Err(format!("invalid groupVersion (expected {}, received {version})", to.api_version()));
    }
    if kind != to.kind {
        return Err(format!("invalid kind (expected {}, received {kind})", to.kind));
    }
    for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (original.meta_str(field), converted.meta_str(field));
        if before != after {
            return Err(format!("must have the same {shown}: {before} != {after}"));
        }
    }
    let Some(given) = converted.metadata().cloned() else {
        return Err("missing metadata in converted object".into());
    };
    let mut kept = original.metadata().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        take_texts(&given, &mut kept, field)?;
    }
    *converted.metadata_mut() = kept;
    Ok(())
}

fn take_texts(given: &Map<String, Value>, kept: &mut Map<String, Value>, field: &str) -> Result<(), String> {
    let Some(texts) = given.get(field).filter(|v| !v.is_null()) else {
        kept.remove(field);
        return Ok(());
    };
    let map = texts.as_object().ok_or_else(|| format!("invalid metadata.{field} in converted object"))?;
    if let Some((key, _)) = map.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
    }
    if kept.get(field) != Some(texts) {
        let mut checker = Checker::starting_at("metadata");
        let holder = Value::Object(given.clone());
        match field {
            "labels" => labels::validate(&mut checker, &holder, "labels"),
            _ => metadata::validate_annotations(&mut checker, &holder),
        }
        if let Some(wrong) = checker.into_errors().first() {
            return Err(wrong.to_string());
        }
    }
    kept.insert(field.into(), texts.clone());
    Ok(())
}
