use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::refusal::{forbidden, is_main, items, list_mut, text};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

/// A pod gets the overhead and the nodes of its runtime class.
pub struct RuntimeClass {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        let Some(class) = self.class_of(request, pod).await? else { return Ok(()) };
        let overhead = class.pointer("/overhead/podFixed").cloned();
        let given = pod.pointer("/spec/overhead").filter(|o| o.as_object().is_some_and(|m| !m.is_empty()));
        if let (Some(given), Some(overhead)) = (given, &overhead)
            && given != overhead
        {
            return Err(forbidden(
                request,
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            ));
        }
        let conflict = request.object.as_mut().and_then(|pod| complete(pod, &class, overhead).err());
        conflict.map_or(Ok(()), |why| Err(forbidden(request, why)))
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        let has_overhead = pod.pointer("/spec/overhead").is_some();
        let class = self.class_of(request, pod).await?;
        let defined = class.is_some_and(|c| c.pointer("/overhead/podFixed").is_some());
        if has_overhead && !defined {
            let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(forbidden(request, why));
        }
        Ok(())
    }
}

impl RuntimeClass {
    async fn class_of(&self, request: &Request, pod: &Object) -> Result<Option<Arc<Object>>, StatusError> {
        let name = text(pod, "/spec/runtimeClassName");
        if name.is_empty() {
            return Ok(None);
        }
        let class = self.objects.get(&GroupResource::new("node.k8s.io", "runtimeclasses"), "", name).await?;
        let missing = || forbidden(request, format!("pod rejected: RuntimeClass {name:?} not found"));
        class.map(Some).ok_or_else(missing)
    }
}

fn complete(pod: &mut Object, class: &Object, overhead: Option<Value>) -> Result<(), String> {
    if let Some(overhead) = overhead {
        pod["spec"]["overhead"] = overhead;
    }
    let selector = class.pointer("/scheduling/nodeSelector").and_then(Value::as_object);
    for (key, value) in selector.into_iter().flatten() {
        let held = &pod["spec"]["nodeSelector"][key];
        if !held.is_null() && held != value {
            let shown = |v: &Value| v.as_str().unwrap_or_default().to_string();
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                shown(value),
                shown(held)
            ));
        }
        pod["spec"]["nodeSelector"][key] = value.clone();
    }
    let added: Vec<Value> = items(class, "/scheduling/tolerations").cloned().collect();
    if !added.is_empty()
        && let Some(tolerations) = list_mut(&mut pod["spec"], "tolerations")
    {
        let new: Vec<Value> = added.into_iter().filter(|t| !tolerations.contains(t)).collect();
        tolerations.extend(new);
    }
    Ok(())
}
