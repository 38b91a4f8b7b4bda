//! From a service to one of its endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use knarr_api::status::Reason;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::ServiceReference;
use crate::objects::Objects;

/// A ready endpoint behind a service's port, another one each time. As upstream with `--enable-aggregator-routing`: it works with no
/// service proxy on this machine. An `ExternalName` leads where it says.
pub async fn endpoint(objects: &dyn Objects, service: &ServiceReference) -> Result<(String, u16), StatusError> {
    let services = GroupResource::new("", "services");
    let found = objects.get(&services, &service.namespace, &service.name).await?;
    // Upstream's lister calls the resource by its singular here.
    let found = found.ok_or_else(|| StatusError::not_found(&GroupResource::new("", "service"), &service.name))?;
    match found["spec"]["type"].as_str().unwrap_or("ClusterIP") {
        "ExternalName" => {
            return Ok((found["spec"]["externalName"].as_str().unwrap_or_default().into(), service.port));
        }
        "ClusterIP" | "NodePort" | "LoadBalancer" => {}
        other => return Err(StatusError::internal(format!("unsupported service type \"{other}\""))),
    }
    let port = port(&found, service)?;
    let slices = slices_of(objects, service).await?;
    let name = port["name"].as_str().unwrap_or_default();
    pick(ready_endpoints(&slices, &service.name, name)).ok_or_else(|| no_endpoints(&service.name))
}

/// The service's port of that number.
pub fn port<'a>(object: &'a Object, service: &ServiceReference) -> Result<&'a Value, StatusError> {
    let ports = object["spec"]["ports"].as_array().into_iter().flatten();
    let mut ports = ports.filter(|p| p["port"].as_u64() == Some(service.port.into()));
    ports.next().ok_or_else(|| {
        let message = format!("no service port {} found for service \"{}\"", service.port, service.name);
        StatusError::new(Reason::ServiceUnavailable, message)
    })
}

/// The endpoint slices of the service's namespace.
pub async fn slices_of(objects: &dyn Objects, service: &ServiceReference) -> Result<Vec<Arc<Object>>, StatusError> {
    objects.list(&GroupResource::new("discovery.k8s.io", "endpointslices"), &service.namespace).await
}

pub fn no_endpoints(service: &str) -> StatusError {
    StatusError::new(Reason::ServiceUnavailable, format!("no endpoints available for service \"{service}\""))
}

/// The addresses behind a service's named port that are ready.
pub fn ready_endpoints(slices: &[Arc<Object>], service: &str, port_name: &str) -> Vec<(String, u16)> {
    let mut endpoints = Vec::new();
    let of_service = |slice: &&Arc<Object>| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service;
    for slice in slices.iter().filter(of_service) {
        let ports = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(port) = ports.iter().find(|port| port["name"].as_str().unwrap_or_default() == port_name) else {
            continue;
        };
        let Some(number) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { continue };
        let ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        for endpoint in slice["endpoints"].as_array().into_iter().flatten().filter(ready) {
            endpoints.extend(endpoint["addresses"][0].as_str().map(|address| (address.to_owned(), number)));
        }
    }
    endpoints
}

/// Any one: requests through the API server spread over the endpoints.
pub fn pick(mut endpoints: Vec<(String, u16)>) -> Option<(String, u16)> {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    if endpoints.is_empty() {
        return None;
    }
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    Some(endpoints.swap_remove(turn % endpoints.len()))
}
