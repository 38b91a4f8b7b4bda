//! `pods/eviction`: a delete that disruption budgets may refuse.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::selector::LabelSelector;
use knarr_api::status::{Cause, Details, Reason};
use knarr_api::{FieldError, GroupResource, GroupVersionKind, Object, Path, StatusError};
use serde_json::{Value, json};

use super::condition::set_pod_condition;
use super::{Answer, Call, Handler};
use crate::objects::Objects;
use crate::registry::delete::DeleteOptions;

/// Pods that a budget's status may list as being disrupted; beyond it the controller is not keeping up.
const MAX_DISRUPTED: usize = 2000;

pub struct Evictions {
    pub objects: Arc<dyn Objects>,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

#[async_trait]
impl Handler for Evictions {
    async fn check(&self, call: &mut Call) -> Result<(), StatusError> {
        if call.object.name() != call.name {
            return Err(StatusError::bad_request("name in URL does not match name in Eviction object"));
        }
        if call.object.pointer("/deleteOptions/ignoreStoreReadErrorWithClusterBreakingPotential") == Some(&json!(true))
        {
            let root = Path::ROOT;
            let options = root.child("deleteOptions");
            let path = options.child("ignoreStoreReadErrorWithClusterBreakingPotential");
            let why = "can not be set for pod eviction, try after removing the option";
            let error = FieldError::invalid(&path, &json!(true), why);
            return Err(StatusError::invalid(
                &GroupVersionKind::new("policy", "v1", "Eviction"),
                &call.name,
                vec![error],
            ));
        }
        let asked = call.object.pointer("/deleteOptions/dryRun").and_then(Value::as_array);
        call.dry_run |= asked.is_some_and(|asked| !asked.is_empty());
        Ok(())
    }

    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let pods = GroupResource::new("", "pods");
        let pod = self.objects.get(&pods, &call.namespace, &call.name).await?;
        let pod = pod.ok_or_else(|| StatusError::not_found(&pods, &call.name))?;
        if !ignores_budgets(&pod) {
            self.take_from_budget(&pod, call.dry_run).await?;
        }
        if !call.dry_run {
            let options = call.object.get("deleteOptions").filter(|o| o.is_object()).cloned();
            self.delete(&pod, options.unwrap_or_else(|| json!({}))).await?;
        }
        Ok(Answer::success())
    }
}

impl Evictions {
    /// Deletes the pod, which says why.
    async fn delete(&self, pod: &Object, mut options: Object) -> Result<(), StatusError> {
        let pods = GroupResource::new("", "pods");
        let wanted = DeleteOptions::of_object(options.clone())?.preconditions;
        let kind = GroupVersionKind::new("", "v1", "Pod");
        let mut mark = |current: &mut Object| {
            wanted.check(&kind, current.name(), current.uid(), current.resource_version())?;
            set_pod_condition(current, "DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting");
            Ok(())
        };
        let marked = self.objects.modify(&pods, pod.namespace(), pod.name(), &mut mark).await?;
        // The budget was asked about this very pod.
        if text(&options, "/preconditions/uid").is_empty() {
            options["preconditions"]["uid"] = pod.uid().into();
        }
        if !text(&options, "/preconditions/resourceVersion").is_empty() {
            options["preconditions"]["resourceVersion"] = marked.resource_version().into();
        }
        self.objects.delete(&pods, pod.namespace(), pod.name(), options).await.map(|_| ())
    }
}

/// A pod that serves nobody is not protected.
fn ignores_budgets(pod: &Object) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed" | "Pending") || pod.is_deleting()
}

fn is_ready(pod: &Object) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.clone().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

impl Evictions {
    async fn take_from_budget(&self, pod: &Object, dry_run: bool) -> Result<(), StatusError> {
        let resource = GroupResource::new("policy", "poddisruptionbudgets");
        let all = self.objects.list(&resource, pod.namespace()).await?;
        let budgets: Vec<_> = all.iter().filter(|b| covers(b, pod)).collect();
        let budget = match budgets.as_slice() {
            [] => return Ok(()),
            [one] => *one,
            _ => {
                return Err(StatusError::internal(
                    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                ));
            }
        };
        if !is_ready(pod) && unhealthy_may_go(budget) {
            return Ok(());
        }
        let mut take = |budget: &mut Object| disrupt(budget, pod.name());
        if dry_run {
            return take(&mut Object::clone(budget));
        }
        self.objects.modify(&resource, pod.namespace(), budget.name(), &mut take).await.map(|_| ())
    }
}

