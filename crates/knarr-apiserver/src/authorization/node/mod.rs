//! What a kubelet may do: its own node and lease, its pods, and only the objects its pods refer to.

mod graph;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use knarr_api::GroupResource;
use knarr_api::selector::FieldSelector;
use parking_lot::RwLock;
use tokio::sync::watch;

use self::graph::Graph;
pub(crate) use self::graph::{Kind, pod_references};
use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision, Enumerated};
use crate::authentication::User;
use crate::objects::{Change, Objects};

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// Whether a user is a node; the name is empty if it is one that does not say which.
pub fn node_of(user: &User) -> Option<&str> {
    match user.name.strip_prefix(NODE_USER_PREFIX) {
        Some(name) if user.in_group(NODES_GROUP) => Some(name),
        _ => None,
    }
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    /// What every node may do alike: the rules of the default ClusterRole `system:node`.
    rules: Vec<Rule>,
    synced: watch::Sender<usize>,
}

const RESOURCES: [(&str, &str); 5] = [
    ("certificates.k8s.io", "podcertificaterequests"),
    ("", "pods"),
    ("", "persistentvolumes"),
    ("storage.k8s.io", "volumeattachments"),
    ("resource.k8s.io", "resourceslices"),
];

impl NodeAuthorizer {
    pub fn new(rules: Vec<Rule>) -> Arc<Self> {
        Arc::new(NodeAuthorizer { graph: RwLock::default(), rules, synced: watch::Sender::new(0) })
    }

    /// Follows pods and volumes until the registry ends the watches.
    pub async fn run(self: Arc<Self>, objects: Arc<dyn Objects>) {
        let watches = RESOURCES.map(|(group, resource)| {
            objects.watch(&GroupResource::new(group, resource)).map(move |change| (resource, change)).boxed()
        });
        let mut all = stream::select_all(watches);
        while let Some((resource, change)) = all.next().await {
            self.graph.write().apply(resource, &change);
            if matches!(change, Change::Synced) {
                self.synced.send_modify(|n| *n += 1);
            }
        }
    }

