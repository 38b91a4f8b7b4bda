//! A pod's row: the one status word that says how it fares.

use serde_json::{Value, json};

use super::cells::{age, condition, list, number, row, text, text_or, truth};
use super::duration::{human_duration, seconds};
use crate::object::{Object, ObjectExt};

pub fn cells(pod: &Object, now: i64) -> Vec<Value> {
    let shown = Summary::of(pod);
    row([
        pod.name().into(),
        format!("{}/{}", shown.ready, shown.total).into(),
        shown.reason.clone().into(),
        shown.restarts.shown(now).into(),
        age(pod, now),
        text_or(list(pod, &["status", "podIPs"]).first().unwrap_or(&Value::Null), &["ip"], "<none>").into(),
        text_or(pod, &["spec", "nodeName"], "<none>").into(),
        text_or(pod, &["status", "nominatedNodeName"], "<none>").into(),
        readiness_gates(pod).into(),
    ])
}

/// The conditions a finished pod's row carries, by which clients may hide it.
pub fn row_conditions(object: &Object) -> Option<Value> {
    if object["kind"] != "Pod" {
        return None;
    }
    let (phase, message) = match text(object, &["status", "phase"]) {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}

fn readiness_gates(pod: &Object) -> String {
    let gates = list(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| condition(pod, text(gate, &["conditionType"])).is_some_and(|c| c["status"] == "True");
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

/// Restarts and when the last one was.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += number(container, &["restartCount"]);
        self.last = self.last.max(seconds(&container["lastState"]["terminated"]["finishedAt"]));
    }

    fn shown(self, now: i64) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, human_duration(now - last)),
            _ => self.count.to_string(),
        }
    }
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
}

impl Summary {
    fn of(pod: &Object) -> Summary {
        let sidecars = list(pod, &["spec", "initContainers"]).iter().filter(|c| is_sidecar(c)).count();
        let mut summary = Summary {
            ready: 0,
            total: list(pod, &["spec", "containers"]).len() + sidecars,
            reason: first_reason(pod),
            restarts: Restarts::default(),
        };
        let mut sidecar_restarts = Restarts::default();
        let initializing = summary.see_init_containers(pod, &mut sidecar_restarts);
        if !initializing || condition(pod, "Initialized").is_some_and(|c| c["status"] == "True") {
            summary.restarts = sidecar_restarts;
            summary.see_containers(pod);
        }
        if pod.is_deleting() {
            summary.see_deletion(pod);
        }
        summary
    }

    /// Goes through the init containers up to the first that is not done; answers whether there is one.
    fn see_init_containers(&mut self, pod: &Object, sidecar_restarts: &mut Restarts) -> bool {
        let specs = list(pod, &["spec", "initContainers"]);
        for (index, status) in list(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let sidecar = specs.iter().any(|c| c["name"] == status["name"] && is_sidecar(c));
            self.restarts.add(status);
            if sidecar {
                sidecar_restarts.add(status);
            }
            let terminated = &status["state"]["terminated"];
            if terminated.is_object() && number(terminated, &["exitCode"]) == 0 {
                continue;
            }
            if sidecar && truth(status, &["started"]) {
                self.ready += usize::from(truth(status, &["ready"]));
                continue;
            }
            let waiting = text(status, &["state", "waiting", "reason"]);
            self.reason = match () {
                () if terminated.is_object() => format!("Init:{}", termination(terminated)),
                () if !matches!(waiting, "" | "PodInitializing") => format!("Init:{waiting}"),
                () => format!("Init:{index}/{}", specs.len()),
            };
            return true;
        }
        false
    }

    fn see_containers(&mut self, pod: &Object) {
        let mut running = false;
        let mut failure = None;
        for status in list(pod, &["status", "containerStatuses"]).iter().rev() {
            self.restarts.add(status);
            let state = &status["state"];
            let waiting = text(state, &["waiting", "reason"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_string();
            } else if state["terminated"].is_object() {
                self.reason = termination(&state["terminated"]);
                if number(state, &["terminated", "exitCode"]) != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if truth(status, &["ready"]) && state["running"].is_object() {
                running = true;
                self.ready += 1;
            }
        }
        // One container may be done while others run: the pod is not "Completed" then.
        if self.reason == "Completed" {
            let ready = condition(pod, "Ready").is_some_and(|c| c["status"] == "True");
            match failure {
                _ if running && ready => self.reason = "Running".into(),
                Some(failure) => self.reason = failure,
                None if running => self.reason = "NotReady".into(),
                None => {}
            }
        }
    }

    fn see_deletion(&mut self, pod: &Object) {
        if text(pod, &["status", "reason"]) == "NodeLost" {
            self.reason = "Unknown".into();
        } else if !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed") {
            self.reason = "Terminating".into();
        }
    }
}

fn first_reason(pod: &Object) -> String {
    let gated = condition(pod, "PodScheduled").is_some_and(|c| c["reason"] == "SchedulingGated");
    match (gated, text(pod, &["status", "reason"])) {
        (true, _) => "SchedulingGated".into(),
        (false, "") => text(pod, &["status", "phase"]).into(),
        (false, reason) => reason.into(),
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn termination(terminated: &Value) -> String {
    match (text(terminated, &["reason"]), number(terminated, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}
