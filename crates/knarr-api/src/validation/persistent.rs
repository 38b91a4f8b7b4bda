//! Persistent volumes, their claims, and storage driver names.

use serde_json::{Value, json};

use super::check::{Checker, entries, equal, has, is_empty, list, quantity, same, text};
use super::{labels, node_selector, volume};
use crate::{internal, names};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The name of a CSI driver.
pub fn csi_driver_name(c: &mut Checker, name: &str, field: &str) {
    if name.is_empty() {
        c.required(field, "");
    }
    if name.len() > 63 {
        c.too_long(field, 63);
    }
    if !name.is_empty() {
        names::dns_subdomain(&name.to_lowercase()).into_iter().for_each(|message| c.invalid_text(field, name, message));
    }
}

fn access_modes(c: &mut Checker, spec: &Value) {
    let modes = list(spec, "accessModes");
    for mode in modes {
        if !mode.as_str().is_some_and(|m| ACCESS_MODES.contains(&m)) {
            c.not_supported("accessModes", mode, ACCESS_MODES);
        }
    }
    let others = |m: &&str| *m != "ReadWriteOncePod" && ACCESS_MODES.contains(m);
    if modes.iter().any(|m| m == "ReadWriteOncePod") && modes.iter().filter_map(Value::as_str).any(|m| others(&m)) {
        c.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim's spec, also of templates.
pub fn validate_claim_spec(c: &mut Checker, spec: &Value) {
    claim_spec(c, spec, false);
}

/// Where a claim has a group in its data source already, any group will do.
fn claim_spec(c: &mut Checker, spec: &Value, any_group: bool) {
    if list(spec, "accessModes").is_empty() {
        c.required("accessModes", "at least 1 access mode is required");
    }
    c.if_set(spec, "selector", labels::validate_selector);
    access_modes(c, spec);
    c.within("resources", |c| match &spec["resources"]["requests"]["storage"] {
        Value::Null => c.required("[storage]", ""),
        amount => {
            c.within("[storage]", |c| c.rule("", "storage", names::qualified_name));
            if quantity(amount).is_zero() || quantity(amount).is_negative() {
                c.invalid("[storage]", amount, "must be greater than zero");
            }
        }
    });
    if !is_empty(spec, "storageClassName") {
        c.rule("storageClassName", text(spec, "storageClassName"), names::dns_subdomain);
    }
    c.optional_choice(spec, "volumeMode", &["Block", "Filesystem"]);
    c.if_set(spec, "dataSource", |c, source| data_source(c, source, any_group));
    c.if_set(spec, "dataSourceRef", |c, reference| {
        data_source(c, reference, any_group);
        if !is_empty(reference, "namespace") {
            c.rule("namespace", text(reference, "namespace"), names::dns_label);
        }
    });
    one_data_source(c, spec);
    if !is_empty(spec, "volumeAttributesClassName") {
        c.rule("volumeAttributesClassName", text(spec, "volumeAttributesClassName"), names::dns_subdomain);
    }
}

fn data_source(c: &mut Checker, source: &Value, any_group: bool) {
    c.need(source, "name");
    c.need(source, "kind");
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        c.invalid_text("", text(source, "kind"), why);
    }
    if !group.is_empty() && !any_group {
        c.rule("apiGroup", group, names::dns_subdomain);
    }
}

/// The older field and the newer one say the same, where both are given.
fn one_data_source(c: &mut Checker, spec: &Value) {
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    if source.is_null() || reference.is_null() {
        return;
    }
    // Upstream shows the path's own fields here.
    if !is_empty(reference, "namespace") {
        c.invalid("", &json!({}), "may not be specified when dataSourceRef.namespace is specified");
    } else if ["apiGroup", "kind", "name"].iter().any(|f| source[*f] != reference[*f]) {
        c.invalid("", &json!({}), "must match dataSourceRef");
    }
}

/// Takes out what a claim may not say of its data source: another namespace's, and in the older field anything but a claim
/// or a snapshot. What an `old` claim has had stays.
fn drop_data_sources(spec: &mut Value, old: &Value) {
    let drop = |spec: &mut Value, field: &str| spec.as_object_mut().and_then(|spec| spec.remove(field));
    if !is_empty(&spec["dataSourceRef"], "namespace") && !has(old, "dataSourceRef") {
        drop(spec, "dataSourceRef");
    }
    if has(old, "dataSource") || has(old, "dataSourceRef") || has(spec, "dataSourceRef") {
        return;
    }
    let source = &spec["dataSource"];
    let known = [("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")];
    if !known.contains(&(text(source, "kind"), text(source, "apiGroup"))) {
        drop(spec, "dataSource");
    }
}

/// Fills either field of a claim's data source from the other, as upstream does before it stores a claim.
pub fn normalize_data_sources(claim: &mut Value, old: &Value) {
    let spec = &mut claim["spec"];
    if !spec.is_object() {
        return;
    }
    drop_data_sources(spec, &old["spec"]);
    match (has(spec, "dataSource"), has(spec, "dataSourceRef")) {
        (true, false) => spec["dataSourceRef"] = spec["dataSource"].clone(),
        (false, true) if is_empty(&spec["dataSourceRef"], "namespace") => {
            let mut source = spec["dataSourceRef"].clone();
            if let Some(fields) = source.as_object_mut() {
                fields.remove("namespace");
            }
            spec["dataSource"] = source;
        }
        _ => {}
    }
}

pub fn validate_claim(c: &mut Checker, claim: &Value) {
    c.at(claim, "spec", validate_claim_spec);
}

/// After creation only a bound claim's size and attributes class may change.
pub fn validate_claim_update(c: &mut Checker, claim: &Value, old: &Value) {
    let (spec, before) = (&claim["spec"], &old["spec"]);
    let any_group = ["dataSource", "dataSourceRef"].iter().any(|field| has(&before[*field], "apiGroup"));
    c.within("spec", |c| claim_spec(c, spec, any_group));
    let mut masked = spec.clone();
    if is_empty(before, "volumeName") {
        masked["volumeName"] = before["volumeName"].clone();
    }
    const BETA: &str = "volume.beta.kubernetes.io/storage-class";
    let beta = |claim: &Value| claim["metadata"]["annotations"].get(BETA).and_then(Value::as_str).map(str::to_string);
    let (annotation, new_annotation, class) = (beta(old), beta(claim), text(spec, "storageClassName"));
    let unset = has(spec, "storageClassName") && !has(before, "storageClassName");
    let from_annotation =
        unset && annotation.as_deref() == Some(class) && [&None, &annotation].contains(&&new_annotation);
    if !from_annotation && annotation.as_deref().unwrap_or_default() != new_annotation.as_deref().unwrap_or_default() {
        let value = new_annotation.as_deref().unwrap_or_default();
        c.invalid_text(&format!("metadata.annotations.{BETA}"), value, "field is immutable");
    }
    if unset && annotation.as_deref().is_none_or(|a| a == class) {
        masked["storageClassName"] = before["storageClassName"].clone();
    }
    if text(&claim["status"], "phase") == "Bound" {
        masked["resources"]["requests"]["storage"] = before["resources"]["requests"]["storage"].clone();
        masked["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
    }
    if !equal(&masked, before) {
        let difference = internal::difference("core.PersistentVolumeClaimSpec", before, &masked);
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";
        c.forbidden("spec", &format!("{why}{difference}"));
    }
    let size = |v: &Value| quantity(&v["resources"]["requests"]["storage"]);
    if size(spec) < size(before) && size(spec) <= quantity(&old["status"]["capacity"]["storage"]) {
        c.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    if !same(spec, before, "volumeMode") {
        c.invalid("volumeMode", &spec["volumeMode"], "field is immutable");
    }
    if has(&old["status"], "currentVolumeAttributesClassName")
        && is_empty(spec, "volumeAttributesClassName")
        && !same(spec, before, "volumeAttributesClassName")
    {
        let what = if has(spec, "volumeAttributesClassName") { "empty string" } else { "nil" };
        let why = format!("update to {what} is forbidden when status.currentVolumeAttributesClassName is not nil");
        c.forbidden("spec.volumeAttributesClassName", &why);
    }
}

type SourceCheck = fn(&mut Checker, &Value);

const SOURCES: &[(&str, SourceCheck)] = &[
    ("hostPath", volume::host_path),
    ("gcePersistentDisk", volume::gce_disk),
    ("awsElasticBlockStore", volume::aws_disk),
    ("glusterfs", |c, v| {
        volume::glusterfs(c, v);
        if has(v, "endpointsNamespace") {
            // Upstream shows the address of an empty name here; its text is what counts.
            match text(v, "endpointsNamespace") {
                "" => c.invalid_text(
                    "endpointsNamespace",
                    "",
                    "if the endpointnamespace is set, it must be a valid namespace name",
                ),
                namespace => c.rule("endpointsNamespace", namespace, names::dns_label),
            }
        }
    }),
    ("flocker", volume::flocker),
    ("nfs", volume::nfs),
    ("rbd", volume::rbd),
    ("quobyte", volume::quobyte),
    ("cephfs", volume::cephfs),
    ("iscsi", |c, v| {
        volume::iscsi(c, v);
        named_secret(c, v, &["name"]);
    }),
    ("cinder", |c, v| {
        c.need(v, "volumeID");
        named_secret(c, v, &["name", "namespace"]);
    }),
    ("fc", volume::fibre_channel),
    ("flexVolume", volume::flex),
    ("azureFile", |c, v| {
        volume::azure_file(c, v);
        if v["secretNamespace"] == "" {
            c.required("secretNamespace", "");
        }
    }),
    ("vsphereVolume", |c, v| c.need(v, "volumePath")),
    ("photonPersistentDisk", |c, v| c.need(v, "pdID")),
    ("portworxVolume", |c, v| c.need(v, "volumeID")),
    ("azureDisk", volume::azure_disk),
    ("scaleIO", volume::scale_io),
    ("local", local),
    ("storageos", |c, v| {
        c.name(v, "volumeName", names::dns_label);
        if !is_empty(v, "volumeNamespace") {
            c.rule("volumeNamespace", text(v, "volumeNamespace"), names::dns_label);
        }
        named_secret(c, v, &["name", "namespace"]);
    }),
    ("csi", csi),
];

/// A source's secret, where there is one, says where it is.
fn named_secret(c: &mut Checker, v: &Value, fields: &[&str]) {
    c.if_set(v, "secretRef", |c, secret| fields.iter().for_each(|field| c.need(secret, field)));
}

fn local(c: &mut Checker, v: &Value) {
    if text(v, "path").is_empty() {
        c.required("path", "");
        return;
    }
    volume::no_backsteps(c, v, "path");
}

/// A local volume is where it is.
fn local_needs_a_place(c: &mut Checker, spec: &Value) {
    if has(spec, "local") && !has(spec, "nodeAffinity") {
        c.required("nodeAffinity", "Local volume requires node affinity");
    }
}

fn csi(c: &mut Checker, v: &Value) {
    csi_driver_name(c, text(v, "driver"), "driver");
    c.need(v, "volumeHandle");
    // Upstream does not look at the secret of staging.
    for field in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        c.if_set(v, field, |c, secret| {
            c.name(secret, "name", names::dns_subdomain);
            c.name(secret, "namespace", names::dns_label);
        });
    }
}

pub fn validate_volume(c: &mut Checker, object: &Value) {
    c.at(object, "spec", validate_volume_spec);
    const OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    const MOUNTED: &[&str] = &[
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "glusterfs",
        "nfs",
        "rbd",
        "quobyte",
        "iscsi",
        "cinder",
        "cephfs",
        "azureFile",
        "vsphereVolume",
        "azureDisk",
        "portworxVolume",
    ];
    let asked = object["metadata"]["annotations"].get(OPTIONS).is_some();
    if asked && !MOUNTED.iter().any(|source| has(&object["spec"], source)) {
        let why = "may not specify mount options for this volume type";
        c.forbidden(&format!("metadata.annotations.{OPTIONS}"), why);
    }
}

/// A volume that an attachment spells out, because no claim stands for it.
pub fn validate_inline_volume(c: &mut Checker, spec: &Value) {
    const CONTEXT: &str = "may not be specified in the context of inline volumes";
    for field in ["claimRef", "capacity", "nodeAffinity", "storageClassName"] {
        if !is_empty(spec, field) {
            c.forbidden(field, CONTEXT);
        }
    }
    if !has(spec, "csi") {
        c.required("csi", "has to be specified in the context of inline volumes");
    }
    for (field, only) in [("persistentVolumeReclaimPolicy", "Retain"), ("volumeMode", "Filesystem")] {
        if !is_empty(spec, field) && text(spec, field) != only {
            c.forbidden(field, &format!("may not specify {field} other than {only} in the context of inline volumes"));
        }
    }
    if list(spec, "accessModes").is_empty() {
        c.required("accessModes", "");
    }
    access_modes(c, spec);
    validate_volume_source(c, spec);
    attributes_class(c, spec);
}

fn validate_volume_spec(c: &mut Checker, spec: &Value) {
    if list(spec, "accessModes").is_empty() {
        c.required("accessModes", "");
    }
    access_modes(c, spec);
    let capacity = &spec["capacity"];
    if entries(spec, "capacity").next().is_none() {
        c.required("capacity", "");
    }
    if capacity.get("storage").is_none() || entries(spec, "capacity").count() > 1 {
        c.not_supported("capacity", capacity, &["storage"]);
    }
    c.each_key(spec, "capacity", |c, _, amount| {
        if quantity(amount).is_negative() {
            c.invalid("", &quantity(amount).to_i64().into(), "must be a valid resource quantity");
        }
        if quantity(amount).is_zero() || quantity(amount).is_negative() {
            c.invalid("", amount, "must be greater than zero");
        }
    });
    if !is_empty(spec, "persistentVolumeReclaimPolicy") {
        c.supported(spec, "persistentVolumeReclaimPolicy", &["Delete", "Recycle", "Retain"]);
    }
    c.if_set(spec, "nodeAffinity", |c, affinity| match &affinity["required"] {
        Value::Null => c.required("required", "must specify required node constraints"),
        required => c.within("required", |c| node_selector::validate(c, required)),
    });
    validate_volume_source(c, spec);
    if text(&spec["hostPath"], "path") == "/" && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        c.forbidden("persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'");
    }
    if !is_empty(spec, "storageClassName") {
        c.rule("storageClassName", text(spec, "storageClassName"), names::dns_subdomain);
    }
    c.optional_choice(spec, "volumeMode", &["Block", "Filesystem"]);
    attributes_class(c, spec);
}

fn attributes_class(c: &mut Checker, spec: &Value) {
    if has(spec, "volumeAttributesClassName") {
        match text(spec, "volumeAttributesClassName") {
            "" => c.required("volumeAttributesClassName", "an empty string is disallowed"),
            class => c.rule("volumeAttributesClassName", class, names::dns_subdomain),
        }
        if !has(spec, "csi") {
            c.required("csi", "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn validate_volume_source(c: &mut Checker, spec: &Value) {
    let mut found = 0;
    for (name, check) in SOURCES {
        if !has(spec, name) {
            continue;
        }
        found += 1;
        if found > 1 {
            c.forbidden(name, "may not specify more than 1 volume type");
        } else {
            // The one whose path is not the field's name.
            let path = if *name == "gcePersistentDisk" { "persistentDisk" } else { name };
            c.within(path, |c| check(c, &spec[*name]));
        }
    }
    if found == 0 {
        c.required("", "must specify a volume type");
    }
    local_needs_a_place(c, spec);
}

pub fn validate_volume_update(c: &mut Checker, object: &Value, old: &Value) {
    validate_volume(c, object);
    // Upstream does all of it twice where a volume changes, and tells the causes twice.
    c.at(object, "spec", validate_volume_spec);
    let (spec, before) = (&object["spec"], &old["spec"]);
    let source = |spec: &Value| SOURCES.iter().map(|(n, _)| spec[*n].clone()).collect::<Value>();
    let mut new = spec.clone();
    if !has(&before["csi"], "controllerExpandSecretRef")
        && let Some(csi) = new.get_mut("csi").and_then(Value::as_object_mut)
    {
        csi.remove("controllerExpandSecretRef");
    }
    if !equal(&source(&new), &source(before)) {
        let difference = internal::difference("core.PersistentVolumeSource", before, &new);
        let why = format!("spec.persistentvolumesource is immutable after creation\n{difference}");
        c.forbidden("spec.persistentvolumesource", &why);
    }
    c.immutable(spec, before, "volumeMode");
    if has(before, "nodeAffinity") && !same(spec, before, "nodeAffinity") {
        let why = "field is immutable, except for updating from beta label to GA";
        c.invalid_as("*core.VolumeNodeAffinity", "nodeAffinity", &spec["nodeAffinity"], why);
    }
    if has(before, "volumeAttributesClassName") && !has(spec, "volumeAttributesClassName") {
        c.forbidden("spec.volumeAttributesClassName", "update from non-nil value to nil is forbidden");
    }
}

/// The status of a claim: sizes that are sizes, and known states of resizing.
pub fn validate_claim_status(c: &mut Checker, claim: &Value, _old: &Value) {
    const RESIZES: &[&str] = &[
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
        "NodeResizePending",
    ];
    c.at(claim, "status", |c, status| {
        c.each_key(status, "capacity", |c, _, amount| size(c, amount));
        for (name, state) in entries(status, "allocatedResourceStatuses") {
            c.within("allocatedResourceStatuses", |c| claim_resource(c, name));
            if !state.as_str().is_some_and(|s| RESIZES.contains(&s)) {
                let mut known = RESIZES.to_vec();
                known.sort_unstable();
                c.not_supported("allocatedResourceStatuses", &name.as_str().into(), &known);
            }
        }
        for (name, amount) in entries(status, "allocatedResources") {
            c.within("allocatedResources", |c| claim_resource(c, name));
            c.within(&format!("allocatedResources[{name}]"), |c| size(c, amount));
        }
    });
}

fn size(c: &mut Checker, amount: &Value) {
    if quantity(amount).is_negative() {
        c.invalid("", &quantity(amount).to_i64().into(), "must be a valid resource quantity");
    }
}

fn claim_resource(c: &mut Checker, name: &str) {
    let before = c.error_count();
    c.rule("", name, names::qualified_name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if c.error_count() == before && native && name != "storage" {
        c.not_supported("", &name.into(), &["storage"]);
    }
}
