//! What the runtime has of one pod.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use knarr_cri::v1::{self, ContainerFilter, NamespaceMode, PodSandboxFilter};
use knarr_cri::{Result, Runtime};
use parking_lot::Mutex;

use super::{labels, termination};

/// A sandbox of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedSandbox {
    pub id: String,
    pub ready: bool,
    pub attempt: u32,
    pub created_at: i64,
    /// The pod's addresses, the default one first. None on the node's own network.
    pub ips: Vec<String>,
    pub host_network: bool,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq)]
pub enum ContainerState {
    /// Made, never started: the start failed or is under way.
    Created,
    Running {
        started_at: Timestamp,
    },
    Exited(Exit),
    Unknown,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub code: i32,
    pub reason: String,
    pub message: String,
}

/// How long a runtime may take to learn why a container failed: that it was out of memory comes by another way than its exit, and on a
/// busy machine long after it.
const EXPLANATION: Duration = Duration::from_secs(10);
/// The first wait for an explanation; each that follows is as long as all before it.
const FIRST_EXPLANATION: Duration = Duration::from_secs(1);

impl Exit {
    /// When to ask again for the reason; `None` when the runtime will not change its mind.
    fn explained_in(&self, now: Timestamp) -> Option<Duration> {
        if self.code == 0 || self.reason == "OOMKilled" {
            return None;
        }
        let age = Duration::try_from(now.duration_since(self.finished_at?)).unwrap_or_default();
        let left = EXPLANATION.saturating_sub(age);
        (!left.is_zero()).then(|| left.min(age.max(FIRST_EXPLANATION)))
    }
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedContainer {
    pub id: String,
    pub name: String,
    pub sandbox: String,
    pub state: ContainerState,
    /// How many containers of this name came before it.
    pub attempt: u32,
    pub created_at: i64,
    pub hash: String,
    pub image: String,
    pub image_id: String,
    pub log_path: PathBuf,
}

impl ObservedContainer {
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContainerState::Running { .. })
    }

    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// What the runtime has of one pod, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ObservedPod {
    pub sandboxes: Vec<ObservedSandbox>,
    pub containers: Vec<ObservedContainer>,
}

