//! Security contexts: what a pod and its containers may do, in the runtime's terms.

use std::path::Path;

use k8s_openapi::api::core::v1::{Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext};
use knarr_cri::v1::security_profile::ProfileType;
use knarr_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
    SeLinuxOption, SecurityProfile,
};

use crate::pod::{DesiredContainer, DesiredPod};

/// Parts of `/proc` and `/sys` that containers must not see or write, unless they are privileged or unmask them.
const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Who an image runs as, where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    pub uid: Option<i64>,
    pub name: String,
}

/// The namespaces of a container in the pod; `target` is the id of the container whose processes it joins.
pub fn namespaces(pod: &DesiredPod, target: Option<String>) -> NamespaceOption {
    let spec = pod.spec();
    let is_set = |field: Option<bool>| field.unwrap_or(false);
    let host_or_pod = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
    let pid = if target.is_some() {
        NamespaceMode::Target
    } else if is_set(spec.host_pid) {
        NamespaceMode::Node
    } else if is_set(spec.share_process_namespace) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: host_or_pod(pod.host_network()) as i32,
        ipc: host_or_pod(is_set(spec.host_ipc)) as i32,
        pid: pid as i32,
        target_id: target.unwrap_or_default(),
        userns_options: None,
    }
}

/// The sandbox's security context. Its seccomp profile is always the runtime's: the pause process needs nothing more.
pub fn of_sandbox(pod: &DesiredPod) -> LinuxSandboxSecurityContext {
    let defaults = PodSecurityContext::default();
    let context = pod.spec().security_context.as_ref().unwrap_or(&defaults);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_user.and(context.run_as_group).map(|value| Int64Value { value }),
        supplemental_groups: supplemental_groups(context),
        privileged: pod.containers.iter().any(is_privileged),
        seccomp: Some(profile(ProfileType::RuntimeDefault, "")),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// A container's security context. `user` is whom its image names.
pub fn of_container(
    pod: &DesiredPod,
    container: &DesiredContainer,
    user: &ImageUser,
    target: Option<String>,
    seccomp_root: &Path,
) -> LinuxContainerSecurityContext {
    let (no_pod_context, no_context) = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = pod.spec().security_context.as_ref().unwrap_or(&no_pod_context);
    let own = container.spec.security_context.as_ref().unwrap_or(&no_context);
    let privileged = is_privileged(container);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths =
        |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() };
    let mut context = LinuxContainerSecurityContext {
        capabilities: Some(own.capabilities.as_ref().map(capabilities).unwrap_or_default()),
        privileged,
        namespace_options: Some(namespaces(pod, target)),
        selinux_options: own.se_linux_options.as_ref().or(of_pod.se_linux_options.as_ref()).map(selinux),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(of_pod),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            privileged,
            seccomp_root,
        )),
        ..LinuxContainerSecurityContext::default()
    };
    match own.run_as_user.or(of_pod.run_as_user).or(user.uid) {
        Some(value) => context.run_as_user = Some(Int64Value { value }),
        None => context.run_as_username.clone_from(&user.name),
    }
    context
}

/// Holds `runAsNonRoot`; the texts are upstream's, as they show in the container's status.
pub fn verify_non_root(pod: &DesiredPod, container: &DesiredContainer, user: &ImageUser) -> Result<(), String> {
    let of_pod = pod.spec().security_context.as_ref();
    let own = container.spec.security_context.as_ref();
    let non_root = own.and_then(|own| own.run_as_non_root).or_else(|| of_pod?.run_as_non_root).unwrap_or(false);
    if !non_root {
        return Ok(());
    }
    let described = format!("(pod: \"{}\", container: {})", pod.described(), container.name());
    match own.and_then(|own| own.run_as_user).or_else(|| of_pod?.run_as_user) {
        Some(0) => Err(format!("container's runAsUser breaks non-root policy {described}")),
        Some(_) => Ok(()),
        None if user.uid == Some(0) => {
            Err(format!("container has runAsNonRoot and image will run as root {described}"))
        }
        None if user.uid.is_none() && !user.name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root {described}",
            user.name
        )),
        None => Ok(()),
    }
}

pub fn is_privileged(container: &DesiredContainer) -> bool {
    container.spec.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

fn supplemental_groups(context: &PodSecurityContext) -> Vec<i64> {
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

fn capabilities(capabilities: &Capabilities) -> Capability {
    Capability {
        add_capabilities: capabilities.add.clone().unwrap_or_default(),
        drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        add_ambient_capabilities: Vec::new(),
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    let of = |field: &Option<String>| field.clone().unwrap_or_default();
    SeLinuxOption {
        user: of(&options.user),
        role: of(&options.role),
        r#type: of(&options.type_),
        level: of(&options.level),
    }
}

fn seccomp(wanted: Option<&SeccompProfile>, privileged: bool, root: &Path) -> SecurityProfile {
    let Some(wanted) = wanted.filter(|_| !privileged) else { return profile(ProfileType::Unconfined, "") };
    match wanted.type_.as_str() {
        "RuntimeDefault" => profile(ProfileType::RuntimeDefault, ""),
        "Localhost" => {
            let file = root.join(wanted.localhost_profile.as_deref().unwrap_or_default());
            profile(ProfileType::Localhost, &file.to_string_lossy())
        }
        _ => profile(ProfileType::Unconfined, ""),
    }
}

fn profile(kind: ProfileType, localhost: &str) -> SecurityProfile {
    SecurityProfile { profile_type: kind as i32, localhost_ref: localhost.to_owned() }
}
