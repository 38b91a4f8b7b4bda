//! Services.

use serde_json::{Value, json};

use super::check::{Checker, has, int, is_empty, list, parse_ip, repeated, repeated_items, repeated_text, text};
use super::labels;
use crate::field::ErrorList;
use crate::names;
use crate::object::Object;

fn kind(service: &Value) -> &str {
    text(&service["spec"], "type")
}

fn is_headless(service: &Value) -> bool {
    list(&service["spec"], "clusterIPs").iter().map(Value::as_str).eq([Some("None")])
}

fn is_external_name(service: &Value) -> bool {
    kind(service) == "ExternalName"
}

fn needs_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn may_have_node_ports(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

fn needs_health_port(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && text(&service["spec"], "externalTrafficPolicy") == "Local"
}

/// Whether the world outside may reach it, so that it has a policy for that traffic.
fn externally_accessible(service: &Value) -> bool {
    may_have_node_ports(service) || (kind(service) == "ClusterIP" && !list(&service["spec"], "externalIPs").is_empty())
}

/// Keeps `clusterIP` and `clusterIPs` in step where the user gave one of them.
pub fn sync_cluster_ips(service: &mut Object, old: &Value) {
    let spec = &mut service["spec"];
    let (one, many) = (text(spec, "clusterIP").to_string(), list(spec, "clusterIPs"));
    if old.is_null() {
        if !one.is_empty() && many.is_empty() {
            spec["clusterIPs"] = json!([one]);
        }
        return;
    }
    let (before, before_many) = (text(&old["spec"], "clusterIP"), list(&old["spec"], "clusterIPs"));
    let same_many = many == before_many;
    match one == before {
        true if many.is_empty() && !before_many.is_empty() => spec["clusterIPs"] = old["spec"]["clusterIPs"].clone(),
        // Only the single field changed: the list follows.
        false if same_many && one.is_empty() => spec["clusterIPs"] = Value::Null,
        false if same_many => spec["clusterIPs"] = json!([one]),
        _ => {}
    }
}

/// What an update leaves out and the server had filled in stays: addresses, families, ports. What the new type has no use
/// for goes.
pub fn prepare_update(service: &mut Object, old: &Object) {
    patch_allocated(service, old);
    sync_cluster_ips(service, old);
    drop_for_type(service, old);
}

fn patch_allocated(service: &mut Object, old: &Object) {
    if !is_external_name(service) && !is_external_name(old) {
        for field in ["clusterIP", "clusterIPs", "ipFamilies"] {
            fill(service, old, field);
        }
        // A policy of nothing is none, and not one that was left out.
        if service["spec"]["ipFamilyPolicy"].is_null() {
            fill(service, old, "ipFamilyPolicy");
        }
    }
    if needs_node_ports(service) && needs_node_ports(old) {
        keep_node_ports(&mut service["spec"], &old["spec"]);
    }
    if needs_health_port(service) && needs_health_port(old) {
        fill(service, old, "healthCheckNodePort");
    }
}

fn fill(service: &mut Object, old: &Object, field: &str) {
    if is_empty(&service["spec"], field) && has(&old["spec"], field) {
        service["spec"][field] = old["spec"][field].clone();
    }
}

fn node_ports(spec: &Value) -> Vec<i64> {
    list(spec, "ports").iter().filter_map(|port| int(port, "nodePort")).filter(|port| *port != 0).collect()
}

/// Ports are the same by their names; a number that another port of the new list has is not given twice.
fn keep_node_ports(spec: &mut Value, old: &Value) {
    let used = node_ports(spec);
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        if int(port, "nodePort").unwrap_or(0) == 0
            && let Some(before) = list(old, "ports").iter().find(|before| text(before, "name") == text(port, "name"))
            && let Some(number) = int(before, "nodePort").filter(|number| *number != 0 && !used.contains(number))
        {
            port["nodePort"] = number.into();
        }
    }
}

