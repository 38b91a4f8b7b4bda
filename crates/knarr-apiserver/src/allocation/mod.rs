//! Numbers that only the API server may hand out: cluster IPs and node ports.

mod addresses;
mod families;
mod node_ports;
mod pool;
mod ranges;
mod services;

use async_trait::async_trait;
use knarr_api::{GroupResource, Object, StatusError};

pub use ranges::{AddressRange, PortRange};
pub use services::ServiceAllocator;

/// What a write reserved. Dropped without [`Reservation::commit`], everything taken is given back.
#[async_trait]
pub trait Reservation: Send {
    /// The write is in the store: keep what is new, release what is no longer used.
    async fn commit(self: Box<Self>);
}

/// Runs around a write, between mutating admission and validation, for the resources that need numbers.
#[async_trait]
pub trait Allocator: Send + Sync {
    fn handles(&self, resource: &GroupResource) -> bool;

    /// Completes a new object (`old` is `None`) or a changed one. A dry run takes nothing.
    async fn begin(
        &self,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, StatusError>;

    /// The object is gone from the store.
    async fn released(&self, object: &Object);
}
