//! May they.

mod chain;
mod forbidden;
pub mod node;
pub mod rbac;

pub use chain::Chain;
pub use forbidden::forbidden;

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
    /// Parsed selectors of list, watch and deletecollection, in their canonical text.
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
}

/// One authorization mode (Node, RBAC, webhook).
#[async_trait::async_trait]
pub trait Authorizer: Send + Sync {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision;
}
