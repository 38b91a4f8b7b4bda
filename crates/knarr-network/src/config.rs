//! What the network of one node is told at its start.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;

/// The settings of a node's network.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    pub node_name: String,
    /// The address that the node's own services (DNS) listen on.
    pub node_ip: IpAddr,
    /// The addresses of all pods: traffic between them is not masqueraded.
    pub cluster_cidr: Vec<IpNet>,
    pub service_cidr: Vec<IpNet>,
    pub cluster_domain: String,
    /// The cluster address of Service `kube-system/kube-dns`.
    pub dns_service_ip: IpAddr,
    /// The port of `node_ip` that the cluster DNS prefers; another one where it is taken.
    pub dns_port: u16,
    /// Where the runtime looks for network configuration.
    pub cni_conf_dir: PathBuf,
    /// Where the address plug-in remembers which addresses are taken.
    pub cni_state_dir: PathBuf,
    /// Whose name servers answer for names outside of the cluster.
    pub resolv_conf: PathBuf,
}

impl NetworkConfig {
    /// A node of a cluster with Knarr's usual ranges.
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr) -> NetworkConfig {
        let range = |a, b, prefix| IpNet::new(Ipv4Addr::new(10, a, b, 0).into(), prefix).into_iter().collect();
        NetworkConfig {
            node_name: node_name.into(),
            node_ip,
            cluster_cidr: range(244, 0, 16),
            service_cidr: range(96, 0, 16),
            cluster_domain: "cluster.local".to_owned(),
            dns_service_ip: Ipv4Addr::new(10, 96, 0, 10).into(),
            dns_port: 10053,
            cni_conf_dir: PathBuf::from("/etc/cni/net.d"),
            cni_state_dir: PathBuf::from("/var/lib/cni/networks"),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }

    /// The network configuration file, ours alone.
    pub fn cni_conf_file(&self) -> PathBuf {
        self.cni_conf_dir.join("10-knarr.conflist")
    }
}
