//! Starting one container, from its environment to its `postStart` hook.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use knarr_client::events::EventType;
use knarr_cri::v1::{ContainerConfig, PodSandboxConfig};
use tokio_util::sync::CancellationToken;

use crate::context::NodeContext;
use crate::environment::fields::FieldSource;
use crate::environment::{self, services};
use crate::hooks;
use crate::network::hosts;
use crate::pod::{DesiredContainer, DesiredPod};
use crate::runtime::container_config::{Prepared, container_config, managed_mount};
use crate::runtime::security::{self, ImageUser};
use crate::volumes::references::ApiKeyedSource;
use crate::volumes::{PodVolumes, mounts};

use super::status::Waiting;

const DEFAULT_MESSAGE_PATH: &str = "/dev/termination-log";

/// A container to start, with all that is known about it.
pub struct Start {
    pub node: Arc<NodeContext>,
    pub pod: Arc<DesiredPod>,
    pub container: DesiredContainer,
    pub attempt: u32,
    pub sandbox: String,
    pub sandbox_config: PodSandboxConfig,
    pub pod_ips: Vec<String>,
    pub image: String,
    pub user: ImageUser,
    pub volumes: PodVolumes,
    /// The id of the container whose processes an ephemeral container joins.
    pub target: Option<String>,
}

/// What became of a start that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    Runs,
    /// The pod is to end.
    GivenUp,
}

impl Start {
    /// Makes and starts the container, as far as it comes before `ending`. The error is what its status shows. What the runtime has begun is
    /// waited for all the same: a start that is cut off half-way leaves a container that says it failed, and never ran.
    pub async fn run(self, ending: CancellationToken) -> Result<Started, Waiting> {
        let Some(config) = ending.run_until_cancelled(self.config()).await.transpose()? else {
            return Ok(Started::GivenUp);
        };
        let runtime = &self.node.runtime;
        let created = runtime.create_container(&self.sandbox, config, self.sandbox_config.clone()).await;
        let id = created.map_err(|error| self.failed("CreateContainerError", error.message()))?;
        self.event(EventType::Normal, "Created", "Container created");
        if ending.is_cancelled() {
            return Ok(Started::GivenUp);
        }
        let started = runtime.start_container(&id).await;
        started.map_err(|error| self.failed("RunContainerError", error.message()))?;
        self.event(EventType::Normal, "Started", "Container started");
        let hooked = ending.run_until_cancelled(self.post_start(&id)).await.transpose()?;
        Ok(hooked.map_or(Started::GivenUp, |()| Started::Runs))
    }

    async fn config(&self) -> Result<ContainerConfig, Waiting> {
        let config_error = |message: String| self.failed("CreateContainerConfigError", message);
        security::verify_non_root(&self.pod, &self.container, &self.user).map_err(config_error)?;
        let environment = self.environment().await.map_err(config_error)?;
        let (mounts, message_file) = self.mounts(&environment).map_err(config_error)?;
        let prepared = Prepared {
            attempt: self.attempt,
            image: self.image.clone(),
            environment,
            mounts,
            message_file,
            security: security::of_container(
                &self.pod,
                &self.container,
                &self.user,
                self.target.clone(),
                &self.node.config.root_dir.join("seccomp"),
            ),
            node_memory: self.node.memory(),
        };
        Ok(container_config(&self.pod, &self.container, prepared))
    }

    fn about(&self) -> ObjectReference {
        ObjectReference { field_path: Some(self.container.field_path()), ..self.pod.reference() }
    }

    fn event(&self, kind: EventType, reason: &str, message: impl Into<String>) {
        self.node.recorder.event(&self.about(), kind, reason, message);
    }

    fn failed(&self, reason: &str, message: String) -> Waiting {
        self.event(EventType::Warning, "Failed", format!("Error: {message}"));
        Waiting::new(reason, message)
    }

    async fn environment(&self) -> Result<Vec<(String, String)>, String> {
        let spec = self.pod.spec();
        let known = self.node.services.list();
        let linked = spec.enable_service_links.unwrap_or(true);
        let links = services::links(known.iter().map(AsRef::as_ref), &self.pod.namespace, linked);
        let keyed = ApiKeyedSource { client: self.node.client.clone(), namespace: self.pod.namespace.clone() };
        let host_ips = self.node.host_ips();
        let fields = FieldSource {
            pod: &self.pod,
            pod_ips: &self.pod_ips,
            host_ips: &host_ips,
            node_name: &self.node.config.node_name,
            node_allocatable: &self.node.allocatable,
        };
        environment::environment_of(&self.container, &fields, &keyed, links).await.map_err(|error| error.to_string())
    }

    /// The container's mounts and the file for its termination message.
    fn mounts(&self, environment: &[(String, String)]) -> Result<(Vec<knarr_cri::v1::Mount>, PathBuf), String> {
        let mut mounts = mounts::of_container(&self.pod, &self.container, &self.volumes, environment)?;
        let taken =
            |mounts: &[knarr_cri::v1::Mount], path: &str| mounts.iter().any(|mount| mount.container_path == path);
        if !taken(&mounts, "/etc/hosts") {
            let hosts = self.hosts_file().map_err(|error| format!("failed to write the hosts file: {error}"))?;
            mounts.push(managed_mount("/etc/hosts", &hosts, false));
        }
        let message_path = self.container.spec.termination_message_path.as_deref().unwrap_or(DEFAULT_MESSAGE_PATH);
        let message_file =
            self.message_file().map_err(|error| format!("failed to make the termination log: {error}"))?;
        if !message_path.is_empty() && !taken(&mounts, message_path) {
            mounts.push(managed_mount(message_path, &message_file, false));
        }
        Ok((mounts, message_file))
    }

    fn hosts_file(&self) -> std::io::Result<PathBuf> {
        let directory = self.node.config.pod_dir(&self.pod.uid);
        std::fs::create_dir_all(&directory)?;
        let path = hosts::path_in(&directory);
        let node_hosts = if self.pod.host_network() {
            std::fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            String::new()
        };
        let text = hosts::text_for(&self.pod, &self.pod_ips, &self.node.config.cluster_domain, &node_hosts);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn message_file(&self) -> std::io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let directory = self.node.config.pod_dir(&self.pod.uid).join("containers").join(self.container.name());
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(self.attempt.to_string());
        std::fs::write(&path, "")?;
        // Whoever the container runs as may write its last words.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(path)
    }

    async fn post_start(&self, id: &str) -> Result<(), Waiting> {
        let lifecycle = self.container.spec.lifecycle.as_ref();
        let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return Ok(()) };
        let ip = self.pod_ips.first().cloned().unwrap_or_default();
        let Err(error) = hooks::run(&*self.node.runtime, handler, &self.container, id, &ip).await else {
            return Ok(());
        };
        tracing::info!(pod = %self.pod.described(), container = self.container.name(), error, "a postStart hook failed");
        // Not why: what a hook says may hold a secret.
        self.event(EventType::Warning, "FailedPostStartHook", "PostStartHook failed");
        self.event(EventType::Normal, "Killing", "FailedPostStartHook");
        let grace = std::time::Duration::from_secs(self.pod.grace_seconds().unsigned_abs());
        if let Err(error) = self.node.runtime.stop_container(id, grace).await {
            tracing::warn!(%error, "a container whose postStart hook failed does not stop");
        }
        Err(Waiting::new("PostStartHookError", error))
    }
}
