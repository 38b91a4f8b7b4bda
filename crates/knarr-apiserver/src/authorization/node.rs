//! What a kubelet may do: its own node and lease, its pods, and only the objects its pods refer to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object};
use parking_lot::RwLock;
use serde_json::Value;
use tokio::sync::watch;

use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision};
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

type Reference = (Kind, String, String);

/// Which nodes may see which objects.
#[derive(Default)]
struct Graph {
    /// A pod's node and what it refers to.
    pods: HashMap<(String, String), (String, HashSet<Reference>)>,
    /// How many pods of a node refer to an object.
    references: HashMap<Reference, HashMap<String, usize>>,
    /// The claim of a persistent volume, and the secrets its driver needs.
    volumes: HashMap<String, (Reference, Vec<Reference>)>,
    /// The volumes whose drivers need a secret.
    volume_secrets: HashMap<Reference, HashSet<String>>,
    /// The node of a volume attachment.
    attachments: HashMap<String, String>,
    /// The node of a resource slice.
    slices: HashMap<String, String>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

impl Graph {
    fn set_pod(&mut self, pod: &Object) {
        self.remove_pod(pod);
        let node = text(pod, "/spec/nodeName").to_string();
        if node.is_empty() {
            return;
        }
        let references = pod_references(pod);
        for reference in &references {
            *self.references.entry(reference.clone()).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert((pod.namespace().into(), pod.name().into()), (node, references));
    }

    fn remove_pod(&mut self, pod: &Object) {
        let Some((node, references)) = self.pods.remove(&(pod.namespace().into(), pod.name().into())) else { return };
        for reference in references {
            let Some(nodes) = self.references.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.references.remove(&reference);
            }
        }
    }

    fn set_volume(&mut self, volume: &Object) {
        self.remove_volume(volume);
        let claim = text(volume, "/spec/claimRef/name");
        if claim.is_empty() {
            return;
        }
        let claim = (Kind::Claim, text(volume, "/spec/claimRef/namespace").to_string(), claim.to_string());
        let secrets = volume_secrets(volume, &claim.1);
        for secret in &secrets {
            self.volume_secrets.entry(secret.clone()).or_default().insert(volume.name().into());
        }
        self.volumes.insert(volume.name().into(), (claim, secrets));
    }

    fn remove_volume(&mut self, volume: &Object) {
        let Some((_, secrets)) = self.volumes.remove(volume.name()) else { return };
        for secret in secrets {
            if let Some(volumes) = self.volume_secrets.get_mut(&secret) {
                volumes.remove(volume.name());
            }
        }
    }

    fn refers(&self, node: &str, reference: &Reference) -> bool {
        self.references.get(reference).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn sees(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let reference = (kind, namespace.to_string(), name.to_string());
        self.refers(node, &reference)
            || self.volume_secrets.get(&reference).is_some_and(|v| v.iter().any(|v| self.sees_volume(node, v)))
    }

    fn sees_volume(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|(claim, _)| self.refers(node, claim))
    }

