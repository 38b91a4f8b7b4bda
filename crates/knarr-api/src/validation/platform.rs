//! Kinds of the platform: flow control, certificates, leases, classes, devices, API services, access reviews.

use serde_json::Value;

use super::check::{Checker, equal, has, int, is_empty, list, seen_before, text};
use super::{labels, node_selector};
use crate::names;

pub fn flow_schema(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
        if precedence <= 0 {
            c.invalid("matchingPrecedence", &precedence.into(), "must be a positive value");
        }
        if precedence > 10_000 {
            c.invalid("matchingPrecedence", &precedence.into(), "must not be greater than 10000");
        }
        if precedence == 1 && text(&object["metadata"], "name") != "exempt" {
            c.invalid(
                "matchingPrecedence",
                &precedence.into(),
                "only the schema named 'exempt' may have matchingPrecedence 1",
            );
        }
        c.if_set(spec, "distinguisherMethod", |c, method| c.supported(method, "type", &["ByNamespace", "ByUser"]));
        match text(&spec["priorityLevelConfiguration"], "name") {
            "" => c.required("priorityLevelConfiguration.name", "must reference a priority level"),
            name => c.rule("priorityLevelConfiguration.name", name, names::dns_subdomain),
        }
        c.each(spec, "rules", flow_rule);
    });
}

fn flow_rule(c: &mut Checker, rule: &Value) {
    if list(rule, "subjects").is_empty() {
        c.required("subjects", "subjects must contain at least one value");
    }
    c.each(rule, "subjects", |c, subject| {
        let kind = text(subject, "kind");
        let field = match kind {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            _ => {
                c.not_supported("kind", &subject["kind"], &["Group", "ServiceAccount", "User"]);
                return;
            }
        };
        if has(subject, field) {
            c.at(subject, field, |c, subject| c.need(subject, "name"));
        } else {
            c.required(field, &format!("{field} is required when subject kind is '{kind}'"));
        }
    });
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        c.required("", "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    c.each(rule, "resourceRules", |c, rule| {
        for field in ["verbs", "apiGroups", "resources"] {
            if list(rule, field).is_empty() {
                c.required(field, &format!("{field} must contain at least one value"));
            }
        }
        if list(rule, "namespaces").is_empty() && rule["clusterScope"] != true {
            c.required("namespaces", "resource rules that are not cluster scoped must supply at least one namespace");
        }
    });
    c.each(rule, "nonResourceRules", |c, rule| {
        for field in ["verbs", "nonResourceURLs"] {
            if list(rule, field).is_empty() {
                c.required(field, &format!("{field} must contain at least one value"));
            }
        }
    });
}

pub fn priority_level(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| match text(spec, "type") {
        "Limited" => {
            if has(spec, "exempt") {
                c.forbidden("exempt", "must be nil if the type is Limited");
            }
            if has(spec, "limited") {
                c.at(spec, "limited", limited_level);
            } else {
                c.required("limited", "must not be empty when type is Limited");
            }
        }
        "Exempt" => {
            if has(spec, "limited") {
                c.forbidden("limited", "must be nil if the type is not Limited");
            }
        }
        _ => c.not_supported("type", &Value::from(text(spec, "type")), &["Exempt", "Limited"]),
    });
}

