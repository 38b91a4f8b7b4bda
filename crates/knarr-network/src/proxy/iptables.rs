//! Frontends as iptables, for kernels on which nftables does not work. Each table is replaced in one `iptables-restore`; our chains
//! begin with `KNARR-`, and only jumps to them are put into the built-in chains.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::{Endpoint, Frontend, Surroundings};
use crate::cni::BRIDGE;
use crate::{Error, command};

const MASQUERADE: &str = "-j MARK --or-mark 0x4000";

/// Table, built-in chain, our chain.
const JUMPS: &[(&str, &str, &str)] = &[
    ("nat", "PREROUTING", "KNARR-SERVICES"),
    ("nat", "OUTPUT", "KNARR-SERVICES"),
    ("nat", "POSTROUTING", "KNARR-POSTROUTING"),
    ("filter", "INPUT", "KNARR-NO-ENDPOINTS"),
    ("filter", "FORWARD", "KNARR-NO-ENDPOINTS"),
    ("filter", "OUTPUT", "KNARR-NO-ENDPOINTS"),
    ("raw", "PREROUTING", "KNARR-GUARD"),
];

/// Puts the rules into the kernel.
pub async fn apply(frontends: &[Frontend], surroundings: &Surroundings) -> Result<(), Error> {
    let present = command::run("iptables-save", &["-t", "nat"], "").await?;
    let script = render(frontends, surroundings, &chains_in(&present));
    command::run("iptables-restore", &["--noflush", "-w", "5"], &script).await?;
    for (table, chain, target) in JUMPS {
        if command::run("iptables", &["-w", "5", "-t", table, "-C", chain, "-j", target], "").await.is_err() {
            command::run("iptables", &["-w", "5", "-t", table, "-I", chain, "-j", target], "").await?;
        }
    }
    Ok(())
}

/// Removes everything of ours; without iptables there is nothing to remove.
pub async fn purge() {
    for table in ["nat", "filter", "raw"] {
        let Ok(present) = command::run("iptables-save", &["-t", table], "").await else { return };
        let ours = chains_in(&present);
        if ours.is_empty() {
            continue;
        }
        for (_, chain, target) in JUMPS.iter().filter(|(of, ..)| *of == table) {
            let _ = command::run("iptables", &["-w", "5", "-t", table, "-D", chain, "-j", target], "").await;
        }
        let mut script = format!("*{table}\n");
        for verb in ["-F", "-X"] {
            for chain in &ours {
                let _ = writeln!(script, "{verb} {chain}");
            }
        }
        script.push_str("COMMIT\n");
        if let Err(error) = command::run("iptables-restore", &["--noflush", "-w", "5"], &script).await {
            tracing::warn!(%error, table, "iptables chains are left behind");
        }
    }
}

fn chains_in(saved: &str) -> Vec<String> {
    let names = saved.lines().filter_map(|line| line.strip_prefix(':')?.split_whitespace().next());
    names.filter(|name| name.starts_with("KNARR-")).map(str::to_owned).collect()
}

/// Chains of one table: all are emptied, then filled.
#[derive(Default)]
struct Table(BTreeMap<String, Vec<String>>);

impl Table {
    fn rule(&mut self, chain: &str, rule: String) {
        self.0.entry(chain.to_owned()).or_default().push(rule);
    }

    fn script(&self, name: &str, present: &[String]) -> String {
        let mut script = format!("*{name}\n");
        let gone: Vec<&String> = present.iter().filter(|chain| !self.0.contains_key(*chain)).collect();
        for chain in self.0.keys().chain(gone.iter().copied()) {
            let _ = writeln!(script, ":{chain} - [0:0]");
        }
        for (chain, rules) in &self.0 {
            for rule in rules {
                let _ = writeln!(script, "-A {chain} {rule}");
            }
        }
        for chain in gone {
            let _ = writeln!(script, "-X {chain}");
        }
        script + "COMMIT\n"
    }
}

/// The input of `iptables-restore --noflush`; `present` are our chains in table `nat` now.
pub fn render(frontends: &[Frontend], surroundings: &Surroundings, present: &[String]) -> String {
    let (mut nat, mut filter, mut raw) = (Table::default(), Table::default(), Table::default());
    for (table, _, chain) in JUMPS {
        let table = match *table {
            "nat" => &mut nat,
            "filter" => &mut filter,
            _ => &mut raw,
        };
        table.0.entry((*chain).to_owned()).or_default();
    }
    raw.rule("KNARR-GUARD", "! -i lo -d 127.0.0.0/8 -j DROP".to_owned());
    postrouting(&mut nat, surroundings);
    for frontend in frontends {
        service(&mut nat, &mut filter, frontend, surroundings);
    }
    // After the addresses, since it matches every address of the machine.
    nat.rule("KNARR-SERVICES", "-m addrtype --dst-type LOCAL -j KNARR-NODEPORTS".to_owned());
    nat.0.entry("KNARR-NODEPORTS".to_owned()).or_default();
    nat.script("nat", present) + &filter.script("filter", &[]) + &raw.script("raw", &[])
}

