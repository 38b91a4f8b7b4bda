//! Takes away what the network made on this machine.

use crate::proxy::iptables;
use crate::{NetworkConfig, cni, command};

/// Removes rules, bridge and configuration. What is already gone is no error; what cannot be removed is reported.
pub async fn purge(config: &NetworkConfig) -> Vec<String> {
    let mut left = Vec::new();
    // Where nftables does not work, nothing was made with it.
    let works = command::run("nft", &["list", "tables"], "").await.is_ok();
    for family in ["ip", "ip6"].into_iter().filter(|_| works) {
        // Naming the table before deleting it makes its absence no error.
        let script = format!("add table {family} knarr\ndelete table {family} knarr\n");
        note(&mut left, command::run("nft", &["-f", "-"], &script).await.map(drop));
    }
    iptables::purge().await;
    if cni::has_link(cni::BRIDGE) {
        note(&mut left, command::run("ip", &["link", "delete", cni::BRIDGE], "").await.map(drop));
    }
    for path in [config.cni_conf_file(), config.cni_state_dir.join(cni::NETWORK)] {
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                left.push(format!("{}: {error}", path.display()));
            }
            _ => {}
        }
    }
    left
}

fn note(left: &mut Vec<String>, outcome: Result<(), crate::Error>) {
    if let Err(error) = outcome {
        left.push(error.to_string());
    }
}
