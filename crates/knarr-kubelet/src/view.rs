//! What the kubelet's HTTPS API may see: pods, their containers and logs, and the runtime.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use knarr_cri::Runtime;
use knarr_cri::v1::ContainerState;

/// A container as the runtime has it now.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerView {
    /// The runtime's id.
    pub id: String,
    /// Name of the container in its pod.
    pub name: String,
    /// How many containers of that name this pod had before.
    pub attempt: u32,
    pub state: ContainerState,
    /// The log file being written (or last written); rotated ones lie beside it.
    pub log_path: PathBuf,
}

/// The kubelet's state as its HTTPS API sees it.
#[async_trait]
pub trait NodeView: Send + Sync + 'static {
    fn node_name(&self) -> &str;

    /// The pods of this node, static ones too, with the newest status this kubelet knows.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// One pod of this node.
    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>>;

    /// Every container of that name in a pod that the runtime still has, the newest first: the second is `--previous`.
    async fn containers(&self, namespace: &str, pod: &str, container: &str) -> knarr_cri::Result<Vec<ContainerView>>;

    /// The id of the pod's ready sandbox, if it has one.
    async fn sandbox(&self, namespace: &str, pod: &str) -> knarr_cri::Result<Option<String>>;

    /// The runtime, for exec, attach, port-forward and statistics.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// Where container logs live.
    fn pod_logs_dir(&self) -> &Path;

    /// The configuration in force, as `/configz` shows it.
    fn configuration(&self) -> serde_json::Value;
}
