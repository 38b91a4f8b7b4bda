//! Service `kube-system/kube-dns` and this node's EndpointSlice of it.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_client::informer::Informers;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::NetworkConfig;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const MANAGER: &str = "knarr-dns";

/// Creates both, and tries again while the API is not ready for it.
pub(crate) async fn announce(
    informers: &Informers,
    config: &NetworkConfig,
    address: SocketAddr,
    shutdown: &CancellationToken,
) {
    let mut pause = Duration::from_millis(100);
    loop {
        let attempt = tokio::select! {
            attempt = attempt(informers.client(), config, address) => attempt,
            () = shutdown.cancelled() => return,
        };
        let Err(error) = attempt else { return };
        tracing::debug!(%error, "cluster DNS is not announced yet");
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(10)),
            () = shutdown.cancelled() => return,
        }
    }
}

async fn attempt(client: kube::Client, config: &NetworkConfig, address: SocketAddr) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), NAMESPACE);
    if services.get_opt(SERVICE).await?.is_none() {
        match services.create(&PostParams::default(), &service(config)).await {
            Ok(_) => {}
            // Another node was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let slice = slice(config, address);
    let name = slice.metadata.name.clone().unwrap_or_default();
    slices.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&slice)).await.map(drop)
}

fn service(config: &NetworkConfig) -> Service {
    let ports = ["UDP", "TCP"].map(|protocol| {
        let name = if protocol == "UDP" { "dns" } else { "dns-tcp" };
        json!({"name": name, "port": 53, "protocol": protocol})
    });
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": SERVICE, "namespace": NAMESPACE,
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "KubeDNS"},
        },
        "spec": {
            "clusterIP": config.dns_service_ip.to_string(), "ports": ports,
            // A node's pods ask the node itself.
            "trafficDistribution": "PreferSameNode",
        },
    });
    serde_json::from_value(object).unwrap_or_default()
}

fn slice(config: &NetworkConfig, address: SocketAddr) -> EndpointSlice {
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{SERVICE}-{}", config.node_name), "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": "knarr-dns",
            },
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{
            "addresses": [address.ip().to_string()],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": config.node_name,
        }],
        "ports": [
            {"name": "dns", "port": address.port(), "protocol": "UDP"},
            {"name": "dns-tcp", "port": address.port(), "protocol": "TCP"},
        ],
    });
    serde_json::from_value(object).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_whole() {
        let config = NetworkConfig::new("n", "192.0.2.1".parse().unwrap());
        let spec = service(&config).spec.unwrap();
        assert_eq!((spec.cluster_ip.as_deref(), spec.ports.unwrap().len()), (Some("10.96.0.10"), 2));
        let slice = slice(&config, "192.0.2.1:10053".parse().unwrap());
        assert_eq!((slice.address_type.as_str(), slice.endpoints.map(|e| e.len())), ("IPv4", Some(1)));
    }
}