impl ObservedPod {
    /// The newest container of that name.
    pub fn container(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// All containers of that name, the newest first.
    pub fn all_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a ObservedContainer> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    pub fn running(&self) -> impl Iterator<Item = &ObservedContainer> {
        self.containers.iter().filter(|container| container.is_running())
    }

    /// The newest sandbox, if it is ready.
    pub fn ready_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// When to ask again why containers failed; `None` if that is settled.
    pub fn explained_in(&self, now: Timestamp) -> Option<Duration> {
        self.containers.iter().filter_map(|container| container.exit()?.explained_in(now)).min()
    }

    /// Nothing of the pod runs any more.
    pub fn is_stopped(&self) -> bool {
        self.sandboxes.iter().all(|sandbox| !sandbox.ready) && self.running().next().is_none()
    }
}

/// Asks the runtime for pods, remembering the ends of containers: they never change, once they are explained.
#[derive(Default)]
pub struct Observer {
    ended: Mutex<HashMap<String, ObservedContainer>>,
}

impl Observer {
    /// What the runtime has of the pod `uid` now.
    pub async fn observe(&self, runtime: &dyn Runtime, uid: &str) -> Result<ObservedPod> {
        let of_pod = HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]);
        let sandboxes = PodSandboxFilter { label_selector: of_pod.clone(), ..Default::default() };
        let containers = ContainerFilter { label_selector: of_pod, ..Default::default() };
        let (sandboxes, containers) =
            futures::try_join!(runtime.list_pod_sandboxes(Some(sandboxes)), runtime.list_containers(Some(containers)))?;
        Ok(ObservedPod {
            sandboxes: inspect_sandboxes(runtime, sandboxes).await?,
            containers: self.inspect_containers(runtime, containers).await?,
        })
    }

    async fn inspect_containers(
        &self,
        runtime: &dyn Runtime,
        listed: Vec<v1::Container>,
    ) -> Result<Vec<ObservedContainer>> {
        self.forget_all_but(&listed);
        let mut observed = Vec::with_capacity(listed.len());
        for container in listed {
            if let Some(known) = self.settled(&container.id) {
                observed.push(known);
                continue;
            }
            match runtime.container_status(&container.id).await {
                Ok(status) => observed.push(self.remember(container_from(status, container.pod_sandbox_id))),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        observed.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        Ok(observed)
    }

    fn settled(&self, id: &str) -> Option<ObservedContainer> {
        let ended = self.ended.lock();
        let known = ended.get(id)?;
        known.exit()?.explained_in(Timestamp::now()).is_none().then(|| known.clone())
    }

    fn remember(&self, mut container: ObservedContainer) -> ObservedContainer {
        if let ContainerState::Exited(exit) = &mut container.state {
            let mut ended = self.ended.lock();
            // What the container said last was read at the first look: its file may be gone with the pod's.
            if let Some(known) = ended.get(&container.id).and_then(ObservedContainer::exit)
                && !known.message.is_empty()
            {
                exit.message.clone_from(&known.message);
            }
            ended.insert(container.id.clone(), container.clone());
        }
        container
    }

    fn forget_all_but(&self, listed: &[v1::Container]) {
        self.ended.lock().retain(|id, _| listed.iter().any(|container| container.id == *id));
    }
}

async fn inspect_sandboxes(runtime: &dyn Runtime, listed: Vec<v1::PodSandbox>) -> Result<Vec<ObservedSandbox>> {
    let mut observed = Vec::with_capacity(listed.len());
    for sandbox in listed {
        match runtime.pod_sandbox_status(&sandbox.id).await {
            Ok(answer) => observed.extend(answer.status.map(sandbox_from)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    observed.sort_by_key(|one| std::cmp::Reverse(one.created_at));
    Ok(observed)
}

fn sandbox_from(status: v1::PodSandboxStatus) -> ObservedSandbox {
    let options = status.linux.and_then(|linux| linux.namespaces).and_then(|namespaces| namespaces.options);
    let host_network = options.is_some_and(|options| options.network == NamespaceMode::Node as i32);
    let mut ips = Vec::new();
    if let Some(network) = status.network.filter(|network| !host_network && !network.ip.is_empty()) {
        ips.push(network.ip);
        ips.extend(network.additional_ips.into_iter().map(|additional| additional.ip));
    }
    ObservedSandbox {
        ready: status.state == v1::PodSandboxState::SandboxReady as i32,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        created_at: status.created_at,
        id: status.id,
        ips,
        host_network,
    }
}

fn container_from(status: v1::ContainerStatus, sandbox: String) -> ObservedContainer {
    let mut state = state_of(&status);
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    let log_path = PathBuf::from(&status.log_path);
    let message_file = PathBuf::from(annotation(labels::TERMINATION_MESSAGE_FILE));
    if let ContainerState::Exited(exit) = &mut state {
        let from_logs = annotation(labels::TERMINATION_MESSAGE_POLICY) == "FallbackToLogsOnError";
        let said = termination::message(&message_file, &log_path, from_logs, exit.code);
        // What the runtime itself has to say about the end (a failed start) comes second.
        if !said.is_empty() {
            exit.message = said;
        }
    }
    let metadata = status.metadata.clone().unwrap_or_default();
    let restarts = annotation(labels::CONTAINER_RESTART_COUNT).parse();
    ObservedContainer {
        sandbox,
        state,
        attempt: restarts.unwrap_or(metadata.attempt),
        created_at: status.created_at,
        hash: annotation(labels::CONTAINER_HASH),
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_id: status.image_ref,
        log_path,
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        id: status.id,
    }
}

fn state_of(status: &v1::ContainerStatus) -> ContainerState {
    match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(v1::ContainerState::ContainerRunning) => match time(status.started_at) {
            Some(started_at) => ContainerState::Running { started_at },
            None => ContainerState::Created,
        },
        Ok(v1::ContainerState::ContainerExited) => ContainerState::Exited(Exit {
            started_at: time(status.started_at),
            finished_at: time(status.finished_at),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
        }),
        _ => ContainerState::Unknown,
    }
}

/// The runtime counts nanoseconds since the epoch; zero is "not yet".
fn time(nanoseconds: i64) -> Option<Timestamp> {
    if nanoseconds <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exited(code: i32, reason: &str, message: &str, ago: Duration) -> ObservedContainer {
        let exit = Exit {
            started_at: None,
            finished_at: Some(Timestamp::now() - ago),
            code,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let status = v1::ContainerStatus { id: "one".to_owned(), ..Default::default() };
        ObservedContainer { state: ContainerState::Exited(exit), ..container_from(status, String::new()) }
    }

    #[test]
    fn a_failure_is_asked_about_again_until_the_runtime_can_have_explained_it() {
        let cases = [
            (exited(137, "Error", "", Duration::ZERO), false),
            (exited(137, "OOMKilled", "", Duration::ZERO), true),
            (exited(0, "Completed", "", Duration::ZERO), true),
            (exited(1, "Error", "", EXPLANATION), true),
        ];
        for (container, settled) in cases {
            let observer = Observer::default();
            let told = observer.remember(container.clone());
            assert_eq!(observer.settled("one").is_some(), settled, "{:?}", container.state);
            let pod = ObservedPod { containers: vec![told], ..Default::default() };
            assert_eq!(pod.explained_in(Timestamp::now()).is_none(), settled, "{:?}", container.state);
        }
    }

    #[test]
    fn an_explanation_that_comes_late_keeps_what_the_container_said() {
        let observer = Observer::default();
        observer.remember(exited(137, "Error", "last words", Duration::ZERO));
        let told = observer.remember(exited(137, "OOMKilled", "", Duration::ZERO));
        let exit = told.exit().expect("it ended");
        assert_eq!((exit.reason.as_str(), exit.message.as_str()), ("OOMKilled", "last words"));
    }
}
