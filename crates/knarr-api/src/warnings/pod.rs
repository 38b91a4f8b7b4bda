//! What is unwise in a pod, also in a template's.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{addresses, claim_spec, deprecated_label, fraction, long_name, paths};
use crate::names;
use crate::object::Object;
use crate::validation::annotations::app_armor_profile;
use crate::validation::check::{entries, has, int, list, text};
use crate::validation::windows::CONTAINERS;

/// Of a new pod; whoever changes one knows what it says.
pub fn pod(object: &Object, old: Option<&Object>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut out = long_name(object, "the Pod's hostname");
    out.extend(spec_and_metadata("", object));
    out
}

/// Of a template at this path.
pub fn template(path: &str, template: &Value) -> Vec<String> {
    spec_and_metadata(&format!("{path}."), template)
}

fn spec_and_metadata(prefix: &str, pod: &Value) -> Vec<String> {
    let (spec, metadata) = (&pod["spec"], &pod["metadata"]);
    let at = format!("{prefix}spec");
    let mut out = Vec::new();
    placement(&mut out, &at, spec);
    annotations(&mut out, prefix, metadata);
    volumes(&mut out, &at, spec);
    paths::overlapping(&mut out, spec);
    repeated(&mut out, &at, spec, "hostAliases", "ip");
    repeated(&mut out, &at, spec, "imagePullSecrets", "name");
    for (i, secret) in list(spec, "imagePullSecrets").iter().enumerate() {
        if text(secret, "name").is_empty() {
            out.push(format!("{at}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    fraction(&mut out, &format!("{at}.overhead"), &spec["overhead"], BYTES);
    seccomp(&mut out, prefix, &spec["securityContext"], metadata, "seccomp.security.alpha.kubernetes.io/pod");
    each_container(spec, &at, |path, container| containers(&mut out, prefix, path, container, pod));
    ports(&mut out, &at, spec);
    if int(spec, "terminationGracePeriodSeconds").is_some_and(|n| n < 0) {
        let why = "must be >= 0; negative values are invalid and will be treated as 1";
        out.push(format!("{at}.terminationGracePeriodSeconds: {why}"));
    }
    affinity(&mut out, &at, spec);
    for (i, server) in list(&spec["dnsConfig"], "nameservers").iter().enumerate() {
        out.extend(addresses::ip(&format!("{at}.dnsConfig.nameservers[{i}]"), server));
    }
    for (i, alias) in list(spec, "hostAliases").iter().enumerate() {
        out.extend(addresses::ip(&format!("{at}.hostAliases[{i}].ip"), &alias["ip"]));
    }
    out
}

const BYTES: &[&str] = &["memory", "ephemeral-storage"];

fn each_container(spec: &Value, at: &str, mut look: impl FnMut(&str, &Value)) {
    for field in CONTAINERS {
        for (i, container) in list(spec, field).iter().enumerate() {
            look(&format!("{at}.{field}[{i}]"), container);
        }
    }
}

fn placement(out: &mut Vec<String>, at: &str, spec: &Value) {
    for (key, _) in entries(spec, "nodeSelector") {
        out.extend(deprecated_label(key).map(|why| format!("{at}.nodeSelector[{key}]: {why}")));
    }
    let node = &spec["affinity"]["nodeAffinity"];
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in list(&node[required], "nodeSelectorTerms").iter().enumerate() {
        out.extend(node_term(&format!("{at}.affinity.nodeAffinity.{required}.nodeSelectorTerms[{i}]"), term, false));
    }
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in list(node, preferred).iter().enumerate() {
        let path = format!("{at}.affinity.nodeAffinity.{preferred}[{i}].preference");
        out.extend(node_term(&path, &term["preference"], true));
    }
    for (i, constraint) in list(spec, "topologySpreadConstraints").iter().enumerate() {
        let path = format!("{at}.topologySpreadConstraints[{i}]");
        let key = text(constraint, "topologyKey");
        out.extend(deprecated_label(key).map(|why| format!("{path}.topologyKey: {key} is {why}")));
        if !has(constraint, "labelSelector") {
            out.push(format!("{path}.labelSelector: a null labelSelector results in matching no pod"));
        }
    }
}

/// One term of a node selector; preferred ones may hold values that no label can have.
pub fn node_term(path: &str, term: &Value, values: bool) -> Vec<String> {
    let mut out = Vec::new();
    for (i, expression) in list(term, "matchExpressions").iter().enumerate() {
        let key = text(expression, "key");
        out.extend(deprecated_label(key).map(|why| format!("{path}.matchExpressions[{i}].key: {key} is {why}")));
        for (j, value) in list(expression, "values").iter().enumerate().filter(|_| values) {
            let value = value.as_str().unwrap_or_default();
            for why in names::label_value(value) {
                out.push(format!("{path}.matchExpressions[{i}].values[{j}]: {value} is invalid, {why}"));
            }
        }
    }
    out
}

fn annotations(out: &mut Vec<String>, prefix: &str, metadata: &Value) {
    const GONE: [(&str, &str); 3] = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
        ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ];
    for (key, why) in GONE.iter().filter(|(key, _)| metadata["annotations"].get(*key).is_some()) {
        out.push(format!("{prefix}metadata.annotations[{key}]: {why}"));
    }
}

fn volumes(out: &mut Vec<String>, at: &str, spec: &Value) {
    const GONE: [(&str, &str, &str); 9] = [
        ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
        ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ];
    for (i, volume) in list(spec, "volumes").iter().enumerate() {
        for (_, shown, why) in GONE.iter().filter(|(field, ..)| has(volume, field)) {
            out.push(format!("{at}.volumes[{i}].{shown}: {why}"));
        }
        if has(&volume["ephemeral"], "volumeClaimTemplate") {
            let path = format!("{at}.volumes[{i}].ephemeral.volumeClaimTemplate.spec");
            out.extend(claim_spec(&path, &volume["ephemeral"]["volumeClaimTemplate"]["spec"]));
        }
    }
}

fn repeated(out: &mut Vec<String>, at: &str, spec: &Value, field: &str, key: &str) {
    let mut seen = HashSet::new();
    for (i, item) in list(spec, field).iter().enumerate() {
        let value = text(item, key);
        if !seen.insert(value) {
            out.push(format!("{at}.{field}[{i}].{key}: duplicate {key} {value:?}"));
        }
    }
}

fn seccomp(out: &mut Vec<String>, prefix: &str, context: &Value, metadata: &Value, key: &str) {
    if !has(context, "seccompProfile") && metadata["annotations"].get(key).is_some() {
        let why = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
        out.push(format!("{prefix}metadata.annotations[{key}]: {why}"));
    }
}

fn containers(out: &mut Vec<String>, prefix: &str, path: &str, container: &Value, pod: &Value) {
    let (name, context, metadata) = (text(container, "name"), &container["securityContext"], &pod["metadata"]);
    let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
    seccomp(out, prefix, context, metadata, &key);
    let key = format!("{APP_ARMOR}{name}");
    let said = metadata["annotations"].get(&key).and_then(Value::as_str);
    // A pod's own are told of by [`app_armor`].
    let of_template = !prefix.is_empty() && !has(context, "appArmorProfile");
    if of_template && said.is_some_and(|said| !same_profile(&pod["spec"]["securityContext"]["appArmorProfile"], said)) {
        out.push(old_app_armor(prefix, &key));
    }
    for name in BYTES {
        for field in ["limits", "requests"] {
            fraction(out, &format!("{path}.resources.{field}"), &container["resources"][field], &[name]);
        }
    }
    let mut seen = HashSet::new();
    for (i, variable) in list(container, "env").iter().enumerate() {
        let (name, value) = (text(variable, "name"), text(variable, "value"));
        let reference = format!("$({name})");
        // A value that builds on the one before is why a name may stand twice.
        let builds = !has(variable, "valueFrom") && value != reference && value.contains(&reference);
        if !seen.insert(name) && !builds {
            let why = format!("hides previous definition of {name:?}, which may be dropped when using apply");
            out.push(format!("{path}.env[{i}]: {why}"));
        }
    }
}

const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

fn old_app_armor(prefix: &str, key: &str) -> String {
    format!("{prefix}metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead")
}

/// The annotations of a new pod that become fields of its containers, or stand for none.
pub fn app_armor(pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    if text(&spec["os"], "name") == "windows" {
        return Vec::new();
    }
    let mut out = Vec::new();
    for container in CONTAINERS.iter().flat_map(|field| list(spec, field)) {
        let key = format!("{APP_ARMOR}{}", text(container, "name"));
        let Some(said) = pod["metadata"]["annotations"].get(&key).and_then(Value::as_str) else { continue };
        let told = app_armor_profile(said).is_none_or(|profile| spec["securityContext"]["appArmorProfile"] != profile);
        if told && !has(&container["securityContext"], "appArmorProfile") {
            out.push(old_app_armor("", &key));
        }
    }
    out
}

fn same_profile(profile: &Value, annotation: &str) -> bool {
    match text(profile, "type") {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default",
        "Localhost" => annotation.strip_prefix("localhost/") == Some(text(profile, "localhostProfile")),
        _ => false,
    }
}

/// The ports of one number and protocol that are compared with each other; more would take longer than they are worth.
const COMPARED: usize = 64;

fn ports(out: &mut Vec<String>, at: &str, spec: &Value) {
    let mut all: HashMap<String, Vec<(String, &Value)>> = HashMap::new();
    for field in CONTAINERS {
        for (c, container) in list(spec, field).iter().enumerate() {
            for (i, port) in list(container, "ports").iter().enumerate() {
                let path = format!("{at}.{field}[{c}].ports[{i}]");
                let key = format!("{}/{}", int(port, "containerPort").unwrap_or(0), text(port, "protocol"));
                let others = all.entry(key).or_default();
                out.extend(others.iter().filter_map(|(other, there)| port_clash(&path, port, other, there)));
                if others.len() < COMPARED {
                    others.push((path, port));
                }
            }
        }
    }
    let mut named: HashMap<&str, String> = HashMap::new();
    for field in CONTAINERS {
        for (c, container) in list(spec, field).iter().enumerate() {
            for (i, port) in list(container, "ports").iter().enumerate() {
                let (path, name) = (format!("{at}.{field}[{c}].ports[{i}]"), text(port, "name"));
                match named.get(name) {
                    _ if name.is_empty() => {}
                    Some(other) => out.push(format!(
                        "{path}: duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
                    )),
                    None => drop(named.insert(name, path)),
                }
            }
        }
    }
}

fn port_clash(path: &str, port: &Value, other: &str, there: &Value) -> Option<String> {
    let host = |p: &Value| (text(p, "hostIP").to_string(), int(p, "hostPort").unwrap_or(0));
    let ((ip, number), (other_ip, other_number)) = (host(port), host(there));
    let how = if (&ip, number) == (&other_ip, other_number) {
        "duplicate"
    } else if number == 0 || other_number == 0 {
        "overlapping"
    } else if number == other_number && ip.is_empty() != other_ip.is_empty() {
        "dangerously ambiguous"
    } else {
        return None;
    };
    Some(format!("{path}: {how} port definition with {other}"))
}

fn affinity(out: &mut Vec<String>, at: &str, spec: &Value) {
    const WHY: &str = "a null labelSelector results in matching no pod";
    for kind in ["podAffinity", "podAntiAffinity"] {
        let terms = &spec["affinity"][kind];
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in list(terms, required).iter().enumerate() {
            if !has(term, "labelSelector") {
                out.push(format!("{at}.affinity.{kind}.{required}[{i}].labelSelector: {WHY}"));
            }
        }
        let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in list(terms, preferred).iter().enumerate() {
            if !has(&term["podAffinityTerm"], "labelSelector") {
                out.push(format!("{at}.affinity.{kind}.{preferred}[{i}].podAffinityTerm.labelSelector: {WHY}"));
            }
        }
    }
}
