//! The defaults that need more than a value: one row a type.

use serde_json::{Map, Value, json};

use super::{DefaultFn, image, is_unset};
use crate::quantity::Quantity;

type Fields = Map<String, Value>;

const ROWS: &[(&str, DefaultFn)] = &[
    ("io.k8s.api.core.v1.ReplicationController", replication_controller),
    ("io.k8s.api.core.v1.Volume", volume),
    ("io.k8s.api.core.v1.Container", container),
    ("io.k8s.api.core.v1.EphemeralContainer", container),
    // Signals to stop by are off: they are not kept.
    ("io.k8s.api.core.v1.Lifecycle", |m| drop(m.remove("stopSignal"))),
    ("io.k8s.api.core.v1.ContainerPort", |m| set(m, "protocol", json!("TCP"))),
    ("io.k8s.api.core.v1.ResourceRequirements", resource_requirements),
    ("io.k8s.api.core.v1.Service", service),
    ("io.k8s.api.core.v1.Pod", pod),
    ("io.k8s.api.core.v1.PodSpec", pod_spec),
    ("io.k8s.api.core.v1.Probe", probe),
    ("io.k8s.api.core.v1.SecretVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ConfigMapVolumeSource", default_mode),
    ("io.k8s.api.core.v1.DownwardAPIVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ProjectedVolumeSource", default_mode),
    ("io.k8s.api.core.v1.ServiceAccountTokenProjection", |m| set(m, "expirationSeconds", json!(3600))),
    ("io.k8s.api.core.v1.Secret", |m| set(m, "type", json!("Opaque"))),
    ("io.k8s.api.core.v1.PersistentVolume", persistent_volume),
    ("io.k8s.api.core.v1.PersistentVolumeClaim", |m| set(inner(m, "status"), "phase", json!("Pending"))),
    ("io.k8s.api.core.v1.PersistentVolumeClaimSpec", |m| set_missing(m, "volumeMode", json!("Filesystem"))),
    ("io.k8s.api.core.v1.EndpointPort", |m| set(m, "protocol", json!("TCP"))),
    ("io.k8s.api.core.v1.HTTPGetAction", http_get),
    ("io.k8s.api.core.v1.Namespace", namespace),
    ("io.k8s.api.core.v1.NamespaceStatus", |m| set(m, "phase", json!("Active"))),
    ("io.k8s.api.core.v1.NodeStatus", node_status),
    ("io.k8s.api.core.v1.ObjectFieldSelector", |m| set(m, "apiVersion", json!("v1"))),
    ("io.k8s.api.core.v1.LimitRangeItem", limit_range_item),
    ("io.k8s.api.core.v1.HostPathVolumeSource", |m| set_missing(m, "type", json!(""))),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", |m| set(m, "iscsiInterface", json!("default"))),
    ("io.k8s.api.core.v1.ISCSIPersistentVolumeSource", |m| set(m, "iscsiInterface", json!("default"))),
    ("io.k8s.api.core.v1.RBDVolumeSource", rbd),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", rbd),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", |m| scale_io(m, "xfs")),
    ("io.k8s.api.core.v1.ScaleIOPersistentVolumeSource", |m| scale_io(m, "xfs")),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", azure_disk),
    ("io.k8s.api.apps.v1.Deployment", deployment),
    ("io.k8s.api.apps.v1.DaemonSet", daemon_set),
    ("io.k8s.api.apps.v1.StatefulSet", stateful_set),
    ("io.k8s.api.apps.v1.ReplicaSet", |m| set(inner(m, "spec"), "replicas", json!(1))),
    ("io.k8s.api.batch.v1.Job", job),
    ("io.k8s.api.batch.v1.CronJob", cron_job),
    ("io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern", |m| set(m, "status", json!("True"))),
    ("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler", horizontal_pod_autoscaler_v1),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler", horizontal_pod_autoscaler),
    ("io.k8s.api.networking.v1.NetworkPolicyPort", |m| set_missing(m, "protocol", json!("TCP"))),
    ("io.k8s.api.networking.v1.NetworkPolicySpec", network_policy),
    ("io.k8s.api.networking.v1.IngressClassParametersReference", |m| set_missing(m, "scope", json!("Cluster"))),
    ("io.k8s.api.discovery.v1.EndpointPort", endpoint_slice_port),
    ("io.k8s.api.rbac.v1.RoleRef", |m| set(m, "apiGroup", json!(RBAC_GROUP))),
    ("io.k8s.api.rbac.v1.Subject", rbac_subject),
    ("io.k8s.api.storage.v1.StorageClass", storage_class),
    ("io.k8s.api.storage.v1.CSIDriverSpec", csi_driver),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", webhook),
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", mutating_webhook),
    ("io.k8s.api.admissionregistration.v1.RuleWithOperations", |m| set_missing(m, "scope", json!("*"))),
    ("io.k8s.api.admissionregistration.v1.NamedRuleWithOperations", |m| set_missing(m, "scope", json!("*"))),
    ("io.k8s.api.admissionregistration.v1.ServiceReference", |m| set_missing(m, "port", json!(443))),
    ("io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicySpec", |m| {
        set_missing(m, "failurePolicy", json!("Fail"))
    }),
    ("io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicySpec", |m| {
        set_missing(m, "failurePolicy", json!("Fail"))
    }),
    ("io.k8s.api.admissionregistration.v1.MatchResources", match_resources),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference", |m| {
        set_missing(m, "port", json!(443))
    }),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", custom_resource_definition),
    ("io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference", |m| set_missing(m, "port", json!(443))),
    ("io.k8s.api.flowcontrol.v1.FlowSchemaSpec", |m| set_zero(m, "matchingPrecedence", json!(1000))),
    ("io.k8s.api.flowcontrol.v1.ExemptPriorityLevelConfiguration", |m| priority_shares(m, 0)),
    ("io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration", |m| priority_shares(m, 30)),
    ("io.k8s.api.flowcontrol.v1.QueuingConfiguration", queuing),
    ("io.k8s.api.scheduling.v1.PriorityClass", |m| set_missing(m, "preemptionPolicy", json!("PreemptLowerPriority"))),
    ("io.k8s.api.resource.v1.ExactDeviceRequest", device_request),
    ("io.k8s.api.resource.v1.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1.DeviceToleration", |m| set(m, "operator", json!("Equal"))),
];

