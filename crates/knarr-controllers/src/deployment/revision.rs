//! Which ReplicaSet is which revision: finding the one of the current template, making it, numbering, and forgetting old ones.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use knarr_client::{Error, EventType};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::ObjectMeta;

use super::{Look, rollout, size, spec, wanted_replicas};
use crate::{meta, replicas};

pub(super) const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations that a deployment does not hand down to its ReplicaSets.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.daemonset.template.generation",
];

impl Look<'_> {
    /// The ReplicaSet of the current template (made if `create`), and all others; revision numbers brought up to date.
    pub(super) async fn sync_revisions(
        &mut self,
        create: bool,
    ) -> Result<(Option<ReplicaSet>, Vec<ReplicaSet>), Error> {
        let existing = self.find_new();
        let is_new = |set: &ReplicaSet| existing.as_ref().is_some_and(|new| new.metadata.uid == set.metadata.uid);
        let old: Vec<ReplicaSet> =
            self.replica_sets.iter().filter(|set| !is_new(set)).map(|set| (**set).clone()).collect();
        let next_revision = old.iter().map(revision_of).max().unwrap_or(0) + 1;
        let new = match existing {
            Some(existing) => Some(self.refresh_new(existing, next_revision).await?),
            None if create => Some(self.create_new(&old, next_revision).await?),
            None => None,
        };
        Ok((new, old))
    }

    /// Of several ReplicaSets with the current template the oldest counts, so that the choice never changes.
    fn find_new(&self) -> Option<ReplicaSet> {
        let template = without_hash(&spec(&self.deployment).template);
        let same = |set: &&std::sync::Arc<ReplicaSet>| {
            set.spec.as_ref().and_then(|spec| spec.template.as_ref()).is_some_and(|t| without_hash(t) == template)
        };
        let mut found: Vec<_> = self.replica_sets.iter().filter(same).collect();
        found.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
        found.first().map(|set| (***set).clone())
    }

    async fn refresh_new(&mut self, existing: ReplicaSet, revision: i64) -> Result<ReplicaSet, Error> {
        let mut updated = existing.clone();
        annotate(&mut updated, &self.deployment, revision);
        let min_ready = spec(&self.deployment).min_ready_seconds;
        if let Some(spec) = updated.spec.as_mut()
            && spec.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
        {
            spec.min_ready_seconds = min_ready;
        }
        if updated != existing {
            updated =
                self.replica_set_api().replace(meta::name_of(&existing), &PostParams::default(), &updated).await?;
            updated.metadata.managed_fields = None;
        }
        let revision = meta::annotation(&updated, REVISION).unwrap_or_default().to_string();
        let name = meta::name_of(&updated).to_string();
        let before = self.deployment.clone();
        self.set_revision(&revision);
        if self.progressing().is_none() {
            self.set_progressing("True", "FoundNewReplicaSet", format!("Found new replica set \"{name}\""));
        }
        self.write_if_changed(&before).await?;
        Ok(updated)
    }

    fn set_revision(&mut self, revision: &str) {
        let annotations = self.deployment.metadata.annotations.get_or_insert_default();
        if annotations.get(REVISION).is_none_or(|known| known != revision) {
            annotations.insert(REVISION.into(), revision.into());
        }
    }

    async fn create_new(&mut self, old: &[ReplicaSet], revision: i64) -> Result<ReplicaSet, Error> {
        let wanted = self.new_replica_set(old, revision);
        let name = meta::name_of(&wanted).to_string();
        let before = self.deployment.clone();
        let (created, made) =
            match self.replica_set_api().create(&PostParams::default(), &wanted).await.map_err(Error::from) {
                Ok(created) => (created, true),
                Err(error) if error.is_already_exists() => (self.adopt_or_collide(&name).await?, false),
                Err(error) => {
                    let message =
                        format!("Failed to create new replica set \"{name}\": {}", replicas::describe(&error));
                    self.set_progressing("False", "ReplicaSetCreateError", message.clone());
                    self.write_if_changed(&before).await?;
                    self.event(EventType::Warning, "ReplicaSetCreateError", message);
                    return Err(error);
                }
            };
        if made && size(&created) > 0 {
            let message = format!("Scaled up replica set {name} from 0 to {}", size(&created));
            self.event(EventType::Normal, "ScalingReplicaSet", message);
        }
        self.set_revision(meta::annotation(&created, REVISION).unwrap_or_default());
        if made || self.progressing().is_none() {
            self.set_progressing("True", "NewReplicaSetCreated", format!("Created new replica set \"{name}\""));
        }
        self.write_if_changed(&before).await?;
        Ok(created)
    }

    fn new_replica_set(&self, old: &[ReplicaSet], revision: i64) -> ReplicaSet {
        let deployment = &self.deployment;
        let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = template_hash(&spec(deployment).template, collisions);
        let mut template = spec(deployment).template.clone();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH_LABEL.into(), hash.clone());
        let labels = labels.clone();
        let mut selector = spec(deployment).selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", meta::name_of(deployment))),
                namespace: deployment.metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![meta::controller_reference(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec(deployment).min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let replicas = rollout::new_size(deployment, old.iter().map(size).sum(), 0);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(replicas);
        }
        annotate(&mut set, deployment, revision);
        set_replica_annotations(&mut set, wanted_replicas(deployment), rollout::max_surge(deployment));
        set
    }

    /// The name is taken: by our own ReplicaSet that the cache has not shown yet, or by another template of the same hash.
    async fn adopt_or_collide(&mut self, name: &str) -> Result<ReplicaSet, Error> {
        let existing = self.replica_set_api().get(name).await?;
        let ours =
            meta::controller_of(&existing.metadata).is_some_and(|owner| owner.uid == meta::uid_of(&self.deployment));
        let template = existing.spec.as_ref().and_then(|spec| spec.template.as_ref());
        if ours && template.is_some_and(|t| without_hash(t) == without_hash(&spec(&self.deployment).template)) {
            return Ok(existing);
        }
        let before = self.deployment.clone();
        let status = self.deployment.status.get_or_insert_default();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.write_if_changed(&before).await?;
        Err(Error::other(format!("replica set \"{name}\" is of another template")))
    }

    /// Deletes the oldest scaled-down ReplicaSets beyond `revisionHistoryLimit`.
    pub(super) async fn forget_old(&self, old: &[ReplicaSet]) -> Result<(), Error> {
        let Some(limit) = spec(&self.deployment).revision_history_limit else { return Ok(()) };
        let mut alive: Vec<_> = old.iter().filter(|set| !meta::is_deleted(*set)).collect();
        let excess = alive.len().saturating_sub(limit.max(0) as usize);
        alive.sort_by_key(|set| (revision_of(set), set.metadata.creation_timestamp.clone()));
        for set in alive.into_iter().take(excess) {
            let status = set.status.clone().unwrap_or_default();
            let settled = status.observed_generation >= set.metadata.generation;
            if status.replicas != 0 || size(set) != 0 || !settled {
                continue;
            }
            let preconditions = Preconditions { uid: set.metadata.uid.clone(), ..Preconditions::default() };
            let parameters = DeleteParams::background().preconditions(preconditions);
            knarr_client::error::found(self.replica_set_api().delete(meta::name_of(set), &parameters).await)?;
        }
        Ok(())
    }
}

