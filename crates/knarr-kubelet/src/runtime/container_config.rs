//! What the runtime is asked to make for a container.

use std::path::{Path, PathBuf};

use knarr_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, Mount,
};

use super::labels;
use crate::environment::expansion::expand;
use crate::pod::{DesiredContainer, DesiredPod, resources};

/// Everything that was prepared for a container before the runtime is asked to make it.
pub struct Prepared {
    pub attempt: u32,
    /// The image as the runtime names it after pulling.
    pub image: String,
    pub environment: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub message_file: PathBuf,
    pub security: LinuxContainerSecurityContext,
    pub node_memory: i64,
}

/// The runtime's container for `container` of `pod`.
pub fn container_config(pod: &DesiredPod, container: &DesiredContainer, prepared: Prepared) -> ContainerConfig {
    let spec = &container.spec;
    let lookup =
        |name: &str| prepared.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand_all =
        |words: &Option<Vec<String>>| words.iter().flatten().map(|word| expand(word, &lookup)).collect::<Vec<_>>();
    let stdin = spec.stdin.unwrap_or(false);
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: spec.name.clone(), attempt: prepared.attempt }),
        image: Some(ImageSpec {
            image: prepared.image,
            user_specified_image: container.image().to_owned(),
            ..ImageSpec::default()
        }),
        command: expand_all(&spec.command),
        args: expand_all(&spec.args),
        working_dir: spec.working_dir.clone().unwrap_or_default(),
        envs: prepared
            .environment
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: prepared.mounts,
        labels: labels::of_container(pod, container),
        annotations: labels::container_annotations(
            pod,
            container,
            prepared.attempt,
            &prepared.message_file.to_string_lossy(),
        ),
        log_path: log_path(&spec.name, prepared.attempt),
        stdin,
        stdin_once: stdin && spec.stdin_once.unwrap_or(false),
        tty: spec.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, prepared.node_memory)),
            security_context: Some(prepared.security),
        }),
        ..ContainerConfig::default()
    }
}

/// A container's log, relative to its pod's log directory.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// What the kernel is to hold a container to.
pub fn linux_resources(pod: &DesiredPod, container: &DesiredContainer, node_memory: i64) -> LinuxContainerResources {
    let own = container.spec.resources.as_ref();
    let memory_request = resources::request_millis(own, "memory").unwrap_or(0) / 1000;
    let critical = pod.spec().priority.is_some_and(|priority| priority >= 2_000_000_000);
    LinuxContainerResources {
        cpu_period: resources::QUOTA_PERIOD,
        cpu_quota: resources::cpu_quota(resources::limit_millis(own, "cpu").unwrap_or(0)),
        cpu_shares: resources::cpu_shares(resources::request_millis(own, "cpu").unwrap_or(0)),
        memory_limit_in_bytes: resources::limit_millis(own, "memory").map_or(0, |millis| millis / 1000),
        oom_score_adj: resources::oom_score_adjust(pod.qos, memory_request, node_memory, critical),
        ..LinuxContainerResources::default()
    }
}

/// A mount of a file or directory that this kubelet manages.
pub fn managed_mount(container_path: &str, host_path: &Path, readonly: bool) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        readonly,
        ..Mount::default()
    }
}
