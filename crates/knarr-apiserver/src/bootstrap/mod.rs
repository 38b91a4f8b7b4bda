//! What every cluster has from its first second: made at start where missing, mended where the server owns it.

mod builtin;
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
    wanted.extend(service::kubernetes(cluster));
    ensure_all(objects, wanted).await
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
