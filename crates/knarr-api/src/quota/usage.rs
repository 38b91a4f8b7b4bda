//! What an object counts for against a quota.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Usage, amounts, items, text};
use crate::quantity::Quantity;
use crate::{GroupResource, Object};

fn add(usage: &mut Usage, name: impl Into<String>, quantity: Quantity) {
    let entry = usage.entry(name.into()).or_insert(Quantity::from_i64(0));
    *entry = *entry + quantity;
}

/// Everything an object uses, by the names that quotas use.
pub(super) fn of(resource: &GroupResource, object: &Object) -> Usage {
    let one = Quantity::from_i64(1);
    let mut usage = Usage::new();
    add(&mut usage, format!("count/{resource}"), one);
    match (&*resource.group, &*resource.resource) {
        ("", "pods") => pod(object, &mut usage),
        ("", "services") => service(object, &mut usage),
        ("", "persistentvolumeclaims") => claim(object, &mut usage),
        ("resource.k8s.io", "resourceclaims") => devices(object, &mut usage),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            add(&mut usage, resource.resource.to_string(), one);
        }
        _ => {}
    }
    usage
}

/// A pod that is still there this long after it should have ended is stuck, as on a node that is lost; nobody is charged for it.
pub(super) fn lapses(resource: &GroupResource, object: &Object) -> Option<Timestamp> {
    if !resource.group.is_empty() || resource.resource != "pods" {
        return None;
    }
    let deleted: Timestamp = text(object, "/metadata/deletionTimestamp").parse().ok()?;
    let grace = object.pointer("/metadata/deletionGracePeriodSeconds")?.as_i64()?;
    deleted.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn is_terminal(pod: &Object) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn pod(pod: &Object, usage: &mut Usage) {
    if is_terminal(pod) {
        return;
    }
    add(usage, "pods", Quantity::from_i64(1));
    for (name, quantity) in pod_total(pod, "requests") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-") {
            add(usage, name.clone(), quantity);
        }
        add(usage, format!("requests.{name}"), quantity);
    }
    for (name, quantity) in pod_total(pod, "limits") {
        add(usage, format!("limits.{name}"), quantity);
    }
}

/// Containers together, or the largest init container if that is more; with the sidecars and the overhead. Of a container that is
/// being resized the most that it may take before or after counts, as the scheduler counts.
pub(super) fn pod_total(pod: &Object, field: &str) -> Usage {
    let asked = |container: &Value| amounts(container.pointer(&format!("/resources/{field}")));
    let of = |container: &Value| while_resized(pod, container, field).unwrap_or_else(|| asked(container));
    let mut running = Usage::new();
    for container in items(pod, "/spec/containers") {
        for (name, quantity) in of(container) {
            add(&mut running, name, quantity);
        }
    }
    let mut sidecars = Usage::new();
    let mut peak = Usage::new();
    for container in items(pod, "/spec/initContainers") {
        let restarts = text(container, "/restartPolicy") == "Always";
        for (name, quantity) in if restarts { of(container) } else { asked(container) } {
            if restarts {
                add(&mut running, name.clone(), quantity);
                add(&mut sidecars, name.clone(), quantity);
            }
            let before = sidecars.get(&name).copied().unwrap_or(Quantity::from_i64(0));
            let now = if restarts { before } else { before + quantity };
            let entry = peak.entry(name).or_insert(now);
            *entry = (*entry).max(now);
        }
    }
    for (name, quantity) in peak {
        let entry = running.entry(name).or_insert(quantity);
        *entry = (*entry).max(quantity);
    }
    // What the pod states as a whole holds in place of its containers' sum.
    running.extend(amounts(pod.pointer(&format!("/spec/resources/{field}"))));
    for (name, quantity) in amounts(pod.pointer("/spec/overhead")) {
        if field == "requests" || running.contains_key(&name) {
            add(&mut running, name, quantity);
        }
    }
    running
}

