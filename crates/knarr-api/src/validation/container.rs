//! Containers: images, ports, environment, probes, mounts.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::check::{Checker, flag, has, int, is_empty, list, repeated_text, text};
use super::{resources, security, volume};
use crate::names;

/// What containers are checked against.
struct Pod<'a> {
    spec: &'a Value,
    grace: Option<i64>,
    claims: Vec<&'a str>,
    /// The valid ones, by name: only they can be mounted.
    volumes: HashMap<&'a str, &'a Value>,
}

/// Containers of every sort, mounting only the valid `volumes`.
pub fn validate_containers<'a>(c: &mut Checker, spec: &'a Value, volumes: Vec<&'a Value>) {
    let pod = Pod {
        spec,
        grace: int(spec, "terminationGracePeriodSeconds"),
        claims: list(spec, "resourceClaims").iter().map(|v| text(v, "name")).collect(),
        volumes: volumes.into_iter().rev().map(|v| (text(v, "name"), v)).collect(),
    };
    let regular = list(spec, "containers");
    let init = list(spec, "initContainers");
    if regular.is_empty() {
        c.required("containers", "");
    }
    let regular_names: HashSet<&str> = regular.iter().map(|v| text(v, "name")).collect();
    let init_names: HashSet<&str> = init.iter().map(|v| text(v, "name")).collect();
    let repeated = repeated_text(regular, "name");
    c.each_indexed(spec, "containers", |c, i, container| {
        validate_common(c, container, &pod);
        if repeated[i] {
            c.duplicate("name", &container["name"]);
        }
        validate_running(c, container, &pod);
        validate_restart_policy(c, container);
    });
    host_port_conflicts(c, "containers", regular);
    let repeated = repeated_text(init, "name");
    c.each_indexed(spec, "initContainers", |c, i, container| {
        validate_common(c, container, &pod);
        let name = text(container, "name");
        if regular_names.contains(name) || (!name.is_empty() && repeated[i]) {
            c.duplicate("name", &container["name"]);
        }
        validate_init(c, container, &pod);
    });
    for container in init {
        host_port_conflicts(c, "initContainers", std::slice::from_ref(container));
    }
    c.each_indexed(spec, "ephemeralContainers", |c, _, container| {
        validate_common(c, container, &pod);
        let name = text(container, "name");
        if regular_names.contains(name) || init_names.contains(name) {
            c.duplicate("name", &container["name"]);
        }
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !regular_names.contains(target) {
            c.not_found("targetContainerName", &target.into());
        }
        for field in ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"] {
            if !is_empty(container, field) {
                c.forbidden(field, "cannot be set for an Ephemeral Container");
            }
        }
    });
}

fn validate_init(c: &mut Checker, container: &Value, pod: &Pod<'_>) {
    if has(container, "restartPolicy") && list(container, "restartPolicyRules").is_empty() {
        c.supported(container, "restartPolicy", &["Always", "Never", "OnFailure"]);
    }
    if text(container, "restartPolicy") == "Always" {
        validate_running(c, container, pod);
        return;
    }
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if has(container, field) {
            c.forbidden(field, "may not be set for init containers without restartPolicy=Always");
        }
    }
}

fn validate_restart_policy(c: &mut Checker, container: &Value) {
    c.optional_choice(container, "restartPolicy", &["Always", "Never", "OnFailure"]);
    let rules = list(container, "restartPolicyRules");
    if !rules.is_empty() && !has(container, "restartPolicy") {
        c.required("restartPolicy", "must specify restartPolicy when restart rules are used");
    }
    if rules.len() > 20 {
        c.too_many("restartPolicyRules", rules.len(), 20);
    }
    c.each(container, "restartPolicyRules", |c, rule| {
        c.supported(rule, "action", &["Restart", "RestartAllContainers"]);
        match &rule["exitCodes"] {
            Value::Null => c.required("exitCodes", "must be specified"),
            codes => c.within("exitCodes", |c| {
                c.supported(codes, "operator", &["In", "NotIn"]);
                let values = list(codes, "values").len();
                if values > 255 {
                    c.too_many("values", values, 255);
                }
            }),
        }
    });
}

/// What only a container that keeps running may have.
fn validate_running(c: &mut Checker, container: &Value, pod: &Pod<'_>) {
    c.if_set(container, "lifecycle", |c, lifecycle| {
        for hook in ["postStart", "preStop"] {
            c.if_set(lifecycle, hook, |c, handler| validate_handler(c, handler, pod.grace));
        }
    });
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        c.if_set(container, kind, |c, probe| validate_probe(c, probe, kind, pod.grace));
    }
}

