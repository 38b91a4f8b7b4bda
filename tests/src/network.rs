use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// What a machine with one interface looks like; its default route leads nowhere.
const SET_UP: [&str; 5] = [
    "link set lo up",
    "link add uplink type bridge",
    "address add 192.0.2.1/24 dev uplink",
    "link set uplink up",
    "route add default via 192.0.2.254",
];

/// Moves this process and all it starts into a network of its own, so that a cluster of the tests and one that already runs on the machine
/// do not fight over addresses, ports and rules. Only before there is a second thread, which would stay behind.
pub fn own_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace for the tests")?;
    for command in SET_UP {
        let output = Command::new("ip").args(command.split(' ')).output().context("ip")?;
        ensure!(output.status.success(), "ip {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
