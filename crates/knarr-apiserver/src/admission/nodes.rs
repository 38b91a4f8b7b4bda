//! Plug-ins about taints: what a new node has, what a new pod tolerates.

use async_trait::async_trait;
use knarr_api::StatusError;
use serde_json::{Value, json};

use super::refusal::{is_main, list_mut, text};
use super::{Operation, Plugin, Request};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const TOLERATION_SECONDS: i64 = 300;

/// A new node takes no pods until its conditions are known.
pub struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "nodes") {
            return Ok(());
        }
        let Some(node) = &mut request.object else { return Ok(()) };
        if !node["spec"].is_object() {
            node["spec"] = json!({});
        }
        let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
        if let Some(taints) = list_mut(&mut node["spec"], "taints")
            && !taints.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule")
        {
            taints.push(taint);
        }
        Ok(())
    }
}

/// A pod stays five minutes on a node that is lost, unless it says otherwise.
pub struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "pods") {
            return Ok(());
        }
        let Some(pod) = &mut request.object else { return Ok(()) };
        let Some(tolerations) = list_mut(&mut pod["spec"], "tolerations") else { return Ok(()) };
        for key in [NOT_READY, UNREACHABLE] {
            if !tolerations.iter().any(|t| tolerates(t, key)) {
                tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": TOLERATION_SECONDS}));
            }
        }
        Ok(())
    }
}

fn tolerates(toleration: &Value, key: &str) -> bool {
    let (k, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    (k == key || k.is_empty()) && (effect == "NoExecute" || effect.is_empty())
}
