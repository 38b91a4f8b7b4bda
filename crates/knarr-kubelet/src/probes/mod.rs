//! Probes: whether a container started, lives, and is ready to serve.

pub mod check;
mod tls;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Probe};
use knarr_client::events::{EventType, Recorder};
use knarr_cri::Runtime;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::pod::DesiredContainer;
use check::Outcome;

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

impl ProbeKind {
    fn as_str(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    pub fn of(self, container: &DesiredContainer) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.spec.startup_probe.as_ref(),
            ProbeKind::Liveness => container.spec.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.spec.readiness_probe.as_ref(),
        }
    }
}

/// What the probes of one running container say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdicts {
    pub started: bool,
    pub startup_failed: bool,
    pub live: bool,
    pub ready: bool,
}

impl Verdicts {
    /// Before any probe ran: what has no probe is taken for granted.
    fn initial(container: &DesiredContainer, known_started: bool) -> Verdicts {
        let started = known_started || container.spec.startup_probe.is_none();
        Verdicts { started, startup_failed: false, live: true, ready: container.spec.readiness_probe.is_none() }
    }
}

/// What a probe needs of its container.
#[derive(Clone)]
pub struct Probed {
    pub id: String,
    pub container: Arc<DesiredContainer>,
    pub pod_ip: String,
    pub started_at: Timestamp,
    pub about: ObjectReference,
}

struct Running {
    verdicts: Arc<Mutex<Verdicts>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// The probes of one pod's running containers. Dropping it ends them.
pub struct Probes {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    wake: Arc<Notify>,
    running: HashMap<String, Running>,
}

impl Probes {
    pub fn new(runtime: Arc<dyn Runtime>, recorder: Recorder, wake: Arc<Notify>) -> Probes {
        Probes { runtime, recorder, wake, running: HashMap::new() }
    }

    /// Starts the probes of a running container, unless they run. `known_ready` are the verdicts the API holds of this very
    /// container, so that a restart of the kubelet makes no pod unready.
    pub fn start(&mut self, probed: Probed, known_started: bool, known_ready: bool) {
        if self.running.contains_key(&probed.id) {
            return;
        }
        let mut initial = Verdicts::initial(&probed.container, known_started);
        initial.ready |= known_ready;
        let verdicts = Arc::new(Mutex::new(initial));
        let kinds = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];
        let tasks = kinds.into_iter().filter_map(|kind| self.spawn(kind, &probed, &verdicts)).collect();
        self.running.insert(probed.id, Running { verdicts, _tasks: tasks });
    }

    fn spawn(
        &self,
        kind: ProbeKind,
        probed: &Probed,
        verdicts: &Arc<Mutex<Verdicts>>,
    ) -> Option<AbortOnDropHandle<()>> {
        let worker = ProbeWorker {
            kind,
            probe: kind.of(&probed.container)?.clone(),
            probed: probed.clone(),
            runtime: self.runtime.clone(),
            recorder: self.recorder.clone(),
            verdicts: verdicts.clone(),
            wake: self.wake.clone(),
        };
        Some(AbortOnDropHandle::new(tokio::spawn(worker.run())))
    }

    /// Ends the probes of all containers but these.
    pub fn keep_only(&mut self, ids: &[&str]) {
        self.running.retain(|id, _| ids.contains(&id.as_str()));
    }

    /// What the probes of a container say now; none run if it is not known.
    pub fn verdicts(&self, id: &str) -> Option<Verdicts> {
        self.running.get(id).map(|running| *running.verdicts.lock())
    }
}

struct ProbeWorker {
    kind: ProbeKind,
    probe: Probe,
    probed: Probed,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    verdicts: Arc<Mutex<Verdicts>>,
    wake: Arc<Notify>,
}

impl ProbeWorker {
    async fn run(self) {
        let period = Duration::from_secs(self.probe.period_seconds.unwrap_or(10).max(1).unsigned_abs().into());
        tokio::time::sleep(self.time_to_first()).await;
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut row = Row::default();
        loop {
            ticks.tick().await;
            if !self.is_due() {
                continue;
            }
            let outcome = self.look().await;
            self.report(&outcome);
            if let Some(passed) = row.count(&outcome, &self.probe)
                && self.conclude(passed)
            {
                return;
            }
        }
    }