const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// The function of a type, if it has one.
pub fn function(type_name: &str) -> Option<DefaultFn> {
    ROWS.iter().find(|(name, _)| *name == type_name).map(|(_, function)| *function)
}

/// Sets a field that is absent, null or the empty string.
fn set(fields: &mut Fields, name: &str, value: Value) {
    if fields.get(name).is_none_or(is_unset) {
        fields.insert(name.to_string(), value);
    }
}

/// Sets a field that is absent or null; an empty string stands.
fn set_missing(fields: &mut Fields, name: &str, value: Value) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_string(), value);
    }
}

/// Sets a field that is absent or zero, as Go does for numbers that are no pointers.
fn set_zero(fields: &mut Fields, name: &str, value: Value) {
    if fields.get(name).is_none_or(|v| is_unset(v) || *v == 0) {
        fields.insert(name.to_string(), value);
    }
}

/// The map in a field, made if missing.
fn inner<'a>(fields: &'a mut Fields, name: &str) -> &'a mut Fields {
    let slot = fields.entry(name).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("made a map just above")
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn is_empty(fields: &Fields, name: &str) -> bool {
    match fields.get(name) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        other => other.is_none_or(is_unset),
    }
}

fn each<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn replication_controller(rc: &mut Fields) {
    let labels = rc.get("spec").and_then(|s| s.pointer("/template/metadata/labels")).cloned();
    if let Some(labels) = labels {
        if is_empty(inner(rc, "spec"), "selector") {
            inner(rc, "spec").insert("selector".into(), labels.clone());
        }
        if is_empty(inner(rc, "metadata"), "labels") {
            inner(rc, "metadata").insert("labels".into(), labels);
        }
    }
    set(inner(rc, "spec"), "replicas", json!(1));
}

