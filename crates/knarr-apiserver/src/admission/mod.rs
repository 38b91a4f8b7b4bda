//! What may be stored, and as what: the plug-ins between decoding and validation.

mod certificates;
mod chain;
mod limit_ranger;
mod matching;
mod namespace_lifecycle;
mod node_restriction;
mod nodes;
mod pod_nodes;
mod pod_security;
mod policy;
mod priority;
mod rbac_escalation;
mod refusal;
mod reinvocation;
mod resource_quota;
mod rules;
mod runtime_class;
mod selection;
mod service_account;
mod storage;
mod webhook;

pub use certificates::{
    CertificateApproval, CertificateSigning, CertificateSubjectRestriction, ClusterTrustBundleAttest,
};
pub use chain::Chain;
pub use limit_ranger::LimitRanger;
pub use namespace_lifecycle::NamespaceLifecycle;
pub use node_restriction::NodeRestriction;
pub use nodes::{DefaultTolerationSeconds, TaintNodesByCondition};
pub use pod_nodes::{NodeDeclaredFeatureValidator, PodResizeValidator, PodTopologyLabels};
pub use pod_security::PodSecurity;
pub(crate) use policy::policy_expressions;
pub use policy::{MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
pub use priority::Priority;
pub use rbac_escalation::RbacEscalation;
pub use resource_quota::ResourceQuota;
pub use runtime_class::RuntimeClass;
pub use selection::Selection;
pub use service_account::ServiceAccount;
pub use storage::{
    DefaultIngressClass, DefaultStorageClass, PersistentVolumeClaimResize, StorageObjectInUseProtection,
};

pub use webhook::{MutatingAdmissionWebhook, ValidatingAdmissionWebhook};

use std::sync::Arc;

use knarr_api::decode::empties;
use knarr_api::schema::schema;
use knarr_api::{Object, Resource, StatusError};

use crate::authentication::User;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// One write on its way into the store.
pub struct Request {
    pub operation: Operation,
    pub resource: Arc<Resource>,
    /// Empty for the main resource.
    pub subresource: String,
    pub namespace: String,
    /// Empty on a create with generateName.
    pub name: String,
    pub user: Arc<User>,
    /// The new object; `None` on delete. Mutating plug-ins change it in place.
    pub object: Option<Object>,
    /// Whether it says of lists or maps that they are empty ([`empties`]); whoever is shown it sees it without.
    pub says_empty: bool,
    /// What is stored now; `None` on create.
    pub old_object: Option<Arc<Object>>,
    /// The CreateOptions, UpdateOptions, PatchOptions or DeleteOptions object.
    pub options: Object,
    pub dry_run: bool,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// Annotations for the audit event.
    pub audit_annotations: Vec<(String, String)>,
    pub reinvocation: Reinvocation,
}

impl Request {
    /// Brings the object into the form that is shown to others.
    fn settle_empties(&mut self) {
        if !std::mem::take(&mut self.says_empty) {
            return;
        }
        let (kind, schema) = (self.resource.gvk(), schema());
        if let (Some(object), Some(id)) = (&mut self.object, schema.by_gvk(&kind)) {
            empties::settle(schema, id, object);
        }
    }
}

/// Whether the plug-ins that mutate run a second time, because one of them has changed what others have seen already.
#[derive(Default)]
pub struct Reinvocation {
    /// Set by a plug-in whose change the others should see.
    pub wanted: bool,
    /// This is the second round; there is no third.
    pub second_round: bool,
    policies: reinvocation::Memory,
    webhooks: reinvocation::Memory,
}

/// The request's namespace as webhooks and policies see it: that of a namespace is its own name.
fn namespace_of(request: &Request) -> &str {
    let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
    if is_namespace && request.namespace.is_empty() { &request.name } else { &request.namespace }
}

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// One admission plug-in, upstream's name and behaviour. All plug-ins mutate, in order, then all validate.
#[async_trait::async_trait]
pub trait Plugin: Send + Sync {
    /// Upstream's name, such as `LimitRanger`.
    fn name(&self) -> &'static str;

    fn handles(&self, operation: Operation) -> bool;

    async fn mutate(&self, _request: &mut Request) -> Result<(), StatusError> {
        Ok(())
    }

    async fn validate(&self, _request: &mut Request) -> Result<(), StatusError> {
        Ok(())
    }
}
