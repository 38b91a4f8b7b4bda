//! Pod conditions.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::resize::CONDITIONS;
use super::StatusInput;
use crate::pod::ContainerKind;

struct Finding {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Finding {
    fn holds() -> Finding {
        Finding { holds: true, reason: None, message: None }
    }

    fn fails(reason: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            holds: false,
            reason: Some(reason),
            message: Some(message.into()).filter(|text: &String| !text.is_empty()),
        }
    }

    fn plain(holds: bool) -> Finding {
        Finding { holds, reason: None, message: None }
    }
}

/// Sets the conditions this kubelet owns, and leaves the others.
pub fn set(status: &mut PodStatus, input: &StatusInput) {
    let containers_ready = containers_ready(status, input);
    let ready = if containers_ready.holds { gates_pass(status, input) } else { repeat(&containers_ready) };
    let sandbox = input.observed.ready_sandbox();
    let has_network = sandbox.is_some_and(|sandbox| input.pod.host_network() || !sandbox.ips.is_empty());
    let findings = [
        ("PodReadyToStartContainers", Finding::plain(has_network)),
        ("Initialized", initialized(status, input)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Finding::holds()),
    ];
    let mut conditions = status.conditions.take().unwrap_or_default();
    for (kind, finding) in findings {
        set_one(&mut conditions, kind, finding, input);
    }
    conditions.retain(|condition| !CONDITIONS.contains(&condition.type_.as_str()));
    if !input.over {
        conditions.extend(input.resizes.conditions(input.pod.object.metadata.generation));
    }
    if let Some(verdict) = input.verdict.filter(|verdict| verdict.reason == crate::eviction::EVICTED) {
        let finding =
            Finding { holds: true, reason: Some("TerminationByKubelet"), message: Some(verdict.message.clone()) };
        set_one(&mut conditions, "DisruptionTarget", finding, input);
    }
    status.conditions = Some(conditions);
}

fn repeat(finding: &Finding) -> Finding {
    Finding { holds: finding.holds, reason: finding.reason, message: finding.message.clone() }
}

fn set_one(conditions: &mut Vec<PodCondition>, kind: &str, finding: Finding, input: &StatusInput) {
    let status = if finding.holds { "True" } else { "False" };
    let position = conditions.iter().position(|condition| condition.type_ == kind);
    let old = position.map(|index| conditions.remove(index));
    let unchanged_since = old.filter(|old| old.status == status).and_then(|old| old.last_transition_time);
    let condition = PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: finding.reason.map(str::to_owned),
        message: finding.message,
        last_transition_time: unchanged_since.or(Some(Time(input.now))),
        observed_generation: input.pod.object.metadata.generation,
        last_probe_time: None,
    };
    let index = position.unwrap_or(conditions.len());
    conditions.insert(index, condition);
}

fn initialized(status: &PodStatus, input: &StatusInput) -> Finding {
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    if status.phase.as_deref() == Some("Succeeded") {
        return Finding { holds: true, reason: Some("PodCompleted"), message: None };
    }
    let app_started = status.container_statuses.iter().flatten().any(has_started);
    let incomplete = |init: &&ContainerStatus| {
        let sidecar = input.pod.container(&init.name).is_some_and(|container| container.kind == ContainerKind::Sidecar);
        if sidecar { init.started != Some(true) } else { !init.ready }
    };
    let names: Vec<_> = statuses.iter().filter(incomplete).map(|init| init.name.as_str()).collect();
    if app_started || names.is_empty() {
        return Finding::holds();
    }
    Finding::fails("ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" ")))
}

fn has_started(status: &ContainerStatus) -> bool {
    let now = status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    now || status.last_state.as_ref().is_some_and(|state| state.terminated.is_some())
}

fn containers_ready(status: &PodStatus, input: &StatusInput) -> Finding {
    match status.phase.as_deref() {
        Some("Succeeded") => return Finding::fails("PodCompleted", ""),
        Some("Failed") => return Finding::fails("PodFailed", ""),
        _ => {}
    }
    // Sidecars belong to a pod's readiness; init containers that ended do not.
    let is_sidecar =
        |name: &str| input.pod.container(name).is_some_and(|container| container.kind == ContainerKind::Sidecar);
    let sidecars = status.init_container_statuses.iter().flatten().filter(|init| is_sidecar(&init.name));
    let unready: Vec<_> = sidecars
        .chain(status.container_statuses.iter().flatten())
        .filter(|container| !container.ready)
        .map(|container| container.name.as_str())
        .collect();
    if unready.is_empty() {
        return Finding::holds();
    }
    Finding::fails("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

fn gates_pass(status: &PodStatus, input: &StatusInput) -> Finding {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let complaint = |kind: &str| match conditions.iter().find(|condition| condition.type_ == kind) {
        None => Some(format!("corresponding condition of pod readiness gate \"{kind}\" does not exist.")),
        Some(condition) if condition.status != "True" => {
            Some(format!("the status of pod readiness gate \"{kind}\" is not \"True\", but {}", condition.status))
        }
        Some(_) => None,
    };
    let gates = input.pod.spec().readiness_gates.iter().flatten();
    let complaints: Vec<_> = gates.filter_map(|gate| complaint(&gate.condition_type)).collect();
    if complaints.is_empty() {
        return Finding::holds();
    }
    Finding::fails("ReadinessGatesNotReady", complaints.join(", "))
}
