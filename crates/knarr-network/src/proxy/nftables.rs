//! Frontends as nftables: table `ip knarr`, one chain for each Service port, maps from addresses to chains.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::net::Ipv4Addr;

use super::model::{Endpoint, Frontend, Protocol, Surroundings};
use crate::cni::BRIDGE;

const TABLE: &str = "ip knarr";
/// The mark of packets to be masqueraded, as kube-proxy has it.
const MASQUERADE: &str = "meta mark set meta mark or 0x4000";
const MAX_CHAIN_NAME: usize = 120;

/// The chains and maps every ruleset has, with what they are for.
const BASE: &[(&str, &str, &str)] = &[
    ("map", "service-ips", "{ type ipv4_addr . inet_proto . inet_service : verdict; }"),
    ("map", "service-nodeports", "{ type inet_proto . inet_service : verdict; }"),
    ("map", "no-endpoint-services", "{ type ipv4_addr . inet_proto . inet_service : verdict; }"),
    ("map", "no-endpoint-nodeports", "{ type inet_proto . inet_service : verdict; }"),
    ("set", "hairpin", "{ type ipv4_addr . ipv4_addr; }"),
    // Packets for the loopback network come from this machine, whatever route_localnet allows.
    ("chain", "guard", "{ type filter hook prerouting priority -300; }"),
    ("chain", "prerouting", "{ type nat hook prerouting priority -100; }"),
    ("chain", "output", "{ type nat hook output priority -100; }"),
    ("chain", "postrouting", "{ type nat hook postrouting priority 100; }"),
    ("chain", "filter-input", "{ type filter hook input priority -110; }"),
    ("chain", "filter-forward", "{ type filter hook forward priority -110; }"),
    ("chain", "filter-output", "{ type filter hook output priority -110; }"),
    ("chain", "services", ""),
    ("chain", "no-endpoints", ""),
    ("chain", "refuse", ""),
];

/// The rules of a table, comparable piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Rules by chain, in order.
    chains: BTreeMap<String, Vec<String>>,
    /// Sets of clients, by name, with their timeout: they fill by themselves.
    affinity_sets: BTreeMap<String, u32>,
    /// Elements of the base maps and sets: key, and value where it is a map.
    elements: BTreeMap<&'static str, BTreeMap<String, String>>,
}

impl Ruleset {
    /// The script that replaces whatever the table holds.
    pub fn whole(&self) -> String {
        let mut script = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
        let mut base = Ruleset::default();
        for (kind, name, definition) in BASE {
            line(&mut script, format_args!("add {kind} {TABLE} {name} {definition}"));
            if *kind == "chain" {
                base.chains.insert((*name).to_owned(), Vec::new());
            }
        }
        script + &self.difference(&base)
    }

    /// The script that makes this of `current`; empty if there is nothing to do.
    pub fn difference(&self, current: &Ruleset) -> String {
        let mut script = String::new();
        for chain in self.chains.keys().filter(|chain| !current.chains.contains_key(*chain)) {
            line(&mut script, format_args!("add chain {TABLE} {chain}"));
        }
        for (set, timeout) in self.affinity_sets.iter().filter(|(set, _)| !current.affinity_sets.contains_key(*set)) {
            let definition = format_args!("{{ type ipv4_addr; flags dynamic,timeout; timeout {timeout}s; }}");
            line(&mut script, format_args!("add set {TABLE} {set} {definition}"));
        }
        for (chain, rules) in &self.chains {
            if current.chains.get(chain).is_none_or(Vec::is_empty) && rules.is_empty() {
                continue;
            }
            if current.chains.get(chain) != Some(rules) {
                line(&mut script, format_args!("flush chain {TABLE} {chain}"));
                for rule in rules {
                    line(&mut script, format_args!("add rule {TABLE} {chain} {rule}"));
                }
            }
        }
        self.change_elements(current, &mut script);
        self.remove_rest(current, &mut script);
        script
    }

    fn change_elements(&self, current: &Ruleset, script: &mut String) {
        let none = BTreeMap::new();
        for (kind, name, _) in BASE.iter().filter(|(kind, ..)| *kind != "chain") {
            let wanted = self.elements.get(name).unwrap_or(&none);
            let present = current.elements.get(name).unwrap_or(&none);
            let written = |key: &str, value: &str| match *kind {
                "map" => format!("{{ {key} : {value} }}"),
                _ => format!("{{ {key} }}"),
            };
            for (key, value) in present.iter().filter(|(key, value)| wanted.get(*key) != Some(*value)) {
                line(script, format_args!("delete element {TABLE} {name} {}", written(key, value)));
            }
            for (key, value) in wanted.iter().filter(|(key, value)| present.get(*key) != Some(*value)) {
                line(script, format_args!("add element {TABLE} {name} {}", written(key, value)));
            }
        }
    }

    /// Chains that nothing leads to any more. They are emptied first, since they lead to each other.
    fn remove_rest(&self, current: &Ruleset, script: &mut String) {
        let gone: Vec<&String> = current.chains.keys().filter(|chain| !self.chains.contains_key(*chain)).collect();
        for verb in ["flush", "delete"] {
            for chain in &gone {
                line(script, format_args!("{verb} chain {TABLE} {chain}"));
            }
        }
        for set in current.affinity_sets.keys().filter(|set| !self.affinity_sets.contains_key(*set)) {
            line(script, format_args!("delete set {TABLE} {set}"));
        }
    }

