//! Mutating and validating admission webhooks.
//!
//! The way of a request: [`configuration`] has the hooks of every configuration, compiled once per change; [`invocation`] says which of
//! them see the request and in which version; [`review`] writes the `AdmissionReview` and reads the answer; [`mutating`] calls one
//! after the other and applies their patches, [`validating`] calls all at once.
//!
//! Invariants: with no configuration stored a write costs one look at an empty snapshot; configurations of admission are never
//! themselves shown to a webhook, so that a broken one can always be removed.

mod configuration;
mod invocation;
mod mutating;
mod review;
mod validating;

pub(super) use review::{kind_value, resource_value, user_value};

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use knarr_api::{Object, StatusError};

use super::policy::{Asking, Shown};
use super::refusal::forbidden;
use super::{Operation, Plugin, Request, operation_name};
use crate::authorization;
use crate::cache::Derived;
use crate::metrics::calls::Outcome;
use crate::objects::Objects;
use crate::outbound::{CallError, CallingWebhook, Limits, Outbound};
use crate::registry::Registry;
use configuration::{Configurations, Hook};
use invocation::Invocation;
use review::Response;

/// What is read of a webhook's answer.
const MAX_ANSWER: usize = 16 << 20;

/// The kinds that no webhook sees.
const EXEMPT: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// What both plug-ins are made of.
struct Webhooks {
    registry: Arc<Registry>,
    outbound: Outbound,
    configurations: Derived<Configurations>,
    /// Who answers what match conditions ask.
    authorizer: authorization::Chain,
}

impl Webhooks {
    /// `None` over objects that are no registry's: then there are no webhooks.
    fn new(
        resource: &'static str,
        objects: &Arc<dyn Objects>,
        outbound: &Outbound,
        authorizer: authorization::Chain,
    ) -> Option<Self> {
        let registry = objects.clone().registry()?;
        let cache = registry.cache(&knarr_api::GroupResource::new("admissionregistration.k8s.io", resource));
        Some(Webhooks {
            registry,
            outbound: outbound.clone(),
            configurations: Derived::new(cache, configuration::compile),
            authorizer,
        })
    }

    fn hooks_for(&self, request: &Request) -> Arc<Configurations> {
        let kind = &request.resource.kind;
        if kind.group == "admissionregistration.k8s.io" && EXEMPT.contains(&kind.kind.as_str()) {
            return Arc::default();
        }
        self.configurations.get()
    }

    /// Whether the hook's match conditions want the request. Conditions that fail refuse it, unless the hook's policy is to go on.
    async fn wants(&self, invocation: &Invocation, request: &Request) -> Result<bool, StatusError> {
        let hook = &invocation.hook;
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let shown = Shown::new(&self.registry, request, &invocation.matched).await?;
        let asking = Arc::new(Asking { chain: &self.authorizer, user: &request.user });
        match hook.conditions.evaluate(&shown.input(None, None, asking)) {
            knarr_cel::admission::Matched::Yes => Ok(true),
            knarr_cel::admission::Matched::No(_) => Ok(false),
            knarr_cel::admission::Matched::Error(_) if hook.ignores_failure => Ok(false),
            knarr_cel::admission::Matched::Error(why) => Err(forbidden(request, why)),
        }
    }

    /// Measures how the call of a hook ended.
    fn measure(&self, hook: &Hook, kind: &str, request: &Request, started: Instant, outcome: Outcome) {
        if let Some(metrics) = self.registry.meter() {
            metrics.calls.webhook(&hook.name, kind, operation_name(request.operation), started, outcome);
        }
    }

