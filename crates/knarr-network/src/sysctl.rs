//! The kernel's settings that a node needs.

use std::path::Path;

/// Forwarding, and bridged traffic through the rules: without the latter, the answer of a pod to another pod on the same node
/// would not find its way back through the Service's address.
pub(crate) fn prepare() {
    set("net/ipv4/ip_forward", "1");
    if !bridged_traffic_is_seen() {
        load_bridge_filter();
        set("net/bridge/bridge-nf-call-iptables", "1");
    }
}

/// Whether packets between ports of a bridge pass the rules.
pub(crate) fn bridged_traffic_is_seen() -> bool {
    std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|value| value.trim() == "1")
}

/// Lets packets from 127.0.0.0/8 leave by the bridge, for node ports asked of on localhost.
pub(crate) fn route_localnet(bridge: &str) {
    set(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1");
}

fn load_bridge_filter() {
    if Path::new("/proc/sys/net/bridge").exists() {
        return;
    }
    if let Err(error) = std::process::Command::new("modprobe").arg("br_netfilter").output() {
        tracing::debug!(%error, "br_netfilter is not loaded");
    }
}

fn set(name: &str, value: &str) {
    let path = Path::new("/proc/sys").join(name);
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    if current.trim() == value {
        return;
    }
    if let Err(error) = std::fs::write(&path, value) {
        tracing::warn!(sysctl = name, %error, "cannot set a kernel parameter; parts of the pod network may not work");
    }
}
