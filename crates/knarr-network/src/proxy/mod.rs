//! Services: what is sent to a Service's address or node port reaches one of its ready endpoints.
//!
//! [`model`] makes frontends of Services and EndpointSlices; [`nftables`] (or [`iptables`], where nft does not work) makes rules of
//! frontends; this module watches, and puts the difference into the kernel.

mod conntrack;
pub mod iptables;
pub mod model;
pub mod nftables;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_client::informer::{Informer, Informers, Subscription, Watched};
use tokio_util::sync::CancellationToken;

use crate::{NetworkConfig, cni, command, sysctl};
use model::{Frontend, Surroundings};
use nftables::Ruleset;

/// Changes that come together are applied together.
const GATHER: Duration = Duration::from_millis(10);
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the kernel's rules as the objects want them, until `shutdown`.
pub(crate) async fn run(informers: &Informers, config: &NetworkConfig, shutdown: &CancellationToken) {
    let proxy = Proxy {
        services: informers.all(),
        slices: informers.all(),
        nodes: informers.all(),
        config,
        backend: Backend::Nftables { applied: None },
        frontends: Vec::new(),
    };
    tokio::select! {
        () = proxy.run() => {}
        () = shutdown.cancelled() => {}
    }
}

struct Proxy<'a> {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    config: &'a NetworkConfig,
    backend: Backend,
    /// What the rules in force were made of.
    frontends: Vec<Frontend>,
}

enum Backend {
    /// The rules in force; `None` until the first were put in place, and after a failure.
    Nftables {
        applied: Option<Ruleset>,
    },
    Iptables,
}

impl Proxy<'_> {
    async fn run(mut self) {
        let mut services = self.services.subscribe();
        let mut slices = self.slices.subscribe();
        let mut nodes = self.nodes.subscribe();
        tokio::join!(self.services.synced(), self.slices.synced(), self.nodes.synced());
        loop {
            // All that is known by now is in the caches: the events only tell that something is.
            drain(&mut services);
            drain(&mut slices);
            drain(&mut nodes);
            if let Err(error) = self.sync().await {
                tracing::error!(%error, "Service rules cannot be applied; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            let open = tokio::select! {
                event = services.recv() => event.is_some(),
                event = slices.recv() => event.is_some(),
                event = nodes.recv() => event.is_some(),
            };
            if !open {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn sync(&mut self) -> Result<(), crate::Error> {
        let surroundings = self.surroundings();
        let frontends = model::frontends(&self.services.list(), &self.slices.list(), &self.config.node_name);
        match &mut self.backend {
            Backend::Nftables { applied } => {
                let wanted = nftables::render(&frontends, &surroundings);
                let script = match &applied {
                    Some(current) => wanted.difference(current),
                    None => wanted.whole(),
                };
                if let Err(error) = apply(&script).await {
                    let first = applied.take().is_none();
                    if first && iptables::apply(&frontends, &surroundings).await.is_ok() {
                        tracing::warn!(%error, "nftables does not work here; iptables does");
                        self.backend = Backend::Iptables;
                        self.frontends = frontends;
                        return Ok(());
                    }
                    return Err(error);
                }
                *applied = Some(wanted);
            }
            Backend::Iptables => iptables::apply(&frontends, &surroundings).await?,
        }
        conntrack::forget_stale(&self.frontends, &frontends).await;
        self.frontends = frontends;
        Ok(())
    }

    fn surroundings(&self) -> Surroundings {
        let pod_cidrs =
            self.nodes.get("", &self.config.node_name).map(|node| cni::pod_cidrs(&node)).unwrap_or_default();
        Surroundings {
            cluster_cidrs: self.config.cluster_cidr.clone(),
            pod_cidrs,
            masquerade_bridged: !sysctl::bridged_traffic_is_seen(),
        }
    }
}

fn drain<K: Watched>(events: &mut Subscription<K>) {
    use futures::FutureExt;
    while let Some(Some(_)) = events.recv().now_or_never() {}
}

async fn apply(script: &str) -> Result<(), crate::Error> {
    if script.is_empty() {
        return Ok(());
    }
    command::run("nft", &["-f", "-"], script).await.map(drop)
}