    fn rule(&mut self, chain: &str, rule: impl Display) {
        self.chains.entry(chain.to_owned()).or_default().push(rule.to_string());
    }

    fn element(&mut self, map: &'static str, key: String, value: impl Display) {
        self.elements.entry(map).or_default().entry(key).or_insert(value.to_string());
    }
}

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(script, "{}", text.to_string().trim_end());
}

/// The rules for these frontends on this node.
pub fn render(frontends: &[Frontend], surroundings: &Surroundings) -> Ruleset {
    let mut rules = Ruleset::default();
    base_rules(&mut rules, surroundings);
    let cluster = list_v4(&surroundings.cluster_cidrs);
    for frontend in frontends {
        Service { frontend, cluster: cluster.as_deref(), rules: &mut rules }.render();
    }
    rules
}

fn base_rules(rules: &mut Ruleset, surroundings: &Surroundings) {
    for (_, chain, _) in BASE.iter().filter(|(kind, ..)| *kind == "chain") {
        rules.chains.insert((*chain).to_owned(), Vec::new());
    }
    rules.rule("guard", "iifname != \"lo\" ip daddr 127.0.0.0/8 drop");
    rules.rule("prerouting", "jump services");
    rules.rule("output", "jump services");
    rules.rule("services", "ip daddr . meta l4proto . th dport vmap @service-ips");
    rules.rule("services", "fib daddr type local meta l4proto . th dport vmap @service-nodeports");
    for chain in ["filter-input", "filter-forward", "filter-output"] {
        rules.rule(chain, "ct state new jump no-endpoints");
    }
    rules.rule("no-endpoints", "ip daddr . meta l4proto . th dport vmap @no-endpoint-services");
    rules.rule("no-endpoints", "fib daddr type local meta l4proto . th dport vmap @no-endpoint-nodeports");
    rules.rule("refuse", "meta l4proto tcp reject with tcp reset");
    rules.rule("refuse", "reject");
    rules.rule("postrouting", "meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade");
    rules.rule("postrouting", "ct status dnat ip saddr . ip daddr @hairpin masquerade");
    rules.rule("postrouting", "ct status dnat ip saddr 127.0.0.0/8 oifname != \"lo\" masquerade");
    let (Some(pods), Some(cluster)) = (list_v4(&surroundings.pod_cidrs), list_v4(&surroundings.cluster_cidrs)) else {
        return;
    };
    if surroundings.masquerade_bridged {
        rules.rule("postrouting", format_args!("ct status dnat ip saddr {pods} ip daddr {pods} masquerade"));
    }
    rules.rule(
        "postrouting",
        format_args!(
            "ip saddr {pods} ip daddr != {cluster} ip daddr != 224.0.0.0/4 oifname != \"{BRIDGE}\" masquerade"
        ),
    );
}

/// `{ a, b }`; `None` where there is nothing.
fn list_v4(ranges: &[ipnet::IpNet]) -> Option<String> {
    let texts: Vec<String> =
        ranges.iter().filter(|range| matches!(range, ipnet::IpNet::V4(_))).map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("{{ {} }}", texts.join(", ")))
}

/// One frontend on its way into the rules.
struct Service<'a> {
    frontend: &'a Frontend,
    cluster: Option<&'a str>,
    rules: &'a mut Ruleset,
}