fn postrouting(nat: &mut Table, surroundings: &Surroundings) {
    let chain = "KNARR-POSTROUTING";
    nat.rule(chain, "-m mark --mark 0x4000/0x4000 -j MASQUERADE".to_owned());
    nat.rule(chain, "-s 127.0.0.0/8 ! -o lo -m conntrack --ctstate DNAT -j MASQUERADE".to_owned());
    for pods in surroundings.pod_cidrs.iter().filter(|range| range.addr().is_ipv4()) {
        if surroundings.masquerade_bridged {
            nat.rule(chain, format!("-s {pods} -d {pods} -m conntrack --ctstate DNAT -j MASQUERADE"));
        }
        for cluster in surroundings.cluster_cidrs.iter().filter(|range| range.addr().is_ipv4()) {
            nat.rule(chain, format!("-s {pods} -d {cluster} -j RETURN"));
        }
        nat.rule(chain, format!("-s {pods} -d 224.0.0.0/4 -j RETURN"));
        nat.rule(chain, format!("-s {pods} ! -o {BRIDGE} -j MASQUERADE"));
    }
}

fn service(nat: &mut Table, filter: &mut Table, frontend: &Frontend, surroundings: &Surroundings) {
    let id = short_name(&frontend.name);
    let protocol = frontend.protocol.name();
    let (internal, external) = (format!("KNARR-SVC-{id}"), format!("KNARR-EXT-{id}"));
    let endpoints = &frontend.endpoints;
    let refused = if endpoints.anywhere { "DROP" } else { "REJECT" };
    for address in &frontend.cluster_ips {
        let matched = format!("-d {address}/32 -p {protocol} -m {protocol} --dport {}", frontend.port);
        if endpoints.internal.is_empty() {
            filter.rule("KNARR-NO-ENDPOINTS", format!("{matched} -j {refused}"));
            continue;
        }
        for cluster in surroundings.cluster_cidrs.iter().filter(|range| range.addr().is_ipv4()).take(1) {
            nat.rule("KNARR-SERVICES", format!("! -s {cluster} {matched} {MASQUERADE}"));
        }
        nat.rule("KNARR-SERVICES", format!("{matched} -j {internal}"));
    }
    balance(nat, &internal, &id, frontend, &endpoints.internal);
    let external_matches = external_matches(frontend);
    if external_matches.is_empty() {
        return;
    }
    let usable = !endpoints.external.is_empty() || (frontend.external_local && !endpoints.internal.is_empty());
    for (chain, matched) in external_matches {
        match usable {
            true => nat.rule(chain, format!("{matched} -j {external}")),
            false if chain == "KNARR-NODEPORTS" => {
                filter.rule("KNARR-NO-ENDPOINTS", format!("-m addrtype --dst-type LOCAL {matched} -j {refused}"));
            }
            false => filter.rule("KNARR-NO-ENDPOINTS", format!("{matched} -j {refused}")),
        }
    }
    if usable {
        external_chain(nat, &external, &internal, &id, frontend, surroundings);
    }
}

fn external_matches(frontend: &Frontend) -> Vec<(&'static str, String)> {
    let protocol = frontend.protocol.name();
    let address = |address| format!("-d {address}/32 -p {protocol} -m {protocol} --dport {}", frontend.port);
    let addresses = frontend.external_ips.iter().map(|ip| ("KNARR-SERVICES", address(ip)));
    let node_port = frontend.node_port.map(|port| format!("-p {protocol} -m {protocol} --dport {port}"));
    addresses.chain(node_port.map(|matched| ("KNARR-NODEPORTS", matched))).collect()
}

fn external_chain(
    nat: &mut Table,
    chain: &str,
    internal: &str,
    id: &str,
    frontend: &Frontend,
    surroundings: &Surroundings,
) {
    if !frontend.external_local {
        nat.rule(chain, MASQUERADE.to_owned());
    } else if !frontend.endpoints.internal.is_empty() {
        for cluster in surroundings.cluster_cidrs.iter().filter(|range| range.addr().is_ipv4()) {
            nat.rule(chain, format!("-s {cluster} -j {internal}"));
        }
        nat.rule(chain, format!("-m addrtype --src-type LOCAL {MASQUERADE}"));
        nat.rule(chain, format!("-m addrtype --src-type LOCAL -j {internal}"));
    }
    balance(nat, chain, id, frontend, &frontend.endpoints.external);
}

fn balance(nat: &mut Table, chain: &str, id: &str, frontend: &Frontend, endpoints: &[Endpoint]) {
    let target = |endpoint: &Endpoint| {
        format!("KNARR-EP-{}", short_name(&format!("{id}/{}:{}", endpoint.address, endpoint.port)))
    };
    if let Some(seconds) = frontend.affinity {
        for endpoint in endpoints {
            let target = target(endpoint);
            nat.rule(
                chain,
                format!("-m recent --name {target} --rcheck --seconds {seconds} --reap --rsource -j {target}"),
            );
        }
    }
    for (turn, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - turn;
        let target = target(endpoint);
        let nth = if left > 1 { format!("-m statistic --mode nth --every {left} --packet 0 ") } else { String::new() };
        nat.rule(chain, format!("{nth}-j {target}"));
        let remember =
            frontend.affinity.map(|_| format!("-m recent --name {target} --set --rsource ")).unwrap_or_default();
        let protocol = frontend.protocol.name();
        nat.0.insert(
            target,
            vec![
                format!("-s {}/32 {MASQUERADE}", endpoint.address),
                format!(
                    "-p {protocol} {remember}-m {protocol} -j DNAT --to-destination {}:{}",
                    endpoint.address, endpoint.port
                ),
            ],
        );
    }
}

/// Chain names have 28 characters at most.
fn short_name(name: &str) -> String {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016X}")
}
