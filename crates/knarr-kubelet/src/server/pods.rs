//! `/pods`, `/runningpods` and `/configz`.

use http::Response;
use knarr_client::kinds::to_tree;
use knarr_cri::v1::ContainerState;
use serde_json::{Map, Value, json};

use super::respond::{Body, Failure, json as respond};
use crate::view::NodeView;

fn pod_list(items: Vec<Value>) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

/// The pods bound to this node.
pub(super) fn list(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let pods = view.pods();
    let items: Result<Vec<Value>, _> = pods.iter().map(|pod| to_tree(&**pod)).collect();
    let mut items = items.map_err(Failure::internal)?;
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        // Items of a list do not repeat their kind.
        item.remove("kind");
        item.remove("apiVersion");
    }
    respond(&pod_list(items))
}

/// The pods that the runtime runs, bound to this node or not.
pub(super) async fn running(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let containers = view.runtime().list_containers(None).await.map_err(Failure::internal)?;
    let mut by_pod: std::collections::BTreeMap<(String, String, String), Vec<Value>> = Default::default();
    for container in containers {
        if container.state != ContainerState::ContainerRunning as i32 {
            continue;
        }
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let key =
            (label("io.kubernetes.pod.namespace"), label("io.kubernetes.pod.name"), label("io.kubernetes.pod.uid"));
        let image = container.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        by_pod.entry(key).or_default().push(json!({
            "name": label("io.kubernetes.container.name"), "image": image, "resources": {},
        }));
    }
    let items = by_pod.into_iter().map(|((namespace, name, uid), containers)| {
        json!({
            "metadata": {"name": name, "namespace": namespace, "uid": uid},
            "spec": {"containers": containers}, "status": {},
        })
    });
    respond(&pod_list(items.collect()))
}

/// The configuration in force.
pub(super) fn configuration(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let mut all = Map::new();
    all.insert("kubeletconfig".to_owned(), view.configuration());
    respond(&all)
}
