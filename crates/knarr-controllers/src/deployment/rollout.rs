//! How large each ReplicaSet should be: rolling update, recreate, and scaling in proportion.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use knarr_client::{Action, Error, EventType};
use kube::api::PostParams;

use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, revision_of, set_replica_annotations};
use super::{Look, available, recreates, size, spec, wanted_replicas};
use crate::meta;

impl Look<'_> {
    /// Whether `spec.replicas` changed since the ReplicaSets were last sized.
    pub(super) fn was_scaled(&self) -> bool {
        let wanted = wanted_replicas(&self.deployment);
        self.replica_sets
            .iter()
            .any(|set| size(set) > 0 && number(set, DESIRED_REPLICAS).is_some_and(|desired| desired != wanted))
    }

    /// A paused deployment, or one whose size changed: scales what there is, rolls nothing.
    pub(super) async fn sync_scale(&mut self) -> Result<Action, Error> {
        let (mut new, mut old) = self.sync_revisions(false).await?;
        self.scale_all(new.as_mut(), &mut old).await?;
        if spec(&self.deployment).paused == Some(true) {
            self.forget_old(&old).await?;
        }
        self.sync_status(new.as_ref(), &old).await
    }

    pub(super) async fn roll_recreate(&mut self) -> Result<Action, Error> {
        let (new, mut old) = self.sync_revisions(false).await?;
        let mut scaled_down = false;
        for set in &mut old {
            scaled_down |= self.resize(set, 0).await?;
        }
        if scaled_down || self.all.old_pods_running(&old) {
            return self.sync_rollout_status(new.as_ref(), &old).await;
        }
        let (mut new, old) = match new {
            Some(new) => (Some(new), old),
            None => self.sync_revisions(true).await?,
        };
        if let Some(new) = &mut new {
            self.resize(new, wanted_replicas(&self.deployment)).await?;
        }
        self.finish(new.as_ref(), &old).await
    }

    pub(super) async fn roll_update(&mut self) -> Result<Action, Error> {
        let (new, mut old) = self.sync_revisions(true).await?;
        let Some(mut new) = new else { return Ok(Action::Done) };
        let others = old.iter().map(size).sum();
        let target = new_size(&self.deployment, others, size(&new));
        if self.resize(&mut new, target).await? || self.shrink_old(&new, &mut old).await? {
            return self.sync_rollout_status(Some(&new), &old).await;
        }
        self.finish(Some(&new), &old).await
    }

    async fn finish(&mut self, new: Option<&ReplicaSet>, old: &[ReplicaSet]) -> Result<Action, Error> {
        if self.is_complete(new, old) {
            self.forget_old(old).await?;
        }
        self.sync_rollout_status(new, old).await
    }

    /// Takes pods from old ReplicaSets as far as availability allows, broken ones first. True if any was resized.
    async fn shrink_old(&self, new: &ReplicaSet, old: &mut [ReplicaSet]) -> Result<bool, Error> {
        let old_pods: i32 = old.iter().map(size).sum();
        if old_pods == 0 {
            return Ok(false);
        }
        let wanted = wanted_replicas(&self.deployment);
        let must_be_available = wanted - max_unavailable(&self.deployment);
        let new_unavailable = size(new) - available(new);
        let mut budget = old_pods + size(new) - must_be_available - new_unavailable;
        if budget <= 0 {
            return Ok(false);
        }
        old.sort_by_key(|set| set.metadata.creation_timestamp.clone());
        let mut shrunk = false;
        for set in old.iter_mut().filter(|set| size(set) > available(set)) {
            let count = budget.min(size(set) - available(set));
            if count > 0 {
                shrunk |= self.resize(set, size(set) - count).await?;
                budget -= count;
            }
        }
        let total_available = available(new) + old.iter().map(|set| available(set).min(size(set))).sum::<i32>();
        let mut spare = total_available - must_be_available;
        for set in old.iter_mut().filter(|set| size(set) > 0) {
            let count = size(set).min(spare);
            if count <= 0 {
                break;
            }
            shrunk |= self.resize(set, size(set) - count).await?;
            spare -= count;
        }
        Ok(shrunk)
    }

    /// Brings the sum of sizes to what `spec.replicas` (and surge) allow, without rolling.
    async fn scale_all(&self, new: Option<&mut ReplicaSet>, old: &mut [ReplicaSet]) -> Result<(), Error> {
        let wanted = wanted_replicas(&self.deployment);
        let active = new.as_deref().into_iter().chain(old.iter()).filter(|set| size(set) > 0).count();
        if active <= 1 {
            let only = match active {
                1 => new.into_iter().chain(old.iter_mut()).find(|set| size(set) > 0),
                _ => new.or_else(|| old.iter_mut().max_by_key(|set| revision_of(set))),
            };
            if let Some(only) = only {
                self.resize(only, wanted).await?;
            }
            return Ok(());
        }
        if new.as_deref().is_some_and(|new| is_saturated(&self.deployment, new)) {
            for set in old.iter_mut() {
                self.resize(set, 0).await?;
            }
            return Ok(());
        }
        if recreates(&self.deployment) {
            return Ok(());
        }
        let mut sets: Vec<&mut ReplicaSet> =
            new.into_iter().chain(old.iter_mut()).filter(|set| size(set) > 0).collect();
        let allowed = if wanted > 0 { wanted + max_surge(&self.deployment) } else { 0 };
        let targets = proportions(&self.deployment, &mut sets, allowed);
        for (set, target) in sets.into_iter().zip(targets) {
            self.resize(set, target).await?;
        }
        Ok(())
    }

    /// Sets the size of a ReplicaSet and its notes of the deployment's size. True if the size changed.
    async fn resize(&self, set: &mut ReplicaSet, target: i32) -> Result<bool, Error> {
        let from = size(set);
        let mut updated = set.clone();
        let noted =
            set_replica_annotations(&mut updated, wanted_replicas(&self.deployment), max_surge(&self.deployment));
        if from == target && !(noted && target > 0) {
            return Ok(false);
        }
        if let Some(spec) = &mut updated.spec {
            spec.replicas = Some(target);
        }
        let mut updated = self.replica_set_api().replace(meta::name_of(set), &PostParams::default(), &updated).await?;
        updated.metadata.managed_fields = None;
        *set = updated;
        if from == target {
            return Ok(false);
        }
        let direction = if from < target { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {} from {from} to {target}", meta::name_of(set));
        self.event(EventType::Normal, "ScalingReplicaSet", message);
        Ok(true)
    }
}

