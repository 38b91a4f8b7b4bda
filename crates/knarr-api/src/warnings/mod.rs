//! What is allowed and still unwise: texts for `Warning` headers, by kind.

mod addresses;
mod paths;
mod pod;
mod secret;

use serde_json::Value;

use crate::names;
use crate::object::Object;
use crate::validation::check::{entries, has, int, is_empty, list, quantity, text};

use addresses::{cidr, ip};
pub use pod::{app_armor, pod};
pub use secret::secret;

/// What a kind warns of, given what stood there before an update.
pub type Warnings = fn(&Object, Option<&Object>) -> Vec<String>;

/// Labels of nodes that have other names now.
fn deprecated_label(key: &str) -> Option<&'static str> {
    Some(match key {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Whether an update changed what the kind's generation counts; a new object always did.
fn changed(object: &Object, old: Option<&Object>) -> bool {
    old.is_none_or(|old| old["metadata"]["generation"] != object["metadata"]["generation"])
}

fn long_name(object: &Object, what: &str) -> Vec<String> {
    let faults = names::dns_label(text(&object["metadata"], "name"));
    if faults.is_empty() {
        return Vec::new();
    }
    let faults = faults.join(" ");
    vec![format!(
        "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: [{faults}]"
    )]
}

const POD_NAMES: &str = "Pod names and hostnames";

/// Of kinds whose pods carry their name.
pub fn workload(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = if old.is_none() { long_name(object, POD_NAMES) } else { Vec::new() };
    out.extend(daemon_set(object, old));
    out
}

pub fn daemon_set(object: &Object, old: Option<&Object>) -> Vec<String> {
    if changed(object, old) { pod::template("spec.template", &object["spec"]["template"]) } else { Vec::new() }
}

pub fn pod_template(object: &Object, old: Option<&Object>) -> Vec<String> {
    if changed(object, old) { pod::template("template", &object["template"]) } else { Vec::new() }
}

pub fn stateful_set(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = daemon_set(object, old);
    let spec = &object["spec"];
    // Upstream writes the path of an update so.
    let part = if old.is_some() { ".Spec" } else { "" };
    for (i, claim) in list(spec, "volumeClaimTemplates").iter().enumerate() {
        out.extend(claim_spec(&format!("spec.volumeClaimTemplates[{i}]{part}"), &claim["spec"]));
    }
    if int(spec, "revisionHistoryLimit").is_some_and(|n| n < 0) {
        let why = "a negative value retains all historical revisions; a value >= 0 is recommended";
        out.push(format!("spec.revisionHistoryLimit: {why}"));
    }
    out
}

pub fn job(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = if old.is_none() { long_name(object, POD_NAMES) } else { Vec::new() };
    if changed(object, old) {
        out.extend(job_spec("spec", &object["spec"]));
    }
    out
}

pub fn cron_job(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = if old.is_none() { long_name(object, POD_NAMES) } else { Vec::new() };
    if changed(object, old) {
        out.extend(job_spec("spec.jobTemplate.spec", &object["spec"]["jobTemplate"]["spec"]));
    }
    if old.is_some() && text(&object["spec"], "schedule").contains("TZ") {
        out.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".to_string());
    }
    out
}

fn job_spec(path: &str, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    let number = |field: &str| int(spec, field).unwrap_or(0);
    if text(spec, "completionMode") == "Indexed" && number("completions") > 100_000 && number("parallelism") > 10_000 {
        out.push(format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"));
    }
    out.extend(pod::template(&format!("{path}.template"), &spec["template"]));
    out
}

/// A fraction of a byte cannot be had.
fn fraction(out: &mut Vec<String>, path: &str, holder: &Value, names: &[&str]) {
    for name in names {
        let value = &holder[*name];
        if !value.is_null() && quantity(value).to_millis() % 1000 != 0 {
            let value = value.as_str().unwrap_or_default();
            out.push(format!("{path}[{name}]: fractional byte value {value:?} is invalid, must be an integer"));
        }
    }
}

fn claim_spec(path: &str, spec: &Value) -> Vec<String> {
    let mut out = Vec::new();
    for field in ["requests", "limits"] {
        fraction(&mut out, &format!("{path}.resources.{field}"), &spec["resources"][field], &["storage"]);
    }
    out
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const BETA_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

pub fn claim(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    if object["metadata"]["annotations"].get(BETA_CLASS).is_some() {
        let instead = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        out.push(format!("metadata.annotations[{BETA_CLASS}]: {instead}"));
    }
    out.extend(claim_spec("spec", &object["spec"]));
    out
}

pub fn volume(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let spec = &object["spec"];
    let mut out = Vec::new();
    let annotations = [
        (BETA_CLASS, "deprecated since v1.8; use \"storageClassName\" attribute instead"),
        (BETA_OPTIONS, "deprecated since v1.31; use \"mountOptions\" attribute instead"),
    ];
    for (key, why) in annotations.iter().filter(|(key, _)| object["metadata"]["annotations"].get(*key).is_some()) {
        out.push(format!("metadata.annotations[{key}]: {why}"));
    }
    if text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        out.push("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_string());
    }
    let terms = &spec["nodeAffinity"]["required"];
    for (i, term) in list(terms, "nodeSelectorTerms").iter().enumerate() {
        out.extend(pod::node_term(&format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}]"), term, false));
    }
    let gone = [
        ("cephfs", "cephfs", "v1.28", "v1.31"),
        ("photonPersistentDisk", "photonPersistentDisk", "v1.11", "v1.16"),
        ("scaleIO", "scaleIO", "v1.16", "v1.22"),
        ("storageos", "storageOS", "v1.22", "v1.25"),
        ("glusterfs", "glusterfs", "v1.25", "v1.26"),
        ("rbd", "rbd", "v1.28", "v1.31"),
    ];
    for (_, shown, since, until) in gone.iter().filter(|(field, ..)| has(spec, field)) {
        out.push(format!("spec.{shown}: deprecated in {since}, non-functional in {until}+"));
    }
    out
}

pub fn service(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let spec = &object["spec"];
    let kind = text(spec, "type");
    let headless = kind == "ClusterIP" && text(spec, "clusterIP") == "None";
    let mut out = Vec::new();
    let mut when = |is: bool, text: String| is.then(|| out.push(text));
    let hints = object["metadata"]["annotations"].get("service.kubernetes.io/topology-aware-hints").is_some();
    when(hints, "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead".into());
    let addresses = !is_empty(spec, "externalIPs");
    when(headless && !is_empty(spec, "loadBalancerIP"), "spec.loadBalancerIP is ignored for headless services".into());
    when(headless && addresses, "spec.externalIPs is ignored for headless services".into());
    let affinity = text(spec, "sessionAffinity") != "None";
    when(headless && affinity, "spec.SessionAffinity is ignored for headless services".into());
    for (i, address) in list(spec, "externalIPs").iter().enumerate() {
        out.extend(ip(&format!("spec.externalIPs[{i}]"), address));
    }
    let mut when = |is: bool, text: String| is.then(|| out.push(text));
    let old_way = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    when(addresses && !headless && kind != "ExternalName", old_way.into());
    if !is_empty(spec, "loadBalancerIP") {
        out.extend(ip("spec.loadBalancerIP", &spec["loadBalancerIP"]));
    }
    for (i, range) in list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        out.extend(cidr(&format!("spec.loadBalancerSourceRanges[{i}]"), range));
    }
    let mut when = |is: bool, text: String| is.then(|| out.push(text));
    let named = kind == "ExternalName";
    when(named && addresses, "spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    let name = !is_empty(spec, "externalName");
    when(!named && name, "spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    let close = text(spec, "trafficDistribution") == "PreferClose";
    when(close, "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    out
}

pub fn ingress(object: &Object, old: Option<&Object>) -> Vec<String> {
    const ANNOTATION: &str = "kubernetes.io/ingress.class";
    let annotated = object["metadata"]["annotations"].get(ANNOTATION).is_some();
    if old.is_some() || !annotated || has(&object["spec"], "ingressClassName") {
        return Vec::new();
    }
    vec![format!("annotation {ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead")]
}

pub fn network_policy(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(&object["spec"], rules).iter().enumerate() {
            for (j, peer) in list(rule, peers).iter().enumerate().filter(|(_, peer)| has(peer, "ipBlock")) {
                let path = format!("spec.{rules}[{i}].{peers}[{j}].ipBlock");
                out.extend(cidr(&format!("{path}.cidr"), &peer["ipBlock"]["cidr"]));
                for (k, except) in list(&peer["ipBlock"], "except").iter().enumerate() {
                    out.extend(cidr(&format!("{path}.except[{k}]"), except));
                }
            }
        }
    }
    out
}

fn managed_by(object: &Object, key: &str, managers: &[&str]) -> bool {
    object["metadata"]["labels"].get(key).and_then(Value::as_str).is_some_and(|m| managers.contains(&m))
}

pub fn endpoint_slice(object: &Object, old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none() && text(object, "addressType") == "FQDN" {
        out.push("spec.addressType: FQDN endpoints are deprecated".to_string());
    }
    let ours = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"];
    if !managed_by(object, "endpointslice.kubernetes.io/managed-by", &ours) {
        for (i, endpoint) in list(object, "endpoints").iter().enumerate() {
            for (j, address) in list(endpoint, "addresses").iter().enumerate() {
                out.extend(ip(&format!("endpoints[{i}].addresses[{j}]"), address));
            }
        }
    }
    out
}

pub fn endpoints(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    if managed_by(object, "endpoints.kubernetes.io/managed-by", &["endpoint-controller"]) {
        return out;
    }
    for (i, subset) in list(object, "subsets").iter().enumerate() {
        for field in ["addresses", "notReadyAddresses"] {
            for (j, address) in list(subset, field).iter().enumerate() {
                out.extend(ip(&format!("subsets[{i}].{field}[{j}].ip"), &address["ip"]));
            }
        }
    }
    out
}

pub fn node(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let spec = &object["spec"];
    let mut out = Vec::new();
    if has(spec, "configSource") {
        out.push("spec.configSource: the feature is removed".to_string());
    }
    if !is_empty(spec, "externalID") {
        out.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_string());
    }
    for (i, range) in list(spec, "podCIDRs").iter().enumerate() {
        out.extend(cidr(&format!("spec.podCIDRs[{i}]"), range));
    }
    out
}

pub fn service_account(object: &Object, old: Option<&Object>) -> Vec<String> {
    const ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";
    let has = |object: &Object| object["metadata"]["annotations"].get(ANNOTATION).is_some();
    if !has(object) || old.is_some_and(has) {
        return Vec::new();
    }
    let instead = "prefer separate namespaces to isolate access to mounted secrets";
    vec![format!("metadata.annotations[{ANNOTATION}]: deprecated in v1.32+; {instead}")]
}

pub fn resource_quota(object: &Object, old: Option<&Object>) -> Vec<String> {
    let hard = &object["spec"]["hard"];
    let mut out = Vec::new();
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let long = format!("requests.{name}");
        let short = matches!(name, "cpu" | "memory") && hard.get(&long).is_none();
        let (request, limit) = (if short { name.to_string() } else { long }, format!("limits.{name}"));
        let (Some(less), Some(more)) = (hard.get(&request), hard.get(&limit)) else { continue };
        if old.is_none() && quantity(less) > quantity(more) {
            let shown = |v: &Value| v.as_str().unwrap_or_default().to_string();
            let (less, more) = (shown(less), shown(more));
            out.push(format!("ResourceQuota {request} ({less}) should be less than {limit} ({more})"));
        }
    }
    out
}

pub fn runtime_class(object: &Object, old: Option<&Object>) -> Vec<String> {
    let selector = entries(&object["scheduling"], "nodeSelector").filter(|_| old.is_none());
    let texts = selector.filter_map(|(key, _)| deprecated_label(key));
    texts.map(|why| format!("scheduling.nodeSelector: {why}")).collect()
}

pub fn storage_class(object: &Object, _old: Option<&Object>) -> Vec<String> {
    let mut out = Vec::new();
    for (i, term) in list(object, "allowedTopologies").iter().enumerate() {
        for (j, expression) in list(term, "matchLabelExpressions").iter().enumerate() {
            if let Some(why) = deprecated_label(text(expression, "key")) {
                out.push(format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key: {why}"));
            }
        }
    }
    out
}

pub fn csi_driver(object: &Object, old: Option<&Object>) -> Vec<String> {
    let spec = &object["spec"];
    if old.is_some() || is_empty(spec, "tokenRequests") || has(spec, "serviceAccountTokenInSecrets") {
        return Vec::new();
    }
    vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_string()]
}

#[cfg(test)]
mod tests;
