//! Pod specs, of pods and of every template.

use serde_json::Value;

use super::check::{Checker, entries, flag, has, int, is_empty, list, repeated_text, text};
use super::{annotations, container, labels, metadata, node_selector, resources, security, volume, windows};
use crate::names;

/// A pod template: labels, annotations and the spec.
pub fn validate_template(c: &mut Checker, template: &Value) {
    validate_template_metadata(c, template);
    c.at(template, "spec", |c, spec| {
        validate_spec(c, spec, "");
        if !list(spec, "ephemeralContainers").is_empty() {
            c.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template");
        }
    });
}

/// Upstream checks the labels of a template at `labels`, not at `metadata.labels`.
pub fn validate_template_metadata(c: &mut Checker, template: &Value) {
    labels::validate(c, &template["metadata"], "labels");
    metadata::validate_annotations(c, &template["metadata"]);
}

pub fn validate_pod(c: &mut Checker, pod: &Value) {
    annotations::validate(c, pod);
    c.at(pod, "spec", |c, spec| {
        validate_spec(c, spec, text(&pod["metadata"], "name"));
        tokens_need_an_account(c, spec);
    });
    validate_images(c, pod);
}

/// A new pod: what only later changes may bring, and older annotations that must agree with the fields of today.
pub fn validate_pod_create(c: &mut Checker, pod: &Value) {
    validate_pod(c, pod);
    c.at(pod, "spec", |c, spec| {
        if !is_empty(spec, "ephemeralContainers") {
            c.forbidden("ephemeralContainers", "cannot be set on create");
        }
        if !is_empty(spec, "nodeName") && !is_empty(spec, "schedulingGates") {
            c.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared");
        }
    });
    annotations::must_match_fields(c, pod);
}

/// Templates may say more loosely what a pod must say exactly.
fn validate_images(c: &mut Checker, pod: &Value) {
    c.at(pod, "spec", |c, spec| {
        for field in ["containers", "initContainers"] {
            c.each(spec, field, validate_image);
        }
    });
}

pub fn validate_image(c: &mut Checker, container: &Value) {
    let image = text(container, "image");
    if image.trim() != image {
        c.invalid_text("image", image, "must not have leading or trailing whitespace");
    }
}

fn tokens_need_an_account(c: &mut Checker, spec: &Value) {
    if !text(spec, "serviceAccountName").is_empty() {
        return;
    }
    c.each(spec, "volumes", |c, volume| {
        c.at(volume, "projected", |c, projected| {
            c.each(projected, "sources", |c, source| {
                if has(source, "serviceAccountToken") {
                    c.forbidden("serviceAccountToken", "must not be specified when serviceAccountName is not set");
                }
            });
        });
    });
}

