//! The status of a deployment: counts, and the conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use knarr_client::{Action, Error};
use kube::api::PostParams;

use super::{Look, available, rollout, size, spec, wanted_replicas};
use crate::meta;

const AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

impl Look<'_> {
    pub(super) fn progressing(&self) -> Option<&DeploymentCondition> {
        condition(self.deployment.status.as_ref()?, "Progressing")
    }

    pub(super) fn set_progressing(&mut self, status: &str, reason: &str, message: String) {
        set(self.deployment.status.get_or_insert_default(), "Progressing", status, reason, message);
    }

    /// Says so when a deployment is paused or resumed, which stops and restarts the clock of its deadline.
    pub(super) async fn note_pause(&mut self) -> Result<(), Error> {
        if !has_deadline(&self.deployment) || self.progressing().is_some_and(|c| c.reason.as_deref() == Some(TIMED_OUT))
        {
            return Ok(());
        }
        let paused = spec(&self.deployment).paused == Some(true);
        let said = self.progressing().is_some_and(|c| c.reason.as_deref() == Some("DeploymentPaused"));
        let before = self.deployment.clone();
        match (paused, said) {
            (true, false) => self.set_progressing("Unknown", "DeploymentPaused", "Deployment is paused".into()),
            (false, true) => self.set_progressing("Unknown", "DeploymentResumed", "Deployment is resumed".into()),
            _ => return Ok(()),
        }
        self.write_if_changed(&before).await
    }

    /// The status of a deployment that is not rolling: counts and availability.
    pub(super) async fn sync_status(&mut self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> Result<Action, Error> {
        let before = self.deployment.clone();
        self.deployment.status = Some(self.counted(new, old));
        self.write_if_changed(&before).await?;
        Ok(Action::Done)
    }

    /// The status of a rollout: counts, availability, and how it gets on.
    pub(super) async fn sync_rollout_status(
        &mut self,
        new: Option<&ReplicaSet>,
        old: &[ReplicaSet],
    ) -> Result<Action, Error> {
        let before = self.deployment.clone();
        let status = self.counted(new, old);
        let known = before.status.clone().unwrap_or_default();
        let was_complete = status.replicas == status.updated_replicas
            && condition(&known, "Progressing").is_some_and(|c| c.reason.as_deref() == Some(AVAILABLE));
        self.deployment.status = Some(status);
        if has_deadline(&self.deployment) && !was_complete {
            self.judge_progress(&known, new, old);
        }
        self.note_failures(new, old);
        self.write_if_changed(&before).await?;
        Ok(self.until_deadline(new, old))
    }

    fn judge_progress(&mut self, known: &DeploymentStatus, new: Option<&ReplicaSet>, old: &[ReplicaSet]) {
        let about = match new {
            Some(new) => format!("ReplicaSet \"{}\"", meta::name_of(new)),
            None => format!("Deployment \"{}\"", meta::name_of(&self.deployment)),
        };
        if self.is_complete(new, old) {
            self.set_progressing("True", AVAILABLE, format!("{about} has successfully progressed."));
        } else if self.has_progressed(known) {
            self.restart_clock(format!("{about} is progressing."));
        } else if self.timed_out() {
            self.set_progressing("False", TIMED_OUT, format!("{about} has timed out progressing."));
        }
    }

    /// Progress counts from now, even where the condition says what it said before.
    fn restart_clock(&mut self, message: String) {
        let transition = self.progressing().filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
        let status = self.deployment.status.get_or_insert_default();
        status.conditions.get_or_insert_default().retain(|c| c.type_ != "Progressing");
        set(status, "Progressing", "True", "ReplicaSetUpdated", message);
        let fresh = status.conditions.iter_mut().flatten().find(|c| c.type_ == "Progressing");
        if let (Some(fresh), Some(transition)) = (fresh, transition) {
            fresh.last_transition_time = Some(transition);
        }
    }

    pub(super) fn is_complete(&self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> bool {
        let status = self.counted(new, old);
        let wanted = Some(wanted_replicas(&self.deployment)).filter(|count| *count != 0);
        status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
    }

    fn has_progressed(&self, known: &DeploymentStatus) -> bool {
        let now = self.deployment.status.clone().unwrap_or_default();
        let old_pods = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
        now.updated_replicas > known.updated_replicas
            || old_pods(&now) < old_pods(known)
            || now.ready_replicas > known.ready_replicas
            || now.available_replicas > known.available_replicas
    }

    fn timed_out(&self) -> bool {
        let Some(condition) = self.progressing() else { return false };
        match condition.reason.as_deref() {
            Some(AVAILABLE) => false,
            Some(TIMED_OUT) => true,
            _ => {
                condition.last_update_time.as_ref().is_some_and(|time| meta::since(time) >= deadline(&self.deployment))
            }
        }
    }

    /// Looks again when the deadline passes, since nothing else may happen by then.
    fn until_deadline(&self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> Action {
        let running = self.progressing().filter(|c| c.status == "True" && !self.is_complete(new, old));
        let Some(since) = running.and_then(|c| c.last_update_time.as_ref()).map(meta::since) else {
            return Action::Done;
        };
        match has_deadline(&self.deployment) {
            true => Action::RequeueAfter(deadline(&self.deployment).saturating_sub(since) + Duration::from_secs(1)),
            false => Action::Done,
        }
    }

    /// A ReplicaSet that cannot make its pods is the deployment's failure.
    fn note_failures(&mut self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) {
        let failure = new.into_iter().chain(old).find_map(|set| {
            set.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "ReplicaFailure").cloned()
        });
        let status = self.deployment.status.get_or_insert_default();
        match failure {
            Some(f) => {
                set(status, "ReplicaFailure", &f.status, &f.reason.unwrap_or_default(), f.message.unwrap_or_default())
            }
            None => status.conditions.iter_mut().for_each(|all| all.retain(|c| c.type_ != "ReplicaFailure")),
        }
    }

    fn counted(&self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> DeploymentStatus {
        let known = self.deployment.status.clone().unwrap_or_default();
        let all = || new.into_iter().chain(old);
        let sum = |count: fn(&ReplicaSet) -> i32| Some(all().map(count).sum::<i32>()).filter(|sum| *sum != 0);
        let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
        let pods = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        let terminating =
            |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0);
        let available_pods: i32 = all().map(available).sum();
        let unavailable = (all().map(size).sum::<i32>() - available_pods).max(0);
        let mut status = DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: sum(pods),
            updated_replicas: new.map(pods).filter(|count| *count != 0),
            ready_replicas: sum(ready),
            available_replicas: sum(available),
            unavailable_replicas: Some(unavailable).filter(|count| *count != 0),
            terminating_replicas: Some(all().map(terminating).sum()),
            collision_count: known.collision_count,
            conditions: known.conditions,
        };
        let enough = wanted_replicas(&self.deployment) - rollout::max_unavailable(&self.deployment);
        match available_pods >= enough {
            true => set(
                &mut status,
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.".into(),
            ),
            false => {
                let message = "Deployment does not have minimum availability.";
                set(&mut status, "Available", "False", "MinimumReplicasUnavailable", message.into());
            }
        }
        status
    }

    /// Writes the status (and the revision annotation beside it) unless nothing changed.
    pub(super) async fn write_if_changed(&mut self, before: &Deployment) -> Result<(), Error> {
        if self.deployment == *before {
            return Ok(());
        }
        let name = meta::name_of(before).to_string();
        let mut written = self.deployments().replace_status(&name, &PostParams::default(), &self.deployment).await?;
        written.metadata.managed_fields = None;
        self.deployment = written;
        Ok(())
    }
}

fn condition<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// Sets a condition; one that says the same already stays as it is.
fn set(status: &mut DeploymentStatus, kind: &str, value: &str, reason: &str, message: String) {
    let known = condition(status, kind).cloned();
    if known.as_ref().is_some_and(|c| c.status == value && c.reason.as_deref() == Some(reason)) {
        return;
    }
    let now = meta::now();
    let transition =
        known.filter(|c| c.status == value).and_then(|c| c.last_transition_time).unwrap_or_else(|| now.clone());
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != kind);
    conditions.push(DeploymentCondition {
        type_: kind.into(),
        status: value.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now),
        last_transition_time: Some(transition),
    });
}

fn has_deadline(deployment: &Deployment) -> bool {
    spec(deployment).progress_deadline_seconds.is_some_and(|seconds| seconds != i32::MAX)
}

fn deadline(deployment: &Deployment) -> Duration {
    Duration::from_secs(spec(deployment).progress_deadline_seconds.unwrap_or(600).max(0) as u64)
}
