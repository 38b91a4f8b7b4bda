//! The control loops of a cluster, a module a controller, all on the harness of `knarr-client`.
//!
//! [`run`] starts them all over one set of shared informers. Reads go through the informers as `system:kube-controller-manager`; each
//! controller writes as the service account that upstream gives it, so that RBAC and audit see who did what.
//!
//! Invariants: a loop decides from its caches and acts through the API; it holds no state that a restart may not lose; what it asked for
//! and cannot see yet is in its expectations, never assumed.

mod bootstrap_tokens;
mod certificates;
mod cluster_role_aggregation;
mod context;
mod deployment;
mod discovery;
mod disruption_budgets;
mod enabled;
mod endpoint_slice_mirroring;
mod endpoint_slices;
mod endpoints;
mod garbage_collector;
mod job;
mod meta;
mod namespaces;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod pods;
mod replicas;
mod resource_quota;
mod root_ca;
mod service_account_tokens;
mod service_accounts;
mod service_cidrs;
mod service_endpoints;

mod storage_protection;
mod taint_eviction;
mod validating_admission_policy_status;

use std::sync::Arc;

use knarr_client::Informers;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use context::Context;
pub use enabled::{Enabled, UnknownController};

/// What the controllers must be told of the cluster.
#[derive(Clone)]
pub struct Config {
    /// Where nodes' pod networks come from; none: no node gets one.
    pub cluster_cidr: Option<ipnet::IpNet>,
    /// The prefix length of a node's pod network.
    pub node_cidr_prefix: u8,
    /// The certificates, in PEM, that pods trust the API server by (ConfigMap `kube-root-ca.crt`).
    pub root_ca: String,
    /// Signs the tokens that stand in Secrets; none: nobody does.
    pub token_key: Option<Arc<knarr_pki::TokenKey>>,
    /// Signs approved certificate signing requests; none: nobody does.
    pub signing_authority: Option<Arc<knarr_pki::CertificateAuthority>>,
    /// The longest life of a certificate that is signed here.
    pub certificate_lifetime: std::time::Duration,
    /// How long a node's lease may go unrenewed before its conditions become `Unknown`.
    pub node_grace_period: std::time::Duration,
    /// How many finished pods may be kept before the oldest are deleted.
    pub terminated_pod_threshold: usize,
    /// Which controllers run.
    pub enabled: Enabled,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            cluster_cidr: None,
            node_cidr_prefix: 24,
            root_ca: String::new(),
            token_key: None,
            signing_authority: None,
            certificate_lifetime: std::time::Duration::from_secs(365 * 24 * 3600),
            node_grace_period: std::time::Duration::from_secs(50),
            terminated_pod_threshold: 12500,
            enabled: Enabled::default(),
        }
    }
}

/// Runs every controller until `shutdown`, and returns when all have stopped.
///
/// `client_factory` gives a client that acts as the user of that name.
pub async fn run(
    client_factory: impl Fn(&str) -> Client + Send + Sync + 'static,
    config: Config,
    shutdown: CancellationToken,
) {
    let informers = Informers::new(client_factory("system:kube-controller-manager"), shutdown.clone());
    let context = Arc::new(Context::new(informers.clone(), Box::new(client_factory), config, shutdown));
    let mut loops = JoinSet::new();
    for (name, start) in CONTROLLERS {
        if context.config.enabled.has(name) {
            loops.spawn(start(context.clone()));
        }
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller ended unexpectedly");
        }
    }
    informers.stopped().await;
}

type Start = fn(Arc<Context>) -> futures::future::BoxFuture<'static, ()>;

/// Upstream's name of each controller, and how it is started.
const CONTROLLERS: &[(&str, Start)] = &[
    ("namespace-controller", |c| Box::pin(namespaces::run(c))),
    ("serviceaccount-controller", |c| Box::pin(service_accounts::run(c))),
    ("serviceaccount-token-controller", |c| Box::pin(service_account_tokens::run(c))),
    ("root-ca-certificate-publisher-controller", |c| Box::pin(root_ca::run(c))),
    ("clusterrole-aggregation-controller", |c| Box::pin(cluster_role_aggregation::run(c))),
    ("certificatesigningrequest-controller", |c| Box::pin(certificates::run(c))),
    ("token-cleaner-controller", |c| Box::pin(bootstrap_tokens::run(c))),
    ("deployment-controller", |c| Box::pin(deployment::run(c))),
    ("replicaset-controller", |c| Box::pin(replicas::run::<k8s_openapi::api::apps::v1::ReplicaSet>(c))),
    ("replicationcontroller-controller", |c| {
        Box::pin(replicas::run::<k8s_openapi::api::core::v1::ReplicationController>(c))
    }),
    ("endpoints-controller", |c| Box::pin(endpoints::run(c))),
    ("endpointslice-controller", |c| Box::pin(endpoint_slices::run(c))),
    ("endpointslice-mirroring-controller", |c| Box::pin(endpoint_slice_mirroring::run(c))),
    ("node-ipam-controller", |c| Box::pin(node_ipam::run(c))),
    ("garbage-collector-controller", |c| Box::pin(garbage_collector::run(c))),
    ("pod-garbage-collector-controller", |c| Box::pin(pod_gc::run(c))),
    ("job-controller", |c| Box::pin(job::run(c))),
    ("node-lifecycle-controller", |c| Box::pin(node_lifecycle::run(c))),
    ("taint-eviction-controller", |c| Box::pin(taint_eviction::run(c))),
    ("validatingadmissionpolicy-status-controller", |c| Box::pin(validating_admission_policy_status::run(c))),
    ("resourcequota-controller", |c| Box::pin(resource_quota::run(c))),
    ("disruption-controller", |c| Box::pin(disruption_budgets::run(c))),
    ("persistentvolumeclaim-protection-controller", |c| Box::pin(storage_protection::claims(c))),
    ("persistentvolume-protection-controller", |c| Box::pin(storage_protection::volumes(c))),
    ("volumeattributesclass-protection-controller", |c| Box::pin(storage_protection::attribute_classes(c))),
    ("service-cidr-controller", |c| Box::pin(service_cidrs::run(c))),
];

#[cfg(test)]
use knarr_client::transport;

#[cfg(test)]
#[path = "../../knarr-client/src/fake.rs"]
mod fake;

#[cfg(test)]
mod tests;