fn limited_level(c: &mut Checker, level: &Value) {
    c.not_negative(level, "nominalConcurrencyShares");
    c.in_range(level, "lendablePercent", 0, 100);
    let response = &level["limitResponse"];
    c.within("limitResponse", |c| match text(response, "type") {
        "Reject" => {
            if has(response, "queuing") {
                c.forbidden("queuing", "must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" => {
            if has(response, "queuing") {
                c.at(response, "queuing", |c, queuing| {
                    for field in ["queues", "queueLengthLimit", "handSize"] {
                        c.positive(queuing, field);
                    }
                    if int(queuing, "handSize") > int(queuing, "queues") {
                        c.invalid("handSize", &queuing["handSize"], "should not be greater than queues");
                    }
                });
            } else {
                c.required("queuing", "must not be empty if limited.limitResponse.type is Limited");
            }
        }
        other => c.not_supported("type", &other.into(), &["Queue", "Reject"]),
    });
}

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn certificate_signing_request(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        if !is_certificate_request(text(spec, "request")) {
            c.invalid("request", &spec["request"], "PEM block type must be CERTIFICATE REQUEST");
        }
        let usages = list(spec, "usages");
        if usages.is_empty() {
            c.required("usages", "");
        }
        for (i, usage) in usages.iter().enumerate() {
            let field = format!("usages[{i}]");
            if !usage.as_str().is_some_and(|u| USAGES.contains(&u)) {
                c.not_supported(&field, usage, USAGES);
            }
            if usages[..i].contains(usage) {
                c.duplicate(&field, usage);
            }
        }
        signer_name(c, text(spec, "signerName"));
        if int(spec, "expirationSeconds").is_some_and(|n| n < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            c.invalid("expirationSeconds", &spec["expirationSeconds"], why);
        }
    });
}

fn is_certificate_request(encoded: &str) -> bool {
    use base64::Engine;
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(encoded) else { return false };
    let Ok((_, block)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    use x509_parser::prelude::FromDer;
    block.label == "CERTIFICATE REQUEST"
        && x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents).is_ok()
}

fn signer_name(c: &mut Checker, name: &str) {
    if name.is_empty() {
        c.required("signerName", "");
        return;
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments.as_slice() else {
        c.invalid_text(
            "signerName",
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if domain.len() > 253 || path.len() > 253 * 2 + 1 {
        c.too_long("signerName", 571);
    }
    if names::dns_subdomain(domain).is_empty() && domain.split('.').count() < 2 {
        c.invalid_text("signerName", domain, "should be a domain with at least two segments separated by dots");
    }
    for message in names::dns_subdomain(domain) {
        c.invalid_text("signerName", domain, format!("validating label {domain:?}: {message}"));
    }
    for label in path.split('.') {
        for message in names::dns_label(&label.to_lowercase()) {
            c.invalid_text("signerName", path, format!("validating label {label:?}: {message}"));
        }
    }
}

/// A request is what it is; only its status changes.
pub fn certificate_signing_request_update(c: &mut Checker, object: &Value, old: &Value) {
    if !equal(&object["spec"], &old["spec"]) {
        c.invalid("spec", &object["spec"], "field is immutable");
    }
}

pub fn lease(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.positive(spec, "leaseDurationSeconds");
        c.not_negative(spec, "leaseTransitions");
        if has(spec, "strategy") {
            let strategy = text(spec, "strategy");
            if strategy.contains('/') {
                c.rule("strategy", strategy, names::qualified_name);
            }
        }
    });
}

pub fn priority_class(c: &mut Checker, class: &Value) {
    let name = text(&class["metadata"], "name");
    let value = int(class, "value").unwrap_or(0);
    let system = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
    if name.starts_with("system-") {
        if !system.contains(&(name, value)) {
            c.forbidden("metadata.name", "priority class names with 'system-' prefix are reserved for system use only. error: class is not a known system priority class");
        }
    } else if value > 1_000_000_000 {
        c.forbidden("value", "maximum allowed value of a user defined priority is 1000000000");
    }
    c.optional_choice(class, "preemptionPolicy", &["Never", "PreemptLowerPriority"]);
}

pub fn priority_class_update(c: &mut Checker, class: &Value, old: &Value) {
    if int(class, "value").unwrap_or(0) != int(old, "value").unwrap_or(0) {
        c.forbidden("value", "may not be changed in an update.");
    }
    c.immutable(class, old, "preemptionPolicy");
}

pub fn runtime_class(c: &mut Checker, class: &Value) {
    match text(class, "handler") {
        "" => c.required("handler", ""),
        handler => c.rule("handler", handler, names::dns_label),
    }
    c.at(class, "overhead", |c, overhead| {
        c.each_key(overhead, "podFixed", |c, name, value| {
            super::resources::validate_container_resource_name(c, name);
            super::resources::validate_quantity(c, name, value);
        });
    });
    c.if_set(class, "scheduling", |c, scheduling| {
        labels::validate(c, scheduling, "nodeSelector");
        node_selector::validate_tolerations(c, scheduling);
    });
}

pub fn runtime_class_update(c: &mut Checker, class: &Value, old: &Value) {
    c.immutable(class, old, "handler");
}

fn cel_selectors(c: &mut Checker, holder: &Value) {
    if list(holder, "selectors").len() > 32 {
        c.too_many("selectors", list(holder, "selectors").len(), 32);
    }
    c.each(holder, "selectors", |c, selector| match &selector["cel"] {
        Value::Null => c.required("cel", ""),
        cel => c.within("cel", |c| {
            if text(cel, "expression").trim().is_empty() {
                c.invalid(
                    "expression",
                    &cel["expression"],
                    "compilation failed: ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
                );
            }
            if text(cel, "expression").len() > 10 * 1024 {
                c.too_long("expression", 10 * 1024);
            }
        }),
    });
}

pub fn device_class(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        cel_selectors(c, spec);
        c.each(spec, "config", |c, config| {
            c.if_set(config, "opaque", |c, o| c.name(o, "driver", names::dns_subdomain))
        });
        if has(spec, "extendedResourceName") && !super::resources::is_extended(text(spec, "extendedResourceName")) {
            let why = "must be a valid extended resource name";
            c.invalid("extendedResourceName", &spec["extendedResourceName"], why);
        }
    });
}

