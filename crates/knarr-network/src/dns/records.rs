//! Which records a name has, after the Kubernetes DNS specification 1.1. Pure, over a [`Snapshot`] of the cluster.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// What the DNS needs to know of the cluster.
pub trait Snapshot: Send + Sync + 'static {
    /// Whether everything is known yet: until then no name can be said not to exist.
    fn synced(&self) -> bool;
    fn namespace_exists(&self, namespace: &str) -> bool;
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    fn services_at(&self, address: &str) -> Vec<Arc<Service>>;
    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>>;
}

/// The cluster's zone.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    pub snapshot: &'a dyn Snapshot,
    /// Such as `cluster.local`.
    pub domain: &'a str,
}

/// The records at one name, of all types; names are relative to nothing and without the last dot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub addresses: Vec<IpAddr>,
    pub services: Vec<Srv>,
    pub alias: Option<String>,
    pub pointers: Vec<String>,
    pub text: Option<String>,
}

/// A service record; priority and weight are always 0 and 100, as CoreDNS gives them for one target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Srv {
    pub port: u16,
    pub target: String,
    /// For the additional section.
    pub addresses: Vec<IpAddr>,
}

/// What a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It exists; perhaps without records of the type asked for.
    Here(Records),
    /// It is of the cluster's zone and does not exist.
    Missing,
    /// It is of another zone.
    Elsewhere,
}