fn validate_probe(c: &mut Checker, probe: &Value, kind: &str, grace: Option<i64>) {
    validate_handler(c, probe, grace);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        c.not_negative(probe, field);
    }
    c.positive(probe, "terminationGracePeriodSeconds");
    let successes = int(probe, "successThreshold").unwrap_or(0);
    if kind != "readinessProbe" && successes != 1 {
        c.invalid("successThreshold", &successes.into(), "must be 1");
    }
    if kind == "readinessProbe" && has(probe, "terminationGracePeriodSeconds") {
        let seconds = &probe["terminationGracePeriodSeconds"];
        c.invalid("terminationGracePeriodSeconds", seconds, "must not be set for readinessProbes");
    }
}

fn validate_handler(c: &mut Checker, handler: &Value, grace: Option<i64>) {
    let mut found = 0;
    for kind in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        if !has(handler, kind) {
            continue;
        }
        found += 1;
        if found > 1 {
            c.forbidden(kind, "may not specify more than 1 handler type");
            continue;
        }
        c.at(handler, kind, |c, action| match kind {
            "exec" if list(action, "command").is_empty() => c.required("command", ""),
            "exec" => {}
            "httpGet" => validate_http_get(c, action),
            "sleep" => validate_sleep(c, action, grace),
            "tcpSocket" => c.port_or_name(action, "port"),
            _ => c.port(action, "port"),
        });
    }
    if found == 0 {
        c.required("", "must specify a handler type");
    }
}

fn validate_http_get(c: &mut Checker, action: &Value) {
    if text(action, "path").is_empty() {
        c.required("path", "");
    }
    c.port_or_name(action, "port");
    c.supported(action, "scheme", &["HTTP", "HTTPS"]);
    for header in list(action, "httpHeaders") {
        c.rule("httpHeaders", text(header, "name"), names::http_header_name);
    }
}

fn validate_sleep(c: &mut Checker, action: &Value, grace: Option<i64>) {
    let seconds = int(action, "seconds").unwrap_or(0);
    if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        c.invalid("", &seconds.into(), why);
    }
}

fn validate_common(c: &mut Checker, container: &Value, pod: &Pod<'_>) {
    c.name(container, "name", names::dns_label);
    c.need(container, "image");
    c.choice(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
    validate_ports(c, container);
    c.each(container, "env", |c, var| {
        c.name(var, "name", names::env_var_name);
        c.if_set(var, "valueFrom", |c, source| validate_value_from(c, source, text(var, "value")));
    });
    c.each(container, "envFrom", validate_env_from);
    validate_mounts(c, container, pod);
    validate_devices(c, container, pod);
    c.choice(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
    c.at(container, "resources", |c, r| resources::validate_requirements(c, r, &pod.claims));
    c.each(container, "resizePolicy", |c, policy| {
        c.supported(policy, "resourceName", &["cpu", "memory"]);
        c.supported(policy, "restartPolicy", &["NotRequired", "RestartContainer"]);
    });
    let host_users = pod.spec["hostUsers"] != false;
    c.if_set(container, "securityContext", |c, context| security::validate_container(c, context, host_users));
}

fn validate_ports(c: &mut Checker, container: &Value) {
    let ports = list(container, "ports");
    let repeated_name = repeated_text(ports, "name");
    c.each_indexed(container, "ports", |c, i, port| {
        let name = text(port, "name");
        if !name.is_empty() {
            let messages = names::port_name(name);
            if !messages.is_empty() {
                messages.into_iter().for_each(|message| c.invalid_text("name", name, message));
            } else if repeated_name[i] {
                c.duplicate("name", &name.into());
            }
        }
        if int(port, "containerPort").unwrap_or(0) == 0 {
            c.required("containerPort", "");
        } else {
            c.port(port, "containerPort");
        }
        if int(port, "hostPort").is_some_and(|p| p != 0) {
            c.port(port, "hostPort");
        }
        c.choice(port, "protocol", &["SCTP", "TCP", "UDP"]);
    });
}

/// No two containers may have one host port.
fn host_port_conflicts(c: &mut Checker, field: &str, containers: &[Value]) {
    let mut taken: HashSet<String> = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = int(port, "hostPort").filter(|n| *n != 0) else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if taken.contains(&key) {
                c.duplicate(&format!("{field}[{i}].ports[{j}].hostPort"), &key.into());
            } else {
                taken.insert(key);
            }
        }
    }
}