pub fn resource_claim(c: &mut Checker, object: &Value) {
    c.at(object, "spec", claim_spec);
}

/// A claim's spec, also of claim templates.
pub fn claim_spec(c: &mut Checker, spec: &Value) {
    c.at(spec, "devices", |c, devices| {
        let requests = list(devices, "requests");
        if requests.len() > 32 {
            c.too_many("requests", requests.len(), 32);
        }
        c.each_indexed(devices, "requests", |c, i, request| {
            c.rule("name", text(request, "name"), names::dns_label);
            if seen_before(requests, i, |r| text(r, "name").to_string()) {
                c.duplicate("name", &request["name"]);
            }
            match (has(request, "exactly"), is_empty(request, "firstAvailable")) {
                (false, true) => c.required("", "exactly one of `exactly` or `firstAvailable` is required"),
                (true, false) => c.invalid(
                    "",
                    &Value::Null,
                    "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
                ),
                _ => {}
            }
            c.if_set(request, "exactly", device_request);
            c.each(request, "firstAvailable", |c, r| {
                c.name(r, "name", names::dns_label);
                device_request(c, r);
            });
        });
    });
}

fn device_request(c: &mut Checker, request: &Value) {
    c.name(request, "deviceClassName", names::dns_subdomain);
    cel_selectors(c, request);
    match text(request, "allocationMode") {
        "All" => {
            if int(request, "count").unwrap_or(0) != 0 {
                c.invalid("count", &request["count"], "must not be specified when allocationMode is 'All'");
            }
        }
        "ExactCount" => c.positive(request, "count"),
        _ => c.not_supported("allocationMode", &request["allocationMode"], &["All", "ExactCount"]),
    }
}

pub fn resource_claim_update(c: &mut Checker, object: &Value, old: &Value) {
    c.immutable(object, old, "spec");
}

fn pool_name(c: &mut Checker, name: &str) {
    if name.is_empty() {
        c.required("name", "");
        return;
    }
    if name.len() > 253 {
        c.too_long("name", 253);
    }
    for part in name.split('/') {
        c.rule("name", part, names::dns_subdomain);
    }
}

pub fn resource_slice(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let driver = text(spec, "driver");
        if driver.is_empty() {
            c.required("driver", "");
        }
        if driver.len() > 63 {
            c.too_long("driver", 63);
        }
        if !driver.is_empty() {
            c.rule("driver", driver, names::dns_subdomain);
        }
        c.at(spec, "pool", |c, pool| {
            pool_name(c, text(pool, "name"));
            let count = int(pool, "resourceSliceCount").unwrap_or(0);
            if count <= 0 {
                c.invalid("resourceSliceCount", &count.into(), "must be greater than zero");
            }
            c.not_negative(pool, "generation");
        });
        if has(spec, "nodeName") {
            c.rule("nodeName", text(spec, "nodeName"), names::dns_subdomain);
        }
        let places = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
        let set = places.iter().filter(|f| has(spec, f) && spec[**f] != false && spec[**f] != "").count();
        if set == 0 {
            c.required("", "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required");
        } else if set > 1 {
            c.invalid("", &Value::Null, "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set");
        }
        c.if_set(spec, "nodeSelector", |c, selector| {
            if list(selector, "nodeSelectorTerms").len() != 1 {
                c.invalid("nodeSelectorTerms", &selector["nodeSelectorTerms"], "must have exactly one node selector term");
            }
            node_selector::validate(c, selector);
        });
        let devices = list(spec, "devices");
        c.each_indexed(spec, "devices", |c, i, device| {
            c.rule("name", text(device, "name"), names::dns_label);
            if !text(device, "name").is_empty() && seen_before(devices, i, |d| text(d, "name").to_string()) {
                c.duplicate("", &device["name"]);
            }
        });
    });
}

