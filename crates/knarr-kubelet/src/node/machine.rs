//! The machine under the node: what it has and what it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use knarr_api::release;
use nix::sys::statvfs::statvfs;

use crate::config::KubeletConfig;
use crate::eviction::Signal;

/// Amounts of resources, in thousandths.
pub type Amounts = BTreeMap<String, i64>;

/// What the machine has, as the node's capacity.
pub fn capacity(config: &KubeletConfig) -> Amounts {
    let cpus = std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    BTreeMap::from([
        ("cpu".to_owned(), cpus * 1000),
        ("memory".to_owned(), memory_info("MemTotal") * 1000),
        ("ephemeral-storage".to_owned(), disk(&config.root_dir).map_or(0, |disk| disk.total * 1000)),
        ("hugepages-1Gi".to_owned(), 0),
        ("hugepages-2Mi".to_owned(), 0),
        ("pods".to_owned(), i64::from(config.max_pods) * 1000),
    ])
}

/// What pods may use of it: what must be left lest pods are evicted is not theirs.
pub fn allocatable(config: &KubeletConfig) -> Amounts {
    let mut amounts = capacity(config);
    for (name, signal) in [("memory", Signal::Memory), ("ephemeral-storage", Signal::NodeDisk)] {
        let threshold = config.eviction_hard.iter().find(|threshold| threshold.signal == signal);
        if let (Some(threshold), Some(amount)) = (threshold, amounts.get_mut(name)) {
            *amount = (*amount - threshold.amount(*amount / 1000) * 1000).max(0);
        }
    }
    amounts
}

/// Amounts as the API writes them: memory and storage in kibibytes, as upstream does.
pub fn quantities(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    let quantity = |name: &str, millis: i64| match name {
        "memory" => format!("{}Ki", millis / 1000 / 1024),
        // Upstream's capacity is in kibibytes, and what it leaves of it to pods in bytes.
        "ephemeral-storage" if millis / 1000 % 1024 == 0 => format!("{}Ki", millis / 1000 / 1024),
        "ephemeral-storage" => (millis / 1000).to_string(),
        _ if millis % 1000 == 0 => (millis / 1000).to_string(),
        _ => format!("{millis}m"),
    };
    amounts.iter().map(|(name, millis)| (name.clone(), Quantity(quantity(name, *millis)))).collect()
}

/// A line of the kernel's memory table, in bytes.
pub fn memory_info(name: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<i64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// Room of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    pub total: i64,
    pub available: i64,
    pub inodes: i64,
    pub free_inodes: i64,
}

/// The room of the file system that `path` is on, or will be.
pub fn disk(path: &Path) -> Option<Disk> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let stat = statvfs(existing).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX / 1000);
    let count = |files: u64| i64::try_from(files).unwrap_or(i64::MAX);
    Some(Disk {
        total: bytes(stat.blocks()),
        available: bytes(stat.blocks_available()),
        inodes: count(stat.files()),
        free_inodes: count(stat.files_available()),
    })
}

/// How many more processes the kernel lets run.
pub fn free_pids() -> Option<(i64, i64)> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<i64>().ok();
    let most = number("/proc/sys/kernel/pid_max")?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let running = load.split_whitespace().nth(3)?.split('/').nth(1)?.parse::<i64>().ok()?;
    Some((most - running, most))
}

/// What the node says of its system.
pub fn system_info(runtime_version: String) -> NodeSystemInfo {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let machine_id = read("/etc/machine-id");
    let uuid = read("/sys/class/dmi/id/product_uuid");
    let swap = memory_info("SwapTotal");
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: runtime_version,
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kube_proxy_version: String::new(),
        kubelet_version: format!("v{}", release::VERSION),
        operating_system: "linux".to_owned(),
        os_image: os_image(),
        swap: (swap > 0).then_some(NodeSwapStatus { capacity: Some(swap) }),
        system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
        machine_id,
    }
}

/// The machine's architecture, as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}
