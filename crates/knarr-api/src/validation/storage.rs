//! Storage classes, CSI objects, attachments, attribute classes.

use serde_json::Value;

use super::check::{Checker, entries, equal, has, int, is_empty, list, same, seen_before, text};
use super::labels;
use super::persistent::csi_driver_name;
use crate::names;

pub fn storage_class(c: &mut Checker, class: &Value) {
    match text(class, "provisioner") {
        "" => c.required("provisioner", ""),
        name => c.rule("provisioner", &name.to_lowercase(), names::qualified_name),
    }
    parameters(c, class, "parameters");
    c.optional_choice(class, "reclaimPolicy", &["Delete", "Recycle", "Retain"]);
    if !has(class, "volumeBindingMode") {
        c.required("volumeBindingMode", "");
    } else {
        c.supported(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    }
}

fn parameters(c: &mut Checker, object: &Value, field: &str) {
    let size: usize = entries(object, field).map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if entries(object, field).count() > 512 {
        c.too_long(field, 512);
    }
    if entries(object, field).any(|(key, _)| key.is_empty()) {
        c.invalid_text(field, "", "field can not be empty.");
    }
    if size > 256 * 1024 {
        c.too_long(field, 256 * 1024);
    }
}

pub fn storage_class_update(c: &mut Checker, class: &Value, old: &Value) {
    storage_class(c, class);
    c.immutable(class, old, "provisioner");
    for field in ["parameters", "reclaimPolicy"] {
        if !same(class, old, field) {
            c.forbidden(field, &format!("updates to {field} are forbidden."));
        }
    }
    c.immutable(class, old, "volumeBindingMode");
}

/// A CSI driver's object is named as the driver.
pub fn driver_object_name(name: &str) -> Vec<String> {
    names::dns_subdomain(name)
}

pub fn csi_driver(c: &mut Checker, object: &Value) {
    if text(&object["metadata"], "name").len() > 63 {
        c.too_long("metadata.name", 63);
    }
    c.at(object, "spec", |c, spec| {
        for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
            if !has(spec, field) {
                c.required(field, "");
            }
        }
        c.optional_choice(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
        for mode in list(spec, "volumeLifecycleModes") {
            if mode != "Persistent" && mode != "Ephemeral" {
                c.not_supported("volumeLifecycleModes", mode, &["Ephemeral", "Persistent"]);
            }
        }
        if int(spec, "nodeAllocatableUpdatePeriodSeconds").is_some_and(|n| n < 10) {
            let why = "must be greater than or equal to 10 seconds";
            c.invalid("nodeAllocatableUpdatePeriodSeconds", &spec["nodeAllocatableUpdatePeriodSeconds"], why);
        }
        let requests = list(spec, "tokenRequests");
        c.each_indexed(spec, "tokenRequests", |c, i, request| {
            if seen_before(requests, i, |r| text(r, "audience").to_string()) {
                c.duplicate("audience", &request["audience"]);
            }
            if int(request, "expirationSeconds").is_some_and(|n| n < 600) {
                c.invalid(
                    "expirationSeconds",
                    &request["expirationSeconds"],
                    "may not specify a duration less than 10 minutes",
                );
            }
        });
    });
}

pub fn csi_node(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let drivers = list(spec, "drivers");
        c.each_indexed(spec, "drivers", |c, i, driver| {
            csi_driver_name(c, text(driver, "name"), "name");
            let id = text(driver, "nodeID");
            if id.is_empty() {
                c.required("nodeID", "");
            }
            if id.len() > 256 {
                c.invalid_text("nodeID", id, "must be 256 characters or less");
            }
            if seen_before(drivers, i, |d| text(d, "name").to_string()) {
                c.duplicate("name", &driver["name"]);
            }
            let keys = list(driver, "topologyKeys");
            for (j, key) in keys.iter().enumerate() {
                if keys[..j].contains(key) {
                    c.duplicate("topologyKeys", key);
                }
                c.rule("topologyKeys", key.as_str().unwrap_or_default(), names::qualified_name);
            }
            c.if_set(driver, "allocatable", |c, a| c.not_negative(a, "count"));
        });
    });
}

pub fn csi_storage_capacity(c: &mut Checker, object: &Value) {
    c.if_set(object, "nodeTopology", labels::validate_selector);
    c.rule("storageClassName", text(object, "storageClassName"), names::dns_subdomain);
}

pub fn volume_attachment(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        csi_driver_name(c, text(spec, "attacher"), "attacher");
        c.at(spec, "source", |c, source| {
            match (has(source, "persistentVolumeName"), has(source, "inlineVolumeSpec")) {
                (false, false) => {
                    c.required("", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
                }
                (true, true) => {
                    c.forbidden("", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
                }
                (true, false) => {
                    if text(source, "persistentVolumeName").is_empty() {
                        c.required("persistentVolumeName", "must specify non empty persistentVolumeName");
                    } else {
                        c.rule("persistentVolumeName", text(source, "persistentVolumeName"), names::dns_subdomain);
                    }
                }
                (false, true) => {}
            }
        });
        c.rule("nodeName", text(spec, "nodeName"), names::dns_subdomain);
    });
}

pub fn volume_attributes_class(c: &mut Checker, object: &Value) {
    match text(object, "driverName") {
        "" => c.required("driverName", ""),
        driver => c.rule("driverName", driver, names::dns_subdomain_caseless),
    }
    if is_empty(object, "parameters") {
        c.required("parameters", "must contain at least one key/value pair");
    }
    parameters(c, object, "parameters");
}

pub fn volume_attributes_class_update(c: &mut Checker, object: &Value, old: &Value) {
    volume_attributes_class(c, object);
    for field in ["driverName", "parameters"] {
        if !equal(&object[field], &old[field]) {
            c.forbidden(field, &format!("updates to {field} are forbidden."));
        }
    }
}
