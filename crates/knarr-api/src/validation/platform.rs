//! Kinds of the platform: certificates, leases, classes, API services, access reviews.

use serde_json::Value;

use super::check::{Checker, equal, has, int, is_empty, list, repeated_items, text};
use super::{labels, node_selector};
use crate::names;

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
        let repeated = repeated_items(usages);
        for (i, usage) in usages.iter().enumerate() {
            let field = format!("usages[{i}]");
            if !usage.as_str().is_some_and(|u| USAGES.contains(&u)) {
                c.not_supported(&field, usage, USAGES);
            }
            if repeated[i] {
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
            // Upstream names the field twice.
            match text(spec, "strategy") {
                "OldestEmulationVersion" => {}
                strategy if strategy.contains('/') => c.rule("strategy.strategy", strategy, names::qualified_name),
                strategy => c.not_supported("strategy.strategy", &strategy.into(), &["OldestEmulationVersion"]),
            }
        }
        if !is_empty(spec, "preferredHolder") && is_empty(spec, "strategy") {
            c.forbidden("preferredHolder", "may only be specified if `strategy` is defined");
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
                let size = text(spec, "caBundle").trim_end_matches('=').len() * 3 / 4;
                c.invalid_text("caBundle", &format!("{size} bytes"), "local APIServices may not have a caBundle");
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