    fn apply(&mut self, resource: &str, change: &Change) {
        match (resource, change) {
            ("pods", Change::Set { object, old }) => {
                // Status changes are most of a pod's life and change no edge.
                let same = old.as_ref().is_some_and(|o| o.get("spec") == object.get("spec") && o.uid() == object.uid());
                let claims = |o: &Object| o.pointer("/status/resourceClaimStatuses").cloned();
                if !same || old.as_ref().is_some_and(|o| claims(o) != claims(object)) {
                    self.set_pod(object);
                }
            }
            ("pods", Change::Gone { object }) => self.remove_pod(object),
            ("persistentvolumes", Change::Set { object, .. }) => self.set_volume(object),
            ("persistentvolumes", Change::Gone { object }) => self.remove_volume(object),
            ("volumeattachments", Change::Set { object, .. }) => {
                self.attachments.insert(object.name().into(), text(object, "/spec/nodeName").into());
            }
            ("volumeattachments", Change::Gone { object }) => {
                self.attachments.remove(object.name());
            }
            ("resourceslices", Change::Set { object, .. }) => {
                self.slices.insert(object.name().into(), text(object, "/spec/nodeName").into());
            }
            ("resourceslices", Change::Gone { object }) => {
                self.slices.remove(object.name());
            }
            _ => {}
        }
    }
}

/// Everything a pod's kubelet must read for it.
fn pod_references(pod: &Object) -> HashSet<Reference> {
    let namespace = pod.namespace();
    let mut found = HashSet::new();
    let mut add = |kind: Kind, name: &str| {
        if !name.is_empty() {
            found.insert((kind, namespace.to_string(), name.to_string()));
        }
    };
    add(Kind::ServiceAccount, text(pod, "/spec/serviceAccountName"));
    for secret in items(pod, "/spec/imagePullSecrets") {
        add(Kind::Secret, text(secret, "/name"));
    }
    for list in ["/spec/containers", "/spec/initContainers", "/spec/ephemeralContainers"] {
        for container in items(pod, list) {
            for env in items(container, "/env") {
                add(Kind::Secret, text(env, "/valueFrom/secretKeyRef/name"));
                add(Kind::ConfigMap, text(env, "/valueFrom/configMapKeyRef/name"));
            }
            for from in items(container, "/envFrom") {
                add(Kind::Secret, text(from, "/secretRef/name"));
                add(Kind::ConfigMap, text(from, "/configMapRef/name"));
            }
        }
    }
    for volume in items(pod, "/spec/volumes") {
        volume_references(pod.name(), volume, &mut add);
    }
    for claim in items(pod, "/spec/resourceClaims") {
        add(Kind::ResourceClaim, text(claim, "/resourceClaimName"));
    }
    for claim in items(pod, "/status/resourceClaimStatuses") {
        add(Kind::ResourceClaim, text(claim, "/resourceClaimName"));
    }
    found
}

fn volume_references(pod: &str, volume: &Value, add: &mut impl FnMut(Kind, &str)) {
    const SECRETS: [&str; 9] = [
        "/secret/secretName",
        "/azureFile/secretName",
        "/cephfs/secretRef/name",
        "/cinder/secretRef/name",
        "/flexVolume/secretRef/name",
        "/rbd/secretRef/name",
        "/scaleIO/secretRef/name",
        "/iscsi/secretRef/name",
        "/csi/nodePublishSecretRef/name",
    ];
    for pointer in SECRETS {
        add(Kind::Secret, text(volume, pointer));
    }
    add(Kind::Secret, text(volume, "/storageos/secretRef/name"));
    add(Kind::ConfigMap, text(volume, "/configMap/name"));
    add(Kind::Claim, text(volume, "/persistentVolumeClaim/claimName"));
    if volume.get("ephemeral").is_some_and(Value::is_object) {
        add(Kind::Claim, &format!("{pod}-{}", text(volume, "/name")));
    }
    for source in items(volume, "/projected/sources") {
        add(Kind::Secret, text(source, "/secret/name"));
        add(Kind::ConfigMap, text(source, "/configMap/name"));
    }
}

fn volume_secrets(volume: &Object, claim_namespace: &str) -> Vec<Reference> {
    const REFS: [&str; 9] = [
        "/spec/csi/controllerPublishSecretRef",
        "/spec/csi/nodePublishSecretRef",
        "/spec/csi/nodeStageSecretRef",
        "/spec/csi/controllerExpandSecretRef",
        "/spec/csi/nodeExpandSecretRef",
        "/spec/iscsi/secretRef",
        "/spec/cephfs/secretRef",
        "/spec/rbd/secretRef",
        "/spec/flexVolume/secretRef",
    ];
    let secret = |pointer: &&str| {
        let reference = volume.pointer(pointer)?;
        let name = text(reference, "/name");
        let namespace = text(reference, "/namespace");
        let namespace = if namespace.is_empty() { claim_namespace } else { namespace };
        (!name.is_empty()).then(|| (Kind::Secret, namespace.to_string(), name.to_string()))
    };
    REFS.iter().filter_map(secret).collect()
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    /// What every node may do alike: the rules of the default ClusterRole `system:node`.
    rules: Vec<Rule>,
    synced: watch::Sender<usize>,
}

const RESOURCES: [(&str, &str); 4] = [
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
            ("", "serviceaccounts") => self.create_token(node, a),
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

    fn related(&self, node: &str, sees: impl Fn(&Graph) -> bool) -> Decision {
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
        self.related(node, |g| g.sees(node, kind, a.namespace, a.name))
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
        self.related(node, sees)
    }

    fn claim_status(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, |g| g.sees(node, Kind::Claim, a.namespace, a.name))
    }

