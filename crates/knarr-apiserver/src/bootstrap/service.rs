//! The `kubernetes` service: how pods find the API server.

use knarr_api::{GroupResource, Object};
use serde_json::{Value, json};

use super::Cluster;

pub fn cidr(cluster: &Cluster) -> (GroupResource, Object) {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [cluster.service_cidr]}});
    (GroupResource::new("networking.k8s.io", "servicecidrs"), object)
}

/// The service, and as its endpoints this server.
pub fn kubernetes(cluster: &Cluster) -> Vec<(GroupResource, Object)> {
    let metadata = |label: &str, value: &str| {
        let mut metadata = json!({"name": "kubernetes", "namespace": "default", "labels": {}});
        metadata["labels"][label] = value.into();
        metadata
    };
    let family = if cluster.service_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let address = cluster.service_address.to_string();
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("component", "apiserver"), "spec": {
        "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": [family], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": cluster.advertise_port}]}});
    service["metadata"]["labels"]["provider"] = "kubernetes".into();

    let mut objects = vec![(GroupResource::new("", "services"), service)];
    // A loopback address is no endpoint: nobody else could reach it, and validation refuses it.
    if !cluster.advertise_address.is_loopback() {
        objects.extend(endpoints(cluster, &metadata));
    }
    objects
}

fn endpoints(cluster: &Cluster, metadata: &dyn Fn(&str, &str) -> Value) -> [(GroupResource, Object); 2] {
    let endpoint = cluster.advertise_address.to_string();
    let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
        "metadata": metadata("endpointslice.kubernetes.io/skip-mirror", "true"),
        "subsets": [{"addresses": [{"ip": endpoint}],
            "ports": [{"name": "https", "port": cluster.advertise_port, "protocol": "TCP"}]}]});
    let family = if cluster.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" };
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": metadata("kubernetes.io/service-name", "kubernetes"), "addressType": family,
        "endpoints": [{"addresses": [endpoint], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": cluster.advertise_port, "protocol": "TCP"}]});
    [
        (GroupResource::new("", "endpoints"), endpoints),
        (GroupResource::new("discovery.k8s.io", "endpointslices"), slice),
    ]
}