fn volume(volume: &mut Fields) {
    if !volume.keys().any(|key| key != "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    if let Some(image) = volume.get_mut("image").and_then(Value::as_object_mut) {
        let policy = image::default_pull_policy(text(image, "reference"));
        set(image, "pullPolicy", json!(policy));
    }
}

fn container(container: &mut Fields) {
    let policy = image::default_pull_policy(text(container, "image"));
    set(container, "imagePullPolicy", json!(policy));
    set(container, "terminationMessagePath", json!("/dev/termination-log"));
    set(container, "terminationMessagePolicy", json!("File"));
}

/// Amounts are kept to thousandths.
fn resource_requirements(resources: &mut Fields) {
    for name in ["limits", "requests"] {
        for (_, amount) in resources.get_mut(name).and_then(Value::as_object_mut).into_iter().flatten() {
            let finer = amount.as_str().is_some_and(|t| t.ends_with(['n', 'u']));
            if let (true, Some(Ok(quantity))) = (finer, amount.as_str().map(str::parse::<Quantity>)) {
                *amount = Quantity::from_millis(quantity.to_millis()).to_string().into();
            }
        }
    }
}

fn service(service: &mut Fields) {
    let spec = inner(service, "spec");
    set(spec, "sessionAffinity", json!("None"));
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let said = spec.get("sessionAffinityConfig").and_then(|c| c.pointer("/clientIP/timeoutSeconds"));
            if said.is_none_or(Value::is_null) {
                spec.insert("sessionAffinityConfig".into(), json!({"clientIP": {"timeoutSeconds": 10800}}));
            }
        }
        _ => {}
    }
    set(spec, "type", json!("ClusterIP"));
    for port in each(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        let unset = port.get("targetPort").is_none_or(|t| is_unset(t) || *t == 0);
        if unset {
            let number = port.get("port").cloned().unwrap_or(json!(0));
            port.insert("targetPort".into(), number);
        }
    }
    service_traffic(spec);
    load_balancer_ip_mode(service);
}

