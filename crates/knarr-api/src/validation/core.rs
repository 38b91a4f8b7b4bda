//! Namespaces, endpoints and events.

use std::net::IpAddr;

use serde_json::Value;

use super::check::{Checker, has, is_empty, list, parse_ip, text};
use crate::names;

pub fn namespace(c: &mut Checker, object: &Value) {
    for finalizer in list(&object["spec"], "finalizers") {
        let name = finalizer.as_str().unwrap_or_default();
        c.rule("spec.finalizers", name, names::qualified_name);
        if !name.contains('/') && !super::metadata::is_standard_finalizer(name) {
            c.invalid_text(
                "spec.finalizers",
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

/// An address that an endpoint may have: routable from elsewhere.
pub fn endpoint_ip(c: &mut Checker, field: &str, value: &str) {
    let Some(address) = parse_ip(value) else {
        c.invalid_text(field, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return;
    };
    if address.is_unspecified() {
        c.invalid_text(field, value, format!("may not be unspecified ({value})"));
    }
    if address.is_loopback() {
        c.invalid_text(field, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        c.invalid_text(field, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        c.invalid_text(field, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

pub fn endpoints(c: &mut Checker, object: &Value) {
    c.each(object, "subsets", |c, subset| {
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            c.required("", "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            c.each(subset, field, |c, address| {
                let ip = text(address, "ip");
                endpoint_ip(c, "ip", ip);
                if parse_ip(ip).is_none() {
                    c.invalid_text("ip", ip, "must be a valid IP address");
                }
                if !is_empty(address, "hostname") {
                    c.rule("hostname", text(address, "hostname"), names::dns_label);
                }
                if has(address, "nodeName") {
                    c.rule("nodeName", text(address, "nodeName"), names::dns_subdomain);
                }
            });
        }
        let many = list(subset, "ports").len() > 1;
        c.each(subset, "ports", |c, port| {
            match text(port, "name") {
                "" if many => c.required("name", ""),
                "" => {}
                name => c.rule("name", name, names::dns_label),
            }
            c.port(port, "port");
            c.choice(port, "protocol", &["SCTP", "TCP", "UDP"]);
            if has(port, "appProtocol") {
                c.rule("appProtocol", text(port, "appProtocol"), names::qualified_name);
            }
        });
    });
}
