//! What to do about a pod: a pure function of what is wanted and what is observed.

use crate::pod::{ContainerKind, DesiredContainer, DesiredPod};
use crate::runtime::observed::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox};

/// What the probes of a running container say that matters to whether it may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Health {
    /// The startup probe succeeded, or there is none.
    pub started: bool,
    pub startup_failed: bool,
    pub liveness_failed: bool,
}

/// Why a running container is to be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    DefinitionChanged,
    LivenessProbe,
    StartupProbe,
    /// It does not belong to the pod's present sandbox, or the runtime lost sight of it.
    Stray,
}

/// A container to stop, so that another may take its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Kill {
    pub id: String,
    pub name: String,
    pub reason: KillReason,
    pub message: String,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The sandbox and everything in it is to be stopped before anything else.
    pub stop_sandbox: bool,
    /// A sandbox is to be made, as this attempt.
    pub create_sandbox: Option<u32>,
    /// Containers to start, by name.
    pub start: Vec<String>,
    pub kill: Vec<Kill>,
    /// Every container has ended and none is to be started again.
    pub finished: bool,
}

/// What to do about `pod`. `health` answers for a running container by its id.
pub fn plan(pod: &DesiredPod, observed: &ObservedPod, health: &dyn Fn(&ObservedContainer) -> Health) -> Plan {
    match sandbox_state(pod, observed) {
        SandboxState::Usable(sandbox) => Planner { pod, observed, health, sandbox }.plan(),
        SandboxState::Lost { attempt } => plan_new_sandbox(pod, observed, attempt),
    }
}

enum SandboxState<'a> {
    Usable(&'a ObservedSandbox),
    Lost { attempt: u32 },
}

fn sandbox_state<'a>(pod: &DesiredPod, observed: &'a ObservedPod) -> SandboxState<'a> {
    let Some(newest) = observed.sandboxes.first() else { return SandboxState::Lost { attempt: 0 } };
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let same_network = newest.host_network == pod.host_network();
    let has_address = pod.host_network() || !newest.ips.is_empty();
    if ready == 1 && newest.ready && same_network && has_address {
        SandboxState::Usable(newest)
    } else {
        SandboxState::Lost { attempt: newest.attempt + 1 }
    }
}

/// The sandbox is missing or unusable: stop what is left of the old one, and make another if anything is to run in it.
fn plan_new_sandbox(pod: &DesiredPod, observed: &ObservedPod, attempt: u32) -> Plan {
    let stop_sandbox = !observed.is_stopped();
    let wanted: Vec<&DesiredContainer> = pod
        .of_kind(ContainerKind::App)
        .filter(|container| is_to_start(container, observed.container(container.name())))
        .collect();
    let init_failed = pod
        .of_kind(ContainerKind::Init)
        .any(|container| ended_for_good(container, observed.container(container.name())));
    if wanted.is_empty() || init_failed {
        return Plan { stop_sandbox, finished: true, ..Plan::default() };
    }
    let first_init = pod.init_sequence().next();
    let start = match first_init {
        Some(init) => vec![init.name().to_owned()],
        None => wanted.iter().map(|container| container.name().to_owned()).collect(),
    };
    Plan { stop_sandbox, create_sandbox: Some(attempt), start, ..Plan::default() }
}

/// Whether a container that does not run should.
fn is_to_start(container: &DesiredContainer, last: Option<&ObservedContainer>) -> bool {
    match last.map(|last| &last.state) {
        None | Some(ContainerState::Created | ContainerState::Unknown | ContainerState::Running { .. }) => true,
        Some(ContainerState::Exited(exit)) => container.restarts(exit.code),
    }
}

/// An init container that failed and may not be tried again, so that the pod failed.
fn ended_for_good(container: &DesiredContainer, last: Option<&ObservedContainer>) -> bool {
    last.and_then(ObservedContainer::exit).is_some_and(|exit| exit.code != 0 && !container.restarts(exit.code))
}

/// How far the init sequence is.
#[derive(PartialEq)]
enum Initialization {
    Done,
    UnderWay,
    Failed,
}

