//! What one kubelet is told at its start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::eviction::thresholds::{self, Threshold};

/// The settings of a kubelet. [`KubeletConfig::new`] gives upstream's defaults.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// Name of the node object.
    pub node_name: String,
    /// Addresses of the node, the preferred one first.
    pub node_ips: Vec<IpAddr>,
    /// Where pods' volumes and managed files live: `<root_dir>/pods/<uid>/...`.
    pub root_dir: PathBuf,
    /// Where container logs live: `<pod_logs_dir>/<namespace>_<name>_<uid>/<container>/<n>.log`.
    pub pod_logs_dir: PathBuf,
    /// Manifests of static pods, if any.
    pub static_pod_dir: Option<PathBuf>,
    /// Parent of the pods' control groups, as a path below each hierarchy.
    pub cgroup_root: String,
    /// Addresses of the cluster DNS, for pods with `dnsPolicy: ClusterFirst`.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// The resolver configuration that pods with `dnsPolicy: Default` inherit.
    pub resolv_conf: PathBuf,
    /// Port of the kubelet's HTTPS API, published in the node's status.
    pub port: u16,
    /// How many pods may run here at once.
    pub max_pods: u32,
    /// Labels the node registers with, beside the well-known ones.
    pub node_labels: BTreeMap<String, String>,
    /// Taints the node registers with.
    pub node_taints: Vec<Taint>,
    /// How often the node's lease is renewed.
    pub lease_renewal: Duration,
    /// How often an unchanged node status is looked at again.
    pub node_status_frequency: Duration,
    /// How often pods are listed from a runtime that sends no events.
    pub relist_period: Duration,
    /// A log file is rotated when it grows past this size.
    pub log_max_size: u64,
    /// How many files of a container's log are kept.
    pub log_max_files: u32,
    /// Images are collected when their filesystem is fuller than `image_gc_high` percent, until `image_gc_low`.
    pub image_gc_high: u8,
    pub image_gc_low: u8,
    /// Pods are evicted while less than this is left.
    pub eviction_hard: Vec<Threshold>,
    /// How often it is looked whether pods must be evicted.
    pub eviction_period: Duration,
    /// Images that are never collected: that of the sandboxes, where the runtime does not pin it itself.
    pub pinned_images: Vec<String>,
    /// Dead containers kept for a container of a running pod, so that `kubectl logs --previous` works.
    pub dead_containers_kept: usize,
}

impl KubeletConfig {
    /// Upstream's defaults for a node of that name with its state below `root_dir`.
    pub fn new(node_name: impl Into<String>, root_dir: impl Into<PathBuf>) -> KubeletConfig {
        KubeletConfig {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            root_dir: root_dir.into(),
            pod_logs_dir: PathBuf::from("/var/log/pods"),
            static_pod_dir: None,
            cgroup_root: "/kubepods".to_owned(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            port: 10250,
            max_pods: 110,
            node_labels: BTreeMap::new(),
            node_taints: Vec::new(),
            lease_renewal: Duration::from_secs(10),
            node_status_frequency: Duration::from_secs(10),
            relist_period: Duration::from_secs(1),
            log_max_size: 10 << 20,
            log_max_files: 5,
            image_gc_high: 85,
            image_gc_low: 80,
            eviction_hard: thresholds::usual(),
            eviction_period: Duration::from_secs(10),
            pinned_images: Vec::new(),
            dead_containers_kept: 1,
        }
    }

    /// The directory of a pod's volumes and managed files.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root_dir.join("pods").join(uid)
    }

    /// The directory of a pod's logs.
    pub fn pod_log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_logs_dir.join(format!("{namespace}_{name}_{uid}"))
    }
}
