//! Which servers live: each that shares its store says so under a lease, and whoever looks finds the others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use knarr_api::StatusError;
use knarr_store::{Expect, Store, StoreError};

use super::Cluster;
use crate::objects::Objects;

/// No object's key begins so.
const PREFIX: &str = "/knarr/servers/";
/// A server that has not been heard of for so long is gone, as upstream.
const TTL_SECONDS: u32 = 15;
/// How often a server says that it lives.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// The store, where other servers have it too.
pub fn shared_store(objects: &Arc<dyn Objects>) -> Option<Arc<dyn Store>> {
    let registry = objects.clone().registry().filter(|registry| registry.is_shared())?;
    Some(registry.store().clone())
}

fn key(cluster: &Cluster) -> String {
    format!("{PREFIX}{}", cluster.advertise_address)
}

/// Says that this server lives, and finds out who else does.
pub async fn renew(objects: &Arc<dyn Objects>, cluster: &Cluster) -> Result<Vec<IpAddr>, StatusError> {
    let Some(store) = shared_store(objects) else { return Ok(vec![cluster.advertise_address]) };
    let lease = store.grant_lease(TTL_SECONDS).await.map_err(StatusError::internal)?;
    let put = store.put(&key(cluster), Bytes::from_static(b"{}"), Expect::Any, Some(lease)).await;
    put.map_err(StatusError::internal)?;
    others(&*store).await.map(|mut living| {
        living.insert(cluster.advertise_address);
        living.into_iter().collect()
    })
}

/// Takes back that this server lives; who else does.
pub async fn end(store: &dyn Store, cluster: &Cluster) -> Result<Vec<IpAddr>, StatusError> {
    match store.delete(&key(cluster), Expect::Any).await {
        Ok(_) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(StatusError::internal(error)),
    }
    let mut living = others(store).await?;
    living.remove(&cluster.advertise_address);
    Ok(living.into_iter().collect())
}

async fn others(store: &dyn Store) -> Result<BTreeSet<IpAddr>, StatusError> {
    let range = store.range(PREFIX, None, 0, None).await.map_err(StatusError::internal)?;
    Ok(range.items.iter().filter_map(|kv| kv.key.strip_prefix(PREFIX)?.parse().ok()).collect())
}
