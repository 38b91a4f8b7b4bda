//! What a resize may change in a pod: how much CPU and memory it and its containers ask for (KEP-1287, KEP-5419).

use serde_json::{Map, Value, json};

use super::check::{Checker, entries, equal, has, is_empty, list, text};
use super::pod;

const MIRROR: &str = "/metadata/annotations/kubernetes.io~1config.mirror";
const ONLY_CPU_AND_MEMORY: &str = "only cpu and memory resources are mutable";

pub fn validate(c: &mut Checker, pod: &Value, old: &Value) {
    pod::validate_pod(c, pod);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    if let Some(why) = never_resized(old) {
        c.truncate(0);
        c.forbidden("", why);
        return;
    }
    if qos_class(old) != pod::qos_class(spec) {
        let class = json!(text(&pod["status"], "qosClass"));
        c.invalid("spec", &class, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_can(old) {
        c.forbidden("spec", "Pod running on node without support for resize");
    }
    let mut masked = spec.clone();
    if has_amounts(spec) || has_amounts(before) {
        pod_level(c, spec, before, &mut masked);
    }
    if !is_empty(&old["status"], "nodeAllocatableResourceClaimStatuses") {
        c.forbidden("spec", "pods with node allocatable resource claims cannot be resized");
    }
    let ordered = ["containers", "initContainers"].map(|field| same_order(c, spec, before, field));
    if ordered.contains(&false) {
        return;
    }
    for field in ["initContainers", "containers"] {
        nothing_removed(c, spec, before, field);
    }
    only_amounts_of_containers(c, &mut masked, before);
    only_amounts_of_init_containers(c, spec, &mut masked, before);
    if c.error_count() == 0 && !equal(&masked, before) {
        c.forbidden("spec", ONLY_CPU_AND_MEMORY);
    }
}

fn never_resized(pod: &Value) -> Option<&'static str> {
    match () {
        () if pod.pointer(MIRROR).is_some() => Some("static pods cannot be resized"),
        () if text(&pod["spec"]["os"], "name") == "windows" => Some("windows pods cannot be resized"),
        () => None,
    }
}

fn qos_class(pod: &Value) -> &str {
    match text(&pod["status"], "qosClass") {
        "" => pod::qos_class(&pod["spec"]),
        class => class,
    }
}

/// A node that resizes says what running containers have.
fn node_can(pod: &Value) -> bool {
    let running = list(&pod["status"], "containerStatuses").iter().find(|status| has(&status["state"], "running"));
    running.is_none_or(|status| has(status, "resources"))
}

fn has_amounts(spec: &Value) -> bool {
    ["requests", "limits"].into_iter().any(|field| !is_empty(&spec["resources"], field))
}

fn pod_level(c: &mut Checker, spec: &Value, before: &Value, masked: &mut Value) {
    let (new, old) = (&spec["resources"], &before["resources"]);
    if has(before, "resources") && !has(spec, "resources") {
        c.forbidden("spec.resources", "pod-level resources cannot be removed");
        return;
    }
    for field in ["requests", "limits"] {
        if removes(&new[field], &old[field]) {
            c.forbidden(&format!("spec.resources.{field}"), &format!("pod-level resource {field} cannot be removed"));
        }
    }
    masked["resources"] = masked_amounts(new, old);
    if !equal(&masked["resources"], old) {
        c.forbidden("spec", "only cpu and memory resources are mutable at pod-level");
    }
}

/// Whether the containers are the old ones, in the old order.
fn same_order(c: &mut Checker, spec: &Value, before: &Value, field: &str) -> bool {
    let (new, old) = (list(spec, field), list(before, field));
    if new.len() != old.len() {
        c.forbidden(&format!("spec.{field}"), &format!("{field} may not be added or removed on resize"));
        return false;
    }
    let moved: Vec<usize> = (0..old.len()).filter(|i| text(&new[*i], "name") != text(&old[*i], "name")).collect();
    for i in &moved {
        let why = format!("{field} may not be renamed or reordered on resize");
        c.forbidden(&format!("spec.{field}[{i}].name"), &why);
    }
    moved.is_empty()
}

fn nothing_removed(c: &mut Checker, spec: &Value, before: &Value, field: &str) {
    for (i, (new, old)) in list(spec, field).iter().zip(list(before, field)).enumerate() {
        for kind in ["requests", "limits"] {
            if removes(&new["resources"][kind], &old["resources"][kind]) {
                let path = format!("spec.{field}[{i}].resources.{kind}");
                c.forbidden(&path, &format!("resource {kind} cannot be removed"));
            }
        }
    }
}

fn removes(new: &Value, old: &Value) -> bool {
    old.as_object().into_iter().flatten().any(|(name, _)| new.get(name).is_none())
}

fn only_amounts_of_containers(c: &mut Checker, masked: &mut Value, before: &Value) {
    let old = list(before, "containers");
    for (container, old) in masked["containers"].as_array_mut().into_iter().flatten().zip(old) {
        container["resources"] = masked_amounts(&container["resources"], &old["resources"]);
        if !equal(container, old) {
            c.forbidden("spec", ONLY_CPU_AND_MEMORY);
        }
    }
}

fn only_amounts_of_init_containers(c: &mut Checker, spec: &Value, masked: &mut Value, before: &Value) {
    let pairs = list(spec, "initContainers").iter().zip(list(before, "initContainers"));
    let masked = masked["initContainers"].as_array_mut().into_iter().flatten();
    for (i, ((new, old), container)) in pairs.zip(masked).enumerate() {
        container["resources"] = masked_amounts(&container["resources"], &old["resources"]);
        let path = format!("spec.initContainers[{i}]");
        if !equal(container, old) {
            c.forbidden(&path, "only cpu and memory resources for init or sidecar containers are mutable");
        }
        if !equal(new, old) && text(new, "restartPolicy") != "Always" {
            let restarts = |policy: &&Value| text(policy, "restartPolicy") == "RestartContainer";
            for _ in list(new, "resizePolicy").iter().filter(restarts) {
                let why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                c.forbidden(&path, why);
            }
        }
    }
}

/// The new requests and limits with the old CPU and memory, and nothing else that resources may say.
fn masked_amounts(new: &Value, old: &Value) -> Value {
    let is_amount = |name: &str| matches!(name, "cpu" | "memory");
    let mut masked = Map::new();
    for field in ["requests", "limits"] {
        let kept = entries(new, field).filter(|(name, _)| !is_amount(name));
        let restored = entries(old, field).filter(|(name, _)| is_amount(name));
        let all: Map<String, Value> = kept.chain(restored).map(|(name, value)| (name.clone(), value.clone())).collect();
        masked.insert(field.into(), all.into());
    }
    masked.into()
}
