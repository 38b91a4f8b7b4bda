//! Pod specs, of pods and of every template.

use serde_json::Value;

use super::check::{Checker, entries, equal, flag, has, int, is_empty, list, seen_before, text};
use super::{container, labels, metadata, node_selector, resources, security, volume};
use crate::names;

/// A pod template: labels, annotations and the spec.
pub fn validate_template(c: &mut Checker, template: &Value) {
    // Upstream checks the labels of a template at `labels`, not at `metadata.labels`.
    labels::validate(c, &template["metadata"], "labels");
    metadata::validate_annotations(c, &template["metadata"]);
    c.at(template, "spec", |c, spec| {
        validate_spec(c, spec);
        if !list(spec, "ephemeralContainers").is_empty() {
            c.forbidden("ephemeralContainers", "ephemeral containers not allowed in pod template");
        }
    });
}

pub fn validate_pod(c: &mut Checker, pod: &Value) {
    c.at(pod, "spec", |c, spec| {
        validate_spec(c, spec);
        if !is_empty(pod_owner_annotation(pod), "kubernetes.io/config.mirror") {
            return;
        }
        tokens_need_an_account(c, spec);
    });
    validate_images(c, pod);
    validate_ephemeral_claims(c, pod);
}

/// Templates may say more loosely what a pod must say exactly.
fn validate_images(c: &mut Checker, pod: &Value) {
    c.at(pod, "spec", |c, spec| {
        for field in ["containers", "initContainers"] {
            c.each(spec, field, |c, container| {
                let image = text(container, "image");
                if image.trim() != image {
                    c.invalid_text("image", image, "must not have leading or trailing whitespace");
                }
            });
        }
    });
}

/// The claim of an ephemeral volume is named after the pod and the volume.
fn validate_ephemeral_claims(c: &mut Checker, pod: &Value) {
    let pod_name = text(&pod["metadata"], "name");
    if pod_name.is_empty() {
        return;
    }
    c.at(pod, "spec", |c, spec| {
        c.each(spec, "volumes", |c, volume| {
            let name = text(volume, "name");
            if !has(volume, "ephemeral") || name.is_empty() || !names::dns_label(name).is_empty() {
                return;
            }
            let claim = format!("{pod_name}-{name}");
            for message in names::dns_subdomain(&claim) {
                c.invalid_text("name", name, format!("PVC name {claim:?}: {message}"));
            }
        });
    });
}

fn pod_owner_annotation(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"]
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
pub fn validate_spec(c: &mut Checker, spec: &Value) {
    if !has(spec, "terminationGracePeriodSeconds") {
        c.required("terminationGracePeriodSeconds", "");
    }
    let volumes = volume::validate_volumes(c, spec);
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
    c.optional_choice(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
    c.each_key(spec, "overhead", |c, name, value| {
        resources::validate_container_resource_name(c, name);
        resources::validate_quantity(c, name, value);
    });
    c.if_set(spec, "resources", |c, r| resources::validate_requirements(c, r, &[]));
    validate_os(c, spec);
    validate_resource_claims(c, spec);
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
        if name.len() > 64 {
            c.invalid_text("hostnameOverride", name, "must be no more than 64 characters");
        }
        c.rule("hostnameOverride", name, names::dns_subdomain);
        if flag(spec, "setHostnameAsFQDN") {
            c.forbidden("hostnameOverride", "may not be specified when setHostnameAsFQDN is true");
        }
        if flag(spec, "hostNetwork") {
            c.forbidden("hostnameOverride", "may not be specified when hostNetwork is true");
        }
    }
}

fn validate_gates(c: &mut Checker, spec: &Value) {
    c.each(spec, "readinessGates", |c, gate| {
        c.rule("conditionType", text(gate, "conditionType"), names::qualified_name)
    });
    let gates = list(spec, "schedulingGates");
    c.each_indexed(spec, "schedulingGates", |c, i, gate| {
        c.rule("", text(gate, "name"), names::qualified_name);
        if seen_before(gates, i, |v| text(v, "name").to_string()) {
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
    let os = &spec["os"];
    match text(os, "name") {
        "" => c.required("os.name", "cannot be empty"),
        "linux" | "windows" => {}
        _ => c.within("os", |c| c.not_supported("", &os["name"], &["linux", "windows"])),
    }
}

fn validate_resource_claims(c: &mut Checker, spec: &Value) {
    let claims = list(spec, "resourceClaims");
    c.each_indexed(spec, "resourceClaims", |c, i, claim| {
        match text(claim, "name") {
            "" => c.required("name", ""),
            name => {
                if seen_before(claims, i, |v| text(v, "name").to_string()) {
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

/// What may change in a pod: images, the deadline, added tolerations, and little else.
pub fn validate_update(c: &mut Checker, pod: &Value, old: &Value) {
    validate_pod(c, pod);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    let mut stop = false;
    for field in ["containers", "initContainers"] {
        if list(spec, field).len() != list(before, field).len() {
            c.forbidden(&format!("spec.{field}"), "pod updates may not add or remove containers");
            stop = true;
        }
    }
    if stop {
        return;
    }
    let errors_before = c.error_count();
    validate_deadline(c, spec, before);
    if c.error_count() > errors_before {
        return;
    }
    c.within("spec", |c| only_additional_tolerations(c, spec, before));
    if !equal(&masked(spec, before), before) {
        c.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n",
        );
    }
}

fn validate_deadline(c: &mut Checker, spec: &Value, before: &Value) {
    match (int(spec, "activeDeadlineSeconds"), int(before, "activeDeadlineSeconds")) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            c.invalid("spec.activeDeadlineSeconds", &new.into(), "must be between 0 and 2147483647, inclusive");
        }
        (Some(new), Some(old)) if new > old => {
            let why = format!("must be less than or equal to previous value {old}");
            c.invalid("spec.activeDeadlineSeconds", &new.into(), why);
        }
        (None, Some(_)) => {
            c.invalid(
                "spec.activeDeadlineSeconds",
                &Value::Null,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
}

fn only_additional_tolerations(c: &mut Checker, spec: &Value, before: &Value) {
    let kept = |old: &Value| {
        list(spec, "tolerations").iter().any(|new| {
            let mut same_time = new.clone();
            same_time["tolerationSeconds"] = old["tolerationSeconds"].clone();
            equal(&same_time, old)
        })
    };
    if !list(before, "tolerations").iter().all(kept) {
        c.forbidden("tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// The new spec with everything that may change put back.
fn masked(spec: &Value, before: &Value) -> Value {
    let mut masked = spec.clone();
    for list_name in ["containers", "initContainers"] {
        let old = list(before, list_name);
        for (container, old) in masked[list_name].as_array_mut().into_iter().flatten().zip(old) {
            container["image"] = old["image"].clone();
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        masked[field] = before[field].clone();
    }
    let grace = (int(spec, "terminationGracePeriodSeconds"), int(before, "terminationGracePeriodSeconds"));
    if grace.0 == Some(1) && grace.1.is_some_and(|old| old < 0) {
        masked["terminationGracePeriodSeconds"] = before["terminationGracePeriodSeconds"].clone();
    }
    if !list(before, "schedulingGates").is_empty() {
        for field in ["schedulingGates", "nodeSelector", "affinity"] {
            masked[field] = before[field].clone();
        }
    }
    masked
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