/// What a container may take by its status: the most of what it asks, has and was promised; without what it asks if its node can never
/// give that. `None` if the status does not say what it has.
fn while_resized(pod: &Object, container: &Value, field: &str) -> Option<Usage> {
    let statuses = items(pod, "/status/containerStatuses").chain(items(pod, "/status/initContainerStatuses"));
    let status = statuses.into_iter().find(|status| text(status, "/name") == text(container, "/name"))?;
    let has = status.get("resources")?;
    let pending = items(pod, "/status/conditions").find(|condition| text(condition, "/type") == "PodResizePending");
    let infeasible = pending.is_some_and(|condition| text(condition, "/reason") == "Infeasible");
    let asked = container.pointer(&format!("/resources/{field}")).filter(|_| !infeasible);
    let promised = status.get("allocatedResources").filter(|_| field == "requests");
    let mut most = Usage::new();
    for (name, quantity) in [asked, has.get(field), promised].into_iter().flat_map(amounts) {
        let entry = most.entry(name).or_insert(quantity);
        *entry = (*entry).max(quantity);
    }
    Some(most)
}

fn service(service: &Object, usage: &mut Usage) {
    let count = |n: usize| Quantity::from_i64(n as i64);
    add(usage, "services", count(1));
    let ports = items(service, "/spec/ports").count();
    match text(service, "/spec/type") {
        "NodePort" => add(usage, "services.nodeports", count(ports)),
        "LoadBalancer" => {
            add(usage, "services.loadbalancers", count(1));
            let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false));
            let named =
                items(service, "/spec/ports").filter(|p| p["nodePort"].as_i64().is_some_and(|n| n != 0)).count();
            add(usage, "services.nodeports", count(if allocates { ports } else { named }));
        }
        _ => {}
    }
}

fn claim(claim: &Object, usage: &mut Usage) {
    let one = Quantity::from_i64(1);
    let beta = claim.pointer("/metadata/annotations/volume.beta.kubernetes.io~1storage-class").and_then(Value::as_str);
    let class = beta.unwrap_or(text(claim, "/spec/storageClassName"));
    let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
    add(usage, "persistentvolumeclaims", one);
    if !class.is_empty() {
        add(usage, of_class("persistentvolumeclaims"), one);
    }
    if let Some(size) = amounts(claim.pointer("/spec/resources/requests")).get("storage") {
        add(usage, "requests.storage", *size);
        if !class.is_empty() {
            add(usage, of_class("requests.storage"), *size);
        }
    }
}

/// The devices that a claim asks for, by class; of alternatives the most that any of them takes.
fn devices(claim: &Object, usage: &mut Usage) {
    let mut ask = |request: &Value| {
        let count = request.get("count").and_then(Value::as_i64).unwrap_or(1);
        let class = text(request, "/deviceClassName");
        (!class.is_empty()).then(|| (format!("{class}.deviceclass.resource.k8s.io/devices"), Quantity::from_i64(count)))
    };
    for request in items(claim, "/spec/devices/requests") {
        if let Some((name, count)) = request.get("exactly").and_then(&mut ask) {
            add(usage, name, count);
        }
        let mut most = Usage::new();
        for (name, count) in items(request, "/firstAvailable").filter_map(&mut ask) {
            let entry = most.entry(name).or_insert(count);
            *entry = (*entry).max(count);
        }
        most.into_iter().for_each(|(name, count)| add(usage, name, count));
    }
}

/// What a pod must say for the quota to be able to count it: `limits.cpu for: a,b; requests.memory for: b`.
pub fn unspecified(resource: &GroupResource, object: &Object, hard: &Usage) -> Option<String> {
    if !resource.group.is_empty() || resource.resource != "pods" {
        return None;
    }
    const COUNTED: [(&str, &str); 6] = [
        ("cpu", "/resources/requests/cpu"),
        ("memory", "/resources/requests/memory"),
        ("limits.cpu", "/resources/limits/cpu"),
        ("limits.memory", "/resources/limits/memory"),
        ("requests.cpu", "/resources/requests/cpu"),
        ("requests.memory", "/resources/requests/memory"),
    ];
    let containers = || items(object, "/spec/containers").chain(items(object, "/spec/initContainers"));
    let mut missing = Vec::new();
    for (name, pointer) in COUNTED.iter().filter(|(name, _)| hard.contains_key(*name)) {
        let without = containers().filter(|c| c.pointer(pointer).is_none_or(Value::is_null));
        let mut names: Vec<&str> = without.map(|c| text(c, "/name")).collect();
        names.sort_unstable();
        if !names.is_empty() {
            missing.push(format!("{name} for: {}", names.join(",")));
        }
    }
    (!missing.is_empty()).then(|| missing.join("; "))
}
