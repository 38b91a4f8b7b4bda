//! Storage classes, CSI objects, attachments, attribute classes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::check::{
    Checker, entries, equal, has, int, is_empty, list, quantity, repeated_items, repeated_text, same, text,
};
use super::labels;
use super::persistent::csi_driver_name;
use crate::names;

pub fn storage_class(c: &mut Checker, class: &Value) {
    match text(class, "provisioner") {
        "" => c.required("provisioner", ""),
        name => c.rule("provisioner", &name.to_lowercase(), names::qualified_name),
    }
    parameters(c, class, "parameters");
    if !is_empty(class, "reclaimPolicy") {
        c.supported(class, "reclaimPolicy", &["Delete", "Retain"]);
    }
    if !has(class, "volumeBindingMode") {
        c.required("volumeBindingMode", "");
    } else {
        c.supported(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
    }
    allowed_topologies(c, class);
}

fn allowed_topologies(c: &mut Checker, class: &Value) {
    let mut seen: BTreeSet<BTreeMap<&str, BTreeSet<String>>> = BTreeSet::new();
    for (i, term) in list(class, "allowedTopologies").iter().enumerate() {
        let mut expressions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        c.within(&format!("allowedTopologies[{i}]"), |c| {
            c.each(term, "matchLabelExpressions", |c, requirement| {
                let values = list(requirement, "values");
                let repeated = repeated_items(values);
                if values.is_empty() {
                    c.required("values", "");
                }
                for (j, value) in values.iter().enumerate() {
                    if repeated[j] {
                        c.duplicate(&format!("values[{j}]"), value);
                    }
                }
                c.rule("key", text(requirement, "key"), names::qualified_name);
            });
            for (j, requirement) in list(term, "matchLabelExpressions").iter().enumerate() {
                let values = list(requirement, "values").iter().map(Value::to_string).collect();
                if expressions.insert(text(requirement, "key"), values).is_some() {
                    c.duplicate(&format!("matchLabelExpressions[{j}].key"), &requirement["key"]);
                }
            }
            // Upstream compares with as many empty terms as there are terms, too.
            if expressions.is_empty() || seen.contains(&expressions) {
                c.duplicate("matchLabelExpressions", &"".into());
            }
        });
        seen.insert(expressions);
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
    for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        c.immutable(class, old, field);
    }
}

/// A CSI driver's object is named as the driver.
pub fn driver_object_name(name: &str) -> Vec<String> {
    names::dns_subdomain(name)
}

pub fn csi_driver(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        for field in ["attachRequired", "podInfoOnMount", "storageCapacity"] {
            if !has(spec, field) {
                c.required(field, "");
            }
        }
        c.optional_choice(spec, "fsGroupPolicy", &["File", "None", "ReadWriteOnceWithFSType"]);
        for mode in list(spec, "volumeLifecycleModes") {
            if mode != "Persistent" && mode != "Ephemeral" {
                c.not_supported("volumeLifecycleModes", mode, &["Persistent", "Ephemeral"]);
            }
        }
        if int(spec, "nodeAllocatableUpdatePeriodSeconds").is_some_and(|n| n < 10) {
            let why = "must be greater than or equal to 10 seconds";
            c.invalid("nodeAllocatableUpdatePeriodSeconds", &spec["nodeAllocatableUpdatePeriodSeconds"], why);
        }
        if has(spec, "serviceAccountTokenInSecrets") && is_empty(spec, "tokenRequests") {
            let why = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            c.invalid("serviceAccountTokenInSecrets", &spec["serviceAccountTokenInSecrets"], why);
        }
        let requests = list(spec, "tokenRequests");
        let repeated_audience = repeated_text(requests, "audience");
        c.each_indexed(spec, "tokenRequests", |c, i, request| {
            if repeated_audience[i] {
                c.duplicate("audience", &text(request, "audience").into());
                return;
            }
            let why = match int(request, "expirationSeconds") {
                Some(seconds) if seconds < 600 => "may not specify a duration less than 10 minutes",
                Some(seconds) if seconds > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
                _ => return,
            };
            c.invalid("expirationSeconds", &request["expirationSeconds"], why);
        });
    });
}

pub fn csi_driver_update(c: &mut Checker, object: &Value, old: &Value) {
    csi_driver(c, object);
    let (spec, before) = (&object["spec"], &old["spec"]);
    if !same(spec, before, "attachRequired") {
        // Upstream names the field so.
        c.invalid("spec.attachedRequired", &spec["attachRequired"], "field is immutable");
    }
    c.within("spec", |c| c.immutable(spec, before, "volumeLifecycleModes"));
}

