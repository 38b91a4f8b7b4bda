//! What controllers report: the `status` of workloads, autoscalers, budgets, namespaces and load balancers.

use serde_json::Value;

use super::check::{Checker, has, int, is_empty, list, parse_ip, repeated_text, same, text};
use crate::names;

fn counts(c: &mut Checker, status: &Value, fields: &[&str]) {
    fields.iter().for_each(|field| c.not_negative(status, field));
}

/// No part is greater than the whole.
fn parts(c: &mut Checker, status: &Value, parts: &[&str], whole: &str, why: &str) {
    let number = |field: &str| int(status, field).unwrap_or(0);
    for part in parts.iter().filter(|part| number(part) > number(whole)) {
        c.invalid(part, &number(part).into(), why);
    }
}

/// Hashes that collided are counted, and never fewer.
fn collisions(c: &mut Checker, object: &Value, old: &Value) {
    let of = |v: &Value| int(&v["status"], "collisionCount");
    if let Some(before) = of(old)
        && of(object).is_none_or(|now| now < before)
    {
        c.invalid("collisionCount", &of(object).unwrap_or(0).into(), "cannot be decremented");
    }
}

const OF_REPLICAS: &str = "cannot be greater than status.replicas";
const OF_READY: &str = "cannot be greater than readyReplicas";

pub fn deployment(c: &mut Checker, object: &Value, old: &Value) {
    c.at(object, "status", |c, status| {
        counts(
            c,
            status,
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ],
        );
        parts(c, status, &["updatedReplicas", "readyReplicas", "availableReplicas"], "replicas", OF_REPLICAS);
        parts(c, status, &["availableReplicas"], "readyReplicas", OF_READY);
        collisions(c, object, old);
    });
}

/// Of replica sets and replication controllers.
pub fn replica_set(c: &mut Checker, object: &Value, _old: &Value) {
    c.at(object, "status", |c, status| {
        counts(
            c,
            status,
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ],
        );
        parts(c, status, &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"], "replicas", OF_REPLICAS);
        parts(c, status, &["availableReplicas"], "readyReplicas", OF_READY);
    });
}

pub fn stateful_set(c: &mut Checker, object: &Value, old: &Value) {
    const PARTS: [&str; 4] = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
    c.at(object, "status", |c, status| {
        counts(c, status, &["replicas"]);
        counts(c, status, &PARTS);
        counts(c, status, &["observedGeneration", "collisionCount"]);
        parts(c, status, &PARTS, "replicas", OF_REPLICAS);
        parts(c, status, &["availableReplicas"], "readyReplicas", "cannot be greater than status.readyReplicas");
        collisions(c, object, old);
    });
}

pub fn daemon_set(c: &mut Checker, object: &Value, old: &Value) {
    c.at(object, "status", |c, status| {
        counts(
            c,
            status,
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
        );
        collisions(c, object, old);
    });
}

pub fn horizontal_pod_autoscaler(c: &mut Checker, object: &Value, _old: &Value) {
    c.at(object, "status", |c, status| counts(c, status, &["currentReplicas", "desiredReplicas"]));
}

pub fn pod_disruption_budget(c: &mut Checker, object: &Value, _old: &Value) {
    c.at(object, "status", |c, status| {
        conditions(c, status);
        counts(c, status, &["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]);
    });
}

pub fn namespace(c: &mut Checker, object: &Value, _old: &Value) {
    let phase = text(&object["status"], "phase");
    let (wanted, is) = match has(&object["metadata"], "deletionTimestamp") {
        true => ("Terminating", "not empty"),
        false => ("Active", "empty"),
    };
    if phase != wanted {
        let why = format!("may only be '{wanted}' if `deletionTimestamp` is {is}");
        c.invalid_text("status.Phase", phase, why);
    }
}

/// Of flow schemas and priority levels.
pub fn flow_control(c: &mut Checker, object: &Value, _old: &Value) {
    let all = list(&object["status"], "conditions");
    c.within("status", |c| {
        let repeated_type = repeated_text(all, "type");
        c.each_indexed(&object["status"], "conditions", |c, i, condition| {
            if repeated_type[i] {
                c.duplicate("type", &condition["type"]);
            }
            c.need(condition, "type");
        });
    });
}

/// Of kinds whose conditions are `metav1.Condition` and whose status holds nothing else to check.
pub fn only_conditions(c: &mut Checker, object: &Value, _old: &Value) {
    c.at(object, "status", conditions);
}

/// A list of `metav1.Condition`.
pub fn conditions(c: &mut Checker, status: &Value) {
    const REASON_BYTES: usize = 1024;
    const MESSAGE_BYTES: usize = 32 * 1024;
    let all = list(status, "conditions");
    let repeated_type = repeated_text(all, "type");
    c.each_indexed(status, "conditions", |c, i, condition| {
        if repeated_type[i] {
            c.duplicate("type", &text(condition, "type").into());
        }
        c.rule("type", text(condition, "type"), names::qualified_name);
        c.supported(condition, "status", &["False", "True", "Unknown"]);
        if int(condition, "observedGeneration").is_some_and(|n| n < 0) {
            let why = "must be greater than or equal to zero";
            c.invalid("observedGeneration", &condition["observedGeneration"], why);
        }
        c.need(condition, "lastTransitionTime");
        match text(condition, "reason") {
            "" => c.required("reason", ""),
            reason => {
                c.rule("reason", reason, names::condition_reason);
                if reason.len() > REASON_BYTES {
                    c.too_long("reason", REASON_BYTES);
                }
            }
        }
        if text(condition, "message").len() > MESSAGE_BYTES {
            c.too_long("message", MESSAGE_BYTES);
        }
    });
}

/// Where a service or an ingress is reached from outside; addresses that stood there before may stay as they are.
fn load_balancer(c: &mut Checker, object: &Value, old: &Value, modes: bool) {
    let before = list(&old["status"]["loadBalancer"], "ingress");
    c.within("status.loadBalancer", |c| {
        c.each(&object["status"]["loadBalancer"], "ingress", |c, ingress| {
            let (ip, hostname) = (text(ingress, "ip"), text(ingress, "hostname"));
            if !ip.is_empty() && !before.iter().any(|b| text(b, "ip") == ip) {
                c.ip("ip", ip);
            }
            match (has(ingress, "ipMode"), ip.is_empty()) {
                _ if !modes => {}
                (false, false) => c.required("ipMode", "must be specified when `ip` is set"),
                (true, true) => c.forbidden("ipMode", "may not be specified when `ip` is not set"),
                (true, false) => c.supported(ingress, "ipMode", &["Proxy", "VIP"]),
                (false, true) => {}
            }
            if !hostname.is_empty() {
                c.rule("hostname", hostname, names::dns_subdomain);
                if parse_ip(hostname).is_some() {
                    c.invalid_text("hostname", hostname, "must be a DNS name, not an IP address");
                }
            }
        });
    });
}

pub fn service(c: &mut Checker, object: &Value, old: &Value) {
    let entries = &object["status"]["loadBalancer"];
    if text(&object["spec"], "type") != "LoadBalancer" && !is_empty(entries, "ingress") {
        c.forbidden("status.loadBalancer.ingress", "may only be used when `spec.type` is 'LoadBalancer'");
    } else {
        load_balancer(c, object, old, true);
    }
}

pub fn ingress(c: &mut Checker, object: &Value, old: &Value) {
    load_balancer(c, object, old, false);
}

pub fn pod(c: &mut Checker, pod: &Value, old: &Value) {
    super::annotations::validate_update(c, pod, old);
    super::annotations::validate(c, pod);
    let (status, before) = (&pod["status"], &old["status"]);
    c.within("status", |c| {
        c.each(status, "conditions", |c, condition| {
            let kind = text(condition, "type");
            if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
                c.rule("Type", kind, names::qualified_name);
            }
            generation(c, condition);
        });
        nominated_node(c, pod, old);
        generation(c, status);
        c.immutable(status, before, "qosClass");
        for field in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
            stay_ended(c, &old["spec"], status, before, field);
        }
        addresses(c, status, before, "podIPs");
        if let Some(first) = list(status, "hostIPs").first()
            && first["ip"] != status["hostIP"]
        {
            c.invalid("hostIPs[0].ip", &first["ip"], "must be equal to `hostIP`");
        }
        addresses(c, status, before, "hostIPs");
    });
}

