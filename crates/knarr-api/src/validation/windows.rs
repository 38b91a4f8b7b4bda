//! What pods of one operating system may not say, and the options that only Windows has.

use serde_json::Value;

use super::check::{Checker, flag, has, text};
use crate::names;

/// Every sort of container, in the order upstream visits them.
pub const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn each_security_context(c: &mut Checker, spec: &Value, mut check: impl FnMut(&mut Checker, &Value)) {
    for field in CONTAINERS {
        c.each(spec, field, |c, container| c.if_set(container, "securityContext", &mut check));
    }
}

/// What a pod for Linux may not say.
pub fn refuse_windows_options(c: &mut Checker, spec: &Value) {
    const WHY: &str = "windows options cannot be set for a linux pod";
    if has(&spec["securityContext"], "windowsOptions") {
        c.forbidden("securityContext.windowsOptions", WHY);
    }
    each_security_context(c, spec, |c, context| {
        if has(context, "windowsOptions") {
            c.forbidden("windowsOptions", WHY);
        }
    });
}

/// What a pod for Windows may not say.
pub fn refuse_linux_options(c: &mut Checker, spec: &Value) {
    const WHY: &str = "cannot be set for a windows pod";
    const OF_POD: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const OF_CONTAINER: &[&str] = &[
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    for field in ["hostUsers", "shareProcessNamespace"] {
        if has(spec, field) {
            c.forbidden(field, WHY);
        }
    }
    for field in ["hostPID", "hostIPC"] {
        if flag(spec, field) {
            c.forbidden(field, WHY);
        }
    }
    c.if_set(spec, "securityContext", |c, context| {
        OF_POD.iter().filter(|f| has(context, f)).for_each(|f| c.forbidden(f, WHY));
    });
    each_security_context(c, spec, |c, context| {
        OF_CONTAINER.iter().filter(|f| has(context, f)).for_each(|f| c.forbidden(f, WHY));
    });
}

/// `windowsOptions`, of a pod or a container.
pub fn validate_options(c: &mut Checker, options: &Value) {
    const SPEC_BYTES: usize = 64 * 1024;
    if has(options, "gmsaCredentialSpecName") {
        c.rule("gmsaCredentialSpecName", text(options, "gmsaCredentialSpecName"), names::dns_subdomain);
    }
    if has(options, "gmsaCredentialSpec") {
        let spec = &options["gmsaCredentialSpec"];
        match text(options, "gmsaCredentialSpec").len() {
            0 => c.invalid("gmsaCredentialSpec", spec, "gmsaCredentialSpec cannot be an empty string"),
            1..=SPEC_BYTES => {}
            _ => c.invalid("gmsaCredentialSpec", spec, "gmsaCredentialSpec size must be under 64 KiB"),
        }
    }
    if has(options, "runAsUserName") {
        let name = text(options, "runAsUserName");
        user_name_faults(name).into_iter().for_each(|why| c.invalid_text("runAsUserName", name, why));
    }
}

/// `DOMAIN\\user`, or a user alone.
fn user_name_faults(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>().as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut faults = Vec::new();
    if domain.is_some_and(|d| d.len() >= 256) {
        faults.push("runAsUserName's Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_net_bios_name(d) && !is_dns_name(d)) {
        faults.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    match user.len() {
        0 => faults.push("runAsUserName's User cannot be empty"),
        1..=104 => {}
        _ => faults.push("runAsUserName's User length must not be longer than 104 characters"),
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        faults.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        faults.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    faults
}

fn is_net_bios_name(name: &str) -> bool {
    let count = name.chars().count();
    (1..=15).contains(&count) && !name.starts_with(['.', '|']) && !name.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns_name(name: &str) -> bool {
    name.split('.').all(|label| label.len() <= 63 && names::dns_label(&label.to_ascii_lowercase()).is_empty())
}

/// Either all containers are processes of the host, or none is.
pub fn validate_host_process(c: &mut Checker, spec: &Value) {
    let of_pod = &spec["securityContext"]["windowsOptions"]["hostProcess"];
    let (mut all, mut of_host) = (0, 0);
    for field in CONTAINERS {
        c.each(spec, field, |c, container| {
            let own = &container["securityContext"]["windowsOptions"]["hostProcess"];
            if of_pod.is_boolean() && own.is_boolean() && of_pod != own {
                let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
                c.invalid("securityContext.windowsOptions.hostProcess", own, why);
            }
            all += 1;
            of_host += usize::from(*own == true || (own.is_null() && *of_pod == true));
        });
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        c.invalid_text("", "", why);
    }
    if !flag(spec, "hostNetwork") {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        c.invalid("hostNetwork", &false.into(), why);
    }
}
