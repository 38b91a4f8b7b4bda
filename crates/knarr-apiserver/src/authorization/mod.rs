//! May they.

mod chain;
pub mod conditions;
pub mod configuration;
mod forbidden;
pub mod node;
pub mod rbac;
pub mod webhook;

pub use chain::{Always, Chain, Enumerated};
pub use forbidden::forbidden;

use knarr_api::StatusError;
use knarr_api::status::Reason;

use crate::authentication::User;

/// What is being asked, as upstream's `authorizer.Attributes`.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    pub user: &'a User,
    /// get, list, watch, create, update, patch, delete, deletecollection; the lower-case HTTP method for non-resource paths.
    pub verb: &'a str,
    /// Whether the fields below, rather than `path`, say what is asked.
    pub is_resource: bool,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub path: &'a str,
    /// Selectors of list, watch and deletecollection, as they were sent.
    pub field_selector: &'a str,
    pub label_selector: &'a str,
}

static NOBODY: User =
    User { name: String::new(), uid: String::new(), groups: Vec::new(), extra: std::collections::BTreeMap::new() };

impl Default for &User {
    fn default() -> Self {
        &NOBODY
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow {
        reason: String,
    },
    Deny {
        reason: String,
    },
    /// No opinion; the next authorizer decides, and none means no.
    NoOpinion {
        reason: String,
    },
    /// The authorizer could not tell, and denies for that or has no opinion.
    Failed {
        denied: bool,
        error: String,
    },
}

/// One authorization mode (Node, RBAC, webhook).
#[async_trait::async_trait]
pub trait Authorizer: Send + Sync {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;

    /// What it can say beforehand of what a user may do in a namespace.
    fn rules_for(&self, _user: &User, _namespace: &str) -> Enumerated {
        Enumerated::default()
    }
}

/// The answer to a request that was not allowed: 403, or 500 where it is not known whether it is.
pub fn refusal(attributes: &Attributes<'_>, decision: Decision) -> StatusError {
    match decision {
        Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason } => {
            forbidden(attributes, &reason)
        }
        Decision::Failed { error, .. } => {
            StatusError::new(Reason::InternalError, format!("Internal Server Error: {:?}: {error}", attributes.path))
        }
    }
}
