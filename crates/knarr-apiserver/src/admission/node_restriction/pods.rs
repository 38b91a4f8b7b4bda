//! A kubelet makes mirror pods and deletes, evicts and reports on pods of its own.

use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::{NodeRestriction, Outcome, refuse, verb};
use crate::admission::refusal::{annotation, items, text};
use crate::admission::{Operation, Request};
use crate::authorization::node::{Kind, pod_references};

const MIRROR: &str = "kubernetes.io/config.mirror";

impl NodeRestriction {
    async fn existing_pod(&self, request: &Request) -> Result<Arc<Object>, StatusError> {
        let pods = GroupResource::new("", "pods");
        let found = self.objects.get(&pods, &request.namespace, &request.name).await?;
        found.ok_or_else(|| StatusError::not_found(&pods, &request.name))
    }

    pub(super) async fn check_pod(&self, node: &str, request: &Request) -> Result<Outcome, StatusError> {
        Ok(match (request.subresource.as_str(), request.operation) {
            ("", Operation::Create) => self.check_mirror(node, request).await?,
            ("", Operation::Delete) => {
                let pod = self.existing_pod(request).await?;
                own_pod(node, &pod, "delete")
            }
            ("", operation) => refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                verb(operation)
            )),
            ("status", Operation::Update) => check_status(node, request),
            ("status", operation) => refuse(format!("unexpected operation {:?}", verb(operation))),
            ("eviction", Operation::Create) => {
                let pod = self.existing_pod(request).await?;
                own_pod(node, &pod, "evict")
            }
            (other, _) => {
                refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
        })
    }

    async fn check_mirror(&self, node: &str, request: &Request) -> Result<Outcome, StatusError> {
        let Some(pod) = &request.object else { return Ok(Ok(())) };
        if annotation(pod, MIRROR).is_none() {
            return Ok(refuse(format!(
                "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
            )));
        }
        if text(pod, "/spec/nodeName") != node {
            return Ok(refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
        }
        let owners: Vec<&Value> = items(pod, "/metadata/ownerReferences").collect();
        if let Err(why) = owned_by(node, &owners) {
            return Ok(Err(why));
        }
        let nodes = GroupResource::new("", "nodes");
        let found = self.objects.get(&nodes, "", node).await?;
        let own = found.ok_or_else(|| StatusError::not_found(&nodes, node))?;
        let given = owners.first().map_or("", |owner| text(owner, "/uid"));
        if own.uid() != given {
            return Ok(refuse(format!("node {node} UID mismatch: expected {given} got {}", own.uid())));
        }
        Ok(references(pod)
            .map_or(Ok(()), |what| refuse(format!("node {node:?} can not create pods that reference {what}"))))
    }
}

fn own_pod(node: &str, pod: &Object, verb: &str) -> Outcome {
    if text(pod, "/spec/nodeName") == node {
        return Ok(());
    }
    refuse(format!("node {node:?} can only {verb} pods with spec.nodeName set to itself"))
}

fn check_status(node: &str, request: &Request) -> Outcome {
    let (Some(old), Some(new)) = (&request.old_object, &request.object) else { return Ok(()) };
    if text(old, "/spec/nodeName") != node {
        return refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if old.pointer("/metadata/labels").unwrap_or(&Value::Null)
        != new.pointer("/metadata/labels").unwrap_or(&Value::Null)
    {
        return refuse(format!("node {node:?} cannot update labels through pod status"));
    }
    for (field, what) in [
        ("/status/resourceClaimStatuses", "resource claim statues"),
        ("/status/extendedResourceClaimStatus", "extended resource claim status"),
    ] {
        if old.pointer(field).unwrap_or(&Value::Null) != new.pointer(field).unwrap_or(&Value::Null) {
            return refuse(format!("node {node:?} cannot update {what}"));
        }
    }
    Ok(())
}

/// A mirror pod belongs to its node and to nobody else.
fn owned_by(node: &str, owners: &[&Value]) -> Outcome {
    let itself = || format!("node {node:?} can only create pods with an owner reference set to itself");
    let owner = match owners {
        [] => return Err(itself()),
        [owner] => owner,
        _ => {
            return refuse(format!("node {node:?} can only create pods with a single owner reference set to itself"));
        }
    };
    let is_node = text(owner, "/apiVersion") == "v1" && text(owner, "/kind") == "Node";
    if !is_node || text(owner, "/name") != node {
        return Err(itself());
    }
    if owner.get("controller") != Some(&Value::Bool(true)) {
        return refuse(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)) {
        return refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    Ok(())
}

/// What a pod needs of the API: a mirror pod must not be a way to objects that its node may not see.
fn references(pod: &Object) -> Option<&'static str> {
    const VOLUMES: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const PROJECTED: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Some("serviceaccounts");
    }
    let named = pod_references(pod);
    let names = |kind: Kind| named.iter().any(|(k, _, _)| *k == kind);
    if names(Kind::Secret) {
        return Some("secrets");
    }
    if names(Kind::ConfigMap) {
        return Some("configmaps");
    }
    if items(pod, "/spec/resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    let has = |holder: &Value, kinds: &[(&str, &'static str)]| {
        kinds.iter().find(|(field, _)| holder.get(field).is_some_and(|v| !v.is_null())).map(|(_, what)| *what)
    };
    items(pod, "/spec/volumes").find_map(|volume| {
        has(volume, &VOLUMES).or_else(|| items(volume, "/projected/sources").find_map(|source| has(source, &PROJECTED)))
    })
}