impl Cluster<'_> {
    /// Looks a name up: labels joined by dots, in lower case, without the last dot.
    pub fn find(&self, name: &str) -> Found {
        if let Some(address) = reversed_address(name) {
            let pointers = self.pointers(address);
            return if pointers.is_empty() {
                Found::Elsewhere
            } else {
                Found::Here(Records { pointers, ..Records::default() })
            };
        }
        let Some(relative) = self.relative(name) else { return Found::Elsewhere };
        let labels: Vec<&str> = relative.split('.').filter(|label| !label.is_empty()).collect();
        let found = match labels.as_slice() {
            [] | ["svc" | "pod"] => Some(Records::default()),
            ["dns-version"] => Some(Records { text: Some("1.1.0".to_owned()), ..Records::default() }),
            [above @ .., namespace, "svc"] => self.service_name(above, namespace),
            [above @ .., namespace, "pod"] => self.pod_name(above, namespace),
            _ => None,
        };
        found.map_or(Found::Missing, Found::Here)
    }

    fn relative<'n>(&self, name: &'n str) -> Option<&'n str> {
        let above = name.strip_suffix(self.domain)?;
        (above.is_empty() || above.ends_with('.')).then_some(above)
    }

    /// What is above `NAMESPACE.svc.DOMAIN`.
    fn service_name(&self, above: &[&str], namespace: &str) -> Option<Records> {
        match *above {
            [] => self.snapshot.namespace_exists(namespace).then(Records::default),
            [service] => self.service(namespace, service),
            [host, service] if !host.starts_with('_') => self.endpoint(namespace, service, host),
            // `_tcp.SERVICE` exists as the parent of its ports, and has nothing itself.
            [protocol, service] => {
                let ports = self.named_ports(namespace, service)?;
                ports.iter().any(|port| format!("_{}", port.protocol) == protocol).then(Records::default)
            }
            [port, protocol, service] => {
                self.port(namespace, service, port.strip_prefix('_')?, protocol.strip_prefix('_')?)
            }
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Records> {
        let service = self.snapshot.service(namespace, name)?;
        let spec = service.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let alias = spec.external_name.as_ref()?.trim_end_matches('.').to_ascii_lowercase();
            return Some(Records { alias: Some(alias), ..Records::default() });
        }
        let mut records = Records { services: self.unnamed_services(namespace, name, &service), ..Records::default() };
        if is_headless(&service) {
            records.addresses = self.hosts(namespace, name).into_iter().flat_map(|host| host.addresses).collect();
            records.addresses.sort();
            records.addresses.dedup();
            // A headless Service without endpoints has no name.
            return (!records.addresses.is_empty()).then_some(records);
        }
        records.addresses = cluster_ips(&service);
        Some(records)
    }

    /// `A.B.svc`'s SRV records are those of all its ports.
    fn unnamed_services(&self, namespace: &str, name: &str, service: &Service) -> Vec<Srv> {
        let ports = self.named_ports(namespace, name).unwrap_or_default();
        let mut all: Vec<Srv> = ports.iter().flat_map(|port| self.targets(namespace, name, service, port)).collect();
        all.sort();
        all.dedup();
        all
    }

    fn port(&self, namespace: &str, name: &str, port_name: &str, protocol: &str) -> Option<Records> {
        let service = self.snapshot.service(namespace, name)?;
        let ports = self.named_ports(namespace, name)?;
        let matching = ports.iter().filter(|port| port.name == port_name && port.protocol == protocol);
        let services: Vec<Srv> = matching.flat_map(|port| self.targets(namespace, name, &service, port)).collect();
        (!services.is_empty()).then_some(Records { services, ..Records::default() })
    }

    /// The ports of a Service, with the numbers under which its endpoints listen where it is headless.
    fn named_ports(&self, namespace: &str, name: &str) -> Option<Vec<Port>> {
        let service = self.snapshot.service(namespace, name)?;
        let declared = service.spec.as_ref()?.ports.iter().flatten().map(|port| Port {
            name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
            protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
            number: u16::try_from(port.port).unwrap_or(0),
        });
        let mut ports: Vec<Port> = declared.collect();
        if is_headless(&service) {
            ports.clear();
            for slice in self.snapshot.slices(namespace, name) {
                ports.extend(slice.ports.iter().flatten().filter_map(|port| {
                    Some(Port {
                        name: port.name.clone().unwrap_or_default().to_ascii_lowercase(),
                        protocol: port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase(),
                        number: u16::try_from(port.port?).ok()?,
                    })
                }));
            }
            ports.sort();
            ports.dedup();
        }
        Some(ports)
    }

    fn targets(&self, namespace: &str, name: &str, service: &Service, port: &Port) -> Vec<Srv> {
        let zone = format!("{name}.{namespace}.svc.{}", self.domain);
        if !is_headless(service) {
            return vec![Srv { port: port.number, target: zone, addresses: cluster_ips(service) }];
        }
        self.hosts(namespace, name)
            .into_iter()
            .map(|host| Srv { port: port.number, target: format!("{}.{zone}", host.name), addresses: host.addresses })
            .collect()
    }

    /// `HOST.SERVICE`: an endpoint of a headless Service, by its host name or its address.
    fn endpoint(&self, namespace: &str, service: &str, host: &str) -> Option<Records> {
        self.snapshot.service(namespace, service).filter(|service| is_headless(service))?;
        let hosts = self.hosts(namespace, service).into_iter().filter(|known| known.name == host);
        let addresses: Vec<IpAddr> = hosts.flat_map(|host| host.addresses).collect();
        (!addresses.is_empty()).then_some(Records { addresses, ..Records::default() })
    }

    fn hosts(&self, namespace: &str, service: &str) -> Vec<Host> {
        let mut hosts = Vec::new();
        for slice in self.snapshot.slices(namespace, service) {
            hosts.extend(slice.endpoints.iter().flatten().filter(|endpoint| is_ready(endpoint)).filter_map(Host::of));
        }
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// `a-b-c-d.NAMESPACE.pod`: the address that the name says, whatever pod has it.
    fn pod_name(&self, above: &[&str], namespace: &str) -> Option<Records> {
        if !self.snapshot.namespace_exists(namespace) {
            return None;
        }
        match *above {
            [] => Some(Records::default()),
            [dashed] => Some(Records { addresses: vec![address_of_dashes(dashed)?], ..Records::default() }),
            _ => None,
        }
    }

    fn pointers(&self, address: IpAddr) -> Vec<String> {
        let text = address.to_string();
        let zone = |namespace: &str, name: &str| format!("{name}.{namespace}.svc.{}", self.domain);
        let mut names: Vec<String> = self
            .snapshot
            .services_at(&text)
            .iter()
            .map(|service| zone(text_of(&service.metadata.namespace), text_of(&service.metadata.name)))
            .collect();
        for slice in self.snapshot.slices_at(&text) {
            let Some((namespace, service)) = service_of(&slice).and_then(|key| key.split_once('/').map(owned)) else {
                continue;
            };
            if !self.snapshot.service(&namespace, &service).is_some_and(|service| is_headless(&service)) {
                continue;
            }
            let hosts =
                slice.endpoints.iter().flatten().filter_map(Host::of).filter(|host| host.addresses.contains(&address));
            names.extend(hosts.map(|host| format!("{}.{}", host.name, zone(&namespace, &service))));
        }
        names.sort();
        names.dedup();
        names
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    name: String,
    protocol: String,
    number: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Host {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Host {
    fn of(endpoint: &Endpoint) -> Option<Host> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let named = endpoint.hostname.as_ref().filter(|name| !name.is_empty());
        let name = named.map_or_else(|| address.to_string().replace(['.', ':'], "-"), |name| name.to_ascii_lowercase());
        Some(Host { name, addresses: vec![address] })
    }
}

fn owned((a, b): (&str, &str)) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

fn text_of(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let mut addresses: Vec<IpAddr> =
        spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip).filter_map(|text| text.parse().ok()).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// `NAMESPACE/SERVICE` of a slice.
pub(super) fn service_of(slice: &EndpointSlice) -> Option<String> {
    let service = slice.metadata.labels.as_ref()?.get("kubernetes.io/service-name")?;
    Some(format!("{}/{service}", text_of(&slice.metadata.namespace)))
}

pub(super) fn addresses_of_slice(slice: &EndpointSlice) -> Vec<String> {
    slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned()).collect()
}

pub(super) fn addresses_of_service(service: &Service) -> Vec<String> {
    cluster_ips(service).iter().map(ToString::to_string).collect()
}

fn address_of_dashes(text: &str) -> Option<IpAddr> {
    text.replace('-', ".").parse().ok().or_else(|| text.replace('-', ":").parse().ok())
}

/// The address of `d.c.b.a.in-addr.arpa` or its IPv6 kin.
fn reversed_address(name: &str) -> Option<IpAddr> {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let labels: Vec<&str> = reversed.split('.').rev().collect();
        return labels.join(".").parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    if nibbles.len() != 32 || nibbles.iter().any(|nibble| nibble.len() != 1) {
        return None;
    }
    let groups: Vec<String> = nibbles.chunks(4).map(<[&str]>::concat).collect();
    groups.join(":").parse::<std::net::Ipv6Addr>().ok().map(IpAddr::V6)
}
