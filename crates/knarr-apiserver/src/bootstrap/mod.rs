//! What every cluster has from its first second: made at start where missing, mended where the server owns it.

mod builtin;
mod leases;
mod reconcile;
mod service;

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};

pub use builtin::default_objects;

use crate::objects::Objects;

/// So many objects are looked at and written at once: the store makes one fsync of them.
const AT_ONCE: usize = 64;

/// What the default objects must say.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where pods reach the API server: the endpoint behind the `kubernetes` service.
    pub advertise_address: IpAddr,
    pub advertise_port: u16,
    /// The first address of the service range: that of the `kubernetes` service.
    pub service_address: IpAddr,
    pub service_cidr: String,
    /// PEM; what client certificates are checked against.
    pub client_ca: String,
    /// PEM of the authority of front proxies; empty if there is none.
    pub request_header_ca: String,
    pub request_header_allowed_names: Vec<String>,
    /// A kubeconfig without users for those who join, put where anybody may read it; empty for none.
    pub cluster_info_kubeconfig: String,
}

/// Makes the cluster complete. Safe to run at every start and by several servers at once.
pub async fn run(objects: &Arc<dyn Objects>, cluster: &Cluster) -> Result<(), StatusError> {
    ensure_all(objects, builtin::namespaces()).await?;
    let mut wanted: Vec<(GroupResource, Object)> = default_objects().collect();
    wanted.extend(builtin::configuration(cluster));
    wanted.extend(builtin::own_access());
    wanted.push(service::cidr(cluster));
    wanted.push(service::kubernetes(cluster));
    wanted.extend(service::endpoints(cluster, &leases::renew(objects, cluster).await?));
    ensure_all(objects, wanted).await?;
    service::ready(objects, cluster).await
}

/// Keeps the endpoints of the `kubernetes` service those of the servers that live, until dropped. A server that shares its store with
/// no other has nothing to do.
pub async fn follow_servers(objects: &Arc<dyn Objects>, cluster: &Cluster) {
    if leases::shared_store(objects).is_none() {
        return std::future::pending().await;
    }
    let mut beats = tokio::time::interval(leases::RENEWAL);
    loop {
        beats.tick().await;
        let renewed = match leases::renew(objects, cluster).await {
            Ok(living) => ensure_all(objects, service::endpoints(cluster, &living)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = renewed {
            tracing::warn!(%error, "cannot say that this server lives");
        }
    }
}

/// Takes this server out of the endpoints of the `kubernetes` service, where others are left.
pub async fn leave(objects: &Arc<dyn Objects>, cluster: &Cluster) -> Result<(), StatusError> {
    let Some(store) = leases::shared_store(objects) else { return Ok(()) };
    let living = leases::end(&*store, cluster).await?;
    if living.is_empty() { Ok(()) } else { ensure_all(objects, service::endpoints(cluster, &living)).await }
}

/// Makes the missing default objects of priority and fairness, and mends those that the server owns.
pub async fn ensure_flow_control(objects: &Arc<dyn Objects>) -> Result<(), StatusError> {
    let wanted = default_objects().filter(|(resource, _)| resource.group == "flowcontrol.apiserver.k8s.io");
    ensure_all(objects, wanted.collect()).await
}

async fn ensure_all(objects: &Arc<dyn Objects>, wanted: Vec<(GroupResource, Object)>) -> Result<(), StatusError> {
    let mut all =
        stream::iter(wanted).map(|(resource, object)| ensure(objects, resource, object)).buffer_unordered(AT_ONCE);
    while let Some(done) = all.next().await {
        done?;
    }
    Ok(())
}

async fn ensure(objects: &Arc<dyn Objects>, resource: GroupResource, wanted: Object) -> Result<(), StatusError> {
    let (namespace, name) = (wanted.namespace().to_string(), wanted.name().to_string());
    let Some(current) = objects.get(&resource, &namespace, &name).await? else {
        return match objects.create(&resource, wanted).await {
            Ok(_) => Ok(()),
            // Another server was faster.
            Err(error) if error.reason == knarr_api::status::Reason::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        };
    };
    if !reconcile::is_owned(&resource, &current) {
        return Ok(());
    }
    let mut change = |object: &mut Object| {
        reconcile::mend(&resource, object, &wanted);
        Ok(())
    };
    objects.modify(&resource, &namespace, &name, &mut change).await.map(|_| ())
}

#[cfg(test)]
mod tests;
