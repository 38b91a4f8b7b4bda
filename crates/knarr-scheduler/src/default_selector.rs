//! By what a pod's Services and its controller select it: the pods that the default spread constraints keep apart.

use std::collections::HashMap;

use knarr_api::selector::{LabelSelector, Operator, Requirement};

use crate::{pod::PodInfo, selector::Labels};

/// The controllers whose pods are spread by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    ReplicationController,
    ReplicaSet,
    StatefulSet,
}

impl Owner {
    fn of_kind(api_version: &str, kind: &str) -> Option<Owner> {
        match (api_version, kind) {
            ("v1", "ReplicationController") => Some(Owner::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Owner::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Owner::StatefulSet),
            _ => None,
        }
    }
}

/// The selectors of one namespace.
#[derive(Default)]
struct Namespace {
    services: HashMap<String, Labels>,
    owners: HashMap<(Owner, String), LabelSelector>,
}

/// The selectors of Services and controllers, by namespace.
#[derive(Default)]
pub struct Selectors {
    namespaces: HashMap<String, Namespace>,
}

impl Selectors {
    /// Takes note of a Service's selector; `None`: it has none, or is gone.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>) {
        let services = &mut self.namespaces.entry(namespace.to_owned()).or_default().services;
        match selector {
            Some(selector) => services.insert(name.to_owned(), selector),
            None => services.remove(name),
        };
    }

    /// Takes note of a controller's selector; `None`: it is gone.
    pub fn set_owner(&mut self, owner: Owner, namespace: &str, name: &str, selector: Option<LabelSelector>) {
        let owners = &mut self.namespaces.entry(namespace.to_owned()).or_default().owners;
        let key = (owner, name.to_owned());
        match selector {
            Some(selector) => owners.insert(key, selector),
            None => owners.remove(&key),
        };
    }

    /// What all Services of the pod and its controller together select; `None`: it has neither.
    pub fn of(&self, pod: &PodInfo) -> Option<LabelSelector> {
        let namespace = self.namespaces.get(&*pod.key.namespace)?;
        let mut requirements: Vec<Requirement> = Vec::new();
        for selector in namespace.services.values().filter(|selector| selects(selector, &pod.labels)) {
            requirements.extend(selector.iter().filter_map(equality));
        }
        if let Some(selector) = namespace.owner_of(pod) {
            requirements.extend(selector.requirements().iter().cloned());
        }
        // Services in any order must give the same selector, as counts are kept by selector.
        requirements.sort_by_cached_key(ToString::to_string);
        requirements.dedup();
        (!requirements.is_empty()).then(|| LabelSelector::of(requirements))
    }
}

impl Namespace {
    fn owner_of(&self, pod: &PodInfo) -> Option<&LabelSelector> {
        let owners = pod.pod.metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true))?;
        let owner = Owner::of_kind(&controller.api_version, &controller.kind)?;
        self.owners.get(&(owner, controller.name.clone()))
    }
}

fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn equality((key, value): (&String, &String)) -> Option<Requirement> {
    Requirement::new(key, Operator::Equals, vec![value.clone()]).ok()
}

#[cfg(test)]
mod tests;
