//! Requests that are not plain reads and writes of a stored object: bindings, evictions, tokens, approvals, reviews.

mod binding;
mod eviction;
mod finalize;
mod gate;
mod reviews;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::{Object, Resource, StatusError};

use crate::authentication::User;

pub use binding::Bindings;
pub use eviction::Evictions;
pub use finalize::Finalize;
pub use gate::Gate;
pub use reviews::{AccessReviews, RulesReviews, SelfSubjectReviews, TokenReviews};

/// A decoded, authenticated and authorized request to a special endpoint.
pub struct Call {
    pub resource: Arc<Resource>,
    /// Empty for a special main resource, such as the reviews and `bindings`.
    pub subresource: String,
    /// The API's verb: `get`, `create`, `update`, `patch`.
    pub verb: String,
    pub namespace: String,
    /// Empty where the path has none.
    pub name: String,
    pub user: Arc<User>,
    /// The body in the subresource's kind, decoded and defaulted; for a patch, already applied to what `get` answers. `Null`
    /// for a get.
    pub object: Object,
    /// The CreateOptions, UpdateOptions or PatchOptions.
    pub options: Object,
    pub dry_run: bool,
}

/// What to answer: the HTTP status and the object.
pub struct Answer {
    pub code: u16,
    pub object: Arc<Object>,
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn ok(object: Arc<Object>) -> Self {
        Answer { code: 200, object, warnings: Vec::new() }
    }

    pub fn created(object: impl Into<Arc<Object>>) -> Self {
        Answer { code: 201, object: object.into(), warnings: Vec::new() }
    }
}

/// One special endpoint. It runs its own admission.
#[async_trait]
pub trait Handler: Send + Sync {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError>;
}

/// The special endpoints by resource and subresource; the registry asks here before it takes its generic path.
#[derive(Clone, Default)]
pub struct Handlers {
    by_resource: HashMap<&'static str, Vec<Endpoint>>,
}

#[derive(Clone)]
struct Endpoint {
    group: &'static str,
    subresource: &'static str,
    handler: Arc<dyn Handler>,
}

impl Handlers {
    pub fn add(
        &mut self,
        group: &'static str,
        resource: &'static str,
        subresource: &'static str,
        handler: Arc<dyn Handler>,
    ) {
        self.by_resource.entry(resource).or_default().push(Endpoint { group, subresource, handler });
    }

    /// The handler, if this endpoint is special. `subresource` is empty for the main resource.
    pub fn find(&self, group: &str, resource: &str, subresource: &str) -> Option<&Arc<dyn Handler>> {
        let endpoints = self.by_resource.get(resource)?;
        endpoints.iter().find(|e| e.group == group && e.subresource == subresource).map(|e| &e.handler)
    }
}