fn generation(c: &mut Checker, holder: &Value) {
    if int(holder, "observedGeneration").is_some_and(|n| n < 0) {
        c.invalid("observedGeneration", &holder["observedGeneration"], "must be a non-negative integer");
    }
}

fn nominated_node(c: &mut Checker, pod: &Value, old: &Value) {
    let (status, before) = (&pod["status"], &old["status"]);
    let name = text(status, "nominatedNodeName");
    if name.is_empty() || same(status, before, "nominatedNodeName") {
        return;
    }
    c.rule("nominatedNodeName", name, names::dns_subdomain);
    if !is_empty(&old["spec"], "nodeName") {
        c.forbidden("nominatedNodeName", "may not be set on pods that are already bound to a node");
    }
}

/// At most one address of each family; addresses that stood there before may stay as they are.
fn addresses(c: &mut Checker, status: &Value, before: &Value, field: &str) {
    let all = list(status, field);
    for (i, item) in all.iter().enumerate() {
        if !list(before, field).iter().any(|b| b["ip"] == item["ip"]) {
            c.ip(&format!("{field}[{i}]"), text(item, "ip"));
        }
    }
    let v6 = |i: usize| text(&all[i], "ip").contains(':');
    if all.len() > 2 || (all.len() == 2 && v6(0) == v6(1)) {
        c.invalid(field, &status[field], "may specify no more than one IP for each IP family");
    }
}

/// A container that ended for good does not run again.
fn stay_ended(c: &mut Checker, spec: &Value, status: &Value, before: &Value, field: &str) {
    let containers = match field {
        "containerStatuses" => list(spec, "containers"),
        "initContainerStatuses" => list(spec, "initContainers"),
        _ => &[],
    };
    for (i, ended) in list(before, field).iter().enumerate() {
        let Some(code) = ended["state"].get("terminated").map(|t| int(t, "exitCode").unwrap_or(0)) else { continue };
        let runs_again = list(status, field)
            .iter()
            .any(|now| now["name"] == ended["name"] && now["state"].get("terminated").is_none());
        let container = containers.iter().find(|container| container["name"] == ended["name"]);
        if runs_again && !container.is_some_and(|container| may_restart(container, spec, code)) {
            c.forbidden(&format!("{field}[{i}].state"), "may not be transitioned to non-terminated state");
        }
    }
}

fn may_restart(container: &Value, spec: &Value, code: i64) -> bool {
    let all = ["containers", "initContainers"].into_iter().flat_map(|f| list(spec, f));
    if all.flat_map(|c| list(c, "restartPolicyRules")).any(|r| text(r, "action") == "RestartAllContainers") {
        return true;
    }
    let rule = list(container, "restartPolicyRules").iter().find(|rule| {
        let codes = &rule["exitCodes"];
        list(codes, "values").iter().any(|v| v.as_i64() == Some(code)) == (text(codes, "operator") == "In")
    });
    if rule.is_some_and(|r| text(r, "action") == "Restart") {
        return true;
    }
    let policy = if has(container, "restartPolicy") { container } else { spec };
    match text(policy, "restartPolicy") {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}
