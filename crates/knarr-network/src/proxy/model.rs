//! What Services ask for, free of how it is done: pure.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Protocol> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// As the rule languages write it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Where traffic may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Endpoints by where they may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// For traffic to the cluster address.
    pub internal: Vec<Endpoint>,
    /// For traffic from outside; with `externalTrafficPolicy: Local` those of this node alone.
    pub external: Vec<Endpoint>,
    /// Somewhere, perhaps on other nodes only, there are endpoints.
    pub anywhere: bool,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// `NAMESPACE/NAME/PROTOCOL/PORT NAME`: unique.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub cluster_ips: Vec<Ipv4Addr>,
    /// External and load balancer addresses.
    pub external_ips: Vec<Ipv4Addr>,
    pub node_port: Option<u16>,
    pub endpoints: Endpoints,
    /// `externalTrafficPolicy: Local`: the client's address is kept.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP`, in seconds.
    pub affinity: Option<u32>,
    /// `loadBalancerSourceRanges`; empty: everybody.
    pub source_ranges: Vec<IpNet>,
}

/// What of the node and the cluster shapes the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    pub cluster_cidrs: Vec<IpNet>,
    /// Of this node.
    pub pod_cidrs: Vec<IpNet>,
    /// Packets between ports of the bridge do not pass the rules: answers must be drawn to the node.
    pub masquerade_bridged: bool,
}

/// The frontends of all Services, sorted by name.
pub fn frontends(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &str) -> Vec<Frontend> {
    let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices.iter().filter(|slice| is_for_proxies(&slice.metadata)) {
        let labels = slice.metadata.labels.as_ref();
        let Some(service) = labels.and_then(|labels| labels.get("kubernetes.io/service-name")) else { continue };
        let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
        by_service.entry((namespace, service)).or_default().push(slice);
    }
    let mut frontends = Vec::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let Some(spec) = service.spec.as_ref().filter(|spec| is_proxied(service, spec)) else { continue };
        let slices = by_service.get(&(namespace, name)).map(Vec::as_slice).unwrap_or_default();
        for port in spec.ports.iter().flatten() {
            frontends.extend(frontend(&format!("{namespace}/{name}"), service, spec, port, slices, node));
        }
    }
    frontends.sort_by(|a, b| a.name.cmp(&b.name));
    frontends
}

fn is_proxied(service: &Service, spec: &ServiceSpec) -> bool {
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    !matches!(address, "" | "None")
        && spec.type_.as_deref() != Some("ExternalName")
        && is_for_proxies(&service.metadata)
}

/// Whether a Service or an EndpointSlice is not another proxy's, and not labelled as headless.
fn is_for_proxies(metadata: &ObjectMeta) -> bool {
    const NOT_OURS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
    !metadata.labels.iter().flatten().any(|(label, _)| NOT_OURS.contains(&label.as_str()))
}

fn frontend(
    service_name: &str,
    service: &Service,
    spec: &ServiceSpec,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node: &str,
) -> Option<Frontend> {
    let protocol = Protocol::parse(port.protocol.as_deref())?;
    let port_name = port.name.as_deref().unwrap_or_default();
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let external_local = is_local(&spec.external_traffic_policy);
    let candidates = candidates(slices, port_name, protocol, node);
    let prefer_node = spec.traffic_distribution.as_deref() == Some("PreferSameNode");
    let cluster = usable(candidates.iter());
    let local = usable(candidates.iter().filter(|candidate| candidate.local));
    let near = if prefer_node && !local.is_empty() { local.clone() } else { cluster.clone() };
    let internal = if is_local(&spec.internal_traffic_policy) { local.clone() } else { near };
    Some(Frontend {
        name: format!("{service_name}/{}/{port_name}", protocol.name()),
        protocol,
        port: u16::try_from(port.port).ok()?,
        cluster_ips: addresses(spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip)),
        external_ips: external_addresses(service, spec),
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0),
        endpoints: Endpoints {
            anywhere: !cluster.is_empty(),
            internal,
            external: if external_local { local } else { cluster },
        },
        external_local,
        affinity: affinity(spec),
        source_ranges: source_ranges(spec),
    })
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    let mut addresses: Vec<Ipv4Addr> = texts.filter_map(|text| text.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn external_addresses(service: &Service, spec: &ServiceSpec) -> Vec<Ipv4Addr> {
    let ingress = service.status.iter().flat_map(|status| status.load_balancer.iter());
    let ingress = ingress.flat_map(|balancer| balancer.ingress.iter().flatten());
    let load_balancer = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    let balanced = load_balancer.filter_map(|ingress| ingress.ip.as_ref());
    addresses(spec.external_ips.iter().flatten().chain(balanced))
}

/// Upstream's default is three hours.
fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(configured.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10800))
}

fn source_ranges(spec: &ServiceSpec) -> Vec<IpNet> {
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return Vec::new();
    }
    spec.load_balancer_source_ranges.iter().flatten().filter_map(|range| range.trim().parse().ok()).collect()
}

struct Candidate {
    endpoint: Endpoint,
    ready: bool,
    /// It still answers though it is on its way out.
    serving_terminating: bool,
    local: bool,
}

fn candidates(slices: &[&EndpointSlice], port_name: &str, protocol: Protocol, node: &str) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        let matching = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(port.protocol.as_deref()) == Some(protocol)
        });
        let Some(port) = matching.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        candidates.extend(slice.endpoints.iter().flatten().filter_map(|endpoint| candidate(endpoint, port, node)));
    }
    candidates
}

fn candidate(endpoint: &SliceEndpoint, port: u16, node: &str) -> Option<Candidate> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    Some(Candidate {
        endpoint: Endpoint { address, port },
        ready,
        serving_terminating: serving && terminating,
        local: endpoint.node_name.as_deref() == Some(node),
    })
}

/// The ready ones; where there is none, those that still answer while they end.
fn usable<'a>(candidates: impl Iterator<Item = &'a Candidate> + Clone) -> Vec<Endpoint> {
    let pick = |wanted: fn(&Candidate) -> bool| {
        let mut endpoints: Vec<Endpoint> = candidates.clone().filter(|c| wanted(c)).map(|c| c.endpoint).collect();
        endpoints.sort();
        endpoints.dedup();
        endpoints
    };
    let ready = pick(|candidate| candidate.ready);
    if ready.is_empty() { pick(|candidate| candidate.serving_terminating) } else { ready }
}
