//! The node: the container runtime, the kubelet and the network on this machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use knarr_client::Informers;
use knarr_cri::{RemoteRuntime, RuntimeService};
use knarr_kubelet::server::access::DelegatedAccess;
use knarr_kubelet::{Kubelet, KubeletConfig};
use knarr_network::NetworkConfig;

use crate::containerd::Containerd;
use crate::control_plane::ControlPlane;
use crate::credentials::Pki;
use crate::layout::{self, Layout};
use crate::settings::Settings;
use crate::tasks::Tasks;

/// How long a runtime whose socket is there may take to answer.
const RUNTIME_LIMIT: Duration = Duration::from_secs(30);
/// How long the processes of purged pods may take to be gone from their control groups.
const GROUP_LIMIT: Duration = Duration::from_secs(5);

/// Takes the one place for a node that a network namespace has, until the result is dropped or the process dies: two nodes would fight over
/// interfaces, addresses and rules.
pub fn claim_network() -> Result<UnixListener> {
    // A name without a file lives in the network namespace, and goes with its process.
    let place = UnixAddr::from_abstract_name("knarr-node")?;
    UnixListener::bind_addr(&place).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "another knarr runs pods in this network namespace: stop it with `knarr down`, or start the control plane alone with --no-node"
        ),
        _ => anyhow::anyhow!("cannot claim the network namespace for a node: {error}"),
    })
}

/// Starts the private containerd, or finds the runtime that the settings name, and gives it the pause image.
pub async fn start_runtime(settings: &Settings, layout: &Layout, tasks: &Tasks) -> Result<RemoteRuntime> {
    let socket = match &settings.runtime_endpoint {
        Some(socket) => socket.clone(),
        None => {
            let containerd = Containerd::start(layout).await?;
            tasks.spawn("containerd", containerd.supervise(tasks.stop.clone()));
            layout.private_runtime_socket()
        }
    };
    let runtime = answering(&socket).await?;
    fs::write(layout.runtime_note(), socket.display().to_string()).context("noting the runtime's socket")?;
    crate::images::ensure_pause(layout, &socket).await?;
    Ok(runtime)
}