/// What a driver says of itself on a node stays, but for how many volumes it takes.
pub fn csi_node_update(c: &mut Checker, object: &Value, old: &Value) {
    csi_node(c, object);
    let lasting = |driver: &Value| {
        let mut driver = driver.clone();
        driver["allocatable"] = Value::Null;
        driver
    };
    for before in list(&old["spec"], "drivers") {
        for driver in list(&object["spec"], "drivers").iter().filter(|d| text(d, "name") == text(before, "name")) {
            let driver = lasting(driver);
            if !equal(&driver, &lasting(before)) {
                c.invalid_as("storage.CSINodeDriver", "spec.drivers", &driver, "field is immutable");
            }
        }
    }
}

pub fn csi_node(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let drivers = list(spec, "drivers");
        let repeated_name = repeated_text(drivers, "name");
        c.each_indexed(spec, "drivers", |c, i, driver| {
            csi_driver_name(c, text(driver, "name"), "name");
            let id = text(driver, "nodeID");
            if id.is_empty() {
                c.required("nodeID", "");
            }
            if id.len() > 256 {
                c.invalid_text("nodeID", id, "must be 256 characters or less");
            }
            if repeated_name[i] {
                c.duplicate("name", &driver["name"]);
            }
            let keys = list(driver, "topologyKeys");
            let repeated_key = repeated_items(keys);
            for (j, key) in keys.iter().enumerate() {
                if key == "" {
                    c.required("", "");
                }
                if repeated_key[j] {
                    c.duplicate("", key);
                }
                c.rule("", key.as_str().unwrap_or_default(), names::qualified_name);
            }
            c.if_set(driver, "allocatable", |c, a| c.not_negative(a, "count"));
        });
    });
}

pub fn csi_storage_capacity(c: &mut Checker, object: &Value) {
    c.if_set(object, "nodeTopology", labels::validate_selector);
    c.rule("storageClassName", text(object, "storageClassName"), names::dns_subdomain);
    if quantity(&object["capacity"]).is_negative() {
        c.invalid("capacity", &object["capacity"], "must be greater than or equal to 0");
    }
}

pub fn csi_storage_capacity_update(c: &mut Checker, object: &Value, old: &Value) {
    csi_storage_capacity(c, object);
    c.immutable_as("*meta.LabelSelector", object, old, "nodeTopology");
    c.immutable(object, old, "storageClassName");
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
                    }
                    c.rule("persistentVolumeName", text(source, "persistentVolumeName"), names::dns_subdomain);
                }
                (false, true) => c.at(source, "inlineVolumeSpec", super::persistent::validate_inline_volume),
            }
        });
        c.rule("nodeName", text(spec, "nodeName"), names::dns_subdomain);
    });
}

/// An attachment never changes; its status does.
pub fn volume_attachment_update(c: &mut Checker, object: &Value, old: &Value) {
    volume_attachment(c, object);
    c.immutable_as("storage.VolumeAttachmentSpec", object, old, "spec");
}

pub fn volume_attachment_status(c: &mut Checker, object: &Value, _old: &Value) {
    /// Of an error's text; upstream's message names the limit of metadata too.
    const ERROR_BYTES: usize = 1024;
    const METADATA_BYTES: usize = 256 * 1024;
    c.at(object, "status", |c, status| {
        let size: usize =
            entries(status, "attachmentMetadata").map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
        if size > METADATA_BYTES {
            c.too_long("attachmentMetadata", METADATA_BYTES);
        }
        for field in ["attachError", "detachError"] {
            c.if_set(status, field, |c, error| {
                if text(error, "message").len() > ERROR_BYTES {
                    c.too_long("message", METADATA_BYTES);
                }
                c.in_range(error, "errorCode", 0, i64::from(i32::MAX));
            });
        }
    });
}

pub fn volume_attributes_class(c: &mut Checker, object: &Value) {
    match text(object, "driverName") {
        "" => c.required("driverName", ""),
        driver => c.rule("driverName", &driver.to_lowercase(), names::qualified_name),
    }
    if is_empty(object, "parameters") {
        c.required("parameters", "must contain at least one key/value pair");
    }
    parameters(c, object, "parameters");
}

pub fn volume_attributes_class_update(c: &mut Checker, object: &Value, old: &Value) {
    for field in ["driverName", "parameters"] {
        if !equal(&object[field], &old[field]) {
            c.forbidden(field, &format!("updates to {field} are forbidden."));
        }
    }
    volume_attributes_class(c, object);
}
