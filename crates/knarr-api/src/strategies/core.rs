//! The core group.

use serde_json::{Value, json};

use super::Row;
use super::row::carry;
use crate::names;
use crate::object::Object;
use crate::strategy::Context;
use crate::validation::check::{has, int, is_empty, list, same, text};
use crate::validation::{annotations, config, core, event, node, persistent, pod, pod_update, quota, service, status};
use crate::warnings;

pub const ROWS: &[Row] = &[
    Row {
        normalize: at_least_a_second,
        prepare: prepare_pod,
        validate: pod::validate_pod_create,
        validate_update: Some(pod_update::validate),
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "spec.host",
            "status.nominatedNodeName",
        ],
        grace: pod_grace,
        prepare_status: prepare_pod_status,
        validate_status: status::pod,
        warnings: warnings::pod,
        early_warnings: warnings::app_armor,
        ..Row::with_status("", "Pod")
    },
    Row {
        name: names::dns_label,
        prepare: |_, object| service::sync_cluster_ips(object, &Value::Null),
        prepare_update: service::prepare_update,
        validate: service::validate,
        validate_update: Some(service::validate_update),
        canonicalize: drop_policy_of_alias,
        create_on_update: true,
        generation: &[],
        selectable: &["spec.clusterIP", "spec.type"],
        validate_status: status::service,
        warnings: warnings::service,
        ..Row::with_status("", "Service")
    },
    Row { validate: config::config_map, validate_update: Some(config::config_map_update), ..Row::new("", "ConfigMap") },
    Row {
        normalize: config::merge_string_data,
        prepare: |_, secret| config::merge_string_data(secret),
        prepare_update: config::prepare_secret_update,
        validate: config::secret,
        validate_update: Some(config::secret_update),
        selectable: &["type"],
        warnings: warnings::secret,
        ..Row::new("", "Secret")
    },
    Row {
        name: names::dns_label,
        prepare: prepare_namespace,
        canonicalize: label_with_name,
        prepare_update: |new, old| carry(new, old, "spec"),
        validate: core::namespace,
        generation: &[],
        selectable: &["status.phase"],
        validate_status: status::namespace,
        ..Row::with_status("", "Namespace")
    },
    Row {
        normalize: node::sync_pod_cidrs,
        prepare: |_, node| drop_unless_used(node, &Value::Null, &["spec"], "configSource"),
        prepare_update: |node, old| drop_unless_used(node, old, &["spec"], "configSource"),
        created_with_status: true,
        validate: node::validate,
        validate_update: Some(node::validate_update),
        validate_status: node::validate_change,
        selectable: &["spec.unschedulable"],
        create_on_update: true,
        generation: &[],
        warnings: warnings::node,
        ..Row::with_status("", "Node")
    },
    Row { warnings: warnings::service_account, ..Row::new("", "ServiceAccount") },
    Row {
        validate: core::endpoints,
        create_on_update: true,
        warnings: warnings::endpoints,
        ..Row::new("", "Endpoints")
    },
    Row {
        validate: event::event,
        name: names::path_segment,
        own_finalizers: false,
        create_on_update: true,
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ..Row::new("", "Event")
    },
    Row {
        validate: event::strict,
        validate_update: Some(event::strict_update),
        create_on_update: true,
        selectable_as: &[
            ("reason", "reason"),
            ("regarding.kind", "involvedObject.kind"),
            ("regarding.namespace", "involvedObject.namespace"),
            ("regarding.name", "involvedObject.name"),
            ("regarding.uid", "involvedObject.uid"),
            ("regarding.apiVersion", "involvedObject.apiVersion"),
            ("regarding.resourceVersion", "involvedObject.resourceVersion"),
            ("regarding.fieldPath", "involvedObject.fieldPath"),
            ("reportingController", "reportingComponent"),
            ("type", "type"),
        ],
        ..Row::new("events.k8s.io", "Event")
    },
    Row {
        prepare: |context, volume| {
            volume["status"] = json!({"phase": "Pending", "lastPhaseTransitionTime": time_of(context)});
        },
        prepare_status: stamp_phase,
        validate: persistent::validate_volume,
        validate_update: Some(persistent::validate_volume_update),
        generation: &[],
        warnings: warnings::volume,
        ..Row::with_status("", "PersistentVolume")
    },
    Row {
        prepare: |_, claim| {
            claim["status"] = json!({"phase": "Pending"});
            persistent::normalize_data_sources(claim, &Value::Null);
        },
        prepare_update: persistent::normalize_data_sources,
        validate: persistent::validate_claim,
        validate_update: Some(persistent::validate_claim_update),
        validate_status: persistent::validate_claim_status,
        generation: &[],
        warnings: warnings::claim,
        ..Row::with_status("", "PersistentVolumeClaim")
    },
    Row { prepare: name_by_uid, validate: quota::limit_range, create_on_update: true, ..Row::new("", "LimitRange") },
    Row {
        validate: quota::resource_quota,
        validate_update: Some(quota::resource_quota_update),
        validate_status: quota::resource_quota_status,
        generation: &[],
        warnings: warnings::resource_quota,
        ..Row::with_status("", "ResourceQuota")
    },
];

/// Takes out a field that is of no use any more, unless the object has had it before.
pub fn drop_unless_used(object: &mut Object, old: &Object, parents: &[&str], field: &str) {
    let used = parents.iter().fold(old, |value, parent| &value[*parent]).get(field).is_some();
    let parent = parents.iter().try_fold(object, |value, parent| value.get_mut(*parent));
    if let (false, Some(Value::Object(parent))) = (used, parent) {
        parent.remove(field);
    }
}