fn covers(budget: &Object, pod: &Object) -> bool {
    let labels = pod.pointer("/metadata/labels").unwrap_or(&Value::Null);
    LabelSelector::of_object(budget.pointer("/spec/selector")).is_ok_and(|s| s.matches(labels))
}

/// A pod that is not ready may go where it does not count, or where the budget is met without it.
fn unhealthy_may_go(budget: &Object) -> bool {
    match text(budget, "/spec/unhealthyPodEvictionPolicy") {
        "AlwaysAllow" => true,
        _ => {
            let desired = number(budget, "/status/desiredHealthy");
            desired > 0 && number(budget, "/status/currentHealthy") >= desired
        }
    }
}

fn too_many(message: &str, retry_after_seconds: u32, cause: Option<Cause>) -> StatusError {
    let details = Details { causes: cause.into_iter().collect(), retry_after_seconds, ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..StatusError::new(Reason::TooManyRequests, message) }
}

const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Takes one disruption, or says why there is none.
fn disrupt(budget: &mut Object, pod: &str) -> Result<(), StatusError> {
    let name = budget.name().to_string();
    let cause = |message: String| Some(Cause { reason: "DisruptionBudget".into(), message, field: String::new() });
    if number(budget, "/status/observedGeneration") < budget.generation() {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(too_many(VIOLATED, 10, cause(why)));
    }
    let allowed = number(budget, "/status/disruptionsAllowed");
    if allowed < 0 {
        return Err(StatusError::forbidden(
            &GroupResource::new("policy", "poddisruptionbudgets"),
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|p| p.len() > MAX_DISRUPTED) {
        return Err(StatusError::forbidden(
            &GroupResource::new("policy", "poddisruptionbudgets"),
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let (desired, healthy) = (number(budget, "/status/desiredHealthy"), number(budget, "/status/currentHealthy"));
        let why = format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently");
        return Err(too_many(VIOLATED, 0, cause(why)));
    }
    let status = &mut budget["status"];
    status["disruptionsAllowed"] = (allowed - 1).into();
    let now = jiff::Timestamp::from_second(crate::tokens::now()).unwrap_or_default().to_string();
    status["disruptedPods"][pod] = now.into();
    if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut)
        && allowed == 1
    {
        for condition in conditions.iter_mut().filter(|c| c["type"] == "DisruptionAllowed") {
            condition["status"] = "False".into();
            condition["reason"] = "InsufficientPods".into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Memory;

    fn budget(allowed: i64) -> Value {
        json!({"metadata": {"name": "b", "namespace": "a", "generation": 1}, "spec": {"selector": {"matchLabels": {"x": "y"}}},
            "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}})
    }

    fn eviction() -> Call {
        let pods = knarr_api::GroupVersionResource::new("", "v1", "pods");
        Call {
            resource: knarr_api::resource::built_in().by_gvr(&pods).unwrap().clone(),
            namespace: "a".into(),
            name: "p".into(),
            user: Arc::default(),
            object: json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}}),
            dry_run: false,
        }
    }

    #[tokio::test]
    async fn a_budget_is_spent_and_then_refuses() {
        let objects = Memory::new();
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "labels": {"x": "y"}}, "status": {"phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}]}});
        objects.put("", "pods", pod.clone());
        objects.put("policy", "poddisruptionbudgets", budget(1));
        let evictions = Evictions { objects: objects.clone() };
        evictions.handle(eviction()).await.unwrap();
        assert!(objects.get(&GroupResource::new("", "pods"), "a", "p").await.unwrap().is_none());
        objects.put("", "pods", pod);
        let error = evictions.handle(eviction()).await.err().unwrap();
        assert_eq!((error.code, error.message.as_str()), (429, VIOLATED));
        assert_eq!(
            error.details.unwrap().causes[0].message,
            "The disruption budget b needs 2 healthy pods and has 2 currently"
        );
    }
}
