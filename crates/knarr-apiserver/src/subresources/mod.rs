//! Requests that are not plain reads and writes of a stored object: bindings, evictions, tokens, reviews.

mod binding;
mod condition;
mod eviction;
mod reviews;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::{Object, Resource, StatusError};

use crate::authentication::User;

pub use binding::Bindings;
pub use eviction::Evictions;
pub use reviews::{AccessReviews, RulesReviews, SelfSubjectReviews, TokenReviews};

/// A decoded, authenticated and authorized request to a special endpoint.
pub struct Call {
    pub resource: Arc<Resource>,
    pub namespace: String,
    /// Of the path, or of the body where the path has none; empty for reviews.
    pub name: String,
    pub user: Arc<User>,
    /// The body in the endpoint's kind, decoded, defaulted and as admission has it.
    pub object: Object,
    pub dry_run: bool,
}

/// What to answer: the HTTP status and the object.
pub struct Answer {
    pub code: u16,
    pub object: Arc<Object>,
    pub warnings: Vec<String>,
}

impl Answer {
    pub fn created(object: impl Into<Arc<Object>>) -> Self {
        Answer { code: 201, object: object.into(), warnings: Vec::new() }
    }

    /// `Status: Success`.
    pub fn success() -> Self {
        Self::created(
            serde_json::json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}),
        )
    }
}

/// One special endpoint. Admission runs around [`Handler::check`]: before it the plug-ins that mutate, after it those that
/// validate.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Whether the body's uid and the like are demands on what is stored, rather than nothing that a client could say.
    fn preconditions(&self) -> bool {
        false
    }

    /// Refuses what is wrong in itself, and fills in what validating plug-ins should see.
    async fn check(&self, _call: &mut Call) -> Result<(), StatusError> {
        Ok(())
    }

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
