//! Hears of the Services and controllers whose selectors the default spread constraints go by.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, StatefulSet},
    core::v1::{ReplicationController, Service},
};
use knarr_api::selector::{LabelSelector, Operator, Requirement};
use knarr_client::{Event, Informer, Informers, ObjectKey, Subscription, Watched};

use crate::{
    default_selector::{Owner, Selectors},
    selector::{Labels, label_selector},
};

/// Everything that selects pods.
pub struct Selecting {
    services: Informer<Service>,
    controllers: Informer<ReplicationController>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
}

impl Selecting {
    pub fn new(informers: &Informers) -> Selecting {
        Selecting {
            services: informers.all(),
            controllers: informers.all(),
            replica_sets: informers.all(),
            stateful_sets: informers.all(),
        }
    }

    pub async fn synced(&self) {
        self.services.synced().await;
        self.controllers.synced().await;
        self.replica_sets.synced().await;
        self.stateful_sets.synced().await;
    }

    pub fn subscribe(&self) -> Changes {
        Changes {
            services: self.services.subscribe(),
            controllers: self.controllers.subscribe(),
            replica_sets: self.replica_sets.subscribe(),
            stateful_sets: self.stateful_sets.subscribe(),
        }
    }
}

/// What happens to their selectors.
pub struct Changes {
    services: Subscription<Service>,
    controllers: Subscription<ReplicationController>,
    replica_sets: Subscription<ReplicaSet>,
    stateful_sets: Subscription<StatefulSet>,
}

impl Changes {
    /// The next change; `None` at shutdown.
    pub async fn recv(&mut self) -> Option<SelectorChange> {
        Some(tokio::select! {
            Some(event) = self.services.recv() => {
                let selector = current(&event).and_then(|service| service.spec.as_ref()?.selector.clone());
                SelectorChange::Service(key(&event), selector)
            }
            Some(event) = self.controllers.recv() => {
                let selector = current(&event).and_then(|object| Some(exactly(object.spec.as_ref()?.selector.as_ref()?)));
                SelectorChange::Owner(Owner::ReplicationController, key(&event), selector)
            }
            Some(event) = self.replica_sets.recv() => {
                let selector = current(&event).and_then(|object| Some(label_selector(Some(&object.spec.as_ref()?.selector))));
                SelectorChange::Owner(Owner::ReplicaSet, key(&event), selector)
            }
            Some(event) = self.stateful_sets.recv() => {
                let selector = current(&event).and_then(|object| Some(label_selector(Some(&object.spec.as_ref()?.selector))));
                SelectorChange::Owner(Owner::StatefulSet, key(&event), selector)
            }
            else => return None,
        })
    }
}

/// An object selects other pods than before, or none any more.
pub enum SelectorChange {
    Service(ObjectKey, Option<Labels>),
    Owner(Owner, ObjectKey, Option<LabelSelector>),
}

impl SelectorChange {
    pub fn apply(self, selectors: &mut Selectors) {
        match self {
            SelectorChange::Service(key, selector) => selectors.set_service(&key.namespace, &key.name, selector),
            SelectorChange::Owner(owner, key, selector) => {
                selectors.set_owner(owner, &key.namespace, &key.name, selector);
            }
        }
    }
}

fn key<K: Watched>(event: &Event<K>) -> ObjectKey {
    ObjectKey::of(&**event.object())
}

fn current<K: Watched>(event: &Event<K>) -> Option<&Arc<K>> {
    match event {
        Event::Deleted(_) => None,
        Event::Added(object) | Event::Updated { new: object, .. } => Some(object),
    }
}

fn exactly(labels: &Labels) -> LabelSelector {
    let equal = |(key, value): (&String, &String)| Requirement::new(key, Operator::Equals, vec![value.clone()]).ok();
    LabelSelector::of(labels.iter().filter_map(equal).collect())
}
