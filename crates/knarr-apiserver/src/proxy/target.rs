//! Where a request goes: the node's kubelet, the pod's address, an endpoint of the service.

use std::sync::Arc;

use knarr_api::status::Reason;
use knarr_api::{Object, StatusError};
use knarr_streaming::remote_command::Options;
use serde_json::Value;

use super::{core, is_true, log_options, parameters};
use crate::objects::Objects;
use crate::outbound::resolve::{no_endpoints, pick, ready_endpoints};

/// The port of a kubelet whose node does not say otherwise.
const KUBELET_PORT: u16 = 10250;

/// How to talk to the server at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// A kubelet: TLS with the API server's certificate.
    Kubelet,
    Http,
    /// TLS to a server whose certificate says nothing about the cluster; upstream does not verify it either.
    Https,
}

/// A request's destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub transport: Transport,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub target: String,
}

/// Where a command runs and with which streams.
pub(super) struct Command {
    pub location: Location,
    pub options: Options,
}

/// Finds locations from what is stored.
pub(super) struct Locator {
    pub(super) objects: Arc<dyn Objects>,
}

impl Locator {
    async fn get(&self, resource: &'static str, namespace: &str, name: &str) -> Result<Arc<Object>, StatusError> {
        let found = self.objects.get(&core(resource), namespace, name).await?;
        found.ok_or_else(|| StatusError::not_found(&core(resource), name))
    }

    /// The kubelet's log of a container; `None` while the pod has no node: there is nothing to read yet.
    pub(super) async fn log(&self, namespace: &str, name: &str, query: &str) -> Result<Option<Location>, StatusError> {
        let options = log_options::read(query)?;
        let pod = self.get("pods", namespace, name).await?;
        let container = container_of(&pod, name, &options.container)?;
        let Some(node) = node_of(&pod) else { return Ok(None) };
        let path = format!("/containerLogs/{namespace}/{name}/{container}");
        Ok(Some(self.kubelet(node, &path, &options.kubelet_query).await?))
    }

    /// Exec or attach.
    pub(super) async fn command(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        query: &str,
    ) -> Result<Command, StatusError> {
        let pod = self.get("pods", namespace, name).await?;
        let parameters = parameters(query);
        let is_set = |name: &str| parameters.iter().any(|(key, value)| key == name && is_true(value));
        let value = |name: &str| parameters.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value);
        let container = container_of(&pod, name, value("container"))?;
        if let Some(phase @ ("Succeeded" | "Failed")) = pod["status"]["phase"].as_str() {
            let message = format!("cannot exec into a container in a completed pod; current phase is {phase}");
            return Err(StatusError::bad_request(message));
        }
        let node = node_of(&pod).ok_or_else(|| no_host(name))?;
        let options =
            Options { stdin: is_set("stdin"), stdout: is_set("stdout"), stderr: is_set("stderr"), tty: is_set("tty") };
        let command = parameters.iter().filter(|(key, _)| key == "command" && subresource == "exec");
        let kubelet_query = command_query(options, command.map(|(_, argument)| argument.as_str()));
        let path = format!("/{subresource}/{namespace}/{name}/{container}");
        Ok(Command { location: self.kubelet(node, &path, &kubelet_query).await?, options })
    }

    pub(super) async fn port_forward(&self, namespace: &str, name: &str, query: &str) -> Result<Location, StatusError> {
        let pod = self.get("pods", namespace, name).await?;
        let node = node_of(&pod).ok_or_else(|| no_host(name))?;
        let ports: Vec<(&str, String)> =
            parameters(query).into_iter().filter(|(key, _)| key == "ports").map(|(_, ports)| ("port", ports)).collect();
        let kubelet_query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(ports).finish();
        self.kubelet(node, &format!("/portForward/{namespace}/{name}"), &kubelet_query).await
    }

    /// A pod, a service or a node, by `[SCHEME:]NAME[:PORT]`.
    pub(super) async fn proxy(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        rest: &str,
        query: &str,
    ) -> Result<Location, StatusError> {
        let wanted = Wanted::parse(name)
            .ok_or_else(|| StatusError::bad_request(format!("invalid {} request \"{name}\"", singular(resource))))?;
        let rest = if rest.is_empty() { "/" } else { rest };
        let target = if query.is_empty() { rest.to_owned() } else { format!("{rest}?{query}") };
        match resource {
            "pods" => self.pod(namespace, &wanted, target).await,
            "services" => self.service(namespace, &wanted, target).await,
            _ => self.node(&wanted, target).await,
        }
    }

    async fn pod(&self, namespace: &str, wanted: &Wanted<'_>, target: String) -> Result<Location, StatusError> {
        let pod = self.get("pods", namespace, wanted.name).await?;
        let address = pod["status"]["podIP"].as_str().unwrap_or_default();
        if address.is_empty() {
            return Err(StatusError::bad_request("address not allowed"));
        }
        let port = match wanted.port {
            Some(port) => port.parse().map_err(|_| StatusError::bad_request(format!("invalid port \"{port}\"")))?,
            None => first_port(&pod).unwrap_or(if wanted.transport() == Transport::Https { 443 } else { 80 }),
        };
        allowed(address)?;
        Ok(Location { transport: wanted.transport(), host: address.to_owned(), port, target })
    }

    async fn service(&self, namespace: &str, wanted: &Wanted<'_>, target: String) -> Result<Location, StatusError> {
        let service = self.get("services", namespace, wanted.name).await?;
        let port = service_port(&service, wanted.port).ok_or_else(|| {
            StatusError::new(
                Reason::ServiceUnavailable,
                format!(
                    "no service port \"{}\" found for service \"{}\"",
                    wanted.port.unwrap_or_default(),
                    wanted.name
                ),
            )
        })?;
        if let Some(external) = service["spec"]["externalName"].as_str()
            && service["spec"]["type"] == "ExternalName"
        {
            return Err(StatusError::bad_request(format!("no endpoints: the service is an alias of {external}")));
        }
        let resource = knarr_api::GroupResource::new("discovery.k8s.io", "endpointslices");
        let slices = self.objects.list(&resource, namespace).await?;
        let endpoints = ready_endpoints(&slices, wanted.name, port["name"].as_str().unwrap_or_default());
        let (host, port) = pick(endpoints).ok_or_else(|| no_endpoints(wanted.name))?;
        allowed(&host)?;
        Ok(Location { transport: wanted.transport(), host, port, target })
    }

    async fn node(&self, wanted: &Wanted<'_>, target: String) -> Result<Location, StatusError> {
        let node = self.get("nodes", "", wanted.name).await?;
        let (host, kubelet_port) = kubelet_address(&node, wanted.name)?;
        let port = match wanted.port {
            Some(port) => port.parse().map_err(|_| StatusError::bad_request(format!("invalid port \"{port}\"")))?,
            None => kubelet_port,
        };
        let transport = if port == kubelet_port { Transport::Kubelet } else { wanted.transport() };
        Ok(Location { transport, host, port, target })
    }

    async fn kubelet(&self, node: &str, path: &str, query: &str) -> Result<Location, StatusError> {
        let object = self.get("nodes", "", node).await?;
        let (host, port) = kubelet_address(&object, node)?;
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        Ok(Location { transport: Transport::Kubelet, host, port, target })
    }
}

