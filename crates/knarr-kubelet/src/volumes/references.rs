//! The ConfigMaps and Secrets that pods of this node refer to: read when needed, and watched so that volumes follow them.
//!
//! Each object is watched by name, since a node may see no others, and once however many pods refer to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use knarr_client::Selection;
use knarr_client::follow::{Change, Source, follow};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::environment::KeyedSource;
use crate::pod::DesiredPod;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReferenceKind {
    ConfigMap,
    Secret,
}

/// An object that a pod's volumes are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    pub kind: ReferenceKind,
    pub namespace: String,
    pub name: String,
}

/// A watch on one object; it ends when nobody holds it.
pub struct ReferenceWatch {
    interested: Arc<Mutex<Vec<Weak<Notify>>>>,
    _task: AbortOnDropHandle<()>,
}

/// All watches of this node.
pub struct References {
    client: Client,
    watches: Mutex<HashMap<Reference, Weak<ReferenceWatch>>>,
}

impl References {
    pub fn new(client: Client) -> References {
        References { client, watches: Mutex::default() }
    }

    /// Wakes `wake` when the object changes, for as long as the result is held.
    pub fn follow(&self, reference: &Reference, wake: &Arc<Notify>) -> Arc<ReferenceWatch> {
        let mut watches = self.watches.lock();
        watches.retain(|_, watch| watch.strong_count() > 0);
        let watch = watches.get(reference).and_then(Weak::upgrade).unwrap_or_else(|| self.start(reference));
        watches.insert(reference.clone(), Arc::downgrade(&watch));
        watch.interested.lock().push(Arc::downgrade(wake));
        watch
    }

    fn start(&self, reference: &Reference) -> Arc<ReferenceWatch> {
        let interested = Arc::new(Mutex::new(Vec::new()));
        let (reference, to_wake) = (reference.clone(), interested.clone());
        let source = reference.source().metadata();
        let hear = move |change: Change<'_>| match change {
            Change::Listed(_) | Change::Applied(_) | Change::Deleted(_) => wake_all(&to_wake),
            Change::Relisting | Change::Settled => {}
            Change::Interrupted(error) => tracing::debug!(%error, ?reference, "a watch of a pod's reference failed"),
        };
        let task = tokio::spawn(follow(self.client.clone(), source, Box::new(hear)));
        Arc::new(ReferenceWatch { interested, _task: AbortOnDropHandle::new(task) })
    }
}

impl Reference {
    fn source(&self) -> Source {
        let by_name = Selection::fields(&format!("metadata.name={}", self.name));
        let selection = Selection { namespace: Some(self.namespace.clone()), ..by_name };
        match self.kind {
            ReferenceKind::ConfigMap => Source::of::<ConfigMap>(&(), selection),
            ReferenceKind::Secret => Source::of::<Secret>(&(), selection),
        }
    }
}

fn wake_all(interested: &Mutex<Vec<Weak<Notify>>>) {
    interested.lock().retain(|wake| wake.upgrade().inspect(|wake| wake.notify_one()).is_some());
}

/// The objects whose content a pod's volumes show.
pub fn of_volumes(pod: &DesiredPod) -> Vec<Reference> {
    let mut references = Vec::new();
    let mut add = |kind, name: &str| {
        let reference = Reference { kind, namespace: pod.namespace.clone(), name: name.to_owned() };
        if !name.is_empty() && !references.contains(&reference) {
            references.push(reference);
        }
    };
    for volume in pod.spec().volumes.iter().flatten() {
        if let Some(source) = &volume.config_map {
            add(ReferenceKind::ConfigMap, &source.name);
        }
        if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
            add(ReferenceKind::Secret, name);
        }
        for projection in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if let Some(source) = &projection.config_map {
                add(ReferenceKind::ConfigMap, &source.name);
            }
            if let Some(source) = &projection.secret {
                add(ReferenceKind::Secret, &source.name);
            }
        }
    }
    references
}

/// Reads ConfigMaps and Secrets of one namespace from the API.
pub struct ApiKeyedSource {
    pub client: Client,
    pub namespace: String,
}

#[async_trait]
impl KeyedSource for ApiKeyedSource {
    async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
        Ok(found.map(|map| {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            text.chain(binary).collect()
        }))
    }

    async fn secret(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(name).await.map_err(|error| error.to_string())?;
        Ok(found.map(|secret| secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect()))
    }
}
