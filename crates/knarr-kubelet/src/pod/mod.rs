//! A pod as the API wants it, read once: its identity, its containers of all kinds in their order, and what its spec implies.

pub mod resources;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, ObjectReference, Pod, PodSpec, PodStatus, ResourceRequirements,
};

pub use resources::QosClass;

/// Which list of the pod's spec a container is in, and whether it goes on running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: started in its turn, runs beside the others.
    Sidecar,
    App,
    Ephemeral,
}

/// What happens to a container that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> RestartPolicy {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }

    /// Whether a container that ended with `exit_code` is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Never => false,
        }
    }
}

/// A container of the pod, of whichever list.
#[derive(Clone, Debug)]
pub struct DesiredContainer {
    pub kind: ContainerKind,
    pub spec: Container,
    /// Of an ephemeral container: the container whose namespaces it joins.
    pub target: Option<String>,
    /// Changes when the container must be replaced.
    pub hash: String,
    policy: RestartPolicy,
}

impl DesiredContainer {
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub fn image(&self) -> &str {
        self.spec.image.as_deref().unwrap_or_default()
    }

    /// Whether this container is started again after it ended with `exit_code`; its own rules come before its policy.
    pub fn restarts(&self, exit_code: i32) -> bool {
        let rules = self.spec.restart_policy_rules.iter().flatten();
        if rules.filter(|rule| rule.action == "Restart").any(|rule| rule_matches(rule, exit_code)) {
            return true;
        }
        self.policy.restarts(exit_code)
    }

    /// The path of this container in its pod, as events name it.
    pub fn field_path(&self) -> String {
        let list = match self.kind {
            ContainerKind::Init | ContainerKind::Sidecar => "initContainers",
            ContainerKind::App => "containers",
            ContainerKind::Ephemeral => "ephemeralContainers",
        };
        format!("spec.{list}{{{}}}", self.spec.name)
    }
}

fn rule_matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else { return false };
    let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// Where a pod came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSource {
    Api,
    /// A manifest on this node, shown in the API as a mirror pod.
    Static,
}

/// A pod as it is wanted.
#[derive(Clone, Debug)]
pub struct DesiredPod {
    pub object: Arc<Pod>,
    pub source: PodSource,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub restart_policy: RestartPolicy,
    pub containers: Vec<DesiredContainer>,
    pub qos: QosClass,
    empty_spec: PodSpec,
}

impl DesiredPod {
    pub fn new(object: Arc<Pod>, source: PodSource) -> DesiredPod {
        let spec = object.spec.as_ref();
        let restart_policy = RestartPolicy::parse(spec.and_then(|spec| spec.restart_policy.as_deref()));
        DesiredPod {
            source,
            uid: object.metadata.uid.clone().unwrap_or_default(),
            namespace: object.metadata.namespace.clone().unwrap_or_default(),
            name: object.metadata.name.clone().unwrap_or_default(),
            restart_policy,
            containers: spec.map(|spec| containers_of(spec, restart_policy)).unwrap_or_default(),
            qos: spec.map_or(QosClass::BestEffort, QosClass::of),
            empty_spec: PodSpec::default(),
            object,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        self.object.spec.as_ref().unwrap_or(&self.empty_spec)
    }

    /// The same pod with another status.
    pub fn with_status(&self, status: Option<PodStatus>) -> DesiredPod {
        let object = Pod { status, ..(*self.object).clone() };
        DesiredPod { object: Arc::new(object), ..self.clone() }
    }

    /// The same pod with other resources of the containers named.
    pub fn with_resources(&self, resources: &HashMap<String, ResourceRequirements>) -> DesiredPod {
        let mut object = (*self.object).clone();
        if let Some(spec) = &mut object.spec {
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                if let Some(resources) = resources.get(&container.name) {
                    container.resources = Some(resources.clone());
                }
            }
        }
        DesiredPod::new(Arc::new(object), self.source)
    }

    pub fn status(&self) -> Option<&PodStatus> {
        self.object.status.as_ref()
    }

    pub fn container(&self, name: &str) -> Option<&DesiredContainer> {
        self.containers.iter().find(|container| container.name() == name)
    }

    /// Containers of one kind, in their order.
    pub fn of_kind(&self, kind: ContainerKind) -> impl Iterator<Item = &DesiredContainer> {
        self.containers.iter().filter(move |container| container.kind == kind)
    }

