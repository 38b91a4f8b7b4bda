use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::refusal::{annotation, forbidden, items, text};
use super::{Operation, Plugin, Request};
use crate::authorization::node::node_of;
use crate::objects::Objects;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// A kubelet writes its own node, its own pods' status and its own leases, and labels its node only within bounds.
pub struct NodeRestriction {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        let user = request.user.clone();
        let Some(node) = node_of(&user) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", user.name);
            return Err(forbidden(request, why));
        }
        let outcome = match (request.resource.group.as_str(), request.resource.resource.as_str()) {
            ("", "pods") => self.check_pod(node, request).await?,
            ("", "nodes") => check_node(node, request),
            ("", "persistentvolumeclaims") => check_claim(request),
            ("", "serviceaccounts") => self.check_token(node, request).await?,
            ("coordination.k8s.io", "leases") => check_lease(node, request),
            ("storage.k8s.io", "csinodes") => check_own(node, request, "CSINode"),
            ("resource.k8s.io", "resourceslices") => check_slice(node, request),
            _ => Ok(()),
        };
        outcome.map_err(|why| forbidden(request, why))
    }
}

type Outcome = Result<(), String>;

fn refuse(why: impl Into<String>) -> Outcome {
    Err(why.into())
}

impl NodeRestriction {
    async fn existing_pod(&self, request: &Request) -> Result<Arc<Object>, StatusError> {
        let pods = GroupResource::new("", "pods");
        let found = self.objects.get(&pods, &request.namespace, &request.name).await?;
        found.ok_or_else(|| StatusError::not_found(&pods, &request.name))
    }

    async fn check_pod(&self, node: &str, request: &Request) -> Result<Outcome, StatusError> {
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
        let Some(owner) = items(pod, "/metadata/ownerReferences").next() else {
            return Ok(refuse(format!("node {node:?} can only create pods with an owner reference set to itself")));
        };
        let is_node = text(owner, "/apiVersion") == "v1" && text(owner, "/kind") == "Node";
        if !is_node || text(owner, "/name") != node || items(pod, "/metadata/ownerReferences").count() > 1 {
            return Ok(refuse(format!("node {node:?} can only create pods with an owner reference set to itself")));
        }
        let found = self.objects.get(&GroupResource::new("", "nodes"), "", node).await?;
        if found.is_none_or(|n| n.uid() != text(owner, "/uid")) {
            return Ok(refuse(format!(
                "node {node:?} UID mismatch: expected the UID of the node in the owner reference"
            )));
        }
        Ok(no_secrets(node, pod))
    }

    async fn check_token(&self, node: &str, request: &Request) -> Result<Outcome, StatusError> {
        if request.operation != Operation::Create || request.subresource != "token" {
            return Ok(Ok(()));
        }
        let Some(token) = &request.object else { return Ok(Ok(())) };
        let reference = &token["spec"]["boundObjectRef"];
        if text(reference, "/apiVersion") != "v1"
            || text(reference, "/kind") != "Pod"
            || text(reference, "/name").is_empty()
        {
            return Ok(refuse("node requested token not bound to a pod"));
        }
        if text(reference, "/uid").is_empty() {
            return Ok(refuse("node requested token with a pod binding without a uid"));
        }
        let pod =
            self.objects.get(&GroupResource::new("", "pods"), &request.namespace, text(reference, "/name")).await?;
        let Some(pod) = pod else { return Ok(refuse(format!("pod {:?} not found", text(reference, "/name")))) };
        if pod.uid() != text(reference, "/uid") {
            return Ok(refuse("the UID in the bound object reference does not match the UID in record"));
        }
        if text(&pod, "/spec/nodeName") != node {
            return Ok(refuse("node requested token bound to a pod scheduled on a different node"));
        }
        Ok(Ok(()))
    }
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
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
    Ok(())
}

/// A mirror pod must not be a way to objects that its node may not see.
fn no_secrets(node: &str, pod: &Object) -> Outcome {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return refuse(format!("node {node:?} can not create pods that reference a service account"));
    }
    for volume in items(pod, "/spec/volumes") {
        for (field, what) in
            [("secret", "secrets"), ("configMap", "configmaps"), ("persistentVolumeClaim", "persistentvolumeclaims")]
        {
            if volume.get(field).is_some() {
                return refuse(format!("node {node:?} can not create pods that reference {what}"));
            }
        }
    }
    Ok(())
}

