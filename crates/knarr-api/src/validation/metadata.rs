//! Validation of `metadata`, the same for every kind.

use serde_json::Value;

use super::check::{Checker, entries, flag, has, int, list, same, text};
use super::labels;
use crate::field::ErrorList;
use crate::names;
use crate::object::{Object, ObjectExt};
use crate::strategy::Strategy;

/// All annotations together may have so many bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Everything wrong with the metadata of a new object, whose name has been generated if it was to be.
pub fn validate_create(object: &Object, namespaced: bool, strategy: &dyn Strategy) -> ErrorList {
    let mut checker = Checker::starting_at("metadata");
    let metadata = &object["metadata"];
    let rule = |name: &str, prefix: bool| strategy.validate_name(name, prefix);
    validate(&mut checker, metadata, namespaced, rule);
    if strategy.checks_finalizers() {
        own_finalizers(&mut checker, metadata);
    }
    checker.into_errors()
}

/// Metadata of an object inside another (a claim template), named by a rule.
pub fn validate(c: &mut Checker, metadata: &Value, namespaced: bool, rule: impl Fn(&str, bool) -> Vec<String>) {
    let prefix = text(metadata, "generateName");
    if !prefix.is_empty() {
        rule(prefix, true).into_iter().for_each(|message| c.invalid_text("generateName", prefix, message));
    }
    match text(metadata, "name") {
        "" => c.required("name", "name or generateName is required"),
        name => rule(name, false).into_iter().for_each(|message| c.invalid_text("name", name, message)),
    }
    validate_namespace(c, metadata, namespaced);
    c.not_negative(metadata, "generation");
    validate_common(c, metadata);
    validate_finalizers(c, metadata);
}

fn validate_namespace(c: &mut Checker, metadata: &Value, namespaced: bool) {
    match (text(metadata, "namespace"), namespaced) {
        ("", true) => c.required("namespace", ""),
        ("", false) => {}
        (namespace, true) => c.rule("namespace", namespace, names::dns_label),
        (_, false) => c.forbidden("namespace", "not allowed on this type"),
    }
}

fn validate_common(c: &mut Checker, metadata: &Value) {
    labels::validate(c, metadata, "labels");
    validate_annotations(c, metadata);
    validate_owners(c, metadata);
    validate_managed_fields(c, metadata);
}

/// Checks the `annotations` of a value's metadata.
pub fn validate_annotations(c: &mut Checker, metadata: &Value) {
    let mut size = 0;
    for (key, value) in entries(metadata, "annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        names::qualified_name(&key.to_lowercase())
            .into_iter()
            .for_each(|message| c.invalid_text("annotations", key, message));
    }
    if size > MAX_ANNOTATIONS {
        c.too_long("annotations", MAX_ANNOTATIONS);
    }
}

fn validate_owners(c: &mut Checker, metadata: &Value) {
    let mut controller: Option<String> = None;
    for owner in list(metadata, "ownerReferences") {
        c.within("ownerReferences", |c| validate_owner(c, owner));
        if flag(owner, "controller") {
            let name = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
            match &controller {
                Some(first) => c.invalid(
                    "ownerReferences",
                    &metadata["ownerReferences"],
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"),
                ),
                None => controller = Some(name),
            }
        }
    }
}

fn validate_owner(c: &mut Checker, owner: &Value) {
    let version = text(owner, "apiVersion").rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        c.invalid_text("apiVersion", text(owner, "apiVersion"), "version must not be empty");
    }
    for field in ["kind", "name", "uid"] {
        if text(owner, field).is_empty() {
            c.invalid_text(field, "", "must not be empty");
        }
    }
    if text(owner, "apiVersion") == "v1" && text(owner, "kind") == "Event" {
        c.invalid("", owner, "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn validate_finalizers(c: &mut Checker, metadata: &Value) {
    let finalizers = list(metadata, "finalizers");
    for finalizer in finalizers {
        c.rule("finalizers", finalizer.as_str().unwrap_or_default(), names::qualified_name);
    }
    let holds = |name: &str| finalizers.iter().any(|f| f == name);
    if holds("orphan") && holds("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        c.invalid("finalizers", &metadata["finalizers"], why);
    }
}

/// A finalizer without a domain is one of the project's own.
fn own_finalizers(c: &mut Checker, metadata: &Value) {
    for (i, finalizer) in list(metadata, "finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if !name.contains('/') && !is_standard_finalizer(name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            c.invalid_text(&format!("finalizers[{i}]"), name, why);
        }
    }
}

/// Whether a finalizer is one that the project itself knows.
pub fn is_standard_finalizer(name: &str) -> bool {
    matches!(name, "kubernetes" | "orphan" | "foregroundDeletion")
}

