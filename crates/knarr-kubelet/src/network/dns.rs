//! A pod's resolver configuration, from its DNS policy, its DNS configuration and the node's.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodDNSConfig;
use knarr_cri::v1::DnsConfig;

use crate::pod::DesiredPod;

/// What resolvers accept at most.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// The cluster's side of name resolution.
#[derive(Clone, Debug)]
pub struct ClusterDns<'a> {
    pub servers: &'a [IpAddr],
    pub domain: &'a str,
    /// The text of the node's `resolv.conf`.
    pub node_resolv_conf: &'a str,
}

/// The resolver configuration of `pod`.
pub fn config_of(pod: &DesiredPod, cluster: &ClusterDns) -> DnsConfig {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let uses_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    };
    let mut config = match policy {
        "None" => DnsConfig::default(),
        _ if uses_cluster && !cluster.servers.is_empty() => cluster_first(pod, cluster),
        _ => parse(cluster.node_resolv_conf),
    };
    if let Some(own) = &spec.dns_config {
        merge(&mut config, own);
    }
    limit(&mut config);
    config
}

fn cluster_first(pod: &DesiredPod, cluster: &ClusterDns) -> DnsConfig {
    let domain = cluster.domain;
    let mut searches = vec![format!("{}.svc.{domain}", pod.namespace), format!("svc.{domain}"), domain.to_owned()];
    for search in parse(cluster.node_resolv_conf).searches {
        push_new(&mut searches, search);
    }
    DnsConfig {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// Reads a `resolv.conf`: the last `search` and `options` lines count.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let words = words.map(str::to_owned);
        match keyword {
            "nameserver" => config.servers.extend(words.take(1)),
            "search" => config.searches = words.map(|name| trim_dot(&name)).collect(),
            "options" => config.options = words.collect(),
            _ => {}
        }
    }
    config
}

fn trim_dot(name: &str) -> String {
    if name == "." { name.to_owned() } else { name.trim_end_matches('.').to_owned() }
}

fn merge(config: &mut DnsConfig, own: &PodDNSConfig) {
    for server in own.nameservers.iter().flatten() {
        push_new(&mut config.servers, server.clone());
    }
    for search in own.searches.iter().flatten() {
        push_new(&mut config.searches, search.clone());
    }
    for option in own.options.iter().flatten() {
        let Some(name) = &option.name else { continue };
        let of_same_name = |text: &String| text.split(':').next() == Some(name);
        config.options.retain(|text| !of_same_name(text));
        let text = match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        };
        config.options.push(text);
    }
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn limit(config: &mut DnsConfig) {
    config.servers.truncate(MAX_NAMESERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.iter().map(|search| search.len() + 1).sum::<usize>() > MAX_SEARCH_LENGTH + 1 {
        config.searches.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::PodSource;
    use std::sync::Arc;

    fn config(spec: serde_json::Value) -> DnsConfig {
        let pod =
            serde_json::from_value(serde_json::json!({"metadata": {"namespace": "ns"}, "spec": spec})).expect("a pod");
        let cluster = ClusterDns {
            servers: &["10.96.0.10".parse().expect("an address")],
            domain: "cluster.local",
            node_resolv_conf: "# by hand\nnameserver 192.0.2.1\nsearch corp.example. lab.example\noptions ndots:1 rotate\n",
        };
        config_of(&DesiredPod::new(Arc::new(pod), PodSource::Api), &cluster)
    }

    #[test]
    fn cluster_first_asks_the_cluster_and_keeps_the_nodes_searches() {
        let dns = config(serde_json::json!({"containers": []}));
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "lab.example"]
        );
        assert_eq!(dns.options, ["ndots:5"]);
    }

    #[test]
    fn a_pod_on_the_nodes_network_uses_the_nodes_resolver_unless_it_says_otherwise() {
        let dns = config(serde_json::json!({"containers": [], "hostNetwork": true}));
        assert_eq!(
            (dns.servers, dns.options),
            (vec!["192.0.2.1".to_owned()], vec!["ndots:1".to_owned(), "rotate".to_owned()])
        );
        let dns =
            config(serde_json::json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}));
        assert_eq!(dns.servers, ["10.96.0.10"]);
    }

    #[test]
    fn own_configuration_is_merged_and_its_options_win() {
        let own = serde_json::json!({"nameservers": ["192.0.2.7"], "searches": ["x.example"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        let dns = config(serde_json::json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}));
        assert_eq!(dns.servers, ["192.0.2.7"]);
        assert_eq!(dns.searches, ["x.example"]);
        let dns = config(serde_json::json!({"containers": [], "dnsConfig": own}));
        assert_eq!(dns.servers, ["10.96.0.10", "192.0.2.7"]);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
    }
}