struct Planner<'a> {
    pod: &'a DesiredPod,
    observed: &'a ObservedPod,
    health: &'a dyn Fn(&ObservedContainer) -> Health,
    sandbox: &'a ObservedSandbox,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let mut plan = Plan { kill: self.strays(), ..Plan::default() };
        self.plan_ephemeral(&mut plan);
        match self.plan_initialization(&mut plan) {
            Initialization::UnderWay => {}
            Initialization::Failed => plan = Plan { stop_sandbox: true, finished: true, ..Plan::default() },
            Initialization::Done => self.plan_apps(&mut plan),
        }
        plan
    }

    /// The newest container of that name in the present sandbox.
    fn current(&self, name: &str) -> Option<&ObservedContainer> {
        self.observed.containers.iter().find(|container| container.name == name && container.sandbox == self.sandbox.id)
    }

    /// Running containers of an earlier sandbox, and doubles.
    fn strays(&self) -> Vec<Kill> {
        let is_stray = |container: &&ObservedContainer| {
            container.sandbox != self.sandbox.id
                || self.current(&container.name).is_some_and(|newest| newest.id != container.id)
        };
        self.observed.running().filter(is_stray).map(|container| kill(container, KillReason::Stray, "")).collect()
    }

    fn plan_ephemeral(&self, plan: &mut Plan) {
        let never_started = |container: &&DesiredContainer| self.observed.container(container.name()).is_none();
        let names = self
            .pod
            .of_kind(ContainerKind::Ephemeral)
            .filter(never_started)
            .map(|container| container.name().to_owned());
        plan.start.extend(names);
    }

    fn plan_initialization(&self, plan: &mut Plan) -> Initialization {
        let initialized_before = self.pod.of_kind(ContainerKind::App).any(|app| self.current(app.name()).is_some());
        for container in self.pod.init_sequence() {
            let step = match container.kind {
                ContainerKind::Sidecar => self.plan_sidecar(container, plan),
                _ if initialized_before => Initialization::Done,
                _ => self.plan_init(container, plan),
            };
            // Once the pod ran, a sidecar that restarts holds nothing up.
            if step != Initialization::Done && !initialized_before {
                return step;
            }
        }
        Initialization::Done
    }

    fn plan_init(&self, container: &DesiredContainer, plan: &mut Plan) -> Initialization {
        match self.current(container.name()).map(|current| &current.state) {
            Some(ContainerState::Running { .. }) => Initialization::UnderWay,
            Some(ContainerState::Exited(exit)) if exit.code == 0 => Initialization::Done,
            Some(ContainerState::Exited(exit)) if !container.restarts(exit.code) => Initialization::Failed,
            None | Some(_) => {
                plan.start.push(container.name().to_owned());
                Initialization::UnderWay
            }
        }
    }

    fn plan_sidecar(&self, container: &DesiredContainer, plan: &mut Plan) -> Initialization {
        match self.current(container.name()) {
            Some(current) if current.is_running() => {
                if let Some(kill) = self.reason_to_kill(container, current) {
                    plan.kill.push(kill);
                    Initialization::UnderWay
                } else if (self.health)(current).started {
                    Initialization::Done
                } else {
                    Initialization::UnderWay
                }
            }
            _ => {
                plan.start.push(container.name().to_owned());
                Initialization::UnderWay
            }
        }
    }

    fn plan_apps(&self, plan: &mut Plan) {
        let mut going_on = 0;
        for container in self.pod.of_kind(ContainerKind::App) {
            let newest = self.observed.container(container.name());
            let current = newest.filter(|newest| newest.is_running() && newest.sandbox == self.sandbox.id);
            match current {
                Some(current) => {
                    going_on += 1;
                    plan.kill.extend(self.reason_to_kill(container, current));
                }
                None if is_to_start(container, newest) => plan.start.push(container.name().to_owned()),
                None => {}
            }
        }
        let starts_app = plan
            .start
            .iter()
            .any(|name| self.pod.container(name).is_some_and(|found| found.kind == ContainerKind::App));
        if going_on == 0 && !starts_app {
            *plan = Plan { stop_sandbox: true, finished: true, ..Plan::default() };
        }
    }

    /// Why a running container may not go on, if so.
    fn reason_to_kill(&self, container: &DesiredContainer, running: &ObservedContainer) -> Option<Kill> {
        let health = (self.health)(running);
        let name = container.name();
        let (reason, message) = if running.hash != container.hash {
            (KillReason::DefinitionChanged, format!("Container {name} definition changed"))
        } else if health.liveness_failed {
            (KillReason::LivenessProbe, format!("Container {name} failed liveness probe"))
        } else if health.startup_failed {
            (KillReason::StartupProbe, format!("Container {name} failed startup probe"))
        } else {
            return None;
        };
        // A killed container ends with a code of its own, so only the policy that never restarts keeps it down.
        let restarts = container.restarts(137);
        let message = if restarts { format!("{message}, will be restarted") } else { message };
        Some(kill(running, reason, &message))
    }
}

fn kill(container: &ObservedContainer, reason: KillReason, message: &str) -> Kill {
    Kill { id: container.id.clone(), name: container.name.clone(), reason, message: message.to_owned() }
}
