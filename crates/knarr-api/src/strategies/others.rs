//! Kinds of every other group.

use serde_json::{Value, json};

use super::{Row, subresource};
use crate::names;
use crate::object::{Object, ObjectExt};
use crate::strategy::Context;
use crate::validation::{
    admission, crd, device, endpoint_slice, flow_control, networking, platform, rbac, signing_request, status, storage,
};
use crate::warnings;

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

pub const ROWS: &[Row] = &[
    Row {
        validate: networking::network_policy,
        generation: &["spec"],
        warnings: warnings::network_policy,
        ..Row::new("networking.k8s.io", "NetworkPolicy")
    },
    Row {
        validate: networking::ingress_create,
        validate_update: Some(|c, new, _| networking::ingress(c, new)),
        validate_status: status::ingress,
        warnings: warnings::ingress,
        ..Row::with_status("networking.k8s.io", "Ingress")
    },
    Row {
        validate: networking::ingress_class,
        validate_update: Some(networking::ingress_class_update),
        generation: &["spec"],
        ..Row::new("networking.k8s.io", "IngressClass")
    },
    Row {
        name: networking::ip_address_name,
        validate: networking::ip_address,
        validate_update: Some(networking::ip_address_update),
        ..Row::new("networking.k8s.io", "IPAddress")
    },
    Row {
        validate: networking::service_cidr,
        validate_update: Some(networking::service_cidr_update),
        generation: &[],
        ..Row::with_status("networking.k8s.io", "ServiceCIDR")
    },
    Row {
        prepare: |_, slice| drop_topology(slice),
        prepare_update: |slice, _| drop_topology(slice),
        validate: endpoint_slice::validate,
        validate_update: Some(endpoint_slice::validate_update),
        generation: &["endpoints", "ports", "addressType"],
        generation_metadata: &["labels"],
        warnings: warnings::endpoint_slice,
        ..Row::new("discovery.k8s.io", "EndpointSlice")
    },
    Row { name: names::path_segment, validate: rbac::role, create_on_update: true, ..Row::new(RBAC, "Role") },
    Row {
        name: names::path_segment,
        validate: rbac::cluster_role,
        create_on_update: true,
        ..Row::new(RBAC, "ClusterRole")
    },
    Row {
        name: names::path_segment,
        validate: rbac::role_binding,
        validate_update: Some(|c, new, old| {
            rbac::role_binding(c, new);
            rbac::binding_update(c, new, old);
        }),
        create_on_update: true,
        ..Row::new(RBAC, "RoleBinding")
    },
    Row {
        name: names::path_segment,
        validate: rbac::cluster_role_binding,
        validate_update: Some(|c, new, old| {
            rbac::cluster_role_binding(c, new);
            rbac::binding_update(c, new, old);
        }),
        create_on_update: true,
        ..Row::new(RBAC, "ClusterRoleBinding")
    },
    Row {
        validate: storage::storage_class,
        validate_update: Some(storage::storage_class_update),
        warnings: warnings::storage_class,
        ..Row::new("storage.k8s.io", "StorageClass")
    },
    Row {
        name: storage::driver_object_name,
        validate: storage::csi_driver,
        validate_update: Some(storage::csi_driver_update),
        unconditional: false,
        prepare_update: count_changes,
        warnings: warnings::csi_driver,
        ..Row::new("storage.k8s.io", "CSIDriver")
    },
    Row {
        validate: storage::csi_node,
        validate_update: Some(storage::csi_node_update),
        unconditional: false,
        ..Row::new("storage.k8s.io", "CSINode")
    },
    Row {
        validate: storage::csi_storage_capacity,
        validate_update: Some(storage::csi_storage_capacity_update),
        unconditional: false,
        ..Row::new("storage.k8s.io", "CSIStorageCapacity")
    },
    Row {
        validate: storage::volume_attachment,
        validate_update: Some(storage::volume_attachment_update),
        validate_status: storage::volume_attachment_status,
        unconditional: false,
        generation: &[],
        ..Row::with_status("storage.k8s.io", "VolumeAttachment")
    },
    Row {
        validate: storage::volume_attributes_class,
        validate_update: Some(storage::volume_attributes_class_update),
        ..Row::new("storage.k8s.io", "VolumeAttributesClass")
    },
    Row {
        validate: platform::priority_class,
        validate_update: Some(platform::priority_class_update),
        generation: &["value"],
        ..Row::new("scheduling.k8s.io", "PriorityClass")
    },
    Row {
        prepare: |_, lease| drop_gated(lease),
        prepare_update: |lease, _| drop_gated(lease),
        validate: platform::lease,
        unconditional: false,
        create_on_update: true,
        own_finalizers: false,
        ..Row::new("coordination.k8s.io", "Lease")
    },
    Row {
        validate: platform::runtime_class,
        validate_update: Some(platform::runtime_class_update),
        unconditional: false,
        warnings: warnings::runtime_class,
        own_finalizers: false,
        ..Row::new("node.k8s.io", "RuntimeClass")
    },
    Row {
        name: names::path_segment,
        prepare: prepare_signing_request,
        prepare_update: |new, old| new["spec"] = old["spec"].clone(),
        validate: signing_request::validate,
        validate_update: Some(signing_request::validate_update),
        validate_status: signing_request::validate_status,
        prepare_status: |context, request, old| subresource::stamp_conditions(context, request, old),
        generation: &[],
        selectable: &["spec.signerName"],
        ..Row::with_status("certificates.k8s.io", "CertificateSigningRequest")
    },
    Row {
        validate: admission::webhooks,
        generation: &["webhooks"],
        unconditional: false,
        own_finalizers: false,
        ..Row::new(ADMISSION, "ValidatingWebhookConfiguration")
    },
    Row {
        validate: admission::webhooks,
        generation: &["webhooks"],
        unconditional: false,
        own_finalizers: false,
        ..Row::new(ADMISSION, "MutatingWebhookConfiguration")
    },
    Row {
        validate: admission::validating_policy,
        unconditional: false,
        own_finalizers: false,
        ..Row::with_status(ADMISSION, "ValidatingAdmissionPolicy")
    },
    Row {
        validate: |c, object| admission::policy_binding(c, object, true),
        unconditional: false,
        generation: &["spec"],
        own_finalizers: false,
        ..Row::new(ADMISSION, "ValidatingAdmissionPolicyBinding")
    },
    Row {
        validate: admission::mutating_policy,
        unconditional: false,
        generation: &["spec"],
        own_finalizers: false,
        ..Row::new(ADMISSION, "MutatingAdmissionPolicy")
    },
    Row {
        validate: |c, object| admission::policy_binding(c, object, false),
        unconditional: false,
        generation: &["spec"],
        own_finalizers: false,
        ..Row::new(ADMISSION, "MutatingAdmissionPolicyBinding")
    },
    Row {
        validate: flow_control::flow_schema,
        validate_status: status::flow_control,
        ..Row::with_status("flowcontrol.apiserver.k8s.io", "FlowSchema")
    },
    Row {
        validate: flow_control::priority_level,
        validate_status: status::flow_control,
        ..Row::with_status("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration")
    },
    Row {
        name: names::declared_subdomain,
        validate: device::class,
        generation: &["spec"],
        ..Row::new("resource.k8s.io", "DeviceClass")
    },
    Row {
        validate: device::claim,
        validate_update: Some(device::claim_update),
        generation: &[],
        ..Row::with_status("resource.k8s.io", "ResourceClaim")
    },
    Row {
        validate: device::claim_template,
        validate_update: Some(|c, new, old| {
            device::claim_template(c, new);
            c.immutable_as("resource.ResourceClaimTemplateSpec", new, old, "spec");
        }),
        ..Row::new("resource.k8s.io", "ResourceClaimTemplate")
    },
    Row {
        normalize: stamp_taints,
        prepare: |_, slice| drop_listed_values(slice, &Value::Null),
        prepare_update: drop_listed_values,
        validate: device::resource_slice,
        validate_update: Some(device::resource_slice_update),
        generation: &["spec"],
        selectable: &["spec.nodeName", "spec.driver"],
        ..Row::new("resource.k8s.io", "ResourceSlice")
    },
    Row {
        name: names::path_segment,
        validate: platform::api_service,
        validate_status: platform::api_service_status,
        generation: &[],
        unconditional: false,
        own_finalizers: false,
        ..Row::with_status("apiregistration.k8s.io", "APIService")
    },
    Row {
        validate: crd::custom_resource_definition,
        validate_update: Some(crd::update),
        validate_status: crd::update_status,
        prepare: |_, object| crd::prepare(object),
        prepare_update: |object, _| crd::remember_stored_version(object),
        warnings: crd::warnings,
        unconditional: false,
        own_finalizers: false,
        ..Row::with_status("apiextensions.k8s.io", "CustomResourceDefinition")
    },
    Row {
        name: names::anything,
        validate: |c, object| platform::access_review(c, object, false),
        ..Row::new("authorization.k8s.io", "SubjectAccessReview")
    },
    Row {
        name: names::anything,
        validate: |c, object| platform::access_review(c, object, false),
        ..Row::new("authorization.k8s.io", "LocalSubjectAccessReview")
    },
    Row {
        name: names::anything,
        validate: |c, object| platform::access_review(c, object, true),
        ..Row::new("authorization.k8s.io", "SelfSubjectAccessReview")
    },
];