    fn time_to_first(&self) -> Duration {
        let delay = Duration::from_secs(self.probe.initial_delay_seconds.unwrap_or(0).max(0).unsigned_abs().into());
        let since_start = Timestamp::now().duration_since(self.probed.started_at);
        delay.saturating_sub(Duration::try_from(since_start).unwrap_or_default())
    }

    /// Liveness and readiness wait until the container started.
    fn is_due(&self) -> bool {
        self.kind == ProbeKind::Startup || self.verdicts.lock().started
    }

    async fn look(&self) -> Outcome {
        let timeout = Duration::from_secs(self.probe.timeout_seconds.unwrap_or(1).max(1).unsigned_abs().into());
        let (container, ip) = (&*self.probed.container, self.probed.pod_ip.as_str());
        if let Some(action) = &self.probe.exec {
            check::exec(&*self.runtime, &self.probed.id, action, timeout).await
        } else if let Some(action) = &self.probe.http_get {
            check::http(action, container, ip, timeout).await
        } else if let Some(action) = &self.probe.tcp_socket {
            check::tcp(action, container, ip, timeout).await
        } else if let Some(action) = &self.probe.grpc {
            check::grpc(action, ip, timeout).await
        } else {
            Outcome::Error("missing probe handler".to_owned())
        }
    }

    fn report(&self, outcome: &Outcome) {
        let kind = self.kind.as_str();
        let message = match outcome {
            Outcome::Success => return,
            Outcome::Failure(output) => format!("{kind} probe failed: {output}"),
            Outcome::Error(error) => format!("{kind} probe errored: {error}"),
        };
        self.recorder.event(&self.probed.about, EventType::Warning, "Unhealthy", message);
    }

    /// Keeps a verdict, wakes the worker if it is news; true if this probe has nothing more to say.
    fn conclude(&self, passed: bool) -> bool {
        let (changed, over) = {
            let mut verdicts = self.verdicts.lock();
            let before = *verdicts;
            match self.kind {
                ProbeKind::Startup => {
                    verdicts.started = passed;
                    verdicts.startup_failed = !passed;
                }
                ProbeKind::Liveness => verdicts.live = passed,
                ProbeKind::Readiness => verdicts.ready = passed,
            }
            // A container that failed its liveness is on its way out; one that started has started.
            let over = match self.kind {
                ProbeKind::Startup => true,
                ProbeKind::Liveness => !passed,
                ProbeKind::Readiness => false,
            };
            (*verdicts != before, over)
        };
        if changed {
            self.wake.notify_one();
        }
        over
    }
}

/// Outcomes of one sort in a row; enough of them are a verdict.
#[derive(Default)]
struct Row {
    passed: bool,
    length: i32,
}

impl Row {
    fn count(&mut self, outcome: &Outcome, probe: &Probe) -> Option<bool> {
        // A probe that could not ask says nothing.
        if matches!(outcome, Outcome::Error(_)) {
            return None;
        }
        let passed = *outcome == Outcome::Success;
        self.length = if self.passed == passed { self.length + 1 } else { 1 };
        self.passed = passed;
        let needed = if passed { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.length >= needed.max(1)).then_some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_takes_a_row_of_outcomes() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(1), ..Probe::default() };
        let (yes, no, unknown) = (Outcome::Success, Outcome::Failure(String::new()), Outcome::Error(String::new()));
        let mut row = Row::default();
        assert_eq!(row.count(&no, &probe), None);
        assert_eq!(row.count(&yes, &probe), Some(true));
        assert_eq!(row.count(&no, &probe), None);
        assert_eq!(row.count(&unknown, &probe), None);
        assert_eq!(row.count(&no, &probe), Some(false));
        assert_eq!(row.count(&no, &probe), Some(false));
    }
}
