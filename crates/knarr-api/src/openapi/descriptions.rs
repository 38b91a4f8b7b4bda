//! What upstream's documentation says of each type and field, out of the `k8s-openapi` crate.
//!
//! The texts are megabytes in memory: they are made when a document is rendered and dropped after.

use k8s_openapi::{api, apiextensions_apiserver, apimachinery, kube_aggregator};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

type Register = fn(&mut SchemaGenerator);

fn register<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

/// Kinds by the name of their definition; what they are made of comes with them.
const KINDS: &[(&str, Register)] = &[
    (
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
        register::<api::admissionregistration::v1::MutatingAdmissionPolicy>,
    ),
    (
        "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
        register::<api::admissionregistration::v1::MutatingAdmissionPolicyBinding>,
    ),
    (
        "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
        register::<api::admissionregistration::v1::MutatingWebhookConfiguration>,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        register::<api::admissionregistration::v1::ValidatingAdmissionPolicy>,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
        register::<api::admissionregistration::v1::ValidatingAdmissionPolicyBinding>,
    ),
    (
        "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
        register::<api::admissionregistration::v1::ValidatingWebhookConfiguration>,
    ),
    ("io.k8s.api.apps.v1.ControllerRevision", register::<api::apps::v1::ControllerRevision>),
    ("io.k8s.api.apps.v1.DaemonSet", register::<api::apps::v1::DaemonSet>),
    ("io.k8s.api.apps.v1.Deployment", register::<api::apps::v1::Deployment>),
    ("io.k8s.api.apps.v1.ReplicaSet", register::<api::apps::v1::ReplicaSet>),
    ("io.k8s.api.apps.v1.StatefulSet", register::<api::apps::v1::StatefulSet>),
    ("io.k8s.api.authentication.v1.SelfSubjectReview", register::<api::authentication::v1::SelfSubjectReview>),
    ("io.k8s.api.authentication.v1.TokenRequest", register::<api::authentication::v1::TokenRequest>),
    ("io.k8s.api.authentication.v1.TokenReview", register::<api::authentication::v1::TokenReview>),
    (
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
        register::<api::authorization::v1::LocalSubjectAccessReview>,
    ),
    (
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        register::<api::authorization::v1::SelfSubjectAccessReview>,
    ),
    ("io.k8s.api.authorization.v1.SelfSubjectRulesReview", register::<api::authorization::v1::SelfSubjectRulesReview>),
    ("io.k8s.api.authorization.v1.SubjectAccessReview", register::<api::authorization::v1::SubjectAccessReview>),
    ("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", register::<api::autoscaling::v1::HorizontalPodAutoscaler>),
    ("io.k8s.api.autoscaling.v1.Scale", register::<api::autoscaling::v1::Scale>),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler", register::<api::autoscaling::v2::HorizontalPodAutoscaler>),
    ("io.k8s.api.batch.v1.CronJob", register::<api::batch::v1::CronJob>),
    ("io.k8s.api.batch.v1.Job", register::<api::batch::v1::Job>),
    (
        "io.k8s.api.certificates.v1.CertificateSigningRequest",
        register::<api::certificates::v1::CertificateSigningRequest>,
    ),
    ("io.k8s.api.coordination.v1.Lease", register::<api::coordination::v1::Lease>),
    ("io.k8s.api.core.v1.Binding", register::<api::core::v1::Binding>),
    ("io.k8s.api.core.v1.ComponentStatus", register::<api::core::v1::ComponentStatus>),
    ("io.k8s.api.core.v1.ConfigMap", register::<api::core::v1::ConfigMap>),
    ("io.k8s.api.core.v1.Endpoints", register::<api::core::v1::Endpoints>),
    ("io.k8s.api.core.v1.Event", register::<api::core::v1::Event>),
    ("io.k8s.api.core.v1.LimitRange", register::<api::core::v1::LimitRange>),
    ("io.k8s.api.core.v1.Namespace", register::<api::core::v1::Namespace>),
    ("io.k8s.api.core.v1.Node", register::<api::core::v1::Node>),
    ("io.k8s.api.core.v1.PersistentVolume", register::<api::core::v1::PersistentVolume>),
    ("io.k8s.api.core.v1.PersistentVolumeClaim", register::<api::core::v1::PersistentVolumeClaim>),
    ("io.k8s.api.core.v1.Pod", register::<api::core::v1::Pod>),
    ("io.k8s.api.core.v1.PodTemplate", register::<api::core::v1::PodTemplate>),
    ("io.k8s.api.core.v1.ReplicationController", register::<api::core::v1::ReplicationController>),
    ("io.k8s.api.core.v1.ResourceQuota", register::<api::core::v1::ResourceQuota>),
    ("io.k8s.api.core.v1.Secret", register::<api::core::v1::Secret>),
    ("io.k8s.api.core.v1.Service", register::<api::core::v1::Service>),
    ("io.k8s.api.core.v1.ServiceAccount", register::<api::core::v1::ServiceAccount>),
    ("io.k8s.api.discovery.v1.EndpointSlice", register::<api::discovery::v1::EndpointSlice>),
    ("io.k8s.api.events.v1.Event", register::<api::events::v1::Event>),
    ("io.k8s.api.flowcontrol.v1.FlowSchema", register::<api::flowcontrol::v1::FlowSchema>),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
        register::<api::flowcontrol::v1::PriorityLevelConfiguration>,
    ),
    ("io.k8s.api.networking.v1.IPAddress", register::<api::networking::v1::IPAddress>),
    ("io.k8s.api.networking.v1.Ingress", register::<api::networking::v1::Ingress>),
    ("io.k8s.api.networking.v1.IngressClass", register::<api::networking::v1::IngressClass>),
    ("io.k8s.api.networking.v1.NetworkPolicy", register::<api::networking::v1::NetworkPolicy>),
    ("io.k8s.api.networking.v1.ServiceCIDR", register::<api::networking::v1::ServiceCIDR>),
    ("io.k8s.api.node.v1.RuntimeClass", register::<api::node::v1::RuntimeClass>),
    ("io.k8s.api.policy.v1.Eviction", register::<api::policy::v1::Eviction>),
    ("io.k8s.api.policy.v1.PodDisruptionBudget", register::<api::policy::v1::PodDisruptionBudget>),
    ("io.k8s.api.rbac.v1.ClusterRole", register::<api::rbac::v1::ClusterRole>),
    ("io.k8s.api.rbac.v1.ClusterRoleBinding", register::<api::rbac::v1::ClusterRoleBinding>),
    ("io.k8s.api.rbac.v1.Role", register::<api::rbac::v1::Role>),
    ("io.k8s.api.rbac.v1.RoleBinding", register::<api::rbac::v1::RoleBinding>),
    ("io.k8s.api.resource.v1.DeviceClass", register::<api::resource::v1::DeviceClass>),
    ("io.k8s.api.resource.v1.ResourceClaim", register::<api::resource::v1::ResourceClaim>),
    ("io.k8s.api.resource.v1.ResourceClaimTemplate", register::<api::resource::v1::ResourceClaimTemplate>),
    ("io.k8s.api.resource.v1.ResourceSlice", register::<api::resource::v1::ResourceSlice>),
    ("io.k8s.api.scheduling.v1.PriorityClass", register::<api::scheduling::v1::PriorityClass>),
    ("io.k8s.api.storage.v1.CSIDriver", register::<api::storage::v1::CSIDriver>),
    ("io.k8s.api.storage.v1.CSINode", register::<api::storage::v1::CSINode>),
    ("io.k8s.api.storage.v1.CSIStorageCapacity", register::<api::storage::v1::CSIStorageCapacity>),
    ("io.k8s.api.storage.v1.StorageClass", register::<api::storage::v1::StorageClass>),
    ("io.k8s.api.storage.v1.VolumeAttachment", register::<api::storage::v1::VolumeAttachment>),
    ("io.k8s.api.storage.v1.VolumeAttributesClass", register::<api::storage::v1::VolumeAttributesClass>),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        register::<apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition>,
    ),
    (
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
        register::<kube_aggregator::pkg::apis::apiregistration::v1::APIService>,
    ),
    ("", register::<apimachinery::pkg::apis::meta::v1::Status>),
    ("", register::<apimachinery::pkg::apis::meta::v1::DeleteOptions>),
    ("", register::<apimachinery::pkg::apis::meta::v1::ListMeta>),
];

/// Fields that every list has.
const LIST_FIELDS: [(&str, &str); 4] = [
    ("apiVersion", "The version of the schema of this representation of the list."),
    ("items", "The objects of the list."),
    ("kind", "The kind of this list."),
    ("metadata", "Standard list metadata."),
];

/// Descriptions of the types that `wanted` names and of all that they are made of.
pub struct Descriptions(Map<String, Value>);

impl Descriptions {
    pub fn of(wanted: impl Fn(&str) -> bool) -> Descriptions {
        let mut generator = SchemaGenerator::default();
        KINDS
            .iter()
            .filter(|(name, _)| name.is_empty() || wanted(name))
            .for_each(|(_, register)| register(&mut generator));
        Descriptions(generator.take_definitions(false))
    }

    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.get("description")?.as_str()
    }

    pub fn of_field(&self, type_name: &str, field: &str) -> Option<&str> {
        let known = || self.0.get(type_name)?.get("properties")?.get(field)?.get("description")?.as_str();
        let listed = || {
            let list = type_name.ends_with("List").then_some(LIST_FIELDS)?;
            list.iter().find(|(name, _)| *name == field).map(|(_, text)| *text)
        };
        known().or_else(listed)
    }
}