impl Service<'_> {
    fn render(mut self) {
        let frontend = self.frontend;
        let name = chain_name(&frontend.name);
        self.internal(&format!("service-{name}"));
        let has_external = frontend.node_port.is_some() || !frontend.external_ips.is_empty();
        if has_external {
            self.external(&format!("external-{name}"), &format!("service-{name}"));
        }
        let all = frontend.endpoints.internal.iter().chain(&frontend.endpoints.external);
        for address in all.map(|endpoint| endpoint.address) {
            self.rules.element("hairpin", format!("{address} . {address}"), "");
        }
    }

    fn key(&self, address: Ipv4Addr) -> String {
        format!("{address} . {} . {}", self.frontend.protocol.name(), self.frontend.port)
    }

    /// The cluster addresses.
    fn internal(&mut self, chain: &str) {
        let frontend = self.frontend;
        let refused = if frontend.endpoints.anywhere { "drop" } else { "goto refuse" };
        for address in &frontend.cluster_ips {
            let key = self.key(*address);
            match frontend.endpoints.internal.is_empty() {
                true => self.rules.element("no-endpoint-services", key, refused),
                false => self.rules.element("service-ips", key, format_args!("goto {chain}")),
            }
        }
        if frontend.endpoints.internal.is_empty() {
            return;
        }
        if let Some(cluster) = self.cluster {
            for address in &frontend.cluster_ips {
                self.rules.rule(chain, format_args!("ip daddr {address} ip saddr != {cluster} {MASQUERADE}"));
            }
        }
        self.balance(chain, &frontend.endpoints.internal);
    }

    /// Node port, external and load balancer addresses.
    fn external(&mut self, chain: &str, internal_chain: &str) {
        let frontend = self.frontend;
        let endpoints = &frontend.endpoints;
        let usable = !endpoints.external.is_empty() || (frontend.external_local && !endpoints.internal.is_empty());
        let refused = if endpoints.anywhere { "drop" } else { "goto refuse" };
        for address in &frontend.external_ips {
            let key = self.key(*address);
            match usable {
                true => self.rules.element("service-ips", key, format_args!("goto {chain}")),
                false => self.rules.element("no-endpoint-services", key, refused),
            }
        }
        if let Some(port) = frontend.node_port {
            let key = format!("{} . {port}", frontend.protocol.name());
            match usable {
                true => self.rules.element("service-nodeports", key, format_args!("goto {chain}")),
                false => self.rules.element("no-endpoint-nodeports", key, refused),
            }
        }
        if !usable {
            return;
        }
        self.check_source(chain);
        if frontend.external_local {
            self.local(chain, internal_chain);
        } else {
            self.rules.rule(chain, MASQUERADE);
            self.spread(chain, internal_chain);
        }
    }

    /// Load balancer addresses may be for some clients only.
    fn check_source(&mut self, chain: &str) {
        let Some(ranges) = list_v4(&self.frontend.source_ranges) else { return };
        for address in &self.frontend.external_ips {
            self.rules.rule(chain, format_args!("ip daddr {address} ip saddr != {ranges} drop"));
        }
    }

    /// With `externalTrafficPolicy: Local` only what comes from outside is bound to this node's endpoints.
    fn local(&mut self, chain: &str, internal_chain: &str) {
        if !self.frontend.endpoints.internal.is_empty() {
            if let Some(cluster) = self.cluster {
                self.rules.rule(chain, format_args!("ip saddr {cluster} goto {internal_chain}"));
            }
            self.rules.rule(chain, format_args!("fib saddr type local {MASQUERADE} goto {internal_chain}"));
        }
        if self.frontend.endpoints.external.is_empty() {
            self.rules.rule(chain, "drop");
        } else {
            self.balance(chain, &self.frontend.endpoints.external);
        }
    }

    fn spread(&mut self, chain: &str, internal_chain: &str) {
        if self.frontend.endpoints.internal == self.frontend.endpoints.external {
            self.rules.rule(chain, format_args!("goto {internal_chain}"));
        } else {
            self.balance(chain, &self.frontend.endpoints.external);
        }
    }

    /// One endpoint after the other, or the one that the client had before.
    fn balance(&mut self, chain: &str, endpoints: &[Endpoint]) {
        let protocol = self.frontend.protocol;
        match (self.frontend.affinity, endpoints) {
            (Some(timeout), _) => self.balance_sticky(chain, endpoints, timeout),
            (None, [only]) => self.rules.rule(chain, dnat(protocol, only)),
            (None, several) => {
                let turns: Vec<String> = several
                    .iter()
                    .enumerate()
                    .map(|(turn, endpoint)| format!("{turn} : {} . {}", endpoint.address, endpoint.port))
                    .collect();
                let count = several.len();
                let turns = turns.join(", ");
                let protocol = protocol.name();
                self.rules.rule(
                    chain,
                    format_args!(
                        "meta l4proto {protocol} dnat ip addr . port to numgen inc mod {count} map {{ {turns} }}"
                    ),
                );
            }
        }
    }

    fn balance_sticky(&mut self, chain: &str, endpoints: &[Endpoint], timeout: u32) {
        let service = chain_name(&self.frontend.name);
        let names: Vec<(String, &Endpoint)> = endpoints
            .iter()
            .map(|endpoint| (format!("{}-{}/{service}", endpoint.address, endpoint.port), endpoint))
            .collect();
        for (name, endpoint) in &names {
            let (set, target) = (format!("affinity-{name}"), format!("endpoint-{name}"));
            self.rules.rule(chain, format_args!("ip saddr @{set} goto {target}"));
            self.rules.affinity_sets.insert(set.clone(), timeout);
            // Shared by the internal and the external chain.
            let remember = format!("update @{set} {{ ip saddr }}");
            self.rules.chains.insert(target, vec![remember, dnat(self.frontend.protocol, endpoint)]);
        }
        let turns: Vec<String> =
            names.iter().enumerate().map(|(turn, (name, _))| format!("{turn} : goto endpoint-{name}")).collect();
        self.rules.rule(chain, format_args!("numgen inc mod {} vmap {{ {} }}", names.len(), turns.join(", ")));
    }
}

fn dnat(protocol: Protocol, endpoint: &Endpoint) -> String {
    format!("meta l4proto {} dnat to {}:{}", protocol.name(), endpoint.address, endpoint.port)
}

/// A chain's name may not be long: what is cut off is told apart by a hash.
fn chain_name(name: &str) -> String {
    let limit = MAX_CHAIN_NAME - 50;
    if name.len() <= limit {
        return name.trim_end_matches('/').to_owned();
    }
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{}-{hash:016x}", &name[..limit - 17])
}