pub fn resource_slice_update(c: &mut Checker, object: &Value, old: &Value) {
    resource_slice(c, object);
    c.within("spec", |c| {
        for field in ["driver", "nodeName"] {
            c.immutable(&object["spec"], &old["spec"], field);
        }
        c.within("pool", |c| c.immutable(&object["spec"]["pool"], &old["spec"]["pool"], "name"));
    });
}

pub fn api_service(c: &mut Checker, object: &Value) {
    let spec = &object["spec"];
    let (group, version) = (text(spec, "group"), text(spec, "version"));
    let wanted = format!("{version}.{group}");
    let name = text(&object["metadata"], "name");
    if !name.is_empty() && name != wanted {
        c.invalid_text("metadata.name", name, format!("must be `spec.version+\".\"+spec.group`: {wanted:?}"));
    }
    c.within("spec", |c| {
        if group.is_empty() {
            if version != "v1" {
                c.required("group", "only v1 may have an empty group and it better be legacy kube");
            }
        } else {
            for message in names::dns_subdomain(group) {
                c.invalid_text("group", group, message);
            }
        }
        for message in names::dns_1035_label(version) {
            c.invalid_text("version", version, message);
        }
        let minimum = int(spec, "groupPriorityMinimum").unwrap_or(0);
        if minimum <= 0 || minimum > 20_000 {
            c.invalid("groupPriorityMinimum", &minimum.into(), "must be positive and less than 20000");
        }
        let priority = int(spec, "versionPriority").unwrap_or(0);
        if priority <= 0 || priority > 1000 {
            c.invalid("versionPriority", &priority.into(), "must be positive and less than 1000");
        }
        if !has(spec, "service") {
            if !is_empty(spec, "caBundle") {
                c.invalid("caBundle", &spec["caBundle"], "local APIServices may not have a caBundle");
            }
            if spec["insecureSkipTLSVerify"] == true {
                c.invalid(
                    "insecureSkipTLSVerify",
                    &true.into(),
                    "local APIServices may not have insecureSkipTLSVerify",
                );
            }
            return;
        }
        c.at(spec, "service", |c, service| {
            c.need(service, "namespace");
            c.need(service, "name");
            if int(service, "port").is_some_and(|p| !(1..=65535).contains(&p)) {
                c.invalid("port", &service["port"], "port is not valid: must be between 1 and 65535, inclusive");
            }
        });
        if spec["insecureSkipTLSVerify"] == true && !is_empty(spec, "caBundle") {
            c.invalid("insecureSkipTLSVerify", &true.into(), "may not be true if caBundle is present");
        }
    });
}

/// An access review asks about exactly one thing.
pub fn access_review(c: &mut Checker, object: &Value, of_self: bool) {
    c.at(object, "spec", |c, spec| {
        match (has(spec, "resourceAttributes"), has(spec, "nonResourceAttributes")) {
            (true, true) => {
                let why = "cannot be specified in combination with resourceAttributes";
                c.invalid("nonResourceAttributes", &spec["nonResourceAttributes"], why);
            }
            (false, false) => {
                let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
                c.invalid("resourceAttributes", &spec["resourceAttributes"], why);
            }
            _ => {}
        }
        if !of_self && text(spec, "user").is_empty() && list(spec, "groups").is_empty() {
            c.invalid_text("user", text(spec, "user"), "at least one of user or group must be specified");
        }
    });
}