    /// Init containers and sidecars, in their order.
    pub fn init_sequence(&self) -> impl DoubleEndedIterator<Item = &DesiredContainer> {
        self.containers
            .iter()
            .filter(|container| matches!(container.kind, ContainerKind::Init | ContainerKind::Sidecar))
    }

    pub fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// The pod is to go: somebody deleted it.
    pub fn is_deleted(&self) -> bool {
        self.object.metadata.deletion_timestamp.is_some()
    }

    /// The API holds a phase that no pod leaves. What it holds of a static pod is only a picture.
    pub fn is_terminal(&self) -> bool {
        if self.source == PodSource::Static {
            return false;
        }
        let phase = self.status().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Failed" | "Succeeded"))
    }

    /// Seconds between asking and killing.
    pub fn grace_seconds(&self) -> i64 {
        let metadata = &self.object.metadata;
        let of_deletion = metadata.deletion_timestamp.as_ref().and(metadata.deletion_grace_period_seconds);
        of_deletion.or(self.spec().termination_grace_period_seconds).unwrap_or(30).max(0)
    }

    /// `name_namespace(uid)`, as upstream's messages show a pod.
    pub fn described(&self) -> String {
        format!("{}_{}({})", self.name, self.namespace, self.uid)
    }

    /// What an event about this pod refers to.
    pub fn reference(&self) -> ObjectReference {
        knarr_client::events::reference_to(self.object.as_ref())
    }
}

fn containers_of(spec: &PodSpec, pod_policy: RestartPolicy) -> Vec<DesiredContainer> {
    let init = spec.init_containers.iter().flatten().map(|container| init_container(container, pod_policy));
    let app = spec.containers.iter().map(|container| app_container(container, pod_policy));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(ephemeral_container);
    init.chain(app).chain(ephemeral).collect()
}

fn init_container(container: &Container, pod_policy: RestartPolicy) -> DesiredContainer {
    let own = container.restart_policy.as_deref().map(|policy| RestartPolicy::parse(Some(policy)));
    let kind = if own == Some(RestartPolicy::Always) { ContainerKind::Sidecar } else { ContainerKind::Init };
    // An init container that succeeded is done, even where the pod always restarts.
    let inherited = if pod_policy == RestartPolicy::Always { RestartPolicy::OnFailure } else { pod_policy };
    desired(kind, container.clone(), own.unwrap_or(inherited))
}

fn app_container(container: &Container, pod_policy: RestartPolicy) -> DesiredContainer {
    let own = container.restart_policy.as_deref().map(|policy| RestartPolicy::parse(Some(policy)));
    desired(ContainerKind::App, container.clone(), own.unwrap_or(pod_policy))
}

fn ephemeral_container(ephemeral: &EphemeralContainer) -> DesiredContainer {
    let of = ephemeral.clone();
    let spec = Container {
        args: of.args,
        command: of.command,
        env: of.env,
        env_from: of.env_from,
        image: of.image,
        image_pull_policy: of.image_pull_policy,
        name: of.name,
        resources: of.resources,
        security_context: of.security_context,
        stdin: of.stdin,
        stdin_once: of.stdin_once,
        termination_message_path: of.termination_message_path,
        termination_message_policy: of.termination_message_policy,
        tty: of.tty,
        volume_devices: of.volume_devices,
        volume_mounts: of.volume_mounts,
        working_dir: of.working_dir,
        ..Container::default()
    };
    let mut container = desired(ContainerKind::Ephemeral, spec, RestartPolicy::Never);
    container.target = of.target_container_name.filter(|target| !target.is_empty());
    container
}

fn desired(kind: ContainerKind, spec: Container, policy: RestartPolicy) -> DesiredContainer {
    let hash = container_hash(&spec);
    DesiredContainer { kind, spec, target: None, hash, policy }
}

/// What makes a running container another one: its name and its image. Everything else of a container is immutable in the API.
///
/// Kept on the container across versions of Knarr, so it must never be computed otherwise: containers would restart.
fn container_hash(spec: &Container) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::new()
        .chain_update(&spec.name)
        .chain_update([0])
        .chain_update(spec.image.as_deref().unwrap_or_default())
        .finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