/// Where an endpoint is, in the words of an older version, is not kept.
fn drop_topology(slice: &mut Object) {
    for endpoint in slice.get_mut("endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(endpoint) = endpoint.as_object_mut() {
            endpoint.remove("deprecatedTopology");
        }
    }
}

/// Attributes with lists of values are off: they are not kept, unless the slice has had some before.
fn drop_listed_values(slice: &mut Object, old: &Object) {
    const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];
    let devices =
        |slice: &Object| slice.pointer("/spec/devices").and_then(Value::as_array).cloned().unwrap_or_default();
    let listed = |value: &Value| LISTS.iter().any(|list| value.get(list).is_some());
    let attributes = |device: &Value| device["attributes"].as_object().is_some_and(|all| all.values().any(listed));
    if devices(old).iter().any(attributes) {
        return;
    }
    for device in slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten() {
        for (_, value) in device.get_mut("attributes").and_then(Value::as_object_mut).into_iter().flatten() {
            if let Some(value) = value.as_object_mut() {
                LISTS.iter().for_each(|list| drop(value.remove(*list)));
            }
        }
    }
}

/// A taint tells since when it stands.
fn stamp_taints(slice: &mut Object) {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second()).unwrap_or_default().to_string();
    for device in slice.pointer_mut("/spec/devices").and_then(Value::as_array_mut).into_iter().flatten() {
        for taint in device.get_mut("taints").and_then(Value::as_array_mut).into_iter().flatten() {
            if taint.is_object() && taint["timeAdded"].is_null() {
                taint["timeAdded"] = now.clone().into();
            }
        }
    }
}

/// A driver has no generation until it is changed for the first time.
fn count_changes(driver: &mut Object, old: &Object) {
    if driver["spec"] != old["spec"] {
        let generation = old.generation() + 1;
        driver.metadata_mut().insert("generation".into(), generation.into());
    }
}

/// Coordinated leader election is off: its fields are not kept.
fn drop_gated(lease: &mut Object) {
    if let Some(spec) = lease.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("preferredHolder");
        spec.remove("strategy");
    }
}

/// Who asks for a certificate is what the server saw, not what the request says.
fn prepare_signing_request(ctx: &Context, request: &mut Object) {
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    if let Some(spec) = request["spec"].as_object_mut() {
        spec.retain(|field, _| !matches!(field.as_str(), "username" | "uid" | "groups" | "extra"));
        if !ctx.username.is_empty() {
            spec.insert("username".into(), ctx.username.clone().into());
        }
        if !ctx.user_uid.is_empty() {
            spec.insert("uid".into(), ctx.user_uid.clone().into());
        }
        if !ctx.groups.is_empty() {
            spec.insert("groups".into(), ctx.groups.clone().into());
        }
        if !ctx.extra.is_empty() {
            spec.insert("extra".into(), json!(ctx.extra));
        }
    }
}
