//! Known ways out of a container.

use knarr_api::sysctl;
use serde_json::Value;

use super::spec::{PodSpec, containers, distinct, plural, quoted, security};
use super::{Check, Violation};
use crate::admission::refusal::{items, text};

pub struct Baseline {
    pub check: Check,
    /// The restricted level has a stricter one.
    pub overridden: bool,
}

const fn check(check: Check) -> Baseline {
    Baseline { check, overridden: false }
}

/// In the order of upstream's identifiers, which is that of its messages.
pub const CHECKS: [Baseline; 12] = [
    check(app_armor),
    Baseline { check: capabilities, overridden: true },
    check(host_namespaces),
    Baseline { check: host_path_volumes, overridden: true },
    check(host_ports),
    check(host_probes),
    check(privileged),
    check(proc_mount),
    check(selinux),
    Baseline { check: seccomp, overridden: true },
    check(sysctls),
    check(host_process),
];

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const SELINUX_TYPES: [&str; 6] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t", "container_logreader_t"];

fn words(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn app_armor(pod: &PodSpec<'_>) -> Option<Violation> {
    let mut said = Vec::new();
    let mut profiles = Vec::new();
    let unconfined = |v: &Value| text(v, "/type") == "Unconfined";
    if unconfined(pod.security("appArmorProfile")) {
        said.push("pod must not set AppArmor profile type to \"Unconfined\"".to_string());
        profiles.push(());
    }
    if let Some(names) = containers(&pod.named(|c| unconfined(security(c, "appArmorProfile")))) {
        said.push(format!("{names} must not set AppArmor profile type to \"Unconfined\""));
        profiles.push(());
    }
    let annotations = pod.metadata.get("annotations").and_then(Value::as_object).into_iter().flatten();
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    let allowed = |v: &str| v.is_empty() || v == "runtime/default" || v.starts_with("localhost/");
    let bad = annotations.filter(|(k, v)| k.starts_with(prefix) && !allowed(v.as_str().unwrap_or_default()));
    let bad: Vec<String> = bad.map(|(k, v)| format!("{k}={v}")).collect();
    if !bad.is_empty() {
        said.push(format!("{} {}", plural("annotation", "annotations", bad.len()), bad.join(", ")));
        profiles.extend(bad.iter().map(|_| ()));
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", profiles.len());
    (!said.is_empty()).then(|| Violation::new(reason, said.join(" and ")))
}

fn capabilities(pod: &PodSpec<'_>) -> Option<Violation> {
    let added = |c: &Value| -> Vec<String> {
        words(security(c, "capabilities/add")).filter(|w| !CAPABILITIES.contains(w)).map(str::to_string).collect()
    };
    let names = containers(&pod.named(|c| !added(c).is_empty()))?;
    let all = distinct(pod.containers().flat_map(added));
    let detail = format!("{names} must not include {} in securityContext.capabilities.add", quoted(&all));
    Some(Violation::new("non-default capabilities", detail))
}

fn host_namespaces(pod: &PodSpec<'_>) -> Option<Violation> {
    let set = |field: &&str| pod.spec.get(*field) == Some(&Value::Bool(true));
    let shared: Vec<String> =
        ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|f| set(f)).map(|f| format!("{f}=true")).collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

fn host_path_volumes(pod: &PodSpec<'_>) -> Option<Violation> {
    let volumes = items(pod.spec, "/volumes").filter(|v| v.get("hostPath").is_some_and(|h| !h.is_null()));
    let names: Vec<&str> = volumes.map(|v| text(v, "/name")).collect();
    let detail = format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names));
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", detail))
}

fn host_ports(pod: &PodSpec<'_>) -> Option<Violation> {
    let ports = |c: &Value| -> Vec<i64> {
        items(c, "/ports").filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).collect()
    };
    let named = pod.named(|c| !ports(c).is_empty());
    let names = containers(&named)?;
    let all: std::collections::BTreeSet<i64> = pod.containers().flat_map(ports).collect();
    let list: Vec<String> = all.iter().map(i64::to_string).collect();
    let detail = format!(
        "{names} {} {} {}",
        plural("uses", "use", named.len()),
        plural("hostPort", "hostPorts", list.len()),
        list.join(", ")
    );
    Some(Violation::new("hostPort", detail))
}

