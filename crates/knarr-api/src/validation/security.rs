//! Security contexts of pods and containers.

use serde_json::Value;

use super::check::{Checker, flag, has, int, list, text};

fn id(c: &mut Checker, context: &Value, field: &str) {
    if int(context, field).is_some() {
        c.in_range(context, field, 0, i64::from(i32::MAX));
    }
}

fn seccomp(c: &mut Checker, context: &Value) {
    c.if_set(context, "seccompProfile", |c, profile| {
        c.choice(profile, "type", &["Localhost", "RuntimeDefault", "Unconfined"]);
        match (text(profile, "type"), has(profile, "localhostProfile")) {
            ("Localhost", false) => c.required("localhostProfile", "must be set when seccomp type is Localhost"),
            ("Localhost", true) => {
                super::volume::descending_path(c, "localhostProfile", text(profile, "localhostProfile"));
            }
            (_, true) => {
                c.invalid(
                    "localhostProfile",
                    &profile["localhostProfile"],
                    "can only be set when seccomp type is Localhost",
                );
            }
            _ => {}
        }
    });
    c.if_set(context, "appArmorProfile", |c, profile| {
        c.choice(profile, "type", &["Localhost", "RuntimeDefault", "Unconfined"]);
        match (text(profile, "type"), has(profile, "localhostProfile")) {
            ("Localhost", false) => c.required("localhostProfile", "must be set when AppArmor type is Localhost"),
            ("Localhost", true) | (_, false) => {}
            _ => c.invalid(
                "localhostProfile",
                &profile["localhostProfile"],
                "can only be set when AppArmor type is Localhost",
            ),
        }
    });
}

/// A container's `securityContext`.
pub fn validate_container(c: &mut Checker, context: &Value) {
    id(c, context, "runAsUser");
    id(c, context, "runAsGroup");
    seccomp(c, context);
    c.optional_choice(context, "procMount", &["Default", "Unmasked"]);
    if context["allowPrivilegeEscalation"] == false {
        if flag(context, "privileged") {
            c.invalid("", context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if list(&context["capabilities"], "add").iter().any(|cap| cap == "CAP_SYS_ADMIN") {
            c.invalid(
                "",
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}

/// A pod's `securityContext` and what hangs on it.
pub fn validate_pod(c: &mut Checker, spec: &Value) {
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        c.invalid("shareProcessNamespace", &true.into(), "ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if flag(spec, "hostNetwork") {
        for field in ["containers", "initContainers"] {
            c.each(spec, field, |c, container| {
                c.each(container, "ports", |c, port| {
                    if port["hostPort"] != port["containerPort"] {
                        c.invalid(
                            "hostPort",
                            &port["hostPort"],
                            "must match `containerPort` when `hostNetwork` is true",
                        );
                    }
                });
            });
        }
    }
    c.if_set(spec, "securityContext", |c, context| {
        for field in ["fsGroup", "runAsGroup", "runAsUser"] {
            id(c, context, field);
        }
        for (i, group) in list(context, "supplementalGroups").iter().enumerate() {
            if group.as_i64().is_none_or(|g| !(0..=i64::from(i32::MAX)).contains(&g)) {
                c.invalid(&format!("supplementalGroups[{i}]"), group, "must be between 0 and 2147483647, inclusive");
            }
        }
        c.optional_choice(context, "fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
        c.optional_choice(context, "supplementalGroupsPolicy", &["Merge", "Strict"]);
        validate_sysctls(c, context);
        seccomp(c, context);
    });
}

fn validate_sysctls(c: &mut Checker, context: &Value) {
    let all = list(context, "sysctls");
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
        } else if all[..i].iter().any(|other| text(other, "name") == name) {
            c.duplicate("name", &name.into());
        }
    });
}