/// A pod's spec.
/// `pod` is the pod's name, where there is one already.
fn validate_spec(c: &mut Checker, spec: &Value, pod: &str) {
    if !has(spec, "terminationGracePeriodSeconds") {
        c.required("terminationGracePeriodSeconds", "");
    }
    let volumes = volume::validate_volumes(c, spec, pod);
    container::validate_containers(c, spec, volumes);
    c.choice(spec, "restartPolicy", &["Always", "OnFailure", "Never"]);
    c.choice(spec, "dnsPolicy", &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    labels::validate(c, spec, "nodeSelector");
    security::validate_pod(c, spec);
    c.if_set(spec, "affinity", node_selector::validate_affinity);
    validate_dns_config(c, spec);
    validate_gates(c, spec);
    node_selector::validate_spread(c, spec);
    validate_names(c, spec);
    if int(spec, "activeDeadlineSeconds").is_some() {
        c.in_range(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX));
    }
    node_selector::validate_tolerations(c, spec);
    validate_host_aliases(c, spec);
    if has(spec, "preemptionPolicy") {
        c.choice(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    }
    resources::validate_overhead(c, spec, "overhead");
    if has(spec, "resources") {
        resources::validate_pod_requirements(c, spec);
    }
    validate_os(c, spec);
    validate_resource_claims(c, spec);
    container::validate_file_keys(c, spec);
}

fn validate_names(c: &mut Checker, spec: &Value) {
    for (field, rule) in [
        ("serviceAccountName", names::dns_subdomain as names::Rule),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
    ] {
        if !is_empty(spec, field) {
            c.rule(field, text(spec, field), rule);
        }
    }
    if has(spec, "runtimeClassName") {
        c.rule("runtimeClassName", text(spec, "runtimeClassName"), names::dns_subdomain);
    }
    if has(spec, "hostnameOverride") {
        let name = text(spec, "hostnameOverride");
        if flag(spec, "setHostnameAsFQDN") {
            c.forbidden("hostnameOverride", "may not be specified when setHostnameAsFQDN is true");
        }
        if flag(spec, "hostNetwork") {
            c.forbidden("hostnameOverride", "may not be specified when hostNetwork is true");
        }
        if name.len() > 64 {
            c.too_long("hostnameOverride", 64);
        }
        c.rule("hostnameOverride", name, names::dns_subdomain);
    }
}

fn validate_gates(c: &mut Checker, spec: &Value) {
    c.each(spec, "readinessGates", |c, gate| {
        c.rule("conditionType", text(gate, "conditionType"), names::qualified_name)
    });
    let gates = list(spec, "schedulingGates");
    let repeated_name = repeated_text(gates, "name");
    c.each_indexed(spec, "schedulingGates", |c, i, gate| {
        c.rule("", text(gate, "name"), names::qualified_name);
        if repeated_name[i] {
            c.duplicate("", &gate["name"]);
        }
    });
}

fn validate_dns_config(c: &mut Checker, spec: &Value) {
    let config = &spec["dnsConfig"];
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            c.required("dnsConfig", "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if list(config, "nameservers").is_empty() {
            c.required("dnsConfig.nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None");
            return;
        }
    }
    c.if_set(spec, "dnsConfig", |c, config| {
        let servers = list(config, "nameservers");
        if servers.len() > 3 {
            c.invalid("nameservers", &config["nameservers"], "must not have more than 3 nameservers");
        }
        for (i, server) in servers.iter().enumerate() {
            c.ip(&format!("nameservers[{i}]"), server.as_str().unwrap_or_default());
        }
        let searches = list(config, "searches");
        if searches.len() > 32 {
            c.invalid("searches", &config["searches"], "must not have more than 32 search paths");
        }
        for (i, search) in searches.iter().enumerate() {
            let search = search.as_str().unwrap_or_default();
            if search != "." {
                let bare = search.strip_suffix('.').unwrap_or(search);
                c.rule(&format!("searches[{i}]"), bare, names::dns_subdomain_with_underscore);
            }
        }
        c.each(config, "options", |c, option| {
            if text(option, "name").is_empty() {
                c.required("", "must not be empty");
            }
        });
    });
}

fn validate_host_aliases(c: &mut Checker, spec: &Value) {
    c.each(spec, "hostAliases", |c, alias| {
        c.ip("ip", text(alias, "ip"));
        for name in list(alias, "hostnames") {
            c.rule("hostnames", name.as_str().unwrap_or_default(), names::dns_subdomain);
        }
    });
}

fn validate_os(c: &mut Checker, spec: &Value) {
    if !has(spec, "os") {
        return;
    }
    match text(&spec["os"], "name") {
        "" => c.required("os.name", ""),
        "linux" => windows::refuse_windows_options(c, spec),
        "windows" => windows::refuse_linux_options(c, spec),
        _ => c.not_supported("os", &spec["os"]["name"], &["linux", "windows"]),
    }
}

fn validate_resource_claims(c: &mut Checker, spec: &Value) {
    let claims = list(spec, "resourceClaims");
    let repeated_name = repeated_text(claims, "name");
    c.each_indexed(spec, "resourceClaims", |c, i, claim| {
        match text(claim, "name") {
            "" => c.required("name", ""),
            name => {
                if repeated_name[i] {
                    c.duplicate("name", &name.into());
                } else {
                    c.rule("name", name, names::dns_label);
                }
            }
        }
        match (has(claim, "resourceClaimName"), has(claim, "resourceClaimTemplateName")) {
            (true, true) => c.invalid(
                "",
                claim,
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            ),
            (false, false) => {
                c.invalid("", claim, "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")
            }
            _ => {}
        }
        for field in ["resourceClaimName", "resourceClaimTemplateName"] {
            if has(claim, field) {
                c.rule(field, text(claim, field), names::dns_subdomain);
            }
        }
    });
}

/// The quality-of-service class that requests and limits make.
pub fn qos_class(spec: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    for container in list(spec, "containers").iter().chain(list(spec, "initContainers")) {
        let resources = &container["resources"];
        for name in ["cpu", "memory"] {
            let (limit, request) = (&resources["limits"][name], &resources["requests"][name]);
            let set = |v: &Value| !v.is_null() && v != "0";
            any |= set(limit) || set(request);
            guaranteed &= set(limit) && (request.is_null() || limit == request);
        }
    }
    let pod_level = entries(&spec["resources"], "requests").chain(entries(&spec["resources"], "limits")).next();
    match () {
        () if guaranteed && any => "Guaranteed",
        () if any || pod_level.is_some() => "Burstable",
        () => "BestEffort",
    }
}
