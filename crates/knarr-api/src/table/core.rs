//! Rows of the core group: services, nodes, configuration.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cells::{
    age, at, condition, containers, first_few, labels, list, number, row, shown, size, strings, text, text_or,
};
use crate::object::{Object, ObjectExt};

pub fn pod_template(object: &Object, _now: i64) -> Vec<Value> {
    let (names, images) = containers(&object["template"]);
    row([object.name().into(), names, images, labels(at(object, &["template", "metadata", "labels"])).into()])
}

pub fn namespace(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), text(object, &["status", "phase"]).into(), age(object, now)])
}

pub fn config_map(object: &Object, now: i64) -> Vec<Value> {
    let entries = size(object, &["data"]) + size(object, &["binaryData"]);
    row([object.name().into(), entries.into(), age(object, now)])
}

pub fn secret(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), text(object, &["type"]).into(), size(object, &["data"]).into(), age(object, now)])
}

pub fn component_status(object: &Object, _now: i64) -> Vec<Value> {
    let healthy = list(object, &["conditions"]).iter().find(|c| c["type"] == "Healthy");
    let (status, found) = match healthy {
        None => ("Unknown", &Value::Null),
        Some(condition) if condition["status"] == "True" => ("Healthy", condition),
        Some(condition) => ("Unhealthy", condition),
    };
    row([object.name().into(), status.into(), text(found, &["message"]).into(), text(found, &["error"]).into()])
}

pub fn resource_quota(object: &Object, now: i64) -> Vec<Value> {
    let mut columns = [Vec::new(), Vec::new()];
    for (resource, hard) in object["status"]["hard"].as_object().into_iter().flatten() {
        let used = match &object["status"]["used"][resource] {
            Value::Null => "0".to_string(),
            used => shown(used),
        };
        let limits = resource.starts_with("limits.");
        columns[usize::from(limits)].push(format!("{resource}: {used}/{}", shown(hard)));
    }
    let [mut requests, mut limits] = columns;
    requests.sort_unstable();
    limits.sort_unstable();
    row([object.name().into(), requests.join(", ").into(), limits.join(", ").into(), age(object, now)])
}

pub fn service(object: &Object, now: i64) -> Vec<Value> {
    let cluster_ips = list(object, &["spec", "clusterIPs"]);
    let ports: Vec<String> = list(object, &["spec", "ports"]).iter().map(service_port).collect();
    row([
        object.name().into(),
        text(object, &["spec", "type"]).into(),
        cluster_ips.first().and_then(Value::as_str).unwrap_or("<none>").into(),
        external_ip(object).into(),
        if ports.is_empty() { "<none>".into() } else { ports.join(",").into() },
        age(object, now),
        labels(&object["spec"]["selector"]).into(),
    ])
}

fn service_port(port: &Value) -> String {
    let (number_, protocol) = (number(port, &["port"]), text(port, &["protocol"]));
    match number(port, &["nodePort"]) {
        0 => format!("{number_}/{protocol}"),
        node_port => format!("{number_}:{node_port}/{protocol}"),
    }
}

fn external_ip(service: &Object) -> String {
    let given = strings(list(service, &["spec", "externalIPs"])).join(",");
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => given,
        "ExternalName" => text(service, &["spec", "externalName"]).into(),
        "LoadBalancer" => match (load_balancer(service), given.as_str()) {
            (balancer, "") if balancer.is_empty() => "<pending>".into(),
            (balancer, "") => balancer,
            (balancer, _) if balancer.is_empty() => given,
            (balancer, _) => format!("{balancer},{given}"),
        },
        _ => "<unknown>".into(),
    }
}

/// Addresses and names of a load balancer, of a Service or an Ingress.
pub fn load_balancer(object: &Object) -> String {
    let points = list(object, &["status", "loadBalancer", "ingress"]).iter();
    let shown = points.map(|p| if text(p, &["ip"]).is_empty() { text(p, &["hostname"]) } else { text(p, &["ip"]) });
    shown.filter(|s| !s.is_empty()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
}

pub fn endpoints(object: &Object, now: i64) -> Vec<Value> {
    const MAX: usize = 3;
    let mut all = Vec::new();
    for subset in list(object, &["subsets"]) {
        let addresses = || list(subset, &["addresses"]).iter().map(|a| text(a, &["ip"]));
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_string));
        }
        for port in ports {
            let port = number(port, &["port"]);
            all.extend(
                addresses().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    let none = list(object, &["subsets"]).is_empty();
    let text = match all.len() {
        _ if none => "<none>".to_string(),
        n if n > MAX => format!("{} + {} more...", all[..MAX].join(","), n - MAX),
        _ => all.join(","),
    };
    row([object.name().into(), text.into(), age(object, now)])
}

pub fn endpoint_slice(object: &Object, now: i64) -> Vec<Value> {
    let port = |port: &Value| match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_string(),
        (None, None) => "*".to_string(),
    };
    let ports: Vec<String> = list(object, &["ports"]).iter().map(port).collect();
    let addresses = list(object, &["endpoints"]).iter().flat_map(|e| strings(list(e, &["addresses"])));
    let addresses: Vec<String> = addresses.map(str::to_string).collect();
    row([
        object.name().into(),
        text(object, &["addressType"]).into(),
        first_few(&ports, 3).into(),
        first_few(&addresses, 3).into(),
        age(object, now),
    ])
}

pub fn node(object: &Object, now: i64) -> Vec<Value> {
    let mut status = match condition(object, "Ready") {
        Some(ready) if ready["status"] == "True" => "Ready".to_string(),
        Some(_) => "NotReady".to_string(),
        None => "Unknown".to_string(),
    };
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let info = |field: &str| text_or(object, &["status", "nodeInfo", field], "<unknown>");
    let mut kernel = info("kernelVersion");
    let architecture = text(object, &["status", "nodeInfo", "architecture"]);
    if !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    row([
        object.name().into(),
        status.into(),
        node_roles(object).into(),
        age(object, now),
        text(object, &["status", "nodeInfo", "kubeletVersion"]).into(),
        node_address(object, "InternalIP").into(),
        node_address(object, "ExternalIP").into(),
        info("osImage").into(),
        kernel.into(),
        info("containerRuntimeVersion").into(),
    ])
}

fn node_address(node: &Object, kind: &str) -> String {
    let found = list(node, &["status", "addresses"]).iter().find(|a| a["type"] == kind);
    found.map_or("<none>", |a| text(a, &["address"])).to_string()
}

fn node_roles(node: &Object) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_string()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_string),
        None => None,
    };
    let roles: BTreeSet<String> = labels.filter_map(role).filter(|role| !role.is_empty()).collect();
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}
