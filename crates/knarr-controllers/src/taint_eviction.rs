//! Pods leave nodes whose NoExecute taints they do not tolerate, at once or when their toleration runs out.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use knarr_client::error::found;
use knarr_client::events::reference_to;
use knarr_client::fit::tolerates;
use knarr_client::pod_condition::condition;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::context::Context;
use crate::{meta, pods};

const CONTROLLER: &str = "taint-eviction-controller";
/// The account that upstream lets evict.
const ACCOUNT: &str = "node-controller";
const BY_NODE: &str = "node";

pub(crate) async fn run(context: Arc<Context>) {
    let nodes = context.informers.all::<Node>();
    let pods = context.informers.all::<Pod>();
    pods.add_index(BY_NODE, |pod| pods::node_name(pod).map(str::to_string).into_iter().collect());
    let client = context.client(ACCOUNT);
    let recorder = context.recorder(&client, CONTROLLER);
    let loop_ = TaintEviction { nodes: nodes.clone(), pods: pods.clone(), client, recorder };
    let on_node = pods.clone();
    Controller::new(loop_)
        .watch(&nodes, move |event| {
            let changed = match event {
                Event::Updated { old, new } => no_execute(old) != no_execute(new),
                Event::Added(node) => !no_execute(node).is_empty(),
                Event::Deleted(_) => false,
            };
            if !changed {
                return Vec::new();
            }
            let affected = on_node.indexed(BY_NODE, meta::name_of(&**event.object()));
            affected.iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .watch(&pods, |event| {
            let moved = match event {
                Event::Updated { old, new } => {
                    let place = |pod: &Pod| (pods::node_name(pod).map(str::to_string), tolerations(pod).to_vec());
                    place(old) != place(new)
                }
                Event::Added(_) => true,
                Event::Deleted(_) => false,
            };
            if moved { vec![ObjectKey::of(&**event.object())] } else { Vec::new() }
        })
        .run(context.shutdown.clone())
        .await;
}

struct TaintEviction {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    client: Client,
    recorder: Recorder,
}

#[async_trait::async_trait]
impl Reconciler for TaintEviction {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|pod| !meta::is_deleted(&**pod)) else {
            return Ok(Action::Done);
        };
        let Some(node) = pods::node_name(&pod).and_then(|node| self.nodes.get("", node)) else {
            return Ok(Action::Done);
        };
        match time_left(&no_execute(&node), tolerations(&pod)) {
            None => Ok(Action::Done),
            Some(left) if !left.is_zero() => Ok(Action::RequeueAfter(left)),
            Some(_) => {
                self.evict(&pod).await?;
                Ok(Action::Done)
            }
        }
    }
}

impl TaintEviction {
    async fn evict(&self, pod: &Pod) -> Result<(), Error> {
        self.recorder.event(
            &reference_to(pod),
            EventType::Normal,
            "TaintManagerEviction",
            format!("Marking for deletion Pod {}/{}", meta::namespace_of(pod), meta::name_of(pod)),
        );
        let why = "Taint manager: deleting due to NoExecute taint";
        let condition = condition(pod, "DisruptionTarget", true, "DeletionByTaintManager", why);
        let patch = serde_json::json!({ "status": { "conditions": [condition] } });
        let api: Api<Pod> = Api::namespaced(self.client.clone(), meta::namespace_of(pod));
        found(api.patch_status(meta::name_of(pod), &PatchParams::default(), &Patch::Strategic(patch)).await)?;
        pods::delete(&self.client, pod).await
    }
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

/// How long the pod may stay: for ever (`None`), or until the first toleration it needs runs out.
fn time_left(taints: &[Taint], tolerations: &[Toleration]) -> Option<Duration> {
    let mut shortest: Option<Duration> = None;
    for taint in taints {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        let Some(seconds) = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map(meta::since).unwrap_or_default();
        let left = Duration::from_secs(seconds.max(0) as u64).saturating_sub(since);
        shortest = Some(shortest.map_or(left, |known| known.min(left)));
    }
    shortest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint() -> Taint {
        Taint { key: "k".into(), value: Some("v".into()), effect: "NoExecute".into(), time_added: Some(meta::now()) }
    }

    fn toleration(operator: &str, value: Option<&str>, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some("k".into()),
            operator: Some(operator.into()),
            value: value.map(str::to_string),
            effect: Some("NoExecute".into()),
            toleration_seconds: seconds,
        }
    }

    #[test]
    fn an_untolerated_taint_drives_out_at_once_and_a_tolerated_one_never_or_later() {
        assert_eq!(time_left(&[], &[]), None);
        assert_eq!(time_left(&[taint()], &[]), Some(Duration::ZERO));
        assert_eq!(time_left(&[taint()], &[toleration("Equal", Some("w"), None)]), Some(Duration::ZERO));
        assert_eq!(time_left(&[taint()], &[toleration("Equal", Some("v"), None)]), None);
        assert_eq!(time_left(&[taint()], &[toleration("Exists", None, None)]), None);
        let left = time_left(&[taint()], &[toleration("Exists", None, Some(300))]).unwrap();
        assert!(left > Duration::from_secs(290) && left <= Duration::from_secs(300));
    }
}
