//! Validating hooks: all are asked at once, and the first refusal is the answer.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use knarr_api::{Object, StatusError};

use super::super::Request;
use super::super::matching::kind_of;
use super::invocation::Invocation;
use super::review::{self, Response};
use super::{HookError, Webhooks};
use crate::metrics::calls::Outcome;

const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io/";

/// What one hook said, with what it leaves on the request.
#[derive(Default)]
struct Said {
    refusal: Option<StatusError>,
    warnings: Vec<String>,
    annotations: Vec<(String, String)>,
}

pub(super) async fn dispatch(webhooks: &Webhooks, request: &mut Request) -> Result<(), StatusError> {
    let mut invocations = Vec::new();
    for hook in &webhooks.hooks_for(request).hooks {
        let Some(invocation) = Invocation::of(&webhooks.registry, hook, request)? else { continue };
        request.settle_empties();
        if webhooks.wants(&invocation, request).await? {
            invocations.push(invocation);
        }
    }
    if invocations.is_empty() {
        return Ok(());
    }
    let shown = &*request;
    let mut calls: FuturesUnordered<_> =
        invocations.iter().enumerate().map(|(index, invocation)| ask(webhooks, invocation, index, shown)).collect();
    let mut all = Vec::new();
    while let Some(said) = calls.next().await {
        all.push(said);
    }
    drop(calls);
    let mut refusal = None;
    for said in all {
        request.warnings.extend(said.warnings);
        request.audit_annotations.extend(said.annotations);
        refusal = refusal.or(said.refusal);
    }
    refusal.map_or(Ok(()), Err)
}

async fn ask(webhooks: &Webhooks, invocation: &Invocation, index: usize, request: &Request) -> Said {
    let (hook, started) = (&invocation.hook, Instant::now());
    match call(webhooks, invocation, request).await {
        Ok(response) => {
            let annotations = response.audit_annotations.into_iter();
            let refusal = (!response.allowed).then(|| review::denied(&hook.name, response.result));
            let outcome = refusal.as_ref().map_or(Outcome::Allowed, |refusal| Outcome::Denied(refusal.code));
            webhooks.measure(hook, "validating", request, started, outcome);
            Said {
                refusal,
                warnings: response.warnings,
                annotations: annotations.map(|(key, value)| (format!("{}/{key}", hook.name), value)).collect(),
            }
        }
        Err(error) => {
            webhooks.measure(hook, "validating", request, started, error.outcome(hook));
            let refusal = error.into_answer(hook);
            let annotation = (format!("{FAILED_OPEN}round_0_index_{index}"), hook.name.clone());
            let annotations = if refusal.is_none() { vec![annotation] } else { Vec::new() };
            Said { refusal, annotations, ..Said::default() }
        }
    }
}

async fn call(webhooks: &Webhooks, invocation: &Invocation, request: &Request) -> Result<Response, HookError> {
    let (object, old) = (request.object.as_ref(), request.old_object.as_deref());
    let Some(other) = &invocation.matched.other else {
        return webhooks.call(invocation, request, object, old, false).await;
    };
    let object = webhooks.convert_any(request, object, other).await?;
    let old = webhooks.convert_any(request, old, other).await?;
    webhooks.call(invocation, request, object.as_ref(), old.as_ref(), false).await
}

impl Webhooks {
    async fn convert_any(
        &self,
        request: &Request,
        object: Option<&Object>,
        to: &Arc<crate::registry::Served>,
    ) -> Result<Option<Object>, HookError> {
        match object {
            Some(object) => self.convert(request, object.clone(), to).await.map(Some),
            None => Ok(None),
        }
    }

    /// The object in the version that a hook wants.
    pub(super) async fn convert(
        &self,
        request: &Request,
        object: Object,
        to: &Arc<crate::registry::Served>,
    ) -> Result<Object, HookError> {
        let kind = kind_of(&to.resource, &request.subresource);
        if kind == kind_of(&request.resource, &request.subresource) {
            return Ok(object);
        }
        self.registry.convert(to, object, &kind).await.map_err(HookError::Refused)
    }
}
