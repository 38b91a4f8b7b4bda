//! Which nodes may see which objects: edges from pods and volumes to what their nodes must read for them.

use std::collections::{HashMap, HashSet};

use knarr_api::Object;
use knarr_api::object::ObjectExt;
use serde_json::Value;

use crate::objects::Change;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

pub(crate) type Reference = (Kind, String, String);

/// Which nodes may see which objects.
#[derive(Default)]
pub(super) struct Graph {
    /// A pod's node and what it refers to.
    pub(super) pods: HashMap<(String, String), (String, HashSet<Reference>)>,
    /// How many pods of a node refer to an object.
    references: HashMap<Reference, HashMap<String, usize>>,
    /// The claim of a persistent volume, and the secrets its driver needs.
    volumes: HashMap<String, (Reference, Vec<Reference>)>,
    /// The volumes whose drivers need a secret.
    volume_secrets: HashMap<Reference, HashSet<String>>,
    /// The node of a volume attachment.
    pub(super) attachments: HashMap<String, String>,
    /// The node that a request for a pod's certificate is for.
    pub(super) certificate_requests: HashMap<String, String>,
    /// The node of a resource slice.
    pub(super) slices: HashMap<String, String>,
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
        // A mirror pod is the node's own word: a node must not come by a secret by claiming to run a pod that uses it.
        let mirror = pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        let references = if mirror { HashSet::new() } else { pod_references(pod) };
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

    pub(super) fn sees(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let reference = (kind, namespace.to_string(), name.to_string());
        self.refers(node, &reference)
            || self.volume_secrets.get(&reference).is_some_and(|v| v.iter().any(|v| self.sees_volume(node, v)))
    }

    pub(super) fn sees_volume(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|(claim, _)| self.refers(node, claim))
    }

    pub(super) fn apply(&mut self, resource: &str, change: &Change) {
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
            ("podcertificaterequests", Change::Set { object, .. }) => {
                let key = format!("{}/{}", object.namespace(), object.name());
                self.certificate_requests.insert(key, text(object, "/spec/nodeName").into());
            }
            ("podcertificaterequests", Change::Gone { object }) => {
                self.certificate_requests.remove(&format!("{}/{}", object.namespace(), object.name()));
            }
            _ => {}
        }
    }
}

/// Everything a pod's kubelet must read for it.
pub(crate) fn pod_references(pod: &Object) -> HashSet<Reference> {
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
