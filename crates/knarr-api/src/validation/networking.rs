//! Network policies, ingresses, their classes, addresses and service ranges.

use serde_json::Value;

use super::check::{Checker, has, int, is_empty, list, parse_cidr, parse_ip, text};
use super::labels;
use crate::names;

pub fn network_policy(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.at(spec, "podSelector", labels::validate_selector);
        for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
            c.each(spec, rules, |c, rule| {
                c.each(rule, "ports", policy_port);
                c.each(rule, peers, policy_peer);
            });
        }
        if list(spec, "policyTypes").len() > 2 {
            c.invalid("policyTypes", &spec["policyTypes"], "may not specify more than two policyTypes");
            return;
        }
        for (i, kind) in list(spec, "policyTypes").iter().enumerate() {
            if kind != "Ingress" && kind != "Egress" {
                c.not_supported(&format!("policyTypes[{i}]"), kind, &["Ingress", "Egress"]);
            }
        }
    });
}

fn policy_port(c: &mut Checker, port: &Value) {
    if has(port, "protocol") {
        c.supported(port, "protocol", &["TCP", "UDP", "SCTP"]);
    }
    if has(port, "port") {
        c.port_or_name(port, "port");
        if let Some(end) = int(port, "endPort") {
            match int(port, "port") {
                Some(start) => {
                    if end < start {
                        c.invalid("endPort", &start.into(), "must be greater than or equal to `port`");
                    }
                    c.port(port, "endPort");
                }
                None => c.invalid("endPort", &end.into(), "may not be specified when `port` is non-numeric"),
            }
        }
    } else if has(port, "endPort") {
        c.invalid("endPort", &port["endPort"], "may not be specified when `port` is not specified");
    }
}

fn policy_peer(c: &mut Checker, peer: &Value) {
    let found = ["podSelector", "namespaceSelector", "ipBlock"].iter().filter(|f| has(peer, f)).count();
    c.if_set(peer, "podSelector", labels::validate_selector);
    c.if_set(peer, "namespaceSelector", labels::validate_selector);
    c.if_set(peer, "ipBlock", |c, block| {
        let range = text(block, "cidr");
        if range.is_empty() {
            c.required("cidr", "");
            return;
        }
        c.cidr("cidr", range, false);
        let Some((base, bits)) = parse_cidr(range) else { return };
        for (i, except) in list(block, "except").iter().enumerate() {
            let field = format!("except[{i}]");
            let except = except.as_str().unwrap_or_default();
            c.cidr(&field, except, false);
            if let Some((inner, inner_bits)) = parse_cidr(except) {
                let network = ipnet::IpNet::new(base, bits).map(|n| n.trunc());
                if inner_bits <= bits || !network.is_ok_and(|n| n.contains(&inner)) {
                    c.invalid_text(&field, except, "must be a strict subset of `cidr`");
                }
            }
        }
    });
    match found {
        0 => c.required("", "must specify a peer"),
        1 => {}
        _ if has(peer, "ipBlock") => c.forbidden("", "may not specify both ipBlock and another peer"),
        _ => {}
    }
}

/// A new ingress says its class once, or twice the same.
pub fn ingress_create(c: &mut Checker, object: &Value) {
    ingress(c, object);
    const ANNOTATION: &str = "kubernetes.io/ingress.class";
    let annotation = object["metadata"]["annotations"].get(ANNOTATION).and_then(Value::as_str);
    let class = object["spec"]["ingressClassName"].as_str();
    if let (Some(annotation), Some(class)) = (annotation, class)
        && annotation != class
    {
        let why = "must match `ingressClassName` when both are specified";
        c.invalid_text(&format!("annotations.{ANNOTATION}"), annotation, why);
    }
}

pub fn ingress(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        if list(spec, "rules").is_empty() && !has(spec, "defaultBackend") {
            c.invalid("", &spec["rules"], "either `defaultBackend` or `rules` must be specified");
        }
        c.if_set(spec, "defaultBackend", ingress_backend);
        c.each(spec, "rules", |c, rule| {
            let host = text(rule, "host");
            if !host.is_empty() {
                if parse_ip(host).is_some() {
                    c.invalid_text("host", host, "must be a DNS name, not an IP address");
                }
                let rule = if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
                c.rule("host", host, rule);
            }
            c.if_set(rule, "http", |c, http| {
                if list(http, "paths").is_empty() {
                    c.required("paths", "");
                }
                c.each(http, "paths", ingress_path);
            });
        });
        c.each(spec, "tls", |c, tls| {
            for (i, host) in list(tls, "hosts").iter().enumerate() {
                let host = host.as_str().unwrap_or_default();
                let rule = if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
                c.rule(&format!("hosts[{i}]"), host, rule);
            }
            if !is_empty(tls, "secretName") {
                c.rule("secretName", text(tls, "secretName"), names::dns_subdomain);
            }
        });
        if has(spec, "ingressClassName") {
            c.rule("ingressClassName", text(spec, "ingressClassName"), names::dns_subdomain);
        }
    });
}

