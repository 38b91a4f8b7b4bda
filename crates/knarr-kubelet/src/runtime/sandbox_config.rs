//! What the runtime is asked to make for a pod: its sandbox.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::ContainerPort;
use knarr_cri::v1::{
    DnsConfig, LinuxContainerResources, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping,
    Protocol,
};

use super::{labels, security};
use crate::config::KubeletConfig;
use crate::network::hostname;
use crate::pod::{DesiredPod, resources};

/// The sandbox of `pod`, made for the `attempt`th time, with control groups below `cgroup_parent`.
pub fn sandbox_config(
    pod: &DesiredPod,
    attempt: u32,
    config: &KubeletConfig,
    dns: DnsConfig,
    cgroup_parent: String,
) -> Result<PodSandboxConfig, String> {
    // A pod on the node's network has the node's name.
    let hostname =
        if pod.host_network() { String::new() } else { hostname::kernel_hostname(pod, &config.cluster_domain)? };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            uid: pod.uid.clone(),
            attempt,
        }),
        hostname,
        log_directory: config.pod_log_dir(&pod.namespace, &pod.name, &pod.uid).to_string_lossy().into_owned(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: labels::of_sandbox(pod),
        annotations: pod.object.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security::of_sandbox(pod)),
            sysctls: sysctls(pod),
            overhead: Some(LinuxContainerResources::default()),
            resources: Some(LinuxContainerResources { cpu_shares: resources::cpu_shares(0), ..Default::default() }),
        }),
        windows: None,
    })
}

fn sysctls(pod: &DesiredPod) -> HashMap<String, String> {
    let context = pod.spec().security_context.as_ref();
    let sysctls = context.and_then(|context| context.sysctls.as_ref()).into_iter().flatten();
    // Upstream takes both ways of writing a name; the kernel's tools and the runtime know dots.
    sysctls.map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone())).collect()
}

fn port_mappings(pod: &DesiredPod) -> Vec<PortMapping> {
    if pod.host_network() {
        return Vec::new();
    }
    let ports = pod.containers.iter().flat_map(|container| container.spec.ports.iter().flatten());
    ports.filter(|port| port.host_port.unwrap_or(0) > 0).map(port_mapping).collect()
}

fn port_mapping(port: &ContainerPort) -> PortMapping {
    let protocol = match port.protocol.as_deref() {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    PortMapping {
        protocol: protocol as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or(0),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    }
}
