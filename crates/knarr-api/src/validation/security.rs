//! Security contexts of pods and containers.

use serde_json::Value;

use super::check::{Checker, flag, has, int, list, repeated_text, text};
use super::windows;

fn id(c: &mut Checker, context: &Value, field: &str) {
    if int(context, field).is_some() {
        c.in_range(context, field, 0, i64::from(i32::MAX));
    }
}

fn seccomp(c: &mut Checker, context: &Value) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    c.if_set(context, "seccompProfile", |c, profile| {
        match text(profile, "type") {
            "" => c.required("type", "type is required when seccompProfile is set"),
            kind if TYPES.contains(&kind) => {}
            _ => c.not_supported("type", &profile["type"], TYPES),
        }
        match (text(profile, "type"), has(profile, "localhostProfile")) {
            ("Localhost", false) => c.required("localhostProfile", "must be set when seccomp type is Localhost"),
            ("Localhost", true) => {
                super::volume::descending_path(c, "localhostProfile", text(profile, "localhostProfile"));
            }
            (_, true) => {
                let why = "can only be set when seccomp type is Localhost";
                c.invalid_as("*core.SeccompProfile", "localhostProfile", profile, why);
            }
            _ => {}
        }
    });
    c.if_set(context, "appArmorProfile", app_armor);
}

fn app_armor(c: &mut Checker, profile: &Value) {
    const TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];
    /// A path's longest, less its end.
    const LONGEST: usize = 4095;
    let name = text(profile, "localhostProfile");
    match text(profile, "type") {
        "Localhost" => {
            if name.trim() != name {
                c.invalid_text("localhostProfile", name, "must not be padded with whitespace");
            } else if name.is_empty() {
                c.required("localhostProfile", "must be set when AppArmor type is Localhost");
            }
            if name.len() > LONGEST {
                c.too_long("localhostProfile", LONGEST);
            }
        }
        "" => c.required("type", "type is required when appArmorProfile is set"),
        kind if !TYPES.contains(&kind) => c.not_supported("type", &profile["type"], TYPES),
        _ if has(profile, "localhostProfile") => {
            let why = "can only be set when AppArmor type is Localhost";
            c.invalid("localhostProfile", &profile["localhostProfile"], why);
        }
        _ => {}
    }
}

/// A container's `securityContext`; `host_users`: the pod has no user namespace of its own.
pub fn validate_container(c: &mut Checker, context: &Value, host_users: bool) {
    id(c, context, "runAsUser");
    id(c, context, "runAsGroup");
    c.optional_choice(context, "procMount", &["Default", "Unmasked"]);
    if host_users && text(context, "procMount") == "Unmasked" {
        c.invalid("procMount", &context["procMount"], "`hostUsers` must be false to use `Unmasked`");
    }
    seccomp(c, context);
    if context["allowPrivilegeEscalation"] == false {
        if flag(context, "privileged") {
            c.invalid("", context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if list(&context["capabilities"], "add").iter().any(|cap| cap == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            c.invalid("", context, why);
        }
    }
    c.if_set(context, "windowsOptions", windows::validate_options);
}

/// A pod's `securityContext` and what hangs on it.
pub fn validate_pod(c: &mut Checker, spec: &Value) {
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        c.invalid("securityContext.shareProcessNamespace", &true.into(), why);
    }
    // A template may leave the ports of the host to its pods, which are given them.
    let is_pod = c.path() == "spec";
    if flag(spec, "hostNetwork") {
        c.each(spec, "containers", |c, container| {
            c.each(container, "ports", |c, port| {
                let (host, own) = (int(port, "hostPort").unwrap_or(0), int(port, "containerPort").unwrap_or(0));
                if host != own && (host != 0 || is_pod) {
                    let why = "must match `containerPort` when `hostNetwork` is true";
                    c.invalid("hostPort", &int(port, "hostPort").unwrap_or(0).into(), why);
                }
            });
        });
    }
    c.if_set(spec, "securityContext", |c, context| {
        for field in ["fsGroup", "runAsUser", "runAsGroup"] {
            id(c, context, field);
        }
        for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
            if group.as_i64().is_none_or(|g| !(0..=i64::from(i32::MAX)).contains(&g)) {
                c.invalid(&format!("supplementalGroups[{i}]"), group, "must be between 0 and 2147483647, inclusive");
            }
        }
        validate_sysctls(c, context);
        c.optional_choice(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
        seccomp(c, context);
        c.if_set(context, "windowsOptions", windows::validate_options);
        c.optional_choice(context, "supplementalGroupsPolicy", &["Merge", "Strict"]);
        c.optional_choice(context, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
    });
    own_user_namespace(c, spec);
    windows::validate_host_process(c, spec);
}

/// A pod with users of its own shares little else with the host. Upstream writes two of these fields in capitals.
fn own_user_namespace(c: &mut Checker, spec: &Value) {
    if spec["hostUsers"] != false {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(spec, field) {
            c.forbidden(shown, "when `hostUsers` is false");
        }
    }
    for field in windows::CONTAINERS {
        c.each(spec, field, |c, container| {
            if !list(container, "volumeDevices").is_empty() {
                c.forbidden("volumeDevices", "when `hostUsers` is false");
            }
        });
    }
}

fn validate_sysctls(c: &mut Checker, context: &Value) {
    let all = list(context, "sysctls");
    let repeated = repeated_text(all, "name");
    c.each_indexed(context, "sysctls", |c, i, sysctl| {
        let name = text(sysctl, "name");
        let word = |p: &str| {
            let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b);
            edge(p.as_bytes().first()) && edge(p.as_bytes().last()) && p.bytes().all(|b| inner(&b))
        };
        if name.is_empty() {
            c.required("name", "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(word) {
            c.invalid_text("name", name, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if repeated[i] {
            c.duplicate("name", &name.into());
        }
    });
}
