//! Endpoint slices.

use serde_json::Value;

use super::check::{Checker, entries, equal, has, list, parse_ip, repeated_text, text};
use super::labels;
use crate::names;

const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
const TOPOLOGY_LABELS: usize = 16;
const HINTS: usize = 8;

pub fn validate(c: &mut Checker, object: &Value) {
    address_type_and_ports(c, object);
    endpoints(c, object);
}

/// The kind of addresses stays; endpoints that did not change are not checked again, for older rules were laxer.
pub fn validate_update(c: &mut Checker, object: &Value, old: &Value) {
    address_type_and_ports(c, object);
    if !equal(&object["endpoints"], &old["endpoints"]) {
        endpoints(c, object);
    }
    c.immutable(object, old, "addressType");
}

fn address_type_and_ports(c: &mut Checker, object: &Value) {
    c.choice(object, "addressType", &["FQDN", "IPv4", "IPv6"]);
    let ports = list(object, "ports");
    if ports.len() > PORTS {
        c.too_many("ports", ports.len(), PORTS);
        return;
    }
    let mut seen = std::collections::HashSet::new();
    c.each(object, "ports", |c, port| {
        let name = text(port, "name");
        if !name.is_empty() {
            c.rule("name", name, names::dns_label);
        }
        if !seen.insert(name.to_string()) {
            c.duplicate("name", &name.into());
        }
        if has(port, "protocol") {
            c.supported(port, "protocol", &["SCTP", "TCP", "UDP"]);
        } else {
            c.required("protocol", "");
        }
        if has(port, "appProtocol") {
            c.rule("appProtocol", text(port, "appProtocol"), names::qualified_name);
        }
    });
}

fn endpoints(c: &mut Checker, object: &Value) {
    let count = list(object, "endpoints").len();
    if count > ENDPOINTS {
        c.too_many("endpoints", count, ENDPOINTS);
        return;
    }
    let kind = text(object, "addressType");
    c.each(object, "endpoints", |c, endpoint| {
        addresses(c, endpoint, kind);
        if has(endpoint, "nodeName") {
            c.rule("nodeName", text(endpoint, "nodeName"), names::dns_subdomain);
        }
        let topology = entries(endpoint, "deprecatedTopology").count();
        if topology > TOPOLOGY_LABELS {
            c.too_many("deprecatedTopology", topology, TOPOLOGY_LABELS);
        }
        labels::validate(c, endpoint, "deprecatedTopology");
        if has(endpoint, "hostname") {
            c.rule("hostname", text(endpoint, "hostname"), names::dns_label);
        }
        c.if_set(endpoint, "hints", hints);
    });
}

fn addresses(c: &mut Checker, endpoint: &Value, kind: &str) {
    let addresses = list(endpoint, "addresses");
    if addresses.is_empty() {
        c.required("addresses", "must contain at least 1 address");
    } else if addresses.len() > ADDRESSES {
        c.too_many("addresses", addresses.len(), ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let (field, address) = (format!("addresses[{i}]"), address.as_str().unwrap_or_default());
        match kind {
            "IPv4" => c.ip(&field, address),
            "IPv6" => c.canonical_ip(&field, address),
            "FQDN" => fully_qualified(c, &field, address),
            _ => {}
        }
        let Some(parsed) = parse_ip(address).filter(|_| kind.starts_with("IP")) else { continue };
        if parsed.is_ipv4() != (kind == "IPv4") {
            // Upstream leaves the index out here.
            c.invalid_text("addresses", address, format!("must be an {kind} address"));
        }
        super::core::endpoint_ip(c, &field, address);
    }
}

fn fully_qualified(c: &mut Checker, field: &str, address: &str) {
    if address.is_empty() {
        c.required(field, "");
        return;
    }
    let name = address.strip_suffix('.').unwrap_or(address);
    let messages = names::dns_subdomain(name);
    if !messages.is_empty() {
        c.invalid_text(field, name, messages.join(","));
    } else if name.split('.').count() < 2 {
        c.invalid_text(field, name, "should be a domain with at least two segments separated by dots");
    } else {
        for label in name.split('.') {
            let messages = names::dns_label(label);
            if !messages.is_empty() {
                c.invalid_text(field, label, messages.join(","));
            }
        }
    }
}

fn hints(c: &mut Checker, hints: &Value) {
    for (field, rule) in [("forZones", names::label_value as names::Rule), ("forNodes", names::dns_subdomain)] {
        let items = list(hints, field);
        if items.len() > HINTS {
            c.too_many(field, items.len(), HINTS);
            return;
        }
        let repeated_name = repeated_text(items, "name");
        c.each_indexed(hints, field, |c, i, hint| {
            if repeated_name[i] {
                c.duplicate("name", &text(hint, "name").into());
            }
            c.rule("name", text(hint, "name"), rule);
        });
    }
}
