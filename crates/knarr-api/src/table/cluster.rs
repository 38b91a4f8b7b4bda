//! Rows of networking, access, admission, scheduling and the other cluster-wide kinds.

use serde_json::{Value, json};

use super::cells::{age, at, condition, list, number, row, selector, strings, text, text_or};
use super::core::load_balancer;
use super::duration::human_duration;
use crate::object::{Object, ObjectExt};

pub fn ingress(object: &Object, now: i64) -> Vec<Value> {
    const MAX: usize = 3;
    let rules = list(object, &["spec", "rules"]);
    // Upstream looks at the rules until it has three hosts, and counts the rules beyond as more.
    let mut hosts = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == MAX;
        let host = text(rule, &["host"]);
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    let hosts = match (hosts.is_empty(), more) {
        (true, _) => "*".to_string(),
        (false, false) => hosts.join(","),
        (false, true) => format!("{} + {} more...", hosts.join(","), rules.len() - MAX),
    };
    let ports = if list(object, &["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    row([
        object.name().into(),
        text_or(object, &["spec", "ingressClassName"], "<none>").into(),
        hosts.into(),
        load_balancer(object).into(),
        ports.into(),
        age(object, now),
    ])
}

pub fn ingress_class(object: &Object, now: i64) -> Vec<Value> {
    let default = at(object, &["metadata", "annotations", "ingressclass.kubernetes.io/is-default-class"]) == "true";
    let name = if default { format!("{} (default)", object.name()) } else { object.name().to_string() };
    let parameters = &object["spec"]["parameters"];
    let shown = match (parameters.is_object(), text(parameters, &["apiGroup"])) {
        (false, _) => "<none>".to_string(),
        (true, "") => format!("{}/{}", text(parameters, &["kind"]), text(parameters, &["name"])),
        (true, group) => format!("{}.{group}/{}", text(parameters, &["kind"]), text(parameters, &["name"])),
    };
    row([name.into(), text(object, &["spec", "controller"]).into(), shown.into(), age(object, now)])
}

pub fn network_policy(object: &Object, now: i64) -> Vec<Value> {
    // The field is a struct, not a pointer: absent is empty, which selects everything.
    let pods = match &object["spec"]["podSelector"] {
        Value::Null => "<none>".to_string(),
        pods => selector(pods),
    };
    row([object.name().into(), pods.into(), age(object, now)])
}

pub fn service_cidr(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), strings(list(object, &["spec", "cidrs"])).join(",").into(), age(object, now)])
}

/// As upstream, with an age that no column names.
pub fn ip_address(object: &Object, now: i64) -> Vec<Value> {
    let parent = &object["spec"]["parentRef"];
    let mut shown = String::from("<none>");
    if parent.is_object() {
        shown = text(parent, &["resource"]).to_lowercase();
        for (separator, field) in [(".", "group"), ("/", "namespace")] {
            if !text(parent, &[field]).is_empty() {
                shown.push_str(&format!("{separator}{}", text(parent, &[field])));
            }
        }
        shown.push_str(&format!("/{}", text(parent, &["name"])));
    }
    row([object.name().into(), shown.into(), age(object, now)])
}

pub fn webhook_configuration(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), list(object, &["webhooks"]).len().into(), age(object, now)])
}

pub fn validating_policy(object: &Object, now: i64) -> Vec<Value> {
    policy(object, "validations", now)
}

pub fn mutating_policy(object: &Object, now: i64) -> Vec<Value> {
    policy(object, "mutations", now)
}

fn policy(object: &Object, rules: &str, now: i64) -> Vec<Value> {
    let kind = &object["spec"]["paramKind"];
    let shown = match kind {
        Value::Object(_) => format!("{}/{}", text(kind, &["apiVersion"]), text(kind, &["kind"])),
        _ => "<unset>".into(),
    };
    row([object.name().into(), list(object, &["spec", rules]).len().into(), shown.into(), age(object, now)])
}