fn service_traffic(spec: &mut Fields) {
    let kind = text(spec, "type").to_string();
    let external_ips = kind == "ClusterIP" && !is_empty(spec, "externalIPs");
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || external_ips {
        set(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set_missing(spec, "internalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        set_missing(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
}

fn load_balancer_ip_mode(service: &mut Fields) {
    let balanced = service.get("spec").is_some_and(|s| s["type"] == "LoadBalancer");
    let ingress = service.get_mut("status").and_then(|s| s.pointer_mut("/loadBalancer/ingress"));
    if let (true, Some(list)) = (balanced, ingress.and_then(Value::as_array_mut)) {
        for point in list.iter_mut().filter_map(Value::as_object_mut) {
            if !text(point, "ip").is_empty() {
                set_missing(point, "ipMode", json!("VIP"));
            }
        }
    }
}

/// Defaults of pods alone, not of templates.
fn pod(pod: &mut Fields) {
    let spec = inner(pod, "spec");
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    pod_level_requests(spec);
    set_missing(spec, "enableServiceLinks", json!(true));
}

fn requests_from_limits(container: &mut Fields) {
    let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) else { return };
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = inner(resources, "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn host_ports(container: &mut Fields) {
    for port in each(container, "ports") {
        let number = port.get("containerPort").cloned().unwrap_or(json!(0));
        if port.get("hostPort").is_none_or(|p| *p == 0) && number != 0 {
            port.insert("hostPort".into(), number);
        }
    }
}

/// Pod-level requests are what the containers ask for together, else the pod-level limits.
fn pod_level_requests(spec: &mut Fields) {
    let limits = spec.get("resources").and_then(|r| r["limits"].as_object()).cloned();
    let Some(limits) = limits.filter(|l| !l.is_empty()) else { return };
    let supported = |name: &str| matches!(name, "cpu" | "memory") || name.starts_with("hugepages-");
    let mut sums: Vec<(String, Quantity)> = Vec::new();
    for container in each(spec, "containers") {
        let requests = container.get("resources").and_then(|r| r["requests"].as_object());
        for (name, amount) in requests.into_iter().flatten() {
            let amount = amount.as_str().and_then(|t| t.parse().ok()).unwrap_or(Quantity::ZERO);
            match sums.iter_mut().find(|(n, _)| n == name) {
                Some((_, sum)) => *sum = *sum + amount,
                None => sums.push((name.clone(), amount)),
            }
        }
    }
    let requests = inner(inner(spec, "resources"), "requests");
    for (name, sum) in sums {
        if matches!(name.as_str(), "cpu" | "memory") {
            requests.entry(name).or_insert(sum.to_string().into());
        }
    }
    for (name, limit) in limits {
        if supported(&name) {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn pod_spec(spec: &mut Fields) {
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "restartPolicy", json!("Always"));
    set_missing(spec, "securityContext", json!({}));
    set_missing(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "schedulerName", json!("default-scheduler"));
    // The deprecated alias follows the field that replaced it.
    let (name, alias) = (text(spec, "serviceAccountName").to_string(), text(spec, "serviceAccount").to_string());
    let account = if name.is_empty() { alias } else { name };
    if !account.is_empty() {
        spec.insert("serviceAccountName".into(), account.clone().into());
        spec.insert("serviceAccount".into(), account.into());
    }
}

fn probe(probe: &mut Fields) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        set_zero(probe, name, json!(value));
    }
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        set_missing(grpc, "service", json!(""));
    }
}

fn default_mode(source: &mut Fields) {
    set(source, "defaultMode", json!(0o644));
}

fn persistent_volume(volume: &mut Fields) {
    set(inner(volume, "status"), "phase", json!("Pending"));
    let spec = inner(volume, "spec");
    set(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
    set_missing(spec, "volumeMode", json!("Filesystem"));
}

fn http_get(action: &mut Fields) {
    set(action, "path", json!("/"));
    set(action, "scheme", json!("HTTP"));
}

fn namespace(namespace: &mut Fields) {
    let name = namespace.get("metadata").and_then(|m| m["name"].as_str()).unwrap_or_default().to_string();
    if !name.is_empty() {
        let labels = inner(inner(namespace, "metadata"), "labels");
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
    }
}

fn node_status(status: &mut Fields) {
    if let (None, Some(capacity)) = (status.get("allocatable"), status.get("capacity").cloned()) {
        status.insert("allocatable".into(), capacity);
    }
}

fn limit_range_item(item: &mut Fields) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(Value::Object(source)) = item.get(from).cloned() else { continue };
        let target = inner(item, to);
        for (name, amount) in source {
            target.entry(name).or_insert(amount);
        }
    }
    for name in ["default", "defaultRequest"] {
        if is_empty(item, name) {
            item.remove(name);
        }
    }
}

fn rbd(source: &mut Fields) {
    set(source, "pool", json!("rbd"));
    set(source, "user", json!("admin"));
    set(source, "keyring", json!("/etc/ceph/keyring"));
}

fn scale_io(source: &mut Fields, fs_type: &str) {
    set(source, "storageMode", json!("ThinProvisioned"));
    set(source, "fsType", json!(fs_type));
}

fn azure_disk(source: &mut Fields) {
    set_missing(source, "cachingMode", json!("ReadWrite"));
    set_missing(source, "kind", json!("Shared"));
    set_missing(source, "fsType", json!("ext4"));
    set_missing(source, "readOnly", json!(false));
}

fn deployment(deployment: &mut Fields) {
    let spec = inner(deployment, "spec");
    set(spec, "replicas", json!(1));
    let strategy = inner(spec, "strategy");
    set(strategy, "type", json!("RollingUpdate"));
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = inner(strategy, "rollingUpdate");
        set_missing(rolling, "maxUnavailable", json!("25%"));
        set_missing(rolling, "maxSurge", json!("25%"));
    }
    set(spec, "revisionHistoryLimit", json!(10));
    set(spec, "progressDeadlineSeconds", json!(600));
}