/// A change of type drops what the new type has not, if the user left it as it was: what they changed is the
/// validation's to refuse.
fn drop_for_type(service: &mut Object, old: &Object) {
    let unchanged = |fields: &[&str]| fields.iter().all(|field| service["spec"][*field] == old["spec"][*field]);
    let mut drop: Vec<&str> = Vec::new();
    let mut no_longer = |applies: fn(&Value) -> bool, fields: &[&'static str]| {
        if applies(old) && !applies(service) && unchanged(fields) {
            drop.extend(fields);
        }
    };
    no_longer(|s| !is_external_name(s), &["clusterIP", "clusterIPs"]);
    no_longer(|s| !is_external_name(s), &["ipFamilies"]);
    no_longer(|s| !is_external_name(s), &["ipFamilyPolicy"]);
    no_longer(needs_health_port, &["healthCheckNodePort"]);
    no_longer(|s| kind(s) == "LoadBalancer", &["allocateLoadBalancerNodePorts"]);
    no_longer(|s| kind(s) == "LoadBalancer", &["loadBalancerClass"]);
    no_longer(externally_accessible, &["externalTrafficPolicy"]);
    let before = node_ports(&old["spec"]);
    let only_old_ports = node_ports(&service["spec"]).iter().all(|port| before.contains(port));
    let no_node_ports = may_have_node_ports(old) && !may_have_node_ports(service) && only_old_ports;
    let balanced = kind(service) == "LoadBalancer";
    let Some(spec) = service["spec"].as_object_mut() else { return };
    for field in drop {
        spec.remove(field);
    }
    if no_node_ports {
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten();
        ports.filter_map(Value::as_object_mut).for_each(|port| drop_field(port, "nodePort"));
    }
    if let (false, Some(status)) = (balanced, service.get_mut("status").filter(|status| status.is_object())) {
        status["loadBalancer"] = json!({});
    }
}

fn drop_field(map: &mut serde_json::Map<String, Value>, field: &str) {
    map.remove(field);
}

pub fn validate(c: &mut Checker, service: &Value) {
    c.at(service, "spec", |c, spec| {
        let headless = is_headless(service);
        // Addresses are allocated before anything else is checked: one that is wrong is all that is told.
        let before = c.error_count();
        match is_external_name(service) {
            true => no_cluster_ips(c, spec),
            false => validate_cluster_ips(c, spec, headless),
        }
        if c.error_count() > before {
            return;
        }
        if list(spec, "ports").is_empty() && !headless && !is_external_name(service) {
            c.required("ports", "");
        }
        if headless && matches!(kind(service), "LoadBalancer" | "NodePort") {
            let why = format!("may not be set to 'None' for {} services", kind(service));
            c.invalid_text("clusterIPs[0]", "None", why);
        }
        if is_external_name(service) {
            let name = text(spec, "externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => c.required("externalName", ""),
                name => c.rule("externalName", name, names::dns_subdomain),
            }
        }
        validate_ports(c, spec);
        labels::validate(c, spec, "selector");
        validate_affinity(c, spec);
        for (i, ip) in list(spec, "externalIPs").iter().enumerate() {
            super::core::endpoint_ip(c, &format!("externalIPs[{i}]"), ip.as_str().unwrap_or_default());
        }
        c.choice(spec, "type", &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
        validate_load_balancer(c, spec);
        validate_traffic(c, service);
    });
}

/// What is wrong with the addresses of a service that has some: this is looked at before any are allocated.
pub fn cluster_ip_errors(service: &Value) -> ErrorList {
    let mut checker = Checker::starting_at("spec");
    validate_cluster_ips(&mut checker, &service["spec"], is_headless(service));
    checker.into_errors()
}

fn no_cluster_ips(c: &mut Checker, spec: &Value) {
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if !is_empty(spec, field) {
            c.forbidden(field, "may not be set for ExternalName services");
        }
    }
}

