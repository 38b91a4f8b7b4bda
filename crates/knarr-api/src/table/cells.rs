//! Which function computes a resource's cells, and the small reading words that all of them use.

use serde_json::{Value, json};

use super::duration::{seconds, since};
use super::{apps, cluster, core, events, pod, storage};
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;

/// Computes the cells of an object, in the order of its columns.
pub type Cells = fn(&Object, i64) -> Vec<Value>;

/// The row of the table of printers; what has none shows its name and its creation time.
pub fn of(group: &str, resource: &str) -> Cells {
    match (group, resource) {
        ("", "pods") => pod::cells,
        ("", "podtemplates") => core::pod_template,
        ("", "replicationcontrollers") => apps::replication_controller,
        ("", "services") => core::service,
        ("", "endpoints") => core::endpoints,
        ("", "nodes") => core::node,
        ("", "namespaces") => core::namespace,
        ("", "configmaps") => core::config_map,
        ("", "secrets") => core::secret,
        ("", "serviceaccounts") => name_and_age,
        ("", "componentstatuses") => core::component_status,
        ("", "resourcequotas") => core::resource_quota,
        ("", "persistentvolumes") => storage::persistent_volume,
        ("", "persistentvolumeclaims") => storage::persistent_volume_claim,
        (_, "events") => events::cells,
        ("apps", "replicasets") => apps::replica_set,
        ("apps", "deployments") => apps::deployment,
        ("apps", "daemonsets") => apps::daemon_set,
        ("apps", "statefulsets") => apps::stateful_set,
        ("apps", "controllerrevisions") => apps::controller_revision,
        ("batch", "jobs") => apps::job,
        ("batch", "cronjobs") => apps::cron_job,
        ("autoscaling", "horizontalpodautoscalers") => apps::horizontal_pod_autoscaler,
        ("policy", "poddisruptionbudgets") => apps::pod_disruption_budget,
        ("discovery.k8s.io", "endpointslices") => core::endpoint_slice,
        ("networking.k8s.io", "ingresses") => cluster::ingress,
        ("networking.k8s.io", "ingressclasses") => cluster::ingress_class,
        ("networking.k8s.io", "networkpolicies") => cluster::network_policy,
        ("networking.k8s.io", "servicecidrs") => cluster::service_cidr,
        ("networking.k8s.io", "ipaddresses") => cluster::ip_address,
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            cluster::webhook_configuration
        }
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => cluster::validating_policy,
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => cluster::mutating_policy,
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings") => {
            cluster::policy_binding
        }
        ("apiregistration.k8s.io", "apiservices") => cluster::api_service,
        ("certificates.k8s.io", "certificatesigningrequests") => cluster::certificate_signing_request,
        ("coordination.k8s.io", "leases") => cluster::lease,
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => cluster::flow_schema,
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => cluster::priority_level,
        ("node.k8s.io", "runtimeclasses") => cluster::runtime_class,
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => cluster::role_binding,
        ("scheduling.k8s.io", "priorityclasses") => cluster::priority_class,
        ("resource.k8s.io", "deviceclasses" | "resourceclaimtemplates") => name_and_age,
        ("resource.k8s.io", "resourceclaims") => cluster::resource_claim,
        ("resource.k8s.io", "resourceslices") => cluster::resource_slice,
        ("storage.k8s.io", "csidrivers") => storage::csi_driver,
        ("storage.k8s.io", "csinodes") => storage::csi_node,
        ("storage.k8s.io", "storageclasses") => storage::storage_class,
        ("storage.k8s.io", "volumeattachments") => storage::volume_attachment,
        ("storage.k8s.io", "volumeattributesclasses") => storage::volume_attributes_class,
        _ => plain,
    }
}

/// Name and creation time.
pub fn plain(object: &Object, _now: i64) -> Vec<Value> {
    let created = seconds(&object["metadata"]["creationTimestamp"]);
    let shown = created.and_then(|s| jiff::Timestamp::from_second(s).ok()).map(|t| t.to_string());
    vec![object.name().into(), shown.into()]
}

/// Of a `Scale`: what is wanted and what there is.
pub fn scale(object: &Object, now: i64) -> Vec<Value> {
    let replicas = |part: &str| number(object, &[part, "replicas"]).into();
    vec![object.name().into(), replicas("spec"), replicas("status"), age(object, now)]
}

fn name_and_age(object: &Object, now: i64) -> Vec<Value> {
    vec![object.name().into(), age(object, now)]
}

pub fn age(object: &Object, now: i64) -> Value {
    since(&object["metadata"]["creationTimestamp"], now).into()
}

/// The text at a path of fields, or nothing.
pub fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).as_str().unwrap_or_default()
}

/// The text at a path, or what stands for none.
pub fn text_or(value: &Value, path: &[&str], none: &str) -> String {
    match text(value, path) {
        "" => none.to_string(),
        text => text.to_string(),
    }
}

pub fn number(value: &Value, path: &[&str]) -> i64 {
    at(value, path).as_i64().unwrap_or_default()
}

pub fn truth(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

pub fn list<'v>(value: &'v Value, path: &[&str]) -> &'v [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, field| value.get(field).unwrap_or(&Value::Null))
}

/// How many entries a map has.
pub fn size(value: &Value, path: &[&str]) -> usize {
    at(value, path).as_object().map_or(0, |map| map.len())
}

/// A quantity or an int-or-string as it is written.
pub fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Whether a condition of this type is `True`.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|c| c["status"] == "True")
}

pub fn condition<'v>(object: &'v Value, kind: &str) -> Option<&'v Value> {
    list(object, &["status", "conditions"]).iter().find(|c| c["type"] == kind)
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(map: &Value) -> String {
    let entries = map.as_object().into_iter().flatten();
    let mut entries: Vec<String> =
        entries.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    entries.sort_unstable();
    if entries.is_empty() { "<none>".into() } else { entries.join(",") }
}

/// A `metav1.LabelSelector` in canonical form, or `<none>`.
pub fn selector(selector: &Value) -> String {
    match LabelSelector::of_object(Some(selector)).map(|s| s.to_string()) {
        Ok(text) if text.is_empty() => "<none>".into(),
        Ok(text) => text,
        Err(_) => "<error>".into(),
    }
}

/// Names and images of a pod template's containers.
pub fn containers(template: &Value) -> (Value, Value) {
    let all = list(template, &["spec", "containers"]);
    let joined = |field: &str| all.iter().map(|c| text(c, &[field])).collect::<Vec<_>>().join(",");
    (joined("name").into(), joined("image").into())
}

pub fn strings(values: &[Value]) -> Vec<&str> {
    values.iter().filter_map(Value::as_str).collect()
}

/// The first few, and how many more; `<unset>` where there are none.
pub fn first_few(all: &[String], max: usize) -> String {
    match all.len() {
        0 => "<unset>".into(),
        n if n > max => format!("{} + {} more...", all[..max].join(","), n - max),
        _ => all.join(","),
    }
}

/// The cells as JSON values.
pub fn row<const N: usize>(cells: [Value; N]) -> Vec<Value> {
    cells.into()
}

pub fn ratio(part: i64, whole: i64) -> Value {
    json!(format!("{part}/{whole}"))
}