fn check_claim(request: &Request) -> Outcome {
    match (request.subresource.as_str(), request.operation) {
        ("status", Operation::Update) => Ok(()),
        ("status", operation) => refuse(format!("unexpected operation {:?}", verb(operation))),
        ("", _) => refuse("nodes may only update PVC status"),
        (other, _) => refuse(format!("unexpected PVC subresource {other:?}, only 'status' is allowed")),
    }
}

fn check_lease(node: &str, request: &Request) -> Outcome {
    if request.namespace != "kube-node-lease" {
        return refuse("can only access leases in the \"kube-node-lease\" system namespace");
    }
    check_own(node, request, "node lease")
}

/// On creation only the object says its name.
fn check_own(node: &str, request: &Request, what: &str) -> Outcome {
    let name = request.object.as_ref().map(|o| o.name()).filter(|n| !n.is_empty()).unwrap_or(&request.name);
    if name == node {
        Ok(())
    } else {
        refuse(format!("can only access {what} with the same name as the requesting node"))
    }
}

fn check_slice(node: &str, request: &Request) -> Outcome {
    let object = request.object.as_ref().or(request.old_object.as_deref());
    match object {
        Some(slice) if text(slice, "/spec/nodeName") != node => {
            refuse("can only create, update or delete ResourceSlice with the same NodeName as the requesting node")
        }
        _ => Ok(()),
    }
}

fn check_node(node: &str, request: &Request) -> Outcome {
    let Some(object) = &request.object else { return Ok(()) };
    let name = if object.name().is_empty() { request.name.as_str() } else { object.name() };
    if name != node {
        return refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let has_source = |o: &Object| o.pointer("/spec/configSource").is_some_and(|v| !v.is_null());
    let Some(old) = request.old_object.as_deref().filter(|_| request.operation == Operation::Update) else {
        if has_source(object) {
            return refuse(format!("node {node:?} is not allowed to create pods with a non-nil configSource"));
        }
        return restricted_labels(object, None).map_or(Ok(()), |labels| {
            refuse(format!("node {node:?} is not allowed to set the following labels: {labels}"))
        });
    };
    if has_source(object) && old.pointer("/spec/configSource") != object.pointer("/spec/configSource") {
        return refuse(format!("node {node:?} is not allowed to update configSource to a new non-nil configSource"));
    }
    if old.pointer("/spec/taints").unwrap_or(&Value::Null) != object.pointer("/spec/taints").unwrap_or(&Value::Null) {
        return refuse(format!("node {node:?} is not allowed to modify taints"));
    }
    if old.pointer("/metadata/ownerReferences") != object.pointer("/metadata/ownerReferences") {
        return refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    restricted_labels(object, Some(old))
        .map_or(Ok(()), |labels| refuse(format!("is not allowed to modify labels: {labels}")))
}

/// The labels that a kubelet set or changed although they are not its own to set; sorted.
fn restricted_labels(object: &Object, old: Option<&Object>) -> Option<String> {
    let labels = |o: &Object| o.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, before) = (labels(object), old.map(labels).unwrap_or_default());
    let keys: BTreeSet<&String> = new.keys().chain(before.keys()).collect();
    let changed = keys.into_iter().filter(|k| new.get(*k) != before.get(*k));
    let refused: Vec<&str> = changed.filter(|k| !may_set(k)).map(String::as_str).collect();
    (!refused.is_empty()).then(|| refused.join(", "))
}

fn in_domain(domain: &str, suffix: &str) -> bool {
    domain == suffix || domain.strip_suffix(suffix).is_some_and(|d| d.ends_with('.'))
}

fn may_set(label: &str) -> bool {
    const KUBELET_LABELS: [&str; 12] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "node.kubernetes.io/windows-build",
    ];
    let domain = label.split_once('/').map_or("", |(d, _)| d);
    if in_domain(domain, "node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = in_domain(domain, "kubernetes.io") || in_domain(domain, "k8s.io");
    !kubernetes
        || KUBELET_LABELS.contains(&label)
        || in_domain(domain, "kubelet.kubernetes.io")
        || in_domain(domain, "node.kubernetes.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubelet_labels_its_node_within_bounds() {
        for (label, want) in [
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/x", true),
            ("example.com/x", true),
            ("x", true),
            ("node-restriction.kubernetes.io/x", false),
            ("a.node-restriction.kubernetes.io/x", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("notkubernetes.io/x", true),
        ] {
            assert_eq!(may_set(label), want, "{label}");
        }
    }
}