fn validate_cluster_ips(c: &mut Checker, spec: &Value, headless: bool) {
    let (one, many) = (text(spec, "clusterIP"), list(spec, "clusterIPs"));
    if !one.is_empty() {
        match many.first() {
            None => c.required("clusterIPs", ""),
            Some(first) if first != one => {
                c.invalid("clusterIPs", &spec["clusterIPs"], "first value must match `clusterIP`")
            }
            Some(_) => {}
        }
    } else if !many.is_empty() {
        c.invalid("clusterIPs", &spec["clusterIPs"], "must be empty when `clusterIP` is not specified");
    }
    let families = list(spec, "ipFamilies");
    let repeated_family = repeated_items(families);
    for (i, family) in families.iter().enumerate() {
        let field = format!("ipFamilies[{i}]");
        if family != "IPv4" && family != "IPv6" {
            c.not_supported(&field, family, &["IPv4", "IPv6"]);
        }
        if repeated_family[i] {
            c.duplicate(&field, family);
        }
    }
    c.optional_choice(spec, "ipFamilyPolicy", &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let before = c.error_count();
    for (i, ip) in many.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        if i == 0 && ip == "None" {
            if many.len() > 1 {
                c.invalid("clusterIPs", &spec["clusterIPs"], "'None' must be the first and only value");
            }
        } else {
            c.ip(&format!("clusterIPs[{i}]"), ip);
        }
    }
    let valid = c.error_count() == before;
    if many.len() > 2 {
        c.invalid("clusterIPs", &spec["clusterIPs"], "may only hold up to 2 values");
    }
    if !valid || headless {
        return;
    }
    let is_v6 = |ip: &Value| ip.as_str().and_then(parse_ip).is_some_and(|a| a.is_ipv6());
    if many.len() > 1 && many.iter().map(is_v6).filter(|v6| *v6).count() != 1 {
        c.invalid("clusterIPs", &spec["clusterIPs"], "may specify no more than one IP for each IP family");
    }
    for (i, (ip, family)) in many.iter().zip(families).enumerate() {
        let wanted = family.as_str().unwrap_or_default();
        if (wanted == "IPv4" && is_v6(ip)) || (wanted == "IPv6" && !is_v6(ip)) {
            c.invalid(
                &format!("clusterIPs[{i}]"),
                ip,
                format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`"),
            );
        }
    }
}

fn validate_ports(c: &mut Checker, spec: &Value) {
    let ports = list(spec, "ports");
    let repeated_name = repeated_text(ports, "name");
    let repeated_node_port = repeated(ports, |p| format!("{}/{}", text(p, "protocol"), p["nodePort"]));
    let repeated_port = repeated(ports, |p| format!("{}/{}", text(p, "protocol"), p["port"]));
    c.each_indexed(spec, "ports", |c, i, port| {
        match text(port, "name") {
            "" if ports.len() > 1 => c.required("name", ""),
            "" => {}
            name => {
                c.rule("name", name, names::dns_label);
                if repeated_name[i] {
                    c.duplicate("name", &name.into());
                }
            }
        }
        c.port(port, "port");
        c.choice(port, "protocol", &["SCTP", "TCP", "UDP"]);
        c.port_or_name(port, "targetPort");
        if has(port, "appProtocol") {
            c.rule("appProtocol", text(port, "appProtocol"), names::qualified_name);
        }
    });
    if text(spec, "type") == "ClusterIP" {
        c.each(spec, "ports", |c, port| {
            if node_port(port) != 0 {
                c.forbidden("nodePort", "may not be used when `type` is 'ClusterIP'");
            }
        });
    }
    c.each_indexed(spec, "ports", |c, i, port| {
        if node_port(port) != 0 && repeated_node_port[i] {
            c.duplicate("nodePort", &node_port(port).into());
        }
    });
    c.each_indexed(spec, "ports", |c, i, port| {
        if repeated_port[i] {
            let (protocol, number) = (&port["protocol"], &port["port"]);
            c.duplicate_as("core.ServicePort", "", &json!({"protocol": protocol, "port": number}), "");
        }
    });
}

fn node_port(port: &Value) -> i64 {
    int(port, "nodePort").unwrap_or(0)
}

fn validate_affinity(c: &mut Checker, spec: &Value) {
    c.choice(spec, "sessionAffinity", &["ClientIP", "None"]);
    if text(spec, "sessionAffinity") == "ClientIP" {
        let seconds = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        match seconds.as_i64() {
            None => c.required("sessionAffinityConfig", "when session affinity type is ClientIP"),
            Some(n) if !(1..=86400).contains(&n) => {
                let why = "must be greater than 0 and less than 86400";
                c.invalid("sessionAffinityConfig.clientIP.timeoutSeconds", seconds, why);
            }
            Some(_) => {}
        }
    }
}

fn validate_load_balancer(c: &mut Checker, spec: &Value) {
    let balanced = text(spec, "type") == "LoadBalancer";
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        c.forbidden("LoadBalancerSourceRanges", BALANCED_ONLY);
    }
    for (i, range) in ranges.iter().enumerate() {
        c.cidr(&format!("LoadBalancerSourceRanges[{i}]"), range.as_str().unwrap_or_default().trim(), false);
    }
    if has(spec, "allocateLoadBalancerNodePorts") && !balanced {
        c.forbidden("allocateLoadBalancerNodePorts", BALANCED_ONLY);
    }
    validate_balancer_class(c, spec);
}

const BALANCED_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";

fn validate_balancer_class(c: &mut Checker, spec: &Value) {
    match text(spec, "type") {
        _ if !has(spec, "loadBalancerClass") => {}
        "LoadBalancer" => c.rule("loadBalancerClass", text(spec, "loadBalancerClass"), names::qualified_name),
        _ => c.forbidden("loadBalancerClass", BALANCED_ONLY),
    }
}

fn validate_traffic(c: &mut Checker, service: &Value) {
    let spec = &service["spec"];
    if externally_accessible(service) {
        c.choice(spec, "externalTrafficPolicy", &["Cluster", "Local"]);
    } else if !is_empty(spec, "externalTrafficPolicy") {
        let why = "may only be set for externally-accessible services";
        c.invalid("externalTrafficPolicy", &spec["externalTrafficPolicy"], why);
    }
    let checked = needs_health_port(service);
    let port = int(spec, "healthCheckNodePort").unwrap_or(0);
    if !checked && port != 0 {
        let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        c.invalid("healthCheckNodePort", &port.into(), why);
    } else if checked && port != 0 {
        c.port(spec, "healthCheckNodePort");
    }
    c.optional_choice(spec, "internalTrafficPolicy", &["Cluster", "Local"]);
    c.optional_choice(spec, "trafficDistribution", &["PreferClose", "PreferSameZone", "PreferSameNode"]);
}

pub fn validate_update(c: &mut Checker, service: &Value, old: &Value) {
    let mut addresses = Checker::starting_at("spec");
    match is_external_name(service) {
        true => no_cluster_ips(&mut addresses, &service["spec"]),
        false => validate_cluster_ips(&mut addresses, &service["spec"], is_headless(service)),
    }
    if addresses.error_count() > 0 {
        return c.extend(addresses);
    }
    c.within("spec", |c| {
        let (spec, before) = (&service["spec"], &old["spec"]);
        let (headless, was_headless) = (is_headless(service), is_headless(old));
        let named = is_external_name(service) || is_external_name(old);
        if !(named || headless && was_headless) {
            cluster_ips_stay(c, spec, before);
        }
        if !named && !headless && !was_headless {
            families_stay(c, spec, before);
        }
        let both = kind(service) == "LoadBalancer" && kind(old) == "LoadBalancer";
        if both && spec["loadBalancerClass"] != before["loadBalancerClass"] {
            c.invalid("loadBalancerClass", &spec["loadBalancerClass"], "may not change once set");
        }
        validate_balancer_class(c, spec);
        let port = |s: &Value| int(s, "healthCheckNodePort").unwrap_or(0);
        if needs_health_port(service) && needs_health_port(old) && port(spec) != port(before) {
            c.forbidden("healthCheckNodePort", "field is immutable");
        }
    });
    validate(c, service);
}

fn cluster_ips_stay(c: &mut Checker, spec: &Value, before: &Value) {
    let (new, old) = (list(spec, "clusterIPs"), list(before, "clusterIPs"));
    if new.len() == old.len() {
        for (i, (new_ip, old_ip)) in new.iter().zip(old).enumerate() {
            if new_ip != old_ip {
                c.invalid(&format!("clusterIPs[{i}]"), &spec["clusterIPs"], "may not change once set");
            }
        }
        return;
    }
    if new.is_empty() && !old.is_empty() {
        c.invalid("clusterIPs[0]", &spec["clusterIPs"], "primary clusterIP can not be unset");
    } else if !old.is_empty() && new.first() != old.first() {
        c.invalid("clusterIPs[0]", &spec["clusterIPs"], "may not change once set");
    }
    if new.len() == 1 && old.len() > 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let why = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        c.invalid("ipFamilyPolicy", &spec["ipFamilyPolicy"], why);
    }
}

fn families_stay(c: &mut Checker, spec: &Value, before: &Value) {
    let (new, old) = (list(spec, "ipFamilies"), list(before, "ipFamilies"));
    if new.len() == old.len() {
        for _ in new.iter().zip(old).filter(|(a, b)| a != b) {
            c.invalid("ipFamilies[0]", &spec["ipFamilies"], "may not change once set");
        }
    } else if new.is_empty() && !old.is_empty() {
        c.invalid("ipFamilies[0]", &spec["ipFamilies"], "primary ipFamily can not be unset");
    } else if !old.is_empty() && new.first() != old.first() {
        c.invalid("ipFamilies[0]", &spec["ipFamilies"], "may not change once set");
    }
}