fn validate_managed_fields(c: &mut Checker, metadata: &Value) {
    c.each(metadata, "managedFields", |c, entry| {
        match text(entry, "operation") {
            "Apply" | "Update" => {}
            other => c.invalid_text("operation", other, "must be `Apply` or `Update`"),
        }
        let kind = text(entry, "fieldsType");
        if !kind.is_empty() && kind != "FieldsV1" {
            c.invalid_text("fieldsType", kind, "must be `FieldsV1`");
        }
        if text(entry, "manager").len() > 128 {
            c.too_long("manager", 128);
        }
        if text(entry, "subresource").len() > 256 {
            c.too_long("subresource", 256);
        }
    });
}

/// Carries over what an update may leave out: uid, creation, deletion; the namespace and resource version are the
/// registry's to fill in.
pub fn prepare_update(object: &mut Object, old: &Object) {
    let metadata = object.metadata_mut();
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        match old["metadata"].get(field) {
            Some(value) => metadata.insert(field.to_string(), value.clone()),
            None => metadata.remove(field),
        };
    }
    for field in ["uid", "generation"] {
        if let (false, Some(value)) = (metadata.contains_key(field), old["metadata"].get(field)) {
            metadata.insert(field.to_string(), value.clone());
        }
    }
}

/// How often a kind's own validation of a change looks at the metadata again, once all metadata has been looked at. Whoever looks tells
/// what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Again {
    /// At what has changed.
    change: usize,
    /// As if it were new.
    new: usize,
}

const NEW: &[(&str, &str)] = &[
    ("", "LimitRange"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "VolumeAttachment"),
];

const EVERYTHING: &[(&str, &str)] = &[
    ("", "ConfigMap"),
    ("", "Endpoints"),
    ("", "Namespace"),
    ("", "Node"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "Secret"),
    ("", "ServiceAccount"),
    ("apiregistration.k8s.io", "APIService"),
    ("apps", "ControllerRevision"),
    ("batch", "Job"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("networking.k8s.io", "IPAddress"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("storage.k8s.io", "CSIStorageCapacity"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

impl Again {
    /// At the change, as most kinds do.
    pub const CHANGE: Again = Again { change: 1, new: 0 };

    /// What upstream does for a kind.
    pub fn of(group: &str, kind: &str, subresource: &str) -> Again {
        match (group, kind, subresource) {
            ("", "Event", "") | ("policy", "PodDisruptionBudget", _) | ("batch", "CronJob", "status") => {
                Again { change: 0, new: 0 }
            }
            ("certificates.k8s.io", "CertificateSigningRequest", _) => Again { change: 1, new: 1 },
            ("", "PersistentVolume", "") => Again { change: 0, new: 2 },
            (_, _, "") if NEW.contains(&(group, kind)) => Again { change: 0, new: 1 },
            (_, _, "") if EVERYTHING.contains(&(group, kind)) => Again { change: 1, new: 1 },
            _ => Again::CHANGE,
        }
    }
}

/// Everything wrong with a change of metadata, as often as upstream tells it. Whether a resource version is needed is the registry's to say.
pub fn validate_update(
    object: &Object,
    old: &Object,
    namespaced: bool,
    subresource: &str,
    strategy: &dyn Strategy,
) -> ErrorList {
    let mut checker = Checker::starting_at("metadata");
    let (metadata, before) = (&object["metadata"], &old["metadata"]);
    validate(&mut checker, metadata, namespaced, |name, _| names::path_segment(name));
    validate_change(&mut checker, metadata, before);
    let again = strategy.metadata_again(subresource);
    let own = |checker: &mut Checker| {
        if strategy.checks_finalizers() {
            own_finalizers(checker, metadata);
        }
    };
    for _ in 0..again.change {
        validate_change(&mut checker, metadata, before);
        own(&mut checker);
    }
    for _ in 0..again.new {
        validate(&mut checker, metadata, namespaced, |name, prefix| strategy.validate_name(name, prefix));
        own(&mut checker);
    }
    checker.into_errors()
}

fn validate_change(checker: &mut Checker, metadata: &Value, before: &Value) {
    if has(before, "deletionTimestamp") {
        validate_no_new_finalizers(checker, metadata, before);
    }
    if int(metadata, "generation").unwrap_or(0) < int(before, "generation").unwrap_or(0) {
        checker.invalid("generation", &int(metadata, "generation").unwrap_or(0).into(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if !same(metadata, before, field) {
            let shown = match &metadata[field] {
                Value::Null => Value::from(""),
                other => other.clone(),
            };
            checker.invalid(field, &shown, "field is immutable");
        }
    }
    validate_common(checker, metadata);
}

fn validate_no_new_finalizers(c: &mut Checker, metadata: &Value, before: &Value) {
    let old = list(before, "finalizers");
    let mut added: Vec<String> =
        list(metadata, "finalizers").iter().filter(|f| !old.contains(f)).map(Value::to_string).collect();
    if !added.is_empty() {
        added.sort();
        let names = added.join(", ");
        c.forbidden(
            "finalizers",
            &format!("no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}"),
        );
    }
}