/// The streams and the command as the kubelet's parameters.
fn command_query<'a>(options: Options, command: impl Iterator<Item = &'a str>) -> String {
    let flags = [("input", options.stdin), ("output", options.stdout), ("error", options.stderr), ("tty", options.tty)];
    let set = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| (flag, "1"));
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(set)
        .extend_pairs(command.map(|argument| ("command", argument)))
        .finish()
}

/// `[SCHEME:]NAME[:PORT]`, as the path has it.
struct Wanted<'a> {
    https: bool,
    name: &'a str,
    port: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn parse(text: &'a str) -> Option<Wanted<'a>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme @ ("" | "http" | "https"), name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty()).then_some(Wanted {
            https: scheme == "https",
            name,
            port: Some(port).filter(|p| !p.is_empty()),
        })
    }

    fn transport(&self) -> Transport {
        if self.https { Transport::Https } else { Transport::Http }
    }
}

fn singular(resource: &str) -> &str {
    resource.strip_suffix('s').unwrap_or(resource)
}

fn node_of(pod: &Object) -> Option<&str> {
    pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty())
}

fn no_host(pod: &str) -> StatusError {
    StatusError::bad_request(format!("pod {pod} does not have a host assigned"))
}

fn names<'a>(pod: &'a Object, list: &str) -> Vec<&'a str> {
    pod["spec"][list]
        .as_array()
        .into_iter()
        .flatten()
        .map(|container| container["name"].as_str().unwrap_or_default())
        .collect()
}

/// The container meant: the one named, or the only one.
fn container_of<'a>(pod: &'a Object, pod_name: &str, wanted: &'a str) -> Result<&'a str, StatusError> {
    let containers = names(pod, "containers");
    let init = names(pod, "initContainers");
    if !wanted.is_empty() {
        let ephemeral = names(pod, "ephemeralContainers");
        let known = containers.iter().chain(&init).chain(&ephemeral).any(|name| *name == wanted);
        let refused = || StatusError::bad_request(format!("container {wanted} is not valid for pod {pod_name}"));
        return known.then_some(wanted).ok_or_else(refused);
    }
    if let [only] = containers[..] {
        return Ok(only);
    }
    let mut message = format!("a container name must be specified for pod {pod_name}");
    if !containers.is_empty() {
        message += &format!(", choose one of: [{}]", containers.join(" "));
    }
    if !init.is_empty() {
        message += &format!(" or one of the init containers: [{}]", init.join(" "));
    }
    Err(StatusError::bad_request(message))
}

fn kubelet_address(node: &Object, name: &str) -> Result<(String, u16), StatusError> {
    let addresses = node["status"]["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_type = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let address = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "Hostname"].into_iter().find_map(of_type);
    let address = address.ok_or_else(|| {
        StatusError::internal(format!("no preferred addresses found; known addresses: [] (node {name})"))
    })?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    Ok((address.to_owned(), port.and_then(|port| u16::try_from(port).ok()).filter(|p| *p > 0).unwrap_or(KUBELET_PORT)))
}

fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod["spec"]["containers"].as_array()?;
    let port =
        containers.iter().find_map(|container| container["ports"].as_array()?.first()?["containerPort"].as_u64())?;
    u16::try_from(port).ok()
}

/// The service's port by name or number; the only one if none is asked for.
fn service_port<'a>(service: &'a Object, wanted: Option<&str>) -> Option<&'a Value> {
    let ports = service["spec"]["ports"].as_array()?;
    match wanted {
        None => ports.iter().find(|port| ports.len() == 1 || port["name"].as_str().unwrap_or_default().is_empty()),
        Some(text) => ports.iter().find(|port| {
            port["name"] == text || text.parse::<u64>().is_ok_and(|number| port["port"].as_u64() == Some(number))
        }),
    }
}

/// A pod or endpoint may claim any address; those of the API server's own machine and link are none of a client's business.
fn allowed(address: &str) -> Result<(), StatusError> {
    let refused = || StatusError::bad_request("address not allowed");
    let address: std::net::IpAddr = address.parse().map_err(|_| refused())?;
    let local = address.is_loopback() || address.is_multicast() || address.is_unspecified();
    let link_local = match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local || link_local { Err(refused()) } else { Ok(()) }
}