    /// Shows one hook the request.
    async fn call(
        &self,
        invocation: &Invocation,
        request: &Request,
        object: Option<&Object>,
        old: Option<&Object>,
        mutating: bool,
    ) -> Result<Response, HookError> {
        let hook = &invocation.hook;
        let calling = |why: String| HookError::Calling(CallingWebhook::new(&hook.name, why));
        if request.dry_run && !hook.side_effects.allow_dry_run() {
            let message = format!("admission webhook \"{}\" does not support dry run", hook.name);
            return Err(HookError::Refused(StatusError::bad_request(message)));
        }
        let version = hook.review_version.ok_or_else(|| {
            calling("could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)".into())
        })?;
        let uid = uuid::Uuid::new_v4().to_string();
        let body = review::write(version, &uid, invocation, request, object, old);
        let target = hook.target.as_ref().map_err(|error| calling(format!("could not get REST client: {error}")))?;
        let client = self.outbound.client(target);
        let client = client.map_err(|error| calling(format!("could not get REST client: {error}")))?;
        let limits = Limits { timeout: hook.timeout, size: MAX_ANSWER };
        let answer: Result<Bytes, CallError> = client.post_bytes(body.into(), limits).await;
        let answer = answer.map_err(|error| calling(format!("failed to call webhook: {error}")))?;
        let answer = knarr_api::tree::parse(&answer).map_err(|error| {
            calling(format!("failed to call webhook: couldn't get version/kind; json parse error: {error}"))
        })?;
        review::read(version, &uid, mutating, &answer)
            .map_err(|why| calling(format!("received invalid webhook response: {why}")))
    }
}

/// Why a hook did not let the request pass.
enum HookError {
    /// It could not be asked: its failure policy decides.
    Calling(CallingWebhook),
    /// It said no.
    Denied(StatusError),
    /// What it wants cannot be done.
    Refused(StatusError),
}

impl HookError {
    fn outcome(&self, hook: &Hook) -> Outcome {
        match self {
            HookError::Calling(_) => Outcome::Unreachable { ignored: hook.ignores_failure },
            HookError::Denied(error) => Outcome::Denied(error.code),
            HookError::Refused(_) => Outcome::Internal,
        }
    }

    /// The request's answer; `None` where the hook's policy is to go on.
    fn into_answer(self, hook: &Hook) -> Option<StatusError> {
        match self {
            HookError::Refused(error) | HookError::Denied(error) => Some(error),
            HookError::Calling(error) if hook.ignores_failure => {
                tracing::warn!(%error, "a webhook failed; going on without it");
                None
            }
            HookError::Calling(error) => Some(StatusError::internal(error)),
        }
    }
}

/// Calls the webhooks of MutatingWebhookConfigurations.
pub struct MutatingAdmissionWebhook(Option<Webhooks>);

impl MutatingAdmissionWebhook {
    pub fn new(objects: &Arc<dyn Objects>, outbound: &Outbound, authorizer: authorization::Chain) -> Self {
        MutatingAdmissionWebhook(Webhooks::new("mutatingwebhookconfigurations", objects, outbound, authorizer))
    }
}

#[async_trait::async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, _: Operation) -> bool {
        self.0.as_ref().is_some_and(|w| !w.configurations.is_empty())
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        match &self.0 {
            Some(webhooks) => mutating::dispatch(webhooks, request).await,
            None => Ok(()),
        }
    }
}

/// Calls the webhooks of ValidatingWebhookConfigurations.
pub struct ValidatingAdmissionWebhook(Option<Webhooks>);

impl ValidatingAdmissionWebhook {
    pub fn new(objects: &Arc<dyn Objects>, outbound: &Outbound, authorizer: authorization::Chain) -> Self {
        ValidatingAdmissionWebhook(Webhooks::new("validatingwebhookconfigurations", objects, outbound, authorizer))
    }
}

#[async_trait::async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, _: Operation) -> bool {
        self.0.as_ref().is_some_and(|w| !w.configurations.is_empty())
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        match &self.0 {
            Some(webhooks) => validating::dispatch(webhooks, request).await,
            None => Ok(()),
        }
    }
}

/// Upstream's default time for a hook that names none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
