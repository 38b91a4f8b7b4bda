//! Plug-ins about a pod and its node: the topology that it gets from it, and what it can be changed to there.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::quantity::Quantity;
use knarr_api::status::Cause;
use knarr_api::{GroupResource, Object, StatusError, quota};
use serde_json::{Value, json};

use super::refusal::{forbidden, is_main, items, text};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

/// The labels that pods share with their nodes (KEP-4742).
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

fn is_pod(request: &Request, subresource: &str) -> bool {
    request.resource.group.is_empty() && request.resource.resource == "pods" && request.subresource == subresource
}

async fn node(objects: &dyn Objects, name: &str) -> Result<Option<Arc<Object>>, StatusError> {
    objects.get(&GroupResource::new("", "nodes"), "", name).await
}

/// A pod that gets a node gets the node's zone and region as labels.
pub struct PodTopologyLabels {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        let is_binding = is_pod(request, "binding");
        if !is_binding && !is_main(request, "", "pods") {
            return Ok(());
        }
        // What is said of a binding becomes the pod's.
        let Some(object) = &mut request.object else { return Ok(()) };
        let name = match is_binding {
            true if text(object, "/target/kind") == "Node" => text(object, "/target/name"),
            true => "",
            false => text(object, "/spec/nodeName"),
        };
        if name.is_empty() {
            return Ok(());
        }
        let Some(node) = node(&*self.objects, name).await? else { return Ok(()) };
        let labels = node.metadata().and_then(|metadata| metadata.get("labels"));
        for (key, value) in TOPOLOGY.iter().filter_map(|key| Some((key, labels?.get(key)?))) {
            let own = object.metadata_mut().entry("labels").or_insert_with(|| json!({}));
            if own.is_null() {
                *own = json!({});
            }
            own[*key] = value.clone();
        }
        Ok(())
    }
}

/// The node that an update of a pod's spec concerns; `None` where there is nothing to look at.
async fn node_of_update(objects: &dyn Objects, request: &Request) -> Result<Option<Arc<Object>>, StatusError> {
    let (Some(pod), Some(old)) = (&request.object, &request.old_object) else { return Ok(None) };
    let name = text(pod, "/spec/nodeName");
    if name.is_empty() || pod.generation() == old.generation() {
        return Ok(None);
    }
    match node(objects, name).await? {
        Some(node) => Ok(Some(node)),
        None => Err(forbidden(request, format!("node {name:?} not found"))),
    }
}

/// What its node can never give a pod is not asked for (KEP-1287).
pub struct PodResizeValidator {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for PodResizeValidator {
    fn name(&self) -> &'static str {
        "PodResizeValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_pod(request, "resize") {
            return Ok(());
        }
        let Some(node) = node_of_update(&*self.objects, request).await? else { return Ok(()) };
        let refuse = |reason: &str, why: String| {
            let mut error = forbidden(request, why);
            let cause = Cause { reason: reason.into(), message: String::new(), field: String::new() };
            error.details.get_or_insert_default().causes.push(cause);
            Err(error)
        };
        if let Some(system) = other_system(&node) {
            let name = node.name();
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {system:?}");
            return refuse("UnsupportedPlatform", why);
        }
        let missing = request.object.as_ref().map(|pod| shortages(pod, &node)).unwrap_or_default();
        if missing.is_empty() {
            return Ok(());
        }
        refuse("NodeCapacity", format!("node didn't have enough allocatable resources: {}", missing.join("; ")))
    }
}

fn other_system(node: &Object) -> Option<&str> {
    let system = node.pointer("/metadata/labels/kubernetes.io~1os")?.as_str()?;
    (system != "linux").then_some(system)
}

/// What the pod's spec asks for beyond what its node has for all pods.
fn shortages(pod: &Object, node: &Object) -> Vec<String> {
    let requested = quota::pod_requests(&json!({ "spec": pod["spec"] }));
    let allocatable = quota::amounts(node.pointer("/status/allocatable"));
    let of = |amounts: &quota::Usage, name: &str| amounts.get(name).copied().unwrap_or(Quantity::from_i64(0));
    let short = |name: &str, number: fn(Quantity) -> i64| {
        let (wanted, there) = (of(&requested, name), of(&allocatable, name));
        (wanted > there).then(|| format!("{name}, requested: {}, allocatable: {}", number(wanted), number(there)))
    };
    [short("cpu", Quantity::to_millis), short("memory", Quantity::to_i64)].into_iter().flatten().collect()
}

/// A pod is changed only to what its node says it can do (KEP-5328).
pub struct NodeDeclaredFeatureValidator {
    pub objects: Arc<dyn Objects>,
}

/// Whether a change needs a feature.
type Needs = fn(&Object, &Object) -> bool;

/// Features that a change of a pod may need, and how that shows.
const NEEDED_BY_UPDATES: [(&str, Needs); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", |old, new| differs(old, new, "/spec/resources")),
    ("InPlacePodVerticalScalingInitContainers", |old, new| {
        let pairs = items(old, "/spec/initContainers").zip(items(new, "/spec/initContainers"));
        pairs.into_iter().any(|(old, new)| text(old, "/restartPolicy") != "Always" && differs(old, new, "/resources"))
    }),
];

fn differs(old: &Value, new: &Value, pointer: &str) -> bool {
    old.pointer(pointer).filter(|value| !value.is_null()) != new.pointer(pointer).filter(|value| !value.is_null())
}

#[async_trait]
impl Plugin for NodeDeclaredFeatureValidator {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatureValidator"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") && !is_pod(request, "resize") {
            return Ok(());
        }
        let (Some(pod), Some(old)) = (&request.object, &request.old_object) else { return Ok(()) };
        let needed = NEEDED_BY_UPDATES.iter().filter(|(_, is_needed)| is_needed(old, pod));
        let needed: Vec<&str> = needed.map(|(name, _)| *name).collect();
        if needed.is_empty() {
            return Ok(());
        }
        let Some(node) = node_of_update(&*self.objects, request).await? else { return Ok(()) };
        let declared = |name: &str| items(&node, "/status/declaredFeatures").any(|feature| feature == name);
        let missing: Vec<&str> = needed.into_iter().filter(|name| !declared(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, name) = (missing.join(", "), node.name());
        Err(forbidden(
            request,
            format!("pod update requires features {missing} which are not available on node {name:?}"),
        ))
    }
}