fn host_probes(pod: &PodSpec<'_>) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let hosts = |c: &Value| -> Vec<String> {
        let host = |handler: &&str| {
            ["httpGet", "tcpSocket"].map(|action| text(c, &format!("{handler}/{action}/host")).to_string())
        };
        HANDLERS.iter().flat_map(host).filter(|h| !h.is_empty()).collect()
    };
    let named = pod.named(|c| !hosts(c).is_empty());
    let names = containers(&named)?;
    let all = distinct(pod.containers().flat_map(hosts));
    let detail = format!(
        "{names} {} {} {}",
        plural("uses", "use", named.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", all.len()),
        quoted(&all)
    );
    Some(Violation::new("probe or lifecycle host", detail))
}

fn privileged(pod: &PodSpec<'_>) -> Option<Violation> {
    let names = containers(&pod.named(|c| security(c, "privileged") == &Value::Bool(true)))?;
    Some(Violation::new("privileged", format!("{names} must not set securityContext.privileged=true")))
}

fn proc_mount(pod: &PodSpec<'_>) -> Option<Violation> {
    let other = |c: &Value| security(c, "procMount").as_str().filter(|m| *m != "Default").map(str::to_string);
    let names = containers(&pod.named(|c| other(c).is_some()))?;
    let all = distinct(pod.containers().filter_map(other));
    Some(Violation::new("procMount", format!("{names} must not set securityContext.procMount to {}", quoted(&all))))
}

fn selinux(pod: &PodSpec<'_>) -> Option<Violation> {
    let bad_type = |o: &Value| !SELINUX_TYPES.contains(&text(o, "/type"));
    let bad = |o: &Value| bad_type(o) || !text(o, "/user").is_empty() || !text(o, "/role").is_empty();
    let mut who = Vec::new();
    let own = pod.security("seLinuxOptions");
    if bad(own) {
        who.push("pod".to_string());
    }
    who.extend(containers(&pod.named(|c| bad(security(c, "seLinuxOptions")))));
    if who.is_empty() {
        return None;
    }
    let all = || std::iter::once(own).chain(pod.containers().map(|c| security(c, "seLinuxOptions")));
    let types = distinct(all().filter(|o| bad_type(o)).map(|o| text(o, "/type").to_string()));
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all().any(|o| !text(o, &format!("/{field}")).is_empty()) {
            what.push(format!("{field} may not be set"));
        }
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", who.join(" and "), what.join("; "));
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(pod: &PodSpec<'_>) -> Option<Violation> {
    let other = |v: &Value| {
        let kind = text(v, "/type");
        (!matches!(kind, "" | "RuntimeDefault" | "Localhost")).then(|| kind.to_string())
    };
    let mut who = Vec::new();
    let own = other(pod.security("seccompProfile"));
    if own.is_some() {
        who.push("pod".to_string());
    }
    who.extend(containers(&pod.named(|c| other(security(c, "seccompProfile")).is_some())));
    if who.is_empty() {
        return None;
    }
    let all = distinct(own.into_iter().chain(pod.containers().filter_map(|c| other(security(c, "seccompProfile")))));
    let detail = format!("{} must not set securityContext.seccompProfile.type to {}", who.join(" and "), quoted(&all));
    Some(Violation::new("seccompProfile", detail))
}

fn sysctls(pod: &PodSpec<'_>) -> Option<Violation> {
    let set = items(pod.spec, "/securityContext/sysctls").map(|s| text(s, "/name"));
    let bad: Vec<&str> = set.filter(|name| !sysctl::SAFE.contains(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn host_process(pod: &PodSpec<'_>) -> Option<Violation> {
    let set = |v: &Value| v.get("hostProcess") == Some(&Value::Bool(true));
    let mut who = Vec::new();
    if set(pod.security("windowsOptions")) {
        who.push("pod".to_string());
    }
    who.extend(containers(&pod.named(|c| set(security(c, "windowsOptions")))));
    let detail = format!("{} must not set securityContext.windowsOptions.hostProcess=true", who.join(" and "));
    (!who.is_empty()).then(|| Violation::new("hostProcess", detail))
}
