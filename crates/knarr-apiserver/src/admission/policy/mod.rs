//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! The way of a request: [`definition`] has every stored policy and binding, compiled once per change; [`matching`] says which of
//! them see the request and in which version; [`params`] finds the objects that a binding's `paramRef` names; [`validating`] and
//! [`mutating`] evaluate. [`creation`] refuses policies whose expressions do not compile.
//!
//! Invariants: with no policy stored a write costs two pointer loads; policies are never shown to policies, so that a broken one
//! can always be removed.

mod authorizer;
mod creation;
mod definition;
mod devices;
mod mutating;
mod params;
mod request;
mod validating;

pub(super) use authorizer::Asking;
pub(crate) use creation::policy_expressions;
pub(super) use request::Shown;

use std::sync::Arc;

use knarr_api::{GroupResource, StatusError};

use super::{Operation, Plugin, Request};
use crate::authorization;
use crate::cache::Derived;
use crate::objects::Objects;
use crate::registry::Registry;
use definition::{Bindings, Definitions};

const GROUP: &str = "admissionregistration.k8s.io";

/// Resources that no policy sees: those that decide admission, and questions about who may.
const EXEMPT: [(&str, &str); 12] = [
    (GROUP, "validatingwebhookconfigurations"),
    (GROUP, "mutatingwebhookconfigurations"),
    (GROUP, "validatingadmissionpolicies"),
    (GROUP, "validatingadmissionpolicybindings"),
    (GROUP, "mutatingadmissionpolicies"),
    (GROUP, "mutatingadmissionpolicybindings"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// What both plug-ins are made of.
struct Policies {
    registry: Arc<Registry>,
    authorizer: authorization::Chain,
    definitions: Derived<Definitions>,
    bindings: Derived<Bindings>,
}

impl Policies {
    /// `None` over objects that are no registry's: then there are no policies.
    fn new(kind: &str, objects: &Arc<dyn Objects>, authorizer: authorization::Chain) -> Option<Self> {
        let registry = objects.clone().registry()?;
        let cache = |resource: String| registry.cache(&GroupResource::new(GROUP, resource));
        let definitions = match kind {
            "validating" => Derived::new(cache(format!("{kind}admissionpolicies")), definition::validating),
            _ => Derived::new(cache(format!("{kind}admissionpolicies")), definition::mutating),
        };
        let bindings = Derived::new(cache(format!("{kind}admissionpolicybindings")), definition::bindings);
        Some(Policies { registry, authorizer, definitions, bindings })
    }

    fn none(&self) -> bool {
        self.definitions.is_empty() || self.bindings.is_empty()
    }

    /// Whether policies may see this request at all.
    fn concern(&self, request: &Request) -> bool {
        let own = (request.resource.group.as_str(), request.resource.resource.as_str());
        !self.none() && !EXEMPT.contains(&own)
    }
}

/// Evaluates MutatingAdmissionPolicies.
pub struct MutatingAdmissionPolicy(Option<Policies>);

impl MutatingAdmissionPolicy {
    pub fn new(objects: &Arc<dyn Objects>, authorizer: authorization::Chain) -> Self {
        MutatingAdmissionPolicy(Policies::new("mutating", objects, authorizer))
    }
}

#[async_trait::async_trait]
impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, _: Operation) -> bool {
        self.0.as_ref().is_some_and(|policies| !policies.none())
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        match &self.0 {
            Some(policies) if policies.concern(request) => mutating::dispatch(policies, request).await,
            _ => Ok(()),
        }
    }
}

/// Evaluates ValidatingAdmissionPolicies.
pub struct ValidatingAdmissionPolicy(Option<Policies>);

impl ValidatingAdmissionPolicy {
    pub fn new(objects: &Arc<dyn Objects>, authorizer: authorization::Chain) -> Self {
        ValidatingAdmissionPolicy(Policies::new("validating", objects, authorizer))
    }
}

#[async_trait::async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, _: Operation) -> bool {
        self.0.as_ref().is_some_and(|policies| !policies.none())
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        match &self.0 {
            Some(policies) if policies.concern(request) => validating::dispatch(policies, request).await,
            _ => Ok(()),
        }
    }
}