/// A label selector as Go prints its struct.
fn selector_in_go(selector: &Value) -> String {
    let mut labels: Vec<(&String, &Value)> = selector["matchLabels"].as_object().into_iter().flatten().collect();
    labels.sort_by_key(|(name, _)| *name);
    let labels: String =
        labels.iter().map(|(name, value)| format!("{name}: {},", value.as_str().unwrap_or_default())).collect();
    let requirement = |r: &Value| {
        let values: Vec<&str> = list(r, &["values"]).iter().filter_map(Value::as_str).collect();
        let (key, operator) = (text(r, &["key"]), text(r, &["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    };
    let requirements: String = list(selector, &["matchExpressions"]).iter().map(requirement).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

pub fn policy_binding(object: &Object, now: i64) -> Vec<Value> {
    let parameter = &object["spec"]["paramRef"];
    let shown = match (text(parameter, &["namespace"]), text(parameter, &["name"])) {
        (_, "") if parameter["selector"].is_object() => selector_in_go(&parameter["selector"]),
        (_, "") => "<unset>".to_string(),
        ("", name) => format!("*/{name}"),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    row([object.name().into(), text(object, &["spec", "policyName"]).into(), shown.into(), age(object, now)])
}

pub fn api_service(object: &Object, now: i64) -> Vec<Value> {
    let service = &object["spec"]["service"];
    let shown = match service {
        Value::Object(_) => format!("{}/{}", text(service, &["namespace"]), text(service, &["name"])),
        _ => "Local".into(),
    };
    let available = match condition(object, "Available") {
        None => "Unknown".to_string(),
        Some(c) if c["status"] == "True" => "True".to_string(),
        Some(c) => format!("{} ({})", text(c, &["status"]), text(c, &["reason"])),
    };
    row([object.name().into(), shown.into(), available.into(), age(object, now)])
}

pub fn certificate_signing_request(object: &Object, now: i64) -> Vec<Value> {
    let has = |kind: &str| condition(object, kind).is_some();
    let mut status = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_string();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !text(object, &["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    let duration = object["spec"]["expirationSeconds"].as_i64().map_or("<none>".to_string(), human_duration);
    row([
        object.name().into(),
        age(object, now),
        text_or(object, &["spec", "signerName"], "<none>").into(),
        text(object, &["spec", "username"]).into(),
        duration.into(),
        status.into(),
    ])
}

pub fn lease(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), text(object, &["spec", "holderIdentity"]).into(), age(object, now)])
}

pub fn flow_schema(object: &Object, now: i64) -> Vec<Value> {
    row([
        object.name().into(),
        text(object, &["spec", "priorityLevelConfiguration", "name"]).into(),
        number(object, &["spec", "matchingPrecedence"]).into(),
        text_or(object, &["spec", "distinguisherMethod", "type"], "<none>").into(),
        age(object, now),
        condition(object, "Dangling").map_or("?", |c| text(c, &["status"])).into(),
    ])
}

pub fn priority_level(object: &Object, now: i64) -> Vec<Value> {
    let set = |path: &[&str]| match at(object, path) {
        Value::Null => json!("<none>"),
        value => value.clone(),
    };
    let queuing = |field| set(&["spec", "limited", "limitResponse", "queuing", field]);
    row([
        object.name().into(),
        text(object, &["spec", "type"]).into(),
        set(&["spec", "limited", "nominalConcurrencyShares"]),
        queuing("queues"),
        queuing("handSize"),
        queuing("queueLengthLimit"),
        age(object, now),
    ])
}

pub fn runtime_class(object: &Object, now: i64) -> Vec<Value> {
    row([object.name().into(), text(object, &["handler"]).into(), age(object, now)])
}

pub fn role_binding(object: &Object, now: i64) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let of_kind = list(object, &["subjects"]).iter().filter(|s| s["kind"] == kind);
        let shown = of_kind.map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text(s, &["namespace"]), text(s, &["name"])),
            _ => text(s, &["name"]).to_string(),
        });
        Value::from(shown.collect::<Vec<_>>().join(", "))
    };
    row([
        object.name().into(),
        format!("{}/{}", text(role, &["kind"]), text(role, &["name"])).into(),
        age(object, now),
        subjects("User"),
        subjects("Group"),
        subjects("ServiceAccount"),
    ])
}

pub fn priority_class(object: &Object, now: i64) -> Vec<Value> {
    row([
        object.name().into(),
        number(object, &["value"]).into(),
        json!(object["globalDefault"] == true),
        age(object, now),
        text(object, &["preemptionPolicy"]).into(),
    ])
}

pub fn resource_claim(object: &Object, now: i64) -> Vec<Value> {
    let mut states = Vec::new();
    if object.is_deleting() {
        states.push("deleted");
    }
    if object["status"]["allocation"].is_object() {
        states.push("allocated");
        if !list(object, &["status", "reservedFor"]).is_empty() {
            states.push("reserved");
        }
    } else if states.is_empty() {
        states.push("pending");
    }
    row([object.name().into(), states.join(",").into(), age(object, now)])
}

pub fn resource_slice(object: &Object, now: i64) -> Vec<Value> {
    let spec = |path: &[&str]| Value::from(text(&object["spec"], path));
    row([object.name().into(), spec(&["nodeName"]), spec(&["driver"]), spec(&["pool", "name"]), age(object, now)])
}