/// The runtime that listens there, once it answers.
pub async fn answering(socket: &Path) -> Result<RemoteRuntime> {
    if !socket.exists() {
        bail!("no container runtime listens on {}: start it, or leave --runtime-endpoint out", socket.display());
    }
    let runtime = RemoteRuntime::new(&socket.display().to_string())?;
    let started = Instant::now();
    // containerd listens before its plug-ins are ready, and with many pods to take over that may take a while.
    loop {
        match runtime.version().await {
            Ok(_) => return Ok(runtime),
            Err(error) if started.elapsed() > RUNTIME_LIMIT => {
                let what = format!("the container runtime on {} does not answer CRI v1", socket.display());
                return Err(error).context(what);
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Starts kubelet and network; they end with `stop`, pods and rules stay.
pub async fn start(
    settings: &Settings,
    layout: &Layout,
    pki: &Pki,
    server: &Arc<ControlPlane>,
    runtime: RemoteRuntime,
    tasks: &Tasks,
) -> Result<()> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), settings.kubelet_port);
    let listener = crate::up::listen(address, "--kubelet-port").await?;
    let tls = knarr_pki::server_config(&pki.kubelet_serving, pki.authority.certificate_pem())?;
    if let Err(error) = fs::create_dir_all(&settings.pod_manifest_path) {
        let directory = settings.pod_manifest_path.display();
        tracing::warn!(%error, %directory, "the directory of static pods' manifests cannot be made");
    }
    let client = server.client(&format!("system:node:{}", settings.node_name), &["system:nodes"]);
    let control_group = layout::control_group(layout)?;
    let kubelet = Kubelet::new(kubelet_config(settings, layout, &control_group), client.clone(), Arc::new(runtime));
    let api = knarr_kubelet::server::Server::new(kubelet.view(), Arc::new(DelegatedAccess::new(client)));
    tasks.spawn("kubelet API", api.serve(listener, tls, tasks.stop.clone()));
    tasks.spawn("kubelet", kubelet.run(tasks.stop.clone()));

    let clients = knarr_network::Clients {
        proxy: Informers::new(server.client("system:kube-proxy", &[]), tasks.stop.clone()),
        dns: Informers::new(server.client("system:knarr-dns", &[]), tasks.stop.clone()),
    };
    let network = knarr_network::run(clients, network_config(settings, layout), tasks.stop.clone());
    tasks.spawn("network", async move {
        if let Err(error) = network.await {
            tracing::error!("the node's network ended: {error}");
        }
    });
    Ok(())
}

fn kubelet_config(settings: &Settings, layout: &Layout, control_group: &str) -> KubeletConfig {
    KubeletConfig {
        node_ips: vec![IpAddr::V4(settings.node_ip)],
        pod_logs_dir: layout.pod_logs(),
        cgroup_root: format!("/{control_group}/kubepods"),
        cluster_dns: vec![IpAddr::V4(settings.service_address(10))],
        cluster_domain: settings.cluster_domain.clone(),
        port: settings.kubelet_port,
        eviction_hard: settings.eviction_hard.clone(),
        static_pod_dir: Some(settings.pod_manifest_path.clone()),
        pinned_images: vec![knarr_image::PAUSE_IMAGE.to_string()],
        // Images come from archives here as often as from a registry, and those could not be pulled again: only a full disk
        // is worth losing them.
        image_gc_high: 100,
        image_gc_low: 95,
        ..KubeletConfig::new(settings.node_name.clone(), layout.kubelet())
    }
}

fn network_config(settings: &Settings, layout: &Layout) -> NetworkConfig {
    NetworkConfig {
        cluster_cidr: vec![settings.cluster_cidr.into()],
        service_cidr: vec![settings.service_cidr.into()],
        cluster_domain: settings.cluster_domain.clone(),
        dns_service_ip: IpAddr::V4(settings.service_address(10)),
        ..paths(layout, &settings.node_name, IpAddr::V4(settings.node_ip), settings.runtime_endpoint.is_none())
    }
}

/// A runtime of the machine's own looks where the CNI convention says; ours looks into the data directory.
fn paths(layout: &Layout, node_name: &str, node_ip: IpAddr, private: bool) -> NetworkConfig {
    let config = NetworkConfig::new(node_name, node_ip);
    if !private {
        return config;
    }
    NetworkConfig { cni_conf_dir: layout.cni().join("net.d"), cni_state_dir: layout.cni().join("networks"), ..config }
}

/// Removes the rules, interfaces and control groups of the node, once its pods are gone: as much as can be, before it says what cannot.
pub async fn purge(layout: &Layout, socket: &Path) -> Result<()> {
    let private = socket == layout.private_runtime_socket();
    let mut left = knarr_network::purge::purge(&paths(layout, "", IpAddr::V4(Ipv4Addr::LOCALHOST), private)).await;
    if let Some(name) = layout::noted_control_group(layout)
        && let Err(error) = purge_control_groups(&name).await
    {
        left.push(format!("{error:#}"));
    }
    if !left.is_empty() {
        bail!("of the node, this could not be removed: {}", left.join("; "));
    }
    Ok(())
}

async fn purge_control_groups(name: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        // The kernel takes its time with the last process of a group.
        match remove_control_groups(Path::new("/sys/fs/cgroup"), name) {
            Err(_) if started.elapsed() < GROUP_LIMIT => tokio::time::sleep(Duration::from_millis(50)).await,
            outcome => return outcome,
        }
    }
}

/// Removes the control groups of that name in every hierarchy, innermost first.
fn remove_control_groups(root: &Path, name: &str) -> Result<()> {
    let mut hierarchies: Vec<PathBuf> = vec![root.to_path_buf()];
    hierarchies.extend(fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()));
    for hierarchy in hierarchies {
        let group = hierarchy.join(name);
        if group.is_dir() {
            remove_group(&group).with_context(|| group.display().to_string())?;
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
