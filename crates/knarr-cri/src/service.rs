//! What a container runtime does.

use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::v1::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerEventResponse, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatus, ExecRequest, ExecSyncResponse, Image, ImageFsInfoResponse,
    LinuxContainerResources, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxStats, PodSandboxStatsFilter,
    PodSandboxStatusResponse, StatusResponse, VersionResponse,
};
use crate::{Error, Result};

/// Container events as they happen. It ends when the runtime ends or the connection breaks.
pub type EventStream = BoxStream<'static, Result<ContainerEventResponse>>;

/// Pod sandboxes and containers.
#[async_trait]
pub trait RuntimeService: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> Result<VersionResponse>;
    /// Conditions of the runtime (`RuntimeReady`, `NetworkReady`).
    async fn status(&self) -> Result<StatusResponse>;

    /// Creates and starts a sandbox; gives its id.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String>;
    /// Stops a sandbox and what runs in it, and gives its network back. Stopping a stopped sandbox is no error.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes a sandbox and its containers. Removing one that is gone is no error.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse>;
    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>>;

    /// Creates a container in a sandbox; gives its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Asks a container to end, and kills it after `grace`. Stopping a stopped container is no error.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()>;
    /// Makes the runtime open the container's log file anew, after a rotation.
    async fn reopen_container_log(&self, id: &str) -> Result<()>;

    /// Runs a command in a container and waits for its end. A `timeout` of zero means none.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecSyncResponse>;
    /// Prepares a streaming exec; gives the URL to connect to.
    async fn exec(&self, request: ExecRequest) -> Result<String>;
    /// Prepares a streaming attach; gives the URL to connect to.
    async fn attach(&self, request: AttachRequest) -> Result<String>;
    /// Prepares a port-forward; gives the URL to connect to.
    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String>;

    async fn container_stats(&self, id: &str) -> Result<ContainerStats>;
    async fn list_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>>;
    async fn list_pod_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>>;
    /// Tells the runtime the node's pod CIDR.
    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()>;

    /// Container events. A runtime without them answers `Unimplemented`; its client lists instead.
    async fn container_events(&self) -> Result<EventStream> {
        Err(Error::with_code("GetContainerEvents", tonic::Code::Unimplemented, "this runtime has no container events"))
    }
}

/// Images.
#[async_trait]
pub trait ImageService: Send + Sync + 'static {
    async fn list_images(&self) -> Result<Vec<Image>>;
    /// The image of that name or id, if the runtime has it.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;
    /// Pulls an image; gives its reference. `sandbox` says for which pod.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox: Option<PodSandboxConfig>,
    ) -> Result<String>;
    async fn remove_image(&self, image: &str) -> Result<()>;
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse>;
}

/// A whole runtime.
pub trait Runtime: RuntimeService + ImageService {}

impl<T: RuntimeService + ImageService> Runtime for T {}
