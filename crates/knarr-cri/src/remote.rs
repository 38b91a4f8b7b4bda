//! A runtime behind a unix socket.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

use crate::service::{EventStream, ImageService, RuntimeService};
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::*;
use crate::{Error, Result};

/// How long a call may take unless it says otherwise.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// Starting a sandbox includes its network, which plugins may take long to set up.
const SANDBOX_LIMIT: Duration = Duration::from_secs(240);
/// A large image over a slow line. The runtime itself gives up a pull that makes no progress.
const PULL_LIMIT: Duration = Duration::from_secs(3600);
/// Longest answer accepted: lists of thousands of containers, output of exec probes.
const ANSWER_LIMIT: usize = 16 << 20;

/// A runtime behind a unix socket (`unix:///run/containerd/containerd.sock` or a bare path).
///
/// The connection is made on first use and made anew when it breaks, so a restarted runtime needs nothing from here.
#[derive(Clone)]
pub struct RemoteRuntime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    socket: PathBuf,
}

impl RemoteRuntime {
    /// A client of the runtime at `endpoint`. Does not connect yet; fails only where the endpoint is not a unix socket's name.
    pub fn new(endpoint: &str) -> Result<RemoteRuntime> {
        let socket = socket_path(endpoint)?;
        let channel = channel_to(&socket);
        Ok(RemoteRuntime {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(ANSWER_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(ANSWER_LIMIT),
            socket,
        })
    }

    /// The socket this client speaks to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

fn socket_path(endpoint: &str) -> Result<PathBuf> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    Err(Error::Endpoint { endpoint: endpoint.to_owned(), message: "not an absolute path of a unix socket".to_owned() })
}

fn channel_to(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The URI is never resolved: the connector below ignores it.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    }))
}

/// Waits for a call at most `limit`, and names it in its error.
async fn within<T>(
    call: &'static str,
    limit: Duration,
    answer: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error::status(call, &status)),
        Err(_) => Err(Error::with_code(call, Code::DeadlineExceeded, "context deadline exceeded")),
    }
}

async fn usual<T>(
    call: &'static str,
    answer: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    within(call, CALL_LIMIT, answer).await
}

#[async_trait]
impl RuntimeService for RemoteRuntime {
    async fn version(&self) -> Result<VersionResponse> {
        let request = VersionRequest { version: "0.1.0".to_owned() };
        usual("Version", self.runtime.clone().version(request)).await
    }