/// The size the new ReplicaSet may have now, beside `others` pods of old ones.
pub(super) fn new_size(deployment: &Deployment, others: i32, current: i32) -> i32 {
    let wanted = wanted_replicas(deployment);
    if recreates(deployment) || current > wanted {
        return wanted;
    }
    let room = wanted + max_surge(deployment) - others - current;
    if room <= 0 { current } else { current + room.min(wanted - current) }
}

/// Sizes in proportion to what each was of the last size of the whole; what rounding leaves goes to the first.
fn proportions(deployment: &Deployment, sets: &mut [&mut ReplicaSet], allowed: i32) -> Vec<i32> {
    let total: i32 = sets.iter().map(|set| size(set)).sum();
    let to_add = allowed - total;
    if to_add > 0 {
        sets.sort_by_key(|set| {
            (std::cmp::Reverse(size(set)), std::cmp::Reverse(set.metadata.creation_timestamp.clone()))
        });
    } else {
        sets.sort_by_key(|set| (std::cmp::Reverse(size(set)), set.metadata.creation_timestamp.clone()));
    }
    let mut added = 0;
    let mut targets: Vec<i32> = Vec::with_capacity(sets.len());
    for set in sets.iter() {
        let share = if to_add == 0 { 0 } else { proportion(deployment, set, to_add, added) };
        targets.push(size(set) + share);
        added += share;
    }
    if let Some(first) = targets.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    targets
}

fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if size(set) == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let allowed = f64::from(wanted_replicas(deployment) + max_surge(deployment));
    let before = f64::from(
        number(set, MAX_REPLICAS)
            .unwrap_or_else(|| deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0)),
    );
    let fraction = if wanted_replicas(deployment) == 0 || before == 0.0 {
        -size(set)
    } else {
        (f64::from(size(set)) * allowed / before).round() as i32 - size(set)
    };
    if to_add > 0 { fraction.clamp(0, left) } else { fraction.clamp(left, 0) }
}

fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let wanted = wanted_replicas(deployment);
    size(new) == wanted && number(new, DESIRED_REPLICAS) == Some(wanted) && available(new) == wanted
}

fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    meta::annotation(set, annotation)?.parse().ok()
}

/// How many pods beyond the wanted number there may be.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if recreates(deployment) { 0 } else { fenceposts(deployment).0 }
}

/// How many of the wanted number may be unavailable.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    match recreates(deployment) || wanted_replicas(deployment) == 0 {
        true => 0,
        false => fenceposts(deployment).1.min(wanted_replicas(deployment)),
    }
}

/// Surge rounded up and unavailability rounded down; both zero would never end, so then one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let rolling =
        spec(deployment).strategy.as_ref().and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
    let quarter = || IntOrString::String("25%".into());
    let wanted = f64::from(wanted_replicas(deployment));
    let surge = resolve(&rolling.max_surge.unwrap_or_else(quarter), wanted, f64::ceil);
    let unavailable = resolve(&rolling.max_unavailable.unwrap_or_else(quarter), wanted, f64::floor);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

fn resolve(value: &IntOrString, total: f64, round: fn(f64) -> f64) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: f64 = text.trim_end_matches('%').parse().unwrap_or(0.0);
            round(percent * total / 100.0) as i32
        }
    }
}
