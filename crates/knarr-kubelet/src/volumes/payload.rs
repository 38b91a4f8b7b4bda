//! The files of volumes that are made of API objects: ConfigMaps, Secrets, the pod's own fields, tokens, and all of these together.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::VolumeError;
use super::atomic::{Payload, PayloadFile};
use super::token::Tokens;
use crate::environment::KeyedSource;
use crate::environment::fields::FieldSource;

/// What files are made of.
pub struct Sources<'a> {
    pub keyed: &'a dyn KeyedSource,
    pub fields: &'a FieldSource<'a>,
    pub tokens: &'a Tokens,
    /// The user all containers run as, if they agree: owner of tokens.
    pub fs_user: Option<u32>,
    pub fs_group: Option<u32>,
}

/// The files of a volume, and when they are to be looked at again although nothing told.
#[derive(Default)]
pub struct Built {
    pub payload: Payload,
    pub refresh_at: Option<Timestamp>,
}

const DEFAULT_MODE: i32 = 0o644;

/// The files of `volume`; `None` if it is not of this sort.
pub async fn build(volume: &Volume, sources: &Sources<'_>) -> Result<Option<Built>, VolumeError> {
    let mut built = Built::default();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let values = config_map(sources, &source.name, source.optional).await?;
        select(&mut built.payload, values, source.items.as_deref(), mode, source.optional)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let values = secret(sources, name, source.optional).await?;
        select(&mut built.payload, values, source.items.as_deref(), mode, source.optional)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        downward(&mut built.payload, source.items.as_deref().unwrap_or_default(), mode, sources)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for projection in source.sources.iter().flatten() {
            project(&mut built, projection, mode, sources).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(built))
}

async fn project(
    built: &mut Built,
    projection: &VolumeProjection,
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), VolumeError> {
    if let Some(source) = &projection.config_map {
        let values = config_map(sources, &source.name, source.optional).await?;
        select(&mut built.payload, values, source.items.as_deref(), mode, source.optional)
    } else if let Some(source) = &projection.secret {
        let values = secret(sources, &source.name, source.optional).await?;
        select(&mut built.payload, values, source.items.as_deref(), mode, source.optional)
    } else if let Some(source) = &projection.downward_api {
        downward(&mut built.payload, source.items.as_deref().unwrap_or_default(), mode, sources)
    } else if let Some(source) = &projection.service_account_token {
        token(built, source, mode, sources).await
    } else {
        Err(VolumeError::Unsupported("this kind of projection".to_owned()))
    }
}

type Values = Option<BTreeMap<String, Vec<u8>>>;

async fn config_map(sources: &Sources<'_>, name: &str, optional: Option<bool>) -> Result<Values, VolumeError> {
    required("configmap", name, optional, sources.keyed.config_map(name).await)
}

async fn secret(sources: &Sources<'_>, name: &str, optional: Option<bool>) -> Result<Values, VolumeError> {
    required("secret", name, optional, sources.keyed.secret(name).await)
}

fn required(
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
    found: Result<Values, String>,
) -> Result<Values, VolumeError> {
    match found.map_err(VolumeError::Api)? {
        None if optional != Some(true) => Err(VolumeError::NotFound { kind, name: name.to_owned() }),
        found => Ok(found),
    }
}

/// Puts the wanted keys of `values` at their paths, or all under their own names.
fn select(
    payload: &mut Payload,
    values: Values,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: Option<bool>,
) -> Result<(), VolumeError> {
    let Some(values) = values else { return Ok(()) };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        payload.extend(values.into_iter().map(|(key, bytes)| (key, file(bytes, mode))));
        return Ok(());
    };
    for item in items {
        match values.get(&item.key) {
            Some(bytes) => {
                payload.insert(item.path.clone(), file(bytes.clone(), item.mode.unwrap_or(mode)));
            }
            None if optional == Some(true) => {}
            None => return Err(VolumeError::NoSuchKey(item.key.clone())),
        }
    }
    Ok(())
}

fn downward(
    payload: &mut Payload,
    items: &[DownwardAPIVolumeFile],
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), VolumeError> {
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => sources.fields.field(&field.field_path),
            (None, Some(resource)) => sources.fields.resource(resource, None),
            (None, None) => continue,
        };
        let text = text.map_err(VolumeError::Field)?;
        payload.insert(item.path.clone(), file(text.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(())
}

async fn token(
    built: &mut Built,
    source: &ServiceAccountTokenProjection,
    mode: i32,
    sources: &Sources<'_>,
) -> Result<(), VolumeError> {
    let audience = source.audience.clone().filter(|audience| !audience.is_empty());
    let token = sources
        .tokens
        .token(sources.fields.pod, audience, source.expiration_seconds)
        .await
        .map_err(VolumeError::Api)?;
    // A token is for the pod's user alone, unless a group or nobody in particular is to read it.
    let mode = if sources.fs_user.is_some() || sources.fs_group.is_some() { 0o600 } else { mode };
    let file =
        PayloadFile { bytes: token.token.into_bytes(), owner: sources.fs_user, mode: mode.cast_unsigned() & 0o777 };
    built.payload.insert(source.path.clone(), file);
    built.refresh_at = Some(built.refresh_at.map_or(token.refresh_at, |earlier| earlier.min(token.refresh_at)));
    Ok(())
}

fn file(bytes: Vec<u8>, mode: i32) -> PayloadFile {
    PayloadFile { bytes, mode: mode.cast_unsigned() & 0o7777, owner: None }
}
