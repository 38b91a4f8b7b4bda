//! Role-based access control, answered from an index in memory that a watch keeps up to date.

mod escalation;
mod index;
mod rule;

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use knarr_api::GroupResource;
use parking_lot::RwLock;
use tokio::sync::watch;

pub use escalation::{compact_string, covers, quoted_list};
pub use index::{Index, RoleKey};
pub use rule::Rule;

use super::{Attributes, Authorizer, Decision, Enumerated};
use crate::authentication::User;
use crate::objects::{Change, Objects};

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The RBAC authorizer.
pub struct Rbac {
    index: RwLock<Index>,
    synced: watch::Sender<usize>,
}

/// The four kinds the index is made of.
const RESOURCES: [&str; 4] = ["roles", "clusterroles", "rolebindings", "clusterrolebindings"];

impl Default for Rbac {
    fn default() -> Self {
        Rbac { index: RwLock::default(), synced: watch::Sender::new(0) }
    }
}

impl Rbac {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Follows the roles and bindings until the registry ends the watches.
    pub async fn run(self: Arc<Self>, objects: Arc<dyn Objects>) {
        let watches = RESOURCES.map(|resource| changes(&*objects, resource));
        let mut all = stream::select_all(watches);
        while let Some((resource, change)) = all.next().await {
            self.apply(resource, &change);
        }
    }

    /// Returns once everything that was stored when [`Rbac::run`] began is in the index.
    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // An error means that the sender is gone, and it is a field of `self`.
        let _ = synced.wait_for(|n| *n >= RESOURCES.len()).await;
    }

    fn apply(&self, resource: &str, change: &Change) {
        let binding = resource.ends_with("bindings");
        let mut index = self.index.write();
        match (change, binding) {
            (Change::Set { object, .. }, true) => index.set_binding(object),
            (Change::Set { object, .. }, false) => index.set_role(object),
            (Change::Gone { object }, true) => index.remove_binding(object),
            (Change::Gone { object }, false) => index.remove_role(object),
            (Change::Synced, _) => self.synced.send_modify(|n| *n += 1),
        }
    }

    /// The rules of one role, if it exists.
    pub fn rules_of_role(&self, role: &RoleKey) -> Option<Arc<[Rule]>> {
        self.index.read().rules(role).cloned()
    }

    /// Every rule that holds for this user in this namespace, and what could not be resolved.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let index = self.index.read();
        let mut rules = Vec::new();
        let mut missing = Vec::new();
        for binding in index.bindings_of(user, namespace) {
            match index.rules(&binding.role) {
                Some(found) => rules.extend(found.iter().cloned()),
                None => missing.push(not_found(&binding.role)),
            }
        }
        (rules, missing)
    }
}

fn changes(objects: &dyn Objects, resource: &'static str) -> BoxStream<'static, (&'static str, Change)> {
    objects.watch(&GroupResource::new(GROUP, resource)).map(move |change| (resource, change)).boxed()
}

fn not_found(role: &RoleKey) -> String {
    let kind = if role.namespace.is_empty() { "clusterrole" } else { "role" };
    format!("{kind}.{GROUP} {:?} not found", role.name)
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index.read();
        let mut missing: Vec<String> = Vec::new();
        for binding in index.bindings_of(attributes.user, attributes.namespace) {
            match index.rules(&binding.role) {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow { reason: binding.reason(attributes.user) };
                }
                Some(_) => {}
                None => missing.push(not_found(&binding.role)),
            }
        }
        Decision::NoOpinion { reason: unresolved(&missing) }
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Enumerated {
        let (rules, errors) = Rbac::rules_for(self, user, namespace);
        Enumerated { rules, incomplete: !errors.is_empty(), errors }
    }
}

/// Go's aggregate of errors: one as it is, more in brackets.
fn unresolved(missing: &[String]) -> String {
    match missing {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        more => format!("RBAC: [{}]", more.join(", ")),
    }
}

#[cfg(test)]
mod tests;