    pub async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // An error means that the sender is gone, and it is a field of `self`.
        let _ = synced.wait_for(|n| *n >= RESOURCES.len()).await;
    }

    fn decide(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.is_resource {
            return self.by_rules(a);
        }
        match (a.group, a.resource) {
            ("", "secrets") => self.read_namespaced(node, Kind::Secret, a),
            ("", "configmaps") => self.read_namespaced(node, Kind::ConfigMap, a),
            ("", "persistentvolumeclaims") if a.subresource == "status" => self.claim_status(node, a),
            ("", "persistentvolumeclaims") => self.get_one(node, a, |g| g.sees(node, Kind::Claim, a.namespace, a.name)),
            ("", "persistentvolumes") => self.get_one(node, a, |g| g.sees_volume(node, a.name)),
            ("resource.k8s.io", "resourceclaims") => {
                self.get_one(node, a, |g| g.sees(node, Kind::ResourceClaim, a.namespace, a.name))
            }
            ("storage.k8s.io", "volumeattachments") => {
                self.get_one(node, a, |g| g.attachments.get(a.name).is_some_and(|n| n == node))
            }
            ("", "serviceaccounts") if a.verb == "get" && a.subresource.is_empty() => {
                self.read_namespaced(node, Kind::ServiceAccount, a)
            }
            ("", "serviceaccounts") => self.create_token(node, a),
            ("certificates.k8s.io", "podcertificaterequests") => self.certificate_request(node, a),
            ("coordination.k8s.io", "leases") => lease(node, a),
            ("storage.k8s.io", "csinodes") => csi_node(node, a),
            ("resource.k8s.io", "resourceslices") => self.resource_slice(node, a),
            ("", "nodes") => own_node(node, a),
            ("", "pods") => self.pod(node, a),
            _ => self.by_rules(a),
        }
    }

    fn by_rules(&self, a: &Attributes<'_>) -> Decision {
        if self.rules.iter().any(|r| r.allows(a)) { allow() } else { no("") }
    }

    fn related(&self, node: &str, a: &Attributes<'_>, sees: impl Fn(&Graph) -> bool) -> Decision {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        if sees(&self.graph.read()) { allow() } else { unrelated(node) }
    }

    fn read_namespaced(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        if a.name.is_empty() {
            return no("No Object name found");
        }
        self.related(node, a, |g| g.sees(node, kind, a.namespace, a.name))
    }

    fn get_one(&self, node: &str, a: &Attributes<'_>, sees: impl Fn(&Graph) -> bool) -> Decision {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        if a.name.is_empty() {
            return no("No Object name found");
        }
        self.related(node, a, sees)
    }

    fn claim_status(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, a, |g| g.sees(node, Kind::Claim, a.namespace, a.name))
    }

    fn create_token(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, a, |g| g.sees(node, Kind::ServiceAccount, a.namespace, a.name))
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            "create" => allow(),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, a, |g| g.slices.get(a.name).is_some_and(|n| n == node))
            }
            "watch" | "list" | "deletecollection" if selects(a.field_selector, "spec.nodeName", node) => allow(),
            "watch" | "list" | "deletecollection" => {
                no("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn certificate_request(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            // NodeRestriction admission looks at the object.
            "create" => allow(),
            "get" => {
                let key = format!("{}/{}", a.namespace, a.name);
                self.related(node, a, |g| g.certificate_requests.get(&key).is_some_and(|n| n == node))
            }
            "list" | "watch" if selects(a.field_selector, "spec.nodeName", node) => allow(),
            "list" | "watch" => no("can only list/watch podcertificaterequests with nodeName field selector"),
            verb => no(&format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn own_pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        let key = (a.namespace.to_string(), a.name.to_string());
        self.related(node, a, |g| g.pods.get(&key).is_some_and(|(n, _)| n == node))
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            // NodeRestriction admission looks at the object.
            ("", "create" | "delete") => allow(),
            ("", "get") => self.own_pod(node, a),
            ("", "list" | "watch") if selects(a.field_selector, "spec.nodeName", node) => allow(),
            ("", "list" | "watch") if !a.name.is_empty() => self.own_pod(node, a),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => no(""),
        }
    }
}

/// Whether a field selector demands that `field` has exactly this value.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    FieldSelector::parse(selector).is_ok_and(|s| s.exact(field) == Some(value))
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        // NodeRestriction admission checks the name.
        ("", "create" | "update" | "patch") => allow(),
        ("", "get" | "list" | "watch") if a.name == node => allow(),
        ("", "get" | "list" | "watch") if a.name.is_empty() => {
            no(&format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            no(&format!("node '{node}' cannot read '{}', only its own Node object", a.name))
        }
        ("status", "update" | "patch") => allow(),
        _ => no(""),
    }
}

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASE_NAMESPACE {
        return no(&format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    allow()
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    if !matches!(a.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    allow()
}

fn allow() -> Decision {
    Decision::Allow { reason: String::new() }
}

fn no(reason: &str) -> Decision {
    Decision::NoOpinion { reason: reason.into() }
}

fn unrelated(node: &str) -> Decision {
    no(&format!("no relationship found between node '{node}' and this object"))
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        match node_of(attributes.user) {
            None => no(""),
            Some("") => no(&format!("unknown node for user {:?}", attributes.user.name)),
            Some(node) => self.decide(node, attributes),
        }
    }

    fn rules_for(&self, user: &User, _: &str) -> Enumerated {
        if node_of(user).is_none() {
            return Enumerated::default();
        }
        let error = "node authorizer does not support user rule resolution".to_string();
        Enumerated { incomplete: true, errors: vec![error], ..Enumerated::default() }
    }
}

#[cfg(test)]
mod tests;
