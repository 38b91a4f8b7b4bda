//! Persistent volumes, their claims, and storage driver names.

use serde_json::Value;

use super::check::{Checker, entries, equal, has, is_empty, list, quantity, same, text};
use super::{labels, node_selector, volume};
use crate::names;

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
        c.rule(field, name, names::dns_subdomain_caseless);
    }
}

fn access_modes(c: &mut Checker, spec: &Value) {
    let modes = list(spec, "accessModes");
    for mode in modes {
        if !mode.as_str().is_some_and(|m| ACCESS_MODES.contains(&m)) {
            c.not_supported("accessModes", mode, ACCESS_MODES);
        }
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        c.forbidden("accessModes", "may not use ReadWriteOncePod with other access modes");
    }
}

/// A claim's spec, also of templates.
pub fn validate_claim_spec(c: &mut Checker, spec: &Value) {
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
    c.if_set(spec, "dataSource", data_source);
    c.if_set(spec, "dataSourceRef", data_source);
    if !is_empty(spec, "volumeAttributesClassName") {
        c.rule("volumeAttributesClassName", text(spec, "volumeAttributesClassName"), names::dns_subdomain);
    }
}

fn data_source(c: &mut Checker, source: &Value) {
    c.need(source, "name");
    c.need(source, "kind");
    let group = text(source, "apiGroup");
    if group.is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
        c.invalid_text("", text(source, "kind"), "");
    }
    if !group.is_empty() {
        c.rule("apiGroup", group, names::dns_subdomain);
    }
}

pub fn validate_claim(c: &mut Checker, claim: &Value) {
    c.at(claim, "spec", validate_claim_spec);
}

/// After creation only a bound claim's size and attributes class may change.
pub fn validate_claim_update(c: &mut Checker, claim: &Value, old: &Value) {
    validate_claim(c, claim);
    let (spec, before) = (&claim["spec"], &old["spec"]);
    let mut masked = spec.clone();
    if is_empty(before, "volumeName") {
        masked["volumeName"] = before["volumeName"].clone();
    }
    if !has(before, "storageClassName") {
        masked["storageClassName"] = before["storageClassName"].clone();
    }
    if text(&claim["status"], "phase") == "Bound" {
        masked["resources"]["requests"]["storage"] = before["resources"]["requests"]["storage"].clone();
        masked["volumeAttributesClassName"] = before["volumeAttributesClassName"].clone();
    }
    if !equal(&masked, before) {
        c.forbidden(
            "spec",
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n",
        );
    }
    let size = |v: &Value| quantity(&v["resources"]["requests"]["storage"]);
    if size(spec) < size(before) && size(spec) <= quantity(&old["status"]["capacity"]["storage"]) {
        c.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity");
    }
    if !same(spec, before, "volumeMode") {
        c.invalid("volumeMode", &spec["volumeMode"], "field is immutable");
    }
    if has(&old["status"], "currentVolumeAttributesClassName") && is_empty(spec, "volumeAttributesClassName") {
        let why = "update to nil is forbidden when status.currentVolumeAttributesClassName is not nil";
        c.forbidden("spec.volumeAttributesClassName", why);
    }
}

type SourceCheck = fn(&mut Checker, &Value);

const SOURCES: &[(&str, SourceCheck)] = &[
    ("hostPath", volume::host_path),
    ("gcePersistentDisk", volume::gce_disk),
    ("awsElasticBlockStore", volume::aws_disk),
    ("glusterfs", volume::glusterfs),
    ("flocker", volume::flocker),
    ("nfs", volume::nfs),
    ("rbd", volume::rbd),
    ("quobyte", volume::quobyte),
    ("cephfs", volume::cephfs),
    ("iscsi", volume::iscsi),
    ("cinder", volume::cinder),
    ("fc", volume::fibre_channel),
    ("flexVolume", volume::flex),
    ("azureFile", volume::azure_file),
    ("vsphereVolume", |c, v| c.need(v, "volumePath")),
    ("photonPersistentDisk", |c, v| c.need(v, "pdID")),
    ("portworxVolume", |c, v| c.need(v, "volumeID")),
    ("azureDisk", volume::azure_disk),
    ("scaleIO", volume::scale_io),
    ("local", local),
    ("storageos", |_, _| {}),
    ("csi", csi),
];

fn local(c: &mut Checker, v: &Value) {
    if text(v, "path").is_empty() {
        c.required("path", "");
        return;
    }
    volume::no_backsteps(c, v, "path");
}

fn csi(c: &mut Checker, v: &Value) {
    csi_driver_name(c, text(v, "driver"), "driver");
    c.need(v, "volumeHandle");
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
        "nodeStageSecretRef",
    ] {
        c.if_set(v, field, |c, secret| {
            c.name(secret, "name", names::dns_subdomain);
            c.name(secret, "namespace", names::dns_label);
        });
    }
}

pub fn validate_volume(c: &mut Checker, object: &Value) {
    c.at(object, "spec", validate_volume_spec);
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
    c.each_key(spec, "capacity", |c, name, amount| {
        c.rule("", name, names::qualified_name);
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
            c.at(spec, name, check);
        }
    }
    if found == 0 {
        c.required("", "must specify a volume type");
    }
}

pub fn validate_volume_update(c: &mut Checker, object: &Value, old: &Value) {
    validate_volume(c, object);
    let (spec, before) = (&object["spec"], &old["spec"]);
    let source = |spec: &Value| SOURCES.iter().map(|(n, _)| spec[*n].clone()).collect::<Vec<_>>();
    if source(spec) != source(before) {
        c.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation");
    }
    c.within("spec", |c| c.immutable(spec, before, "volumeMode"));
}
