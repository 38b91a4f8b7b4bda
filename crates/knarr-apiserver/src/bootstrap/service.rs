//! The `kubernetes` service: how pods find the API server.

use std::net::IpAddr;
use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::Cluster;
use crate::objects::Objects;

pub fn cidr(cluster: &Cluster) -> (GroupResource, Object) {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cluster.service_cidr]}});
    (GroupResource::new("networking.k8s.io", "servicecidrs"), object)
}

/// A range that nothing is wrong with may be used, unless somebody has said otherwise.
pub async fn ready(objects: &Arc<dyn Objects>, cluster: &Cluster) -> Result<(), StatusError> {
    let (resource, wanted) = cidr(cluster);
    let mut say = |cidr: &mut Object| {
        let conditions = cidr.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let said = conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] != "Unknown");
        if cidr["spec"] == wanted["spec"] && !said && !cidr.is_deleting() {
            let now = crate::registry::commit::now_text();
            cidr["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes default Service CIDR is ready", "lastTransitionTime": now}]});
        }
        Ok(())
    };
    objects.modify(&resource, "", "kubernetes", &mut say).await.map(|_| ())
}

fn metadata(label: &str, value: &str) -> Value {
    let mut metadata = json!({"name": "kubernetes", "namespace": "default", "labels": {}});
    metadata["labels"][label] = value.into();
    metadata
}

pub fn kubernetes(cluster: &Cluster) -> (GroupResource, Object) {
    let family = if cluster.service_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let address = cluster.service_address.to_string();
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("component", "apiserver"), "spec": {
        "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": cluster.advertise_port}]}});
    service["metadata"]["labels"]["provider"] = "kubernetes".into();
    (GroupResource::new("", "services"), service)
}

/// The servers as the service's endpoints.
pub fn endpoints(cluster: &Cluster, servers: &[IpAddr]) -> Vec<(GroupResource, Object)> {
    // A loopback address is no endpoint: nobody else could reach it, and validation refuses it.
    let servers: Vec<String> = servers.iter().filter(|s| !s.is_loopback()).map(IpAddr::to_string).collect();
    if servers.is_empty() {
        return Vec::new();
    }
    let port = json!({"name": "https", "port": cluster.advertise_port, "protocol": "TCP"});
    let addresses: Vec<Value> = servers.iter().map(|server| json!({"ip": server})).collect();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": metadata("endpointslice.kubernetes.io/skip-mirror", "true"),
        "subsets": [{"addresses": addresses, "ports": [port]}]});
    let family = if cluster.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let ready: Vec<Value> =
        servers.iter().map(|server| json!({"addresses": [server], "conditions": {"ready": true}})).collect();
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata("kubernetes.io/service-name", "kubernetes"), "addressType": family,
        "endpoints": ready, "ports": [port]});
    vec![
        (GroupResource::new("", "endpoints"), endpoints),
        (GroupResource::new("discovery.k8s.io", "endpointslices"), slice),
    ]
}