pub(super) fn revision_of(set: &ReplicaSet) -> i64 {
    meta::annotation(set, REVISION).and_then(|revision| revision.parse().ok()).unwrap_or(0)
}

/// Hands the deployment's annotations down and raises the revision to `revision` if it is lower, remembering the one it was.
fn annotate(set: &mut ReplicaSet, deployment: &Deployment, revision: i64) {
    let known = revision_of(set);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !OWN_ANNOTATIONS.contains(&key.as_str()) {
            annotations.insert(key.clone(), value.clone());
        }
    }
    if known < revision
        && let Some(previous) = annotations.insert(REVISION.into(), revision.to_string())
    {
        let history = annotations.entry(REVISION_HISTORY.into()).or_default();
        *history = if history.is_empty() { previous } else { format!("{history},{previous}") };
    }
}

/// Notes the size of the whole deployment on a ReplicaSet; true if that changed anything.
pub(super) fn set_replica_annotations(set: &mut ReplicaSet, desired: i32, surge: i32) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut put = |key: &str, value: i32| annotations.insert(key.into(), value.to_string()) != Some(value.to_string());
    put(DESIRED_REPLICAS, desired) | put(MAX_REPLICAS, desired + surge)
}

fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(metadata) = &mut template.metadata {
        if let Some(labels) = &mut metadata.labels {
            labels.remove(HASH_LABEL);
        }
        metadata.labels = metadata.labels.take().filter(|labels: &BTreeMap<_, _>| !labels.is_empty());
        metadata.creation_timestamp = None;
    }
    template.metadata = Some(template.metadata.unwrap_or_default());
    template
}

/// The name of a template: 32-bit FNV-1a of it and of how often that name was taken before, in the alphabet of generated names.
///
/// Upstream hashes Go's own rendering of the structure; any stable rendering serves, since nobody but us compares.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let rendered = serde_json::to_vec(template).unwrap_or_default();
    let salt = collisions.map(|count| count.to_le_bytes()).unwrap_or_default();
    let seasoned = rendered.iter().chain(salt[..if collisions.is_some() { 4 } else { 0 }].iter());
    let hash = seasoned.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect()
}
