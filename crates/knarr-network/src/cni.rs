//! Addresses for pods: the configuration of the standard CNI plug-ins, from the node's pod CIDR.

use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use knarr_client::informer::{Event, Informers, Selection};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{Error, NetworkConfig, command, sysctl};

/// The bridge that pods hang on.
pub const BRIDGE: &str = "knarr0";

/// The name of the network, by which the address plug-in keeps its state.
pub const NETWORK: &str = "knarr";

/// Writes the configuration whenever the node's pod CIDR is known or changes.
pub(crate) async fn run(informers: &Informers, config: &NetworkConfig, shutdown: &CancellationToken) {
    let selection =
        Selection { field_selector: Some(format!("metadata.name={}", config.node_name)), ..Selection::default() };
    let mut nodes = informers.selected::<Node>(selection).subscribe();
    loop {
        let event = tokio::select! {
            event = nodes.recv() => event,
            () = shutdown.cancelled() => return,
        };
        match event {
            Some(Event::Added(node) | Event::Updated { new: node, .. }) => configure(&node, config).await,
            Some(Event::Deleted(_)) => {}
            None => return,
        }
    }
}

async fn configure(node: &Arc<Node>, config: &NetworkConfig) {
    let ranges = pod_cidrs(node);
    if ranges.is_empty() {
        return;
    }
    let conflist = conflist(&ranges, mtu().await, &config.cni_state_dir);
    if let Err(error) = make_bridge(&ranges).await {
        // The bridge plug-in makes it with the first pod.
        tracing::debug!(%error, "bridge {BRIDGE} is not made yet");
    }
    match write_if_changed(&config.cni_conf_file(), &format!("{conflist:#}\n")) {
        Ok(true) => tracing::info!(?ranges, "pod network configured"),
        Ok(false) => {}
        Err(error) => tracing::error!(%error, "pod network cannot be configured"),
    }
}

/// The node's pod CIDRs, the primary one first.
pub(crate) fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let listed = spec.pod_cidrs.iter().flatten();
    let single = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.as_ref().is_none_or(Vec::is_empty));
    listed.chain(single).filter_map(|text| text.parse().ok()).collect()
}

/// The network configuration list.
fn conflist(ranges: &[IpNet], mtu: u32, state_dir: &Path) -> Value {
    let subnets: Vec<Value> = ranges.iter().map(|range| json!([{"subnet": range.to_string()}])).collect();
    let routes: Vec<Value> = ranges
        .iter()
        .map(|range| json!({"dst": if matches!(range, IpNet::V4(_)) { "0.0.0.0/0" } else { "::/0" }}))
        .collect();
    json!({
        "cniVersion": "1.0.0",
        "name": NETWORK,
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": true, "hairpinMode": true, "mtu": mtu,
                "ipam": {"type": "host-local", "dataDir": state_dir, "ranges": subnets, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

/// Whether this process's network has an interface of that name. (What `/sys/class/net` shows is the network of whoever mounted it.)
pub fn has_link(name: &str) -> bool {
    nix::net::if_::if_nametoindex(name).is_ok()
}

/// Makes the bridge with the gateway's address before the first pod, so that its kernel settings can be made.
async fn make_bridge(ranges: &[IpNet]) -> Result<(), Error> {
    if !has_link(BRIDGE) {
        command::run("ip", &["link", "add", BRIDGE, "type", "bridge"], "").await?;
    }
    for range in ranges {
        let Some(gateway) = range.hosts().next() else { continue };
        let address = format!("{gateway}/{}", range.prefix_len());
        command::run("ip", &["address", "replace", &address, "dev", BRIDGE], "").await?;
    }
    command::run("ip", &["link", "set", BRIDGE, "up"], "").await?;
    sysctl::route_localnet(BRIDGE);
    Ok(())
}

/// The packet size of the interface with the default route.
async fn mtu() -> u32 {
    const USUAL: u32 = 1500;
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let Some(interface) = default_interface(&routes) else { return USUAL };
    let shown = command::run("ip", &["-oneline", "link", "show", "dev", interface], "").await.unwrap_or_default();
    mtu_shown(&shown).unwrap_or(USUAL)
}

/// `2: eth0: <UP> mtu 1500 qdisc …`
fn mtu_shown(link: &str) -> Option<u32> {
    link.split_whitespace().skip_while(|word| *word != "mtu").nth(1)?.parse().ok()
}

fn default_interface(routes: &str) -> Option<&str> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?;
        (fields.next()? == "00000000").then_some(interface)
    })
}

/// Whether the file had to be written. A reader never sees half of it.
fn write_if_changed(path: &Path, contents: &str) -> Result<bool, Error> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    if std::fs::read_to_string(path).is_ok_and(|current| current == contents) {
        return Ok(false);
    }
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    // The runtime reads every file of the directory whose name it knows; this one's it does not.
    let temporary = path.with_extension("writing");
    std::fs::write(&temporary, contents).and_then(|()| std::fs::rename(&temporary, path)).map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_names_the_interface() {
        let routes = "Iface\tDestination\tGateway\neth1\t0000A8C0\t00000000\neth0\t00000000\t0100A8C0\n";
        assert_eq!(default_interface(routes), Some("eth0"));
        assert_eq!(default_interface("Iface\n"), None);
    }

    #[test]
    fn a_links_packet_size_is_read_as_ip_shows_it() {
        let link = "2: eth0: <BROADCAST,MULTICAST,UP> mtu 1460 qdisc mq state UP mode DEFAULT group default qlen 1000\\    link/ether";
        assert_eq!(mtu_shown(link), Some(1460));
        assert_eq!(mtu_shown(""), None);
    }

    #[test]
    fn the_configuration_follows_the_nodes_cidr() {
        let node: Node = serde_json::from_value(json!({"metadata": {}, "spec": {"podCIDR": "10.244.3.0/24"}})).unwrap();
        let list = conflist(&pod_cidrs(&node), 1400, Path::new("/var/lib/knarr/cni"));
        assert_eq!(list["plugins"][0]["ipam"]["ranges"], json!([[{"subnet": "10.244.3.0/24"}]]));
        assert_eq!(list["plugins"][0]["mtu"], 1400);
        let directory = std::env::temp_dir().join(format!("knarr-cni-{}", std::process::id()));
        let file = directory.join("10-knarr.conflist");
        assert!(write_if_changed(&file, "x").unwrap());
        assert!(!write_if_changed(&file, "x").unwrap());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