fn time_of(context: &Context) -> String {
    jiff::Timestamp::from_second(context.now).unwrap_or_default().to_string()
}

/// Tells when a volume came into its phase, unless whoever brought it there does.
fn stamp_phase(context: &Context, volume: &mut Object, old: &Object) {
    const SINCE: &str = "lastPhaseTransitionTime";
    let moved = text(&volume["status"], "phase") != text(&old["status"], "phase");
    let told = has(&volume["status"], SINCE) && !same(&volume["status"], &old["status"], SINCE);
    if let (true, Some(status)) = (!told, volume["status"].as_object_mut()) {
        match old["status"].get(SINCE).filter(|_| !moved) {
            Some(since) => status.insert(SINCE.into(), since.clone()),
            None if moved => status.insert(SINCE.into(), time_of(context).into()),
            None => None,
        };
    }
}

/// The single address and the list of all of them tell the same; the class is there for good.
fn prepare_pod_status(_: &Context, pod: &mut Object, old: &Object) {
    let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) else {
        pod["status"] = json!({});
        return prepare_pod_status(&Context::default(), pod, old);
    };
    for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let (first, single) = (status.get(all).and_then(|list| list[0]["ip"].as_str()), status.get(one));
        let single = single.and_then(Value::as_str).filter(|ip| !ip.is_empty());
        match (single, first) {
            (Some(single), first) if first != Some(single) => {
                let list = json!([{ "ip": single }]);
                status.insert(all.into(), list);
            }
            (None, Some(first)) if one == "podIP" => {
                let first = first.into();
                status.insert(one.into(), first);
            }
            _ => {}
        }
    }
    if status.get("qosClass").and_then(Value::as_str).unwrap_or_default().is_empty()
        && let Some(class) = old["status"].get("qosClass")
    {
        status.insert("qosClass".into(), class.clone());
    }
}

/// Less than no grace is a second.
fn at_least_a_second(pod: &mut Object) {
    if int(&pod["spec"], "terminationGracePeriodSeconds").is_some_and(|seconds| seconds < 0) {
        pod["spec"]["terminationGracePeriodSeconds"] = 1.into();
    }
}

fn prepare_pod(_: &Context, pod: &mut Object) {
    let class = pod::qos_class(&pod["spec"]);
    pod["status"] = json!({"phase": "Pending", "qosClass": class});
    if !list(&pod["spec"], "schedulingGates").is_empty() {
        pod["status"]["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates"
        }]);
    }
    annotations::sync_app_armor(pod);
    add_hostname_label_keys(pod);
}

/// Spread constraints and affinity with label keys select by the pod's own values of them.
fn add_hostname_label_keys(pod: &mut Object) {
    let labels = pod["metadata"]["labels"].clone();
    let constraints = pod.pointer_mut("/spec/topologySpreadConstraints").and_then(Value::as_array_mut);
    for constraint in constraints.into_iter().flatten() {
        let keys: Vec<Value> = list(constraint, "matchLabelKeys").to_vec();
        for key in keys.iter().filter_map(Value::as_str) {
            if let (Some(value), true) = (labels.get(key), constraint["labelSelector"].is_object()) {
                let requirement = json!({"key": key, "operator": "In", "values": [value]});
                match constraint["labelSelector"]["matchExpressions"].as_array_mut() {
                    Some(list) => list.push(requirement),
                    None => constraint["labelSelector"]["matchExpressions"] = json!([requirement]),
                }
            }
        }
    }
}

/// A limit range needs no name: it gets one that nothing else has.
fn name_by_uid(_: &Context, range: &mut Object) {
    if is_empty(&range["metadata"], "name") {
        range["metadata"]["name"] = range["metadata"]["uid"].clone();
    }
}

/// A pod that was never placed, or has ended, goes at once.
fn pod_grace(pod: &Object, asked: Option<i64>) -> Option<i64> {
    if is_empty(&pod["spec"], "nodeName") || matches!(text(&pod["status"], "phase"), "Failed" | "Succeeded") {
        return Some(0);
    }
    let seconds = asked.or_else(|| int(&pod["spec"], "terminationGracePeriodSeconds")).unwrap_or_default();
    Some(if seconds < 0 { 1 } else { seconds })
}

/// Every namespace can be selected by its name, also one whose name was generated.
/// A service that is an alias has no traffic of its own; what is said of it is accepted, for the sake of old clients, and not shown.
fn drop_policy_of_alias(service: &mut Object) {
    if service["spec"]["type"] == "ExternalName"
        && let Some(spec) = service["spec"].as_object_mut()
    {
        spec.remove("internalTrafficPolicy");
    }
}

fn label_with_name(namespace: &mut Object) {
    let name = namespace["metadata"]["name"].clone();
    if !namespace["metadata"]["labels"].is_object() {
        namespace["metadata"]["labels"] = json!({});
    }
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
}

fn prepare_namespace(_: &Context, namespace: &mut Object) {
    namespace["status"] = json!({"phase": "Active"});
    if !namespace["spec"].is_object() {
        namespace["spec"] = json!({});
    }
    let finalizers = &mut namespace["spec"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|f| f == "kubernetes") => {}
        Some(list) => list.push("kubernetes".into()),
        None => *finalizers = json!(["kubernetes"]),
    }
}