/// Files that variables are read from lie in empty directories, which need not be mounted.
pub fn validate_file_keys(c: &mut Checker, spec: &Value) {
    for kind in ["initContainers", "containers", "ephemeralContainers"] {
        c.each(spec, kind, |c, container| {
            c.each(container, "env", |c, variable| {
                let file = &variable["valueFrom"]["fileKeyRef"];
                if file.is_null() {
                    return;
                }
                let (name, field) = (text(file, "volumeName"), "valueFrom.fileKeyRef.volumeName");
                match list(spec, "volumes").iter().rfind(|v| text(v, "name") == name) {
                    None => c.not_found(field, &name.into()),
                    Some(volume) if !has(volume, "emptyDir") => {
                        c.invalid_text(field, name, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            });
        });
    }
}

/// The fields that environment variables may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// The fields that files may show.
pub const VOLUME_FIELDS: &[&str] =
    &["metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.uid"];

fn validate_value_from(c: &mut Checker, source: &Value, value: &str) {
    const KINDS: &[&str] = &["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    for kind in KINDS.iter().filter(|kind| has(source, kind)) {
        c.at(source, kind, |c, reference| match *kind {
            "fieldRef" => validate_field_selector(c, reference, ENV_FIELDS),
            "resourceFieldRef" => validate_resource_field_selector(c, reference, false),
            "fileKeyRef" => {
                c.name(reference, "key", names::env_var_name);
                c.name(reference, "volumeName", names::dns_label);
                c.need(reference, "path");
            }
            _ => {
                c.need(reference, "name");
                c.name(reference, "key", names::config_map_key);
            }
        });
    }
    let found = KINDS.iter().filter(|kind| has(source, kind)).count();
    if found == 0 {
        let all =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        c.invalid_text("", "", all);
    } else if !value.is_empty() {
        c.invalid_text("", "", "may not be specified when `value` is not empty");
    } else if found > 1 {
        c.invalid_text("", "", "may not have more than one field specified at a time");
    }
}

fn validate_env_from(c: &mut Checker, source: &Value) {
    if !is_empty(source, "prefix") {
        c.rule("prefix", text(source, "prefix"), names::env_var_name);
    }
    let kinds = ["configMapRef", "secretRef"];
    for kind in kinds {
        c.if_set(source, kind, |c, reference| c.need(reference, "name"));
    }
    match kinds.iter().filter(|kind| has(source, kind)).count() {
        0 => c.invalid_text("", "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => c.invalid_text("", "", "may not have more than one field specified at a time"),
    }
}

/// An `ObjectFieldSelector`: a pod's field, or one of its labels or annotations.
pub fn validate_field_selector(c: &mut Checker, selector: &Value, allowed: &[&str]) {
    if text(selector, "apiVersion").is_empty() {
        c.required("apiVersion", "");
        return;
    }
    let path = text(selector, "fieldPath");
    if path.is_empty() {
        c.required("fieldPath", "");
        return;
    }
    if text(selector, "apiVersion") != "v1" {
        c.invalid_text("fieldPath", path, "error converting fieldPath: unsupported pod version");
        return;
    }
    if let Some((base, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        match base {
            "metadata.annotations" => c.rule("fieldPath", &key.to_lowercase(), names::qualified_name),
            "metadata.labels" => c.rule("fieldPath", key, names::qualified_name),
            _ => c.invalid_text("fieldPath", path, "does not support subscript"),
        }
        return;
    }
    const KNOWN: &[&str] =
        &["spec.restartPolicy", "spec.schedulerName", "status.phase", "status.nominatedNodeName", "spec.hostNetwork"];
    let known = ENV_FIELDS.contains(&path) || VOLUME_FIELDS.contains(&path) || KNOWN.contains(&path);
    if !known {
        let why = format!("error converting fieldPath: field label not supported: {path}");
        c.invalid_text("fieldPath", path, why);
    } else if !allowed.contains(&path) {
        c.not_supported("fieldPath", &path.into(), allowed);
    }
}

/// A `ResourceFieldSelector`: a limit or request of a container.
pub fn validate_resource_field_selector(c: &mut Checker, selector: &Value, in_volume: bool) {
    const FIELDS: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    if in_volume && text(selector, "containerName").is_empty() {
        c.required("containerName", "");
        return;
    }
    let resource = text(selector, "resource");
    let hugepages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if resource.is_empty() {
        c.required("resource", "");
    } else if !FIELDS.contains(&resource) && !hugepages {
        c.not_supported("resource", &resource.into(), FIELDS);
    }
    let divisor = text(selector, "divisor");
    const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, told, named) = match resource.rsplit('.').next().unwrap_or_default() {
        "cpu" => (&["1m", "1"][..], "1m and 1".to_string(), "cpu"),
        "memory" => (UNITS, UNITS.join(", "), "memory"),
        "ephemeral-storage" => (UNITS, UNITS.join(", "), "local ephemeral storage"),
        _ if hugepages => (UNITS, UNITS.join(", "), "hugepages"),
        _ => return,
    };
    if !matches!(divisor, "" | "0") && !allowed.contains(&divisor) {
        // Upstream shows the resource, not its divisor.
        let why = format!("only divisor's values {told} are supported with the {named} resource");
        c.invalid_text("divisor", resource, why);
    }
}

fn find_volume<'a>(pod: &Pod<'a>, name: &str) -> Option<&'a Value> {
    pod.volumes.get(name).copied()
}

fn validate_mounts(c: &mut Checker, container: &Value, pod: &Pod<'_>) {
    let mounts = list(container, "volumeMounts");
    let repeated_mount_path = repeated_text(mounts, "mountPath");
    c.each_indexed(container, "volumeMounts", |c, i, mount| {
        let name = text(mount, "name");
        if name.is_empty() {
            c.required("name", "");
        }
        if find_volume(pod, name).is_none() {
            c.not_found("name", &name.into());
        }
        if text(mount, "mountPath").is_empty() {
            c.required("mountPath", "");
        }
        if repeated_mount_path[i] {
            c.invalid("mountPath", &mount["mountPath"], "must be unique");
        }
        if !is_empty(mount, "subPath") && !is_empty(mount, "subPathExpr") {
            c.invalid("subPathExpr", &mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive");
        }
    });
    // Of these upstream tells the list and not the item.
    c.within("volumeMounts", |c| {
        for mount in mounts {
            for field in ["subPath", "subPathExpr"] {
                let path = text(mount, field);
                if !path.is_empty() {
                    volume::descending_path(c, field, path);
                }
            }
            validate_propagation(c, mount, container);
        }
    });
}

fn validate_propagation(c: &mut Checker, mount: &Value, container: &Value) {
    if has(mount, "mountPropagation") {
        c.supported(mount, "mountPropagation", &["Bidirectional", "HostToContainer", "None"]);
        if text(mount, "mountPropagation") == "Bidirectional" && !flag(&container["securityContext"], "privileged") {
            c.forbidden(
                "mountPropagation",
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
    if has(mount, "recursiveReadOnly") {
        c.supported(mount, "recursiveReadOnly", &["Disabled", "Enabled", "IfPossible"]);
        if matches!(text(mount, "recursiveReadOnly"), "Enabled" | "IfPossible") {
            if !flag(mount, "readOnly") {
                c.forbidden("recursiveReadOnly", "may only be specified when readOnly is true");
            }
            if !matches!(text(mount, "mountPropagation"), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                c.forbidden("recursiveReadOnly", why);
            }
        }
    }
}

fn validate_devices(c: &mut Checker, container: &Value, pod: &Pod<'_>) {
    let devices = list(container, "volumeDevices");
    let repeated_name = repeated_text(devices, "name");
    let repeated_device_path = repeated_text(devices, "devicePath");
    c.each_indexed(container, "volumeDevices", |c, i, device| {
        let name = text(device, "name");
        if name.is_empty() {
            c.required("name", "");
        }
        if repeated_name[i] {
            c.invalid("name", &device["name"], "must be unique");
        }
        match find_volume(pod, name) {
            None => c.not_found("name", &name.into()),
            Some(v) if !has(v, "persistentVolumeClaim") && !has(v, "ephemeral") => {
                c.invalid(
                    "name",
                    &device["name"],
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                );
            }
            Some(_) => {}
        }
        if text(device, "devicePath").is_empty() {
            c.required("devicePath", "");
        }
        if repeated_device_path[i] {
            c.invalid("devicePath", &device["devicePath"], "must be unique");
        }
        volume::no_backsteps(c, device, "devicePath");
    });
}