    async fn status(&self) -> Result<StatusResponse> {
        usual("Status", self.runtime.clone().status(StatusRequest { verbose: false })).await
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, runtime_handler: &str) -> Result<String> {
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        let answer = within("RunPodSandbox", SANDBOX_LIMIT, self.runtime.clone().run_pod_sandbox(request)).await?;
        Ok(answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        usual("StopPodSandbox", self.runtime.clone().stop_pod_sandbox(request)).await.map(drop)
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        usual("RemovePodSandbox", self.runtime.clone().remove_pod_sandbox(request)).await.map(drop)
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        usual("PodSandboxStatus", self.runtime.clone().pod_sandbox_status(request)).await
    }

    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let answer =
            usual("ListPodSandbox", self.runtime.clone().list_pod_sandbox(ListPodSandboxRequest { filter })).await?;
        Ok(answer.items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let answer = usual("CreateContainer", self.runtime.clone().create_container(request)).await?;
        Ok(answer.container_id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: id.to_owned() };
        usual("StartContainer", self.runtime.clone().start_container(request)).await.map(drop)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: whole_seconds(grace) };
        within("StopContainer", grace + CALL_LIMIT, self.runtime.clone().stop_container(request)).await.map(drop)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: id.to_owned() };
        usual("RemoveContainer", self.runtime.clone().remove_container(request)).await.map(drop)
    }

    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let answer =
            usual("ListContainers", self.runtime.clone().list_containers(ListContainersRequest { filter })).await?;
        Ok(answer.containers)
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = usual("ContainerStatus", self.runtime.clone().container_status(request)).await?;
        answer.status.ok_or(Error::Incomplete { call: "ContainerStatus", what: "status" })
    }

    async fn update_container_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(resources),
            ..Default::default()
        };
        usual("UpdateContainerResources", self.runtime.clone().update_container_resources(request)).await.map(drop)
    }

    async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = ReopenContainerLogRequest { container_id: id.to_owned() };
        usual("ReopenContainerLog", self.runtime.clone().reopen_container_log(request)).await.map(drop)
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> Result<ExecSyncResponse> {
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout: whole_seconds(timeout) };
        // The runtime enforces the timeout itself and may need a moment to clean up.
        within("ExecSync", timeout + CALL_LIMIT, self.runtime.clone().exec_sync(request)).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<String> {
        Ok(usual("Exec", self.runtime.clone().exec(request)).await?.url)
    }

    async fn attach(&self, request: AttachRequest) -> Result<String> {
        Ok(usual("Attach", self.runtime.clone().attach(request)).await?.url)
    }

    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(usual("PortForward", self.runtime.clone().port_forward(request)).await?.url)
    }

    async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let request = ContainerStatsRequest { container_id: id.to_owned() };
        let answer = usual("ContainerStats", self.runtime.clone().container_stats(request)).await?;
        answer.stats.ok_or(Error::Incomplete { call: "ContainerStats", what: "stats" })
    }

    async fn list_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>> {
        Ok(usual("ListContainerStats", self.runtime.clone().list_container_stats(ListContainerStatsRequest { filter }))
            .await?
            .stats)
    }

    async fn list_pod_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>> {
        Ok(usual(
            "ListPodSandboxStats",
            self.runtime.clone().list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter }),
        )
        .await?
        .stats)
    }

    async fn update_runtime_config(&self, pod_cidr: &str) -> Result<()> {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_owned() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        usual("UpdateRuntimeConfig", self.runtime.clone().update_runtime_config(request)).await.map(drop)
    }

    async fn container_events(&self) -> Result<EventStream> {
        let stream =
            usual("GetContainerEvents", self.runtime.clone().get_container_events(Request::new(GetEventsRequest {})))
                .await?;
        Ok(stream.map(|event| event.map_err(|status| Error::status("GetContainerEvents", &status))).boxed())
    }
}

#[async_trait]
impl ImageService for RemoteRuntime {
    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(usual("ListImages", self.images.clone().list_images(ListImagesRequest { filter: None })).await?.images)
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        let request = ImageStatusRequest { image: Some(image_spec(image)), verbose: false };
        Ok(usual("ImageStatus", self.images.clone().image_status(request)).await?.image)
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        sandbox: Option<PodSandboxConfig>,
    ) -> Result<String> {
        let request = PullImageRequest { image: Some(image_spec(image)), auth, sandbox_config: sandbox };
        Ok(within("PullImage", PULL_LIMIT, self.images.clone().pull_image(request)).await?.image_ref)
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        let request = RemoveImageRequest { image: Some(image_spec(image)) };
        usual("RemoveImage", self.images.clone().remove_image(request)).await.map(drop)
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        usual("ImageFsInfo", self.images.clone().image_fs_info(ImageFsInfoRequest {})).await
    }
}

fn image_spec(image: &str) -> ImageSpec {
    ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// The protocol counts in whole seconds; a shorter wait than asked would break a promise, so fractions count as one more.
fn whole_seconds(duration: Duration) -> i64 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_absolute_path_with_or_without_its_scheme() {
        assert_eq!(socket_path("unix:///run/c.sock").unwrap(), PathBuf::from("/run/c.sock"));
        assert_eq!(socket_path("/run/c.sock").unwrap(), PathBuf::from("/run/c.sock"));
        assert!(socket_path("tcp://localhost:1").is_err());
    }

    #[test]
    fn fractions_of_a_second_count_as_one_more() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
        assert_eq!(whole_seconds(Duration::ZERO), 0);
    }

    #[tokio::test]
    async fn a_missing_socket_is_an_error_not_a_hang() {
        let runtime = RemoteRuntime::new("/nonexistent/knarr.sock").unwrap();
        assert_eq!(runtime.version().await.unwrap_err().code(), Some(Code::Unavailable));
    }
}
