use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::refusal::{forbidden, is_main, text};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

const GROUP: &str = "scheduling.k8s.io";
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

/// A pod's priority is what its class says, and one class at most is the default.
pub struct Priority {
    pub objects: Arc<dyn Objects>,
}

struct Computed {
    class: String,
    priority: i64,
    policy: String,
}

fn classes() -> GroupResource {
    GroupResource::new(GROUP, "priorityclasses")
}

fn is_default(class: &Object) -> bool {
    class.get("globalDefault") == Some(&Value::Bool(true))
}

fn computed(class: &Object, name: &str) -> Computed {
    let policy = text(class, "/preemptionPolicy");
    Computed {
        class: name.to_string(),
        priority: class.get("value").and_then(Value::as_i64).unwrap_or_default(),
        policy: if policy.is_empty() { DEFAULT_POLICY.into() } else { policy.into() },
    }
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        if request.operation == Operation::Update {
            keep_old(request);
            return Ok(());
        }
        let Some(pod) = &request.object else { return Ok(()) };
        let name = text(pod, "/spec/priorityClassName").to_string();
        let Some(computed) = self.compute(&name).await? else {
            return Err(forbidden(request, format!("no PriorityClass with name {name} was found")));
        };
        check_given(request, pod, &computed)?;
        let Some(pod) = &mut request.object else { return Ok(()) };
        if !computed.class.is_empty() {
            pod["spec"]["priorityClassName"] = computed.class.into();
        }
        pod["spec"]["priority"] = computed.priority.into();
        pod["spec"]["preemptionPolicy"] = computed.policy.into();
        Ok(())
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let Some(class) = &request.object else { return Ok(()) };
        if !is_main(request, GROUP, "priorityclasses") || !is_default(class) {
            return Ok(());
        }
        let all = self.objects.list(&classes(), "").await?;
        match all.iter().find(|c| is_default(c) && c.name() != class.name()) {
            Some(other) => {
                let why =
                    format!("PriorityClass {} is already marked as default. Only one default can exist", other.name());
                Err(forbidden(request, why))
            }
            None => Ok(()),
        }
    }
}

impl Priority {
    async fn compute(&self, name: &str) -> Result<Option<Computed>, StatusError> {
        if !name.is_empty() {
            let class = self.objects.get(&classes(), "", name).await?;
            return Ok(class.map(|c| computed(&c, name)));
        }
        let all = self.objects.list(&classes(), "").await?;
        // Of several defaults, which a race can make, the smallest counts.
        let default = all.iter().filter(|c| is_default(c)).min_by_key(|c| c["value"].as_i64());
        let none = || Computed { class: String::new(), priority: 0, policy: DEFAULT_POLICY.into() };
        Ok(Some(default.map_or_else(none, |c| computed(c, c.name()))))
    }
}

fn check_given(request: &Request, pod: &Object, computed: &Computed) -> Result<(), StatusError> {
    if let Some(given) = pod.pointer("/spec/priority").and_then(Value::as_i64)
        && given != computed.priority
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            computed.priority
        );
        return Err(forbidden(request, why));
    }
    if let Some(given) = pod.pointer("/spec/preemptionPolicy").and_then(Value::as_str)
        && given != computed.policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            computed.policy
        );
        return Err(forbidden(request, why));
    }
    Ok(())
}

/// An update by a client that does not know these fields must not lose them.
fn keep_old(request: &mut Request) {
    let (Some(pod), Some(old)) = (&mut request.object, &request.old_object) else { return };
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"].get(field).is_none_or(Value::is_null)
            && let Some(value) = old["spec"].get(field)
        {
            pod["spec"][field] = value.clone();
        }
    }
}
