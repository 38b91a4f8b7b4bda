//! Mutating hooks: one after the other, each seeing what those before it made of the object.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use knarr_api::decode::FieldValidation;
use knarr_api::{Object, StatusError, default, patch};
use serde_json::{Value, json};

use super::super::reinvocation::Memory;
use super::super::{Operation, Request};
use super::invocation::Invocation;
use super::{HookError, Webhooks, review};
use crate::http::negotiate::Encoding;
use crate::metrics::calls::Outcome;
use crate::outbound::CallingWebhook;
use crate::registry::{Served, typed};

const PATCH: &str = "patch.webhook.admission.k8s.io/";
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const FAILED_OPEN: &str = "failed-open.mutation.webhook.admission.k8s.io/";

pub(super) async fn dispatch(webhooks: &Webhooks, request: &mut Request) -> Result<(), StatusError> {
    let mut memory = std::mem::take(&mut request.reinvocation.webhooks);
    memory.begin(request);
    let result = round(webhooks, request, &mut memory).await;
    memory.end(request);
    request.reinvocation.webhooks = memory;
    result
}

async fn round(webhooks: &Webhooks, request: &mut Request, memory: &mut Memory) -> Result<(), StatusError> {
    for (index, hook) in webhooks.hooks_for(request).hooks.iter().enumerate() {
        let Some(invocation) = Invocation::of(&webhooks.registry, hook, request)? else { continue };
        request.settle_empties();
        if !webhooks.wants(&invocation, request).await? {
            continue;
        }
        if !memory.asks(request, &hook.id) {
            continue;
        }
        let place = format!("round_{}_index_{index}", u8::from(request.reinvocation.second_round));
        let started = Instant::now();
        let result = call(webhooks, &invocation, request, &place).await;
        let outcome = result.as_ref().err().map_or(Outcome::Allowed, |error| error.outcome(hook));
        webhooks.measure(hook, "admit", request, started, outcome);
        let changed = matches!(result, Ok(true));
        let mutated = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
        request.audit_annotations.push((format!("{MUTATION}{place}"), mutated.to_string()));
        if changed {
            memory.require_again();
            request.reinvocation.wanted = true;
        }
        if hook.reinvoked {
            memory.note(&hook.id);
        }
        if let Err(error) = result {
            match error.into_answer(hook) {
                Some(refusal) => return Err(refusal),
                None => request.audit_annotations.push((format!("{FAILED_OPEN}{place}"), hook.name.clone())),
            }
        }
    }
    Ok(())
}

/// Asks one hook and applies its patch; whether the object changed.
async fn call(
    webhooks: &Webhooks,
    invocation: &Invocation,
    request: &mut Request,
    place: &str,
) -> Result<bool, HookError> {
    let hook = &invocation.hook;
    let (object, old) = shown(webhooks, invocation, request).await?;
    let old = old.as_ref().or(request.old_object.as_deref());
    let current = object.as_ref().or(request.object.as_ref());
    let response = webhooks.call(invocation, request, current, old, true).await?;
    for (key, value) in response.audit_annotations {
        request.audit_annotations.push((format!("{}/{key}", hook.name), value));
    }
    request.warnings.extend(response.warnings);
    if !response.allowed {
        return Err(HookError::Denied(review::denied(&hook.name, response.result)));
    }
    let Some(patch) = response.patch else { return Ok(false) };
    let calling = |why: String| HookError::Calling(CallingWebhook::new(&hook.name, why));
    let steps: Value = knarr_api::tree::parse(&patch)
        .map_err(|error| calling(format!("received undecodable patch in webhook response: {error}")))?;
    if steps.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    let Some(current) = object.or_else(|| request.object.clone()) else {
        let why = "attempted to modify the object, which is not supported for this operation";
        let message = format!("admission webhook \"{}\" {why}", hook.name);
        return Err(HookError::Refused(StatusError::internal(message)));
    };
    if response.patch_type != "JSONPatch" {
        return Err(calling(format!("unsupported patch type {:?}", response.patch_type)));
    }
    let note =
        json!({"configuration": hook.configuration, "webhook": hook.name, "patch": steps, "patchType": "JSONPatch"});
    request.audit_annotations.push((format!("{PATCH}{place}"), note.to_string()));
    let patched = patched(webhooks, invocation, request, current, &patch).await?;
    let changed = request.object.as_ref() != Some(&patched);
    request.object = Some(patched);
    Ok(changed)
}

/// The objects in the hook's version, where that is not the request's.
async fn shown(
    webhooks: &Webhooks,
    invocation: &Invocation,
    request: &Request,
) -> Result<(Option<Object>, Option<Object>), HookError> {
    let Some(other) = &invocation.matched.other else { return Ok((None, None)) };
    let mut objects = [request.object.clone(), request.old_object.as_deref().cloned()];
    for object in objects.iter_mut() {
        if let Some(taken) = object.take() {
            *object = Some(webhooks.convert(request, taken, other).await?);
        }
    }
    let [object, old] = objects;
    Ok((object, old))
}

/// The patched object in the request's version: what its schema does not know is gone, what was left out is defaulted.
async fn patched(
    webhooks: &Webhooks,
    invocation: &Invocation,
    request: &Request,
    object: Object,
    patch: &[u8],
) -> Result<Object, HookError> {
    let internal = |error: StatusError| HookError::Refused(StatusError::internal(error.message));
    let patched = patch::json::apply(object, patch).map_err(internal)?;
    if request.operation == Operation::Connect {
        // The options of a CONNECT are in no schema: whoever acts on them takes what it knows.
        return Ok(patched);
    }
    let text = serde_json::to_vec(&patched).map_err(|error| HookError::Refused(StatusError::internal(error)))?;
    let row = invocation.resource();
    let served = webhooks.registry.served(&row.group, &row.version, &row.resource);
    let is_own_kind = invocation.kind == row.gvk();
    let Some(served) = served.filter(|_| is_own_kind) else {
        let decoded = typed::decode_any(&text.into(), Encoding::Json, &invocation.kind, FieldValidation::Ignore);
        let mut object = decoded.map_err(internal)?.object;
        default::apply_defaults(&invocation.kind, &mut object);
        return Ok(object);
    };
    let mut object = decode(&served, text.into()).map_err(internal)?;
    served.apply_defaults(&mut object);
    let row = &request.resource;
    match (&invocation.matched.other, webhooks.registry.served(&row.group, &row.version, &row.resource)) {
        (Some(_), Some(own)) => webhooks.registry.convert(&own, object, &own.kind).await.map_err(HookError::Refused),
        _ => Ok(object),
    }
}

fn decode(served: &Arc<Served>, text: Bytes) -> Result<Object, StatusError> {
    Ok(served.decode(&text, Encoding::Json, FieldValidation::Ignore)?.object)
}
