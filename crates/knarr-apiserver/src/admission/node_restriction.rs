mod pods;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};
use knarr_pki::SigningRequest;
use serde_json::Value;

use super::refusal::{forbidden, text};
use super::{Operation, Plugin, Request};
use crate::authorization::Chain;
use crate::authorization::node::node_of;
use crate::objects::Objects;

/// A kubelet writes its own node, its own pods' status and its own leases, and labels its node only within bounds.
pub struct NodeRestriction {
    pub objects: Arc<dyn Objects>,
    pub authorizer: Chain,
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
            ("", "persistentvolumeclaims") => check_claim(node, request),
            ("", "serviceaccounts") => self.check_token(node, request).await?,
            ("coordination.k8s.io", "leases") => check_lease(node, request),
            ("storage.k8s.io", "csinodes") => check_own(node, request, "CSINode"),
            ("resource.k8s.io", "resourceslices") => check_slice(node, request),
            ("certificates.k8s.io", "certificatesigningrequests") => check_signing_request(node, request),
            _ => Ok(()),
        };
        outcome.map_err(|why| forbidden(request, why))
    }
}

type Outcome = Result<(), String>;

fn refuse(why: impl Into<String>) -> Outcome {
    Err(why.into())
}

fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

fn check_claim(node: &str, request: &Request) -> Outcome {
    match (request.subresource.as_str(), request.operation) {
        ("status", Operation::Update) => {}
        ("status", operation) => return refuse(format!("unexpected operation {:?}", verb(operation))),
        _ => return refuse("may only update PVC status"),
    }
    // Neither labels nor finalizers, nor anything of the status but what resizing a volume changes.
    let kept = |claim: &Object| {
        let mut claim = claim.clone();
        for field in ["resourceVersion", "managedFields"] {
            claim.metadata_mut().remove(field);
        }
        for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
            claim.get_mut("status").and_then(Value::as_object_mut).map(|status| status.remove(field));
        }
        claim
    };
    let (Some(old), Some(new)) = (&request.old_object, &request.object) else { return Ok(()) };
    if kept(old) == kept(new) {
        return Ok(());
    }
    refuse(format!("node {node:?} is not allowed to update fields other than status.quantity and status.conditions"))
}

/// A node asks for certificates of its own name only.
fn check_signing_request(node: &str, request: &Request) -> Outcome {
    const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let created = request.object.as_ref().filter(|_| request.operation == Operation::Create);
    let Some(object) = created.filter(|o| SIGNERS.contains(&text(o, "/spec/signerName"))) else { return Ok(()) };
    let pem = STANDARD.decode(text(object, "/spec/request")).unwrap_or_default();
    let asked = SigningRequest::parse(&pem).map_err(|error| format!("unable to parse csr: {error}"))?;
    if asked.common_name == format!("system:node:{node}") {
        return Ok(());
    }
    refuse(format!("can only create a node CSR with CN=system:node:{node}"))
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
