//! The network of a node: addresses for its pods, Services, and names.
//!
//! * [`cni`]: the configuration by which the runtime gives pods addresses of the node's CIDR, on a bridge.
//! * [`proxy`]: Services: traffic to their addresses and node ports goes to ready endpoints.
//! * [`dns`]: the cluster's DNS, after the Kubernetes DNS specification 1.1.
//! * [`purge`]: takes away everything that the others made.
//!
//! Invariants: what is written into the kernel is a function of the objects and the configuration (restarting changes nothing, and
//! stopping leaves traffic flowing); nothing outside table `knarr`, bridge `knarr0` and the files named in [`NetworkConfig`] is
//! touched; a change of rules is one transaction, so that no packet meets half of it.

pub mod cni;
mod command;
mod config;
pub mod dns;
pub mod proxy;
pub mod purge;
mod sysctl;

pub use config::NetworkConfig;

use std::sync::Arc;

use futures::future::BoxFuture;
use knarr_client::informer::Informers;
use tokio_util::sync::CancellationToken;

/// Why a part of the network does not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("{program}: {message}")]
    Command { program: String, message: String },
    #[error("cluster DNS cannot listen on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("asking the API server: {0}")]
    Api(#[from] kube::Error),
}

/// The API as the parts of the network see it, each by its own identity.
pub struct Clients {
    /// Reads nodes, services and their endpoints: upstream's role `system:node-proxier`.
    pub proxy: Informers,
    /// Reads namespaces, services and their endpoints, and announces itself as `kube-system/kube-dns`.
    pub dns: Informers,
}

/// Runs the node's network until `shutdown`. Rules, bridge and configuration stay: running pods keep their network.
pub fn run(
    clients: Clients,
    config: NetworkConfig,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), Error>> {
    Box::pin(async move {
        let config = Arc::new(config);
        sysctl::prepare();
        let names = dns::Server::bind(&config).await?;
        let address = names.address();
        let cni = cni::run(&clients.proxy, &config, &shutdown);
        let proxy = proxy::run(&clients.proxy, &config, &shutdown);
        let announce = dns::announce(&clients.dns, &config, address, &shutdown);
        let serve = names.serve(&clients.dns, &config, &shutdown);
        tokio::join!(cni, proxy, announce, serve);
        Ok(())
    })
}
