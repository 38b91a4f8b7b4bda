//! What authentication, authorization, admission and the subresources may ask of the registry.
//!
//! The registry implements [`Objects`]; everything in those rooms is built on it and can be tested over a map.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use crate::registry::Registry;

/// One step of a [`Objects::watch`].
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is now this; `old` is what it was, if it was there.
    Set { object: Arc<Object>, old: Option<Arc<Object>> },
    /// The object, last seen so, is gone.
    Gone { object: Arc<Object> },
    /// Everything that was there when the watch began has been delivered; sent once.
    Synced,
}

/// A change to an object that is tried again on the newest state until no one else wrote in between.
pub type Modify<'a> = &'a mut (dyn FnMut(&mut Object) -> Result<(), StatusError> + Send);

/// Stored objects, in their storage version, by resource.
///
/// Reads see every write acknowledged before the call. Writes skip authentication, authorization and admission: the caller
/// has done, or stands for, what they demand.
#[async_trait]
pub trait Objects: Send + Sync + 'static {
    /// The registry itself, for those who must know what is served and not only what is stored; `None` where there is none.
    fn registry(self: Arc<Self>) -> Option<Arc<Registry>> {
        None
    }

    /// The object; `None` if it is not there. `namespace` is empty for cluster-scoped resources.
    async fn get(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, StatusError>;

    /// A field by which the kind can be selected, without reading the whole object; `None` if the object is not there.
    async fn selectable_field(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        field: &str,
    ) -> Result<Option<String>, StatusError> {
        let found = self.get(resource, namespace, name).await?;
        let pointer = format!("/{}", field.replace('.', "/"));
        let value = |object: &Object| object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default().to_string();
        Ok(found.as_deref().map(value))
    }

    /// All objects of a namespace, or of all namespaces where `namespace` is empty.
    async fn list(&self, resource: &GroupResource, namespace: &str) -> Result<Vec<Arc<Object>>, StatusError>;

    /// `Set` for everything present, then `Synced`, then every change. Ends only on shutdown: the registry resumes or relists
    /// by itself, and then sends what changed meanwhile.
    fn watch(&self, resource: &GroupResource) -> BoxStream<'static, Change>;

    /// Creates through defaulting and validation; fills in uid, creation time and the rest. 409 if it exists.
    async fn create(&self, resource: &GroupResource, object: Object) -> Result<Arc<Object>, StatusError>;

    /// Read, change, compare and swap, as often as needed; any field, `status` included, and no write if nothing changed. An
    /// error of `change` ends it. The object is validated in no way: `change` must leave it valid. 404 if it is not there.
    async fn modify(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        change: Modify<'_>,
    ) -> Result<Arc<Object>, StatusError>;

    /// Server-side apply of `config`, which names its object, to the `status`, by force: this is how upstream's own parts tell how
    /// their objects fare, and they own what they tell. 404 if the object is not there.
    async fn apply_status(&self, resource: &GroupResource, config: Object, manager: &str) -> Result<(), StatusError>;

    /// As the DELETE verb with these `DeleteOptions` (`{}` for the defaults): grace, finalizers and preconditions hold.
    async fn delete(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        options: Object,
    ) -> Result<Arc<Object>, StatusError>;
}
