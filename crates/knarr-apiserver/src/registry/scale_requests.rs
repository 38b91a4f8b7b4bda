//! GET, PUT and PATCH of `scale`.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use knarr_api::decode::{self, FieldValidation};
use knarr_api::object::ObjectExt;
use knarr_api::table::{IncludeObject, Printer, partial_metadata};
use knarr_api::{GroupVersionKind, Object, StatusError};
use serde_json::json;

use super::apply::Apply;
use super::commit::Target;
use super::patch::{self, PatchType};
use super::render;
use super::scale::{MakeScale, ScalePaths, SetReplicas, check_scale, scale_of, set_pointer};
use super::update::Updated;
use super::{Registry, Served, Writer, commit, typed};
use crate::http::negotiate::{self, Encoding, Form};
use crate::http::respond::{self, Answer};
use crate::resources::{Request, check_patch_options};

/// The kind that `scale` speaks.
fn scale_kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v1", "Scale")
}

/// Where this kind keeps its replicas.
fn paths_of(served: &Served) -> ScalePaths {
    served.scale.clone().unwrap_or_default()
}

fn shown(form: Form, scale: Object) -> Object {
    match form {
        Form::Object => scale,
        Form::PartialMetadata(version) | Form::PartialMetadataList(version) => {
            partial_metadata(&scale, version.api_version())
        }
        Form::Table(version) => {
            let printer = Printer::scale();
            let row = printer.row(&scale, IncludeObject::default(), jiff::Timestamp::now().as_second());
            let mut table = printer.table(vec![row], json!({"resourceVersion": scale.resource_version()}));
            table["apiVersion"] = version.api_version().into();
            table
        }
    }
}

pub async fn serve(registry: &Arc<Registry>, request: Request) -> Answer {
    let paths = paths_of(&request.served);
    if request.info.verb == "get" {
        let wanted = negotiate::accept(request.headers(), true)?;
        let entry = registry.get(&request.served, &request.info.namespace, &request.info.name, None).await?;
        let object = commit::from_stored(&request.served, entry.object()).await?;
        return render::encode(StatusCode::OK, wanted.encoding, &shown(wanted.form, scale_of(&object, &paths)));
    }
    let wanted = negotiate::accept(request.headers(), false)?;
    let patches = request.info.verb == "patch";
    let mut writer = request.writer(if patches { "PatchOptions" } else { "UpdateOptions" })?;
    let target = request.target();
    let validation = writer.options.field_validation;
    let served = target.served.clone();
    let scale: MakeScale = if patches {
        let kind = PatchType::parse(negotiate::content_type(request.headers()), &served)?;
        check_patch_options(kind, &request.query)?;
        let body = request.body.collect_limited().await?;
        if kind == PatchType::Apply {
            let mut change = apply_of(&target, &paths, &body, &mut writer)?;
            let updated = registry.update(&target, &mut change, &mut writer).await?;
            return answer(&target, &paths, &updated, wanted.encoding, &writer).await;
        }
        Box::new(move |current: &Object| {
            let patched = match kind {
                PatchType::Json => patch::apply(kind, &served, &body, current.clone())?,
                _ => patch::apply(PatchType::Merge, &served, &body, current.clone())?,
            };
            let text = serde_json::to_vec(&patched).map_err(knarr_api::StatusError::internal)?;
            Ok(decode::decode_object(&text, decode::Encoding::Json, &scale_kind(), FieldValidation::Ignore)?.object)
        })
    } else {
        let encoding = negotiate::body_encoding(request.headers())?;
        let body = request.body.collect_limited().await?;
        let decoded = typed::decode_any(&body, encoding, &scale_kind(), validation)?;
        writer.warnings = decoded.warnings;
        let mut scale = decoded.object;
        commit::ensure_namespace(&target, &mut scale)?;
        commit::require_name(&target, &scale)?;
        Box::new(move |_: &Object| Ok(scale.clone()))
    };
    let mut change = SetReplicas { paths: paths.clone(), scale };
    let updated = registry.update(&target, &mut change, &mut writer).await?;
    answer(&target, &paths, &updated, wanted.encoding, &writer).await
}

async fn answer(target: &Target, paths: &ScalePaths, updated: &Updated, encoding: Encoding, writer: &Writer) -> Answer {
    let object = commit::from_stored(&target.served, updated.written.object()).await?;
    let mut response = render::encode(StatusCode::OK, encoding, &scale_of(&object, paths))?;
    respond::add_warnings(&mut response, &writer.warnings);
    Ok(response)
}

/// Who applies a `Scale` applies to the scaled object what it says of the replicas, and owns them there.
fn apply_of(target: &Target, paths: &ScalePaths, body: &Bytes, writer: &mut Writer) -> Result<Apply, StatusError> {
    let validation = writer.options.field_validation;
    let decoded = decode::decode_object(body, decode::Encoding::Yaml, &scale_kind(), validation)?;
    writer.warnings.extend(decoded.warnings);
    let scale = decoded.object;
    check_scale(&scale)?;
    let mut config = json!({"apiVersion": target.served.api_version, "kind": target.served.kind.kind});
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        config.set_meta_str(field, scale.meta_str(field));
    }
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or_default();
    set_pointer(&mut config, &paths.spec_replicas, replicas.into());
    Ok(Apply::of(target, config, writer))
}