fn daemon_set(set_: &mut Fields) {
    let spec = inner(set_, "spec");
    let strategy = inner(spec, "updateStrategy");
    set(strategy, "type", json!("RollingUpdate"));
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = inner(strategy, "rollingUpdate");
        set_missing(rolling, "maxUnavailable", json!(1));
        set_missing(rolling, "maxSurge", json!(0));
    }
    set(spec, "revisionHistoryLimit", json!(10));
}

fn stateful_set(set_: &mut Fields) {
    let spec = inner(set_, "spec");
    set(spec, "podManagementPolicy", json!("OrderedReady"));
    let strategy = inner(spec, "updateStrategy");
    if is_empty(strategy, "type") {
        strategy.insert("type".into(), json!("RollingUpdate"));
        inner(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate").and_then(Value::as_object_mut)
    {
        set_missing(rolling, "partition", json!(0));
    }
    let retention = inner(spec, "persistentVolumeClaimRetentionPolicy");
    set(retention, "whenDeleted", json!("Retain"));
    set(retention, "whenScaled", json!("Retain"));
    set(spec, "replicas", json!(1));
    set(spec, "revisionHistoryLimit", json!(10));
    for claim in each(spec, "volumeClaimTemplates") {
        // Whatever it says that it is.
        claim.insert("apiVersion".into(), json!("v1"));
        claim.insert("kind".into(), json!("PersistentVolumeClaim"));
    }
}

fn job(job: &mut Fields) {
    let spec = inner(job, "spec");
    let missing = |spec: &Fields, name: &str| spec.get(name).is_none_or(Value::is_null);
    if missing(spec, "completions") && missing(spec, "parallelism") {
        spec.insert("completions".into(), json!(1));
    }
    set(spec, "parallelism", json!(1));
    let limit = if missing(spec, "backoffLimitPerIndex") { 6 } else { i32::MAX };
    set(spec, "backoffLimit", json!(limit));
    set_missing(spec, "completionMode", json!("NonIndexed"));
    set(spec, "suspend", json!(false));
    let replacement = if missing(spec, "podFailurePolicy") { "TerminatingOrFailed" } else { "Failed" };
    set_missing(spec, "podReplacementPolicy", json!(replacement));
    set(spec, "manualSelector", json!(false));
    let labels = spec.get("template").and_then(|t| t.pointer("/metadata/labels")).cloned();
    if let Some(labels) = labels.filter(|_| is_empty(inner(job, "metadata"), "labels")) {
        inner(job, "metadata").insert("labels".into(), labels);
    }
}

fn cron_job(cron_job: &mut Fields) {
    let spec = inner(cron_job, "spec");
    set(spec, "concurrencyPolicy", json!("Allow"));
    set(spec, "suspend", json!(false));
    set(spec, "successfulJobsHistoryLimit", json!(3));
    set(spec, "failedJobsHistoryLimit", json!(1));
}

/// Without metrics, which v1 keeps in an annotation, the utilization of CPU counts.
fn horizontal_pod_autoscaler_v1(object: &mut Fields) {
    let annotations = object.get("metadata").map(|metadata| &metadata["annotations"]);
    let annotated = annotations.is_some_and(|all| all.get("autoscaling.alpha.kubernetes.io/metrics").is_some());
    let spec = inner(object, "spec");
    set(spec, "minReplicas", json!(1));
    if !annotated {
        set(spec, "targetCPUUtilizationPercentage", json!(80));
    }
}

fn horizontal_pod_autoscaler(autoscaler: &mut Fields) {
    let spec = inner(autoscaler, "spec");
    set(spec, "minReplicas", json!(1));
    if is_empty(spec, "metrics") {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        spec.insert("metrics".into(), json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let up = inner(behavior, "scaleUp");
    set_missing(up, "stabilizationWindowSeconds", json!(0));
    set_missing(up, "selectPolicy", json!("Max"));
    set_missing(up, "policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, percent]));
    let down = inner(behavior, "scaleDown");
    set_missing(down, "selectPolicy", json!("Max"));
    set_missing(down, "policies", json!([percent]));
}

fn network_policy(spec: &mut Fields) {
    if is_empty(spec, "policyTypes") {
        let types = if is_empty(spec, "egress") { json!(["Ingress"]) } else { json!(["Ingress", "Egress"]) };
        spec.insert("policyTypes".into(), types);
    }
}

fn endpoint_slice_port(port: &mut Fields) {
    set_missing(port, "name", json!(""));
    set_missing(port, "protocol", json!("TCP"));
}

fn rbac_subject(subject: &mut Fields) {
    if matches!(text(subject, "kind"), "User" | "Group") {
        set(subject, "apiGroup", json!(RBAC_GROUP));
    }
}

fn storage_class(class: &mut Fields) {
    set_missing(class, "reclaimPolicy", json!("Delete"));
    set_missing(class, "volumeBindingMode", json!("Immediate"));
}

fn csi_driver(spec: &mut Fields) {
    set(spec, "attachRequired", json!(true));
    for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        set_missing(spec, name, json!(false));
    }
    set_missing(spec, "fsGroupPolicy", json!("ReadWriteOnceWithFSType"));
    if is_empty(spec, "volumeLifecycleModes") {
        spec.insert("volumeLifecycleModes".into(), json!(["Persistent"]));
    }
}

fn webhook(webhook: &mut Fields) {
    set_missing(webhook, "failurePolicy", json!("Fail"));
    match_resources(webhook);
    set_missing(webhook, "timeoutSeconds", json!(10));
}

fn mutating_webhook(hook: &mut Fields) {
    webhook(hook);
    set_missing(hook, "reinvocationPolicy", json!("Never"));
}

fn match_resources(resources: &mut Fields) {
    set_missing(resources, "matchPolicy", json!("Equivalent"));
    set_missing(resources, "namespaceSelector", json!({}));
    set_missing(resources, "objectSelector", json!({}));
}

fn custom_resource_definition(crd: &mut Fields) {
    let spec = inner(crd, "spec");
    let names = inner(spec, "names");
    let kind = text(names, "kind").to_string();
    if !kind.is_empty() {
        set(names, "singular", json!(kind.to_lowercase()));
        set(names, "listKind", json!(format!("{kind}List")));
    }
    set_missing(spec, "conversion", json!({"strategy": "None"}));
    let stored = each(spec, "versions").find(|v| v.get("storage") == Some(&Value::Bool(true)));
    let stored = stored.map(|v| text(v, "name").to_string());
    let status = inner(crd, "status");
    if let (true, Some(name)) = (is_empty(status, "storedVersions"), stored) {
        status.insert("storedVersions".into(), json!([name]));
    }
}

fn priority_shares(level: &mut Fields, shares: i64) {
    set_missing(level, "nominalConcurrencyShares", json!(shares));
    set_missing(level, "lendablePercent", json!(0));
}

fn queuing(queuing: &mut Fields) {
    set_zero(queuing, "handSize", json!(8));
    set_zero(queuing, "queues", json!(64));
    set_zero(queuing, "queueLengthLimit", json!(50));
}

fn device_request(request: &mut Fields) {
    set(request, "allocationMode", json!("ExactCount"));
    if text(request, "allocationMode") == "ExactCount" {
        set_zero(request, "count", json!(1));
    }
}
