//! Rows of storage.

use serde_json::{Value, json};

use super::cells::{age, at, list, row, shown, strings, text, text_or};
use crate::object::{Object, ObjectExt};

pub fn persistent_volume(object: &Object, now: i64) -> Vec<Value> {
    let claim = &object["spec"]["claimRef"];
    let claim = match claim {
        Value::Object(_) => format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])),
        _ => String::new(),
    };
    row([
        object.name().into(),
        quantity(at(object, &["spec", "capacity", "storage"])).into(),
        access_modes(list(object, &["spec", "accessModes"])).into(),
        text(object, &["spec", "persistentVolumeReclaimPolicy"]).into(),
        phase(object).into(),
        claim.into(),
        storage_class_of(object).into(),
        text_or(object, &["spec", "volumeAttributesClassName"], "<unset>").into(),
        text(object, &["status", "reason"]).into(),
        age(object, now),
        text_or(object, &["spec", "volumeMode"], "<unset>").into(),
    ])
}

pub fn persistent_volume_claim(object: &Object, now: i64) -> Vec<Value> {
    let volume = text(object, &["spec", "volumeName"]);
    let (capacity, modes) = match volume {
        "" => (String::new(), String::new()),
        _ => (
            quantity(at(object, &["status", "capacity", "storage"])),
            access_modes(list(object, &["status", "accessModes"])),
        ),
    };
    row([
        object.name().into(),
        phase(object).into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        storage_class_of(object).into(),
        text_or(object, &["spec", "volumeAttributesClassName"], "<unset>").into(),
        age(object, now),
        text_or(object, &["spec", "volumeMode"], "<unset>").into(),
    ])
}

/// A quantity that is missing is zero.
fn quantity(value: &Value) -> String {
    if value.is_null() { "0".into() } else { shown(value) }
}

fn phase(object: &Object) -> &str {
    if object.is_deleting() { "Terminating" } else { text(object, &["status", "phase"]) }
}

/// The class by the annotation that came before the field, then by the field.
fn storage_class_of(object: &Object) -> &str {
    match at(object, &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        Value::String(class) => class,
        _ => text(object, &["spec", "storageClassName"]),
    }
}

fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.iter().any(|m| m == mode);
    SHORT.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

pub fn storage_class(object: &Object, now: i64) -> Vec<Value> {
    let annotations = at(object, &["metadata", "annotations"]);
    let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|key| annotations[*key] == "true");
    let name = if default { format!("{} (default)", object.name()) } else { object.name().to_string() };
    row([
        name.into(),
        text(object, &["provisioner"]).into(),
        text_or(object, &["reclaimPolicy"], "Delete").into(),
        text_or(object, &["volumeBindingMode"], "Immediate").into(),
        json!(object["allowVolumeExpansion"] == true),
        age(object, now),
    ])
}

pub fn volume_attributes_class(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), text(object, &["driverName"]).into(), age(object, now)])
}

pub fn volume_attachment(object: &Object, now: i64) -> Vec<Value> {
    row([
        object.name().into(),
        text(object, &["spec", "attacher"]).into(),
        text(object, &["spec", "source", "persistentVolumeName"]).into(),
        text(object, &["spec", "nodeName"]).into(),
        json!(object["status"]["attached"] == true),
        age(object, now),
    ])
}

pub fn csi_node(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), list(object, &["spec", "drivers"]).len().into(), age(object, now)])
}

pub fn csi_driver(object: &Object, now: i64) -> Vec<Value> {
    let set = |field: &str, default: bool| json!(object["spec"][field].as_bool().unwrap_or(default));
    let tokens = match &object["spec"]["tokenRequests"] {
        Value::Array(requests) => requests.iter().map(|t| text(t, &["audience"])).collect::<Vec<_>>().join(","),
        _ => "<unset>".into(),
    };
    let modes = strings(list(object, &["spec", "volumeLifecycleModes"])).join(",");
    row([
        object.name().into(),
        set("attachRequired", true),
        set("podInfoOnMount", false),
        set("storageCapacity", false),
        tokens.into(),
        set("requiresRepublish", false),
        if modes.is_empty() { "<none>".into() } else { modes.into() },
        age(object, now),
    ])
}