    fn create_token(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, |g| g.sees(node, Kind::ServiceAccount, a.namespace, a.name))
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            "create" => allow(),
            "get" | "update" | "patch" | "delete" => {
                self.related(node, |g| g.slices.get(a.name).is_some_and(|n| n == node))
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

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            // NodeRestriction admission looks at the object.
            ("", "create" | "delete") => allow(),
            ("", "get") => {
                let key = (a.namespace.to_string(), a.name.to_string());
                self.related(node, |g| g.pods.get(&key).is_some_and(|(n, _)| n == node))
            }
            ("", "list" | "watch") if selects(a.field_selector, "spec.nodeName", node) => allow(),
            ("", "list" | "watch") => no("can only list/watch pods with spec.nodeName field selector"),
            ("status", "update" | "patch") | ("eviction", "create") => allow(),
            _ => self.by_rules(a),
        }
    }
}

/// Whether a field selector demands that `field` has exactly this value.
fn selects(selector: &str, field: &str, value: &str) -> bool {
    let term = |t: &str| {
        let (f, v) = t.split_once("==").or_else(|| t.split_once('='))?;
        (!f.ends_with('!')).then_some(f == field && v == value)
    };
    selector.split(',').any(|t| term(t).unwrap_or_default())
}

fn own_node(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        // NodeRestriction admission checks the name.
        ("", "create" | "update" | "patch") => allow(),
        ("", "get" | "list" | "watch") if a.name == node || selects(a.field_selector, "metadata.name", node) => allow(),
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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Memory;

    #[tokio::test]
    async fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
        let objects = Memory::new();
        objects.put(
            "",
            "pods",
            json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"}, "spec": {"nodeName": "n1",
                "serviceAccountName": "default", "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}],
                "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}}),
        );
        objects.put(
            "",
            "persistentvolumes",
            json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "c"},
                "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}}}}),
        );
        let authorizer = NodeAuthorizer::new(Vec::new());
        tokio::spawn(authorizer.clone().run(objects.clone()));
        authorizer.synced().await;
        let can = async |node: &str, resource: &str, namespace: &str, name: &str| {
            let user = User::new(&format!("system:node:{node}"), &[NODES_GROUP]);
            let a = Attributes {
                user: &user,
                verb: "get",
                is_resource: true,
                resource,
                namespace,
                name,
                ..Attributes::default()
            };
            authorizer.authorize(&a).await == allow()
        };
        for (node, resource, namespace, name, want) in [
            ("n1", "secrets", "a", "s", true),
            ("n1", "secrets", "sys", "stage", true),
            ("n1", "configmaps", "a", "env", true),
            ("n1", "persistentvolumeclaims", "a", "c", true),
            ("n1", "persistentvolumes", "", "pv", true),
            ("n1", "pods", "a", "p", true),
            ("n2", "pods", "a", "p", false),
            ("n2", "secrets", "a", "s", false),
            ("n2", "secrets", "sys", "stage", false),
            ("n1", "secrets", "a", "other", false),
            ("n1", "nodes", "", "n1", true),
            ("n1", "nodes", "", "n2", false),
        ] {
            assert_eq!(can(node, resource, namespace, name).await, want, "{node} {resource} {namespace}/{name}");
        }
    }

    #[test]
    fn selectors_must_pin_the_node() {
        assert!(selects("spec.nodeName=n1,status.phase!=Failed", "spec.nodeName", "n1"));
        assert!(!selects("spec.nodeName!=n1", "spec.nodeName", "n1"));
        assert!(!selects("", "spec.nodeName", "n1"));
    }
}