fn ingress_path(c: &mut Checker, path: &Value) {
    if !has(path, "pathType") {
        c.required("pathType", "pathType must be specified");
        return;
    }
    let value = text(path, "path");
    match text(path, "pathType") {
        "Exact" | "Prefix" => {
            if !value.starts_with('/') {
                c.invalid_text("path", value, "must be an absolute path");
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if value.contains(bad) {
                    c.invalid_text("path", value, format!("must not contain '{bad}'"));
                }
            }
            for bad in ["/..", "/."] {
                if value.ends_with(bad) {
                    c.invalid_text("path", value, format!("cannot end with '{bad}'"));
                }
            }
        }
        "ImplementationSpecific" => {
            if !value.is_empty() && !value.starts_with('/') {
                c.invalid_text("path", value, "must be an absolute path");
            }
        }
        _ => c.not_supported("pathType", &path["pathType"], &["Exact", "ImplementationSpecific", "Prefix"]),
    }
    c.at(path, "backend", ingress_backend);
}

fn ingress_backend(c: &mut Checker, backend: &Value) {
    match (has(backend, "resource"), has(backend, "service")) {
        (true, true) => c.invalid_text("", "", "cannot set both resource and service backends"),
        (true, false) => c.at(backend, "resource", |c, r| {
            if has(r, "apiGroup") {
                c.rule("apiGroup", text(r, "apiGroup"), names::dns_subdomain);
            }
            c.name(r, "kind", names::path_segment);
            c.name(r, "name", names::path_segment);
        }),
        (false, true) => {
            let service = &backend["service"];
            c.within("service", |c| c.name(service, "name", names::dns_label));
            let port = &service["port"];
            let number = int(port, "number").unwrap_or(0);
            match (text(port, "name"), number) {
                ("", 0) => c.required("", "port name or number is required"),
                ("", _) => c.within("service.port", |c| c.port(port, "number")),
                (_, n) if n != 0 => c.invalid_text("", "", "cannot set both port name & port number"),
                (name, _) => c.rule("service.port.name", name, names::port_name),
            }
        }
        (false, false) => c.invalid_text("", "", "resource or service backend is required"),
    }
}

pub fn ingress_class(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let controller = text(spec, "controller");
        if controller.len() > 250 {
            c.too_long("controller", 250);
        }
        super::batch::domain_prefixed_path(c, spec, "controller");
        c.if_set(spec, "parameters", |c, parameters| {
            if has(parameters, "apiGroup") {
                c.rule("apiGroup", text(parameters, "apiGroup"), names::dns_subdomain);
            }
            c.name(parameters, "kind", names::path_segment);
            c.name(parameters, "name", names::path_segment);
            c.given_choice(parameters, "scope", &["Cluster", "Namespace"]);
            match (text(parameters, "scope"), parameters["namespace"].as_str()) {
                ("Namespace", None) => c.required("namespace", "`parameters.scope` is set to 'Namespace'"),
                ("Namespace", Some(namespace)) => c.rule("namespace", namespace, names::dns_label),
                ("Cluster", Some(_)) => c.forbidden("namespace", "`parameters.scope` is set to 'Cluster'"),
                _ => {}
            }
        });
    });
}

pub fn ingress_class_update(c: &mut Checker, object: &Value, old: &Value) {
    c.within("spec", |c| c.immutable_as("string", &object["spec"], &old["spec"], "controller"));
    ingress_class(c, object);
}

/// The name of an IPAddress object is the address.
pub fn ip_address_name(name: &str) -> Vec<String> {
    let mut scratch = Checker::new();
    scratch.canonical_ip("name", name);
    scratch.into_errors().into_iter().map(|e| e.detail).collect()
}

pub fn ip_address(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        if !has(spec, "parentRef") {
            c.required("parentRef", "");
            return;
        }
        c.at(spec, "parentRef", |c, parent| {
            if !is_empty(parent, "group") {
                c.rule("group", text(parent, "group"), names::dns_subdomain);
            }
            c.name(parent, "resource", names::path_segment);
            c.name(parent, "name", names::path_segment);
            if !is_empty(parent, "namespace") {
                c.rule("namespace", text(parent, "namespace"), names::path_segment);
            }
        });
    });
}

pub fn ip_address_update(c: &mut Checker, object: &Value, old: &Value) {
    ip_address(c, object);
    c.within("spec", |c| c.immutable_as("*networking.ParentReference", &object["spec"], &old["spec"], "parentRef"));
}

pub fn service_cidr(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        let ranges = list(spec, "cidrs");
        if ranges.is_empty() {
            c.required("cidrs", "at least one CIDR required");
            return;
        }
        if ranges.len() > 2 {
            c.invalid("cidrs", &spec["cidrs"], "may only hold up to 2 values");
        }
        let parsed: Vec<_> = ranges.iter().map(|r| r.as_str().and_then(parse_cidr)).collect();
        if let [Some((a, _)), Some((b, _))] = parsed.as_slice()
            && a.is_ipv4() == b.is_ipv4()
        {
            c.invalid(
                "cidrs",
                &spec["cidrs"],
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            );
        }
        for (i, range) in ranges.iter().enumerate() {
            c.cidr(&format!("cidrs[{i}]"), range.as_str().unwrap_or_default(), true);
        }
    });
}

/// Nothing changes, except that a second family may join the first.
pub fn service_cidr_update(c: &mut Checker, object: &Value, old: &Value) {
    let (new, before) = (list(&object["spec"], "cidrs"), list(&old["spec"], "cidrs"));
    let joins = new.len() == 2 && before.len() == 1;
    if new.len() != before.len() && !joins {
        c.invalid("spec.cidrs", &object["spec"]["cidrs"], "field is immutable");
        return;
    }
    for (i, (a, b)) in new.iter().zip(before).enumerate() {
        if a != b {
            c.invalid(&format!("spec.cidrs[{i}]"), a, "field is immutable");
        }
    }
    if joins {
        service_cidr(c, object);
    }
}
