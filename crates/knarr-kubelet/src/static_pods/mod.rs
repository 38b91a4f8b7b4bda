//! Static pods: pods of manifests in a directory of this node, which run whether or not there is an API, and the mirror pods that
//! show them in it.

mod directory;
mod manifest;
pub mod mirror;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;

use crate::pod::{DesiredPod, PodSource};

/// On a static pod and on its mirror: what the pod is known by on this node.
pub const HASH: &str = "kubernetes.io/config.hash";
/// On a mirror pod alone, with the hash of the pod it shows.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const SEEN: &str = "kubernetes.io/config.seen";
const SOURCE: &str = "kubernetes.io/config.source";

/// The static pods of this node, by namespace and name.
pub type StaticPods = Arc<BTreeMap<(String, String), Arc<DesiredPod>>>;

/// The hash of the static pod that `pod` mirrors, if it is a mirror pod.
pub fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).map(String::as_str)
}

/// The uid by which the runtime knows the containers of a pod of the API.
pub fn runtime_uid(pod: &Pod) -> Option<&str> {
    mirrored(pod).or(pod.metadata.uid.as_deref())
}

/// Keeps `pods` true to the manifests of `directory` for as long as it is polled. A directory that does not exist has none.
pub async fn follow(directory: PathBuf, node_name: String, pods: watch::Sender<StaticPods>) {
    let mut watched = directory::Watched::new(directory);
    let mut files = BTreeMap::new();
    loop {
        let found = watched.read();
        if found != files {
            let before = pods.borrow().clone();
            pods.send_replace(Arc::new(parse(&found, &before, &node_name)));
            files = found;
        }
        watched.changed().await;
    }
}

/// What is unchanged stays the same object, so that when it was first seen does not change.
fn parse(
    files: &BTreeMap<PathBuf, Vec<u8>>,
    before: &StaticPods,
    node_name: &str,
) -> BTreeMap<(String, String), Arc<DesiredPod>> {
    let mut pods = BTreeMap::new();
    // A file that is just being written is empty first.
    for (path, bytes) in files.iter().filter(|(_, bytes)| !bytes.trim_ascii().is_empty()) {
        let pod = match manifest::read(path, bytes, node_name) {
            Ok(pod) => DesiredPod::new(Arc::new(pod), PodSource::Static),
            Err(error) => {
                tracing::error!(file = %path.display(), error, "a static pod's manifest cannot be used");
                continue;
            }
        };
        let key = (pod.namespace.clone(), pod.name.clone());
        let known = before.get(&key).filter(|known| known.uid == pod.uid).cloned();
        pods.insert(key, known.unwrap_or_else(|| Arc::new(pod)));
    }
    pods
}
