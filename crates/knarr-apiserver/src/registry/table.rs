//! Which resources are served, and all that serving one needs.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;
use knarr_api::field::ErrorList;
use knarr_api::schema::{self, Schema, TypeId};
use knarr_api::strategy::{self, Strategy};
use knarr_api::table::Printer;
use knarr_api::{GroupResource, GroupVersionKind, Object, Resource};

use super::scale::ScalePaths;
use crate::admission::policy_expressions;
use crate::cache::Cache;
use crate::custom_resources::{self, Custom};

/// A check of a new object, or of a changed one with the one before; it adds to what is known to be wrong.
pub type Check = fn(&Object, Option<&Object>, &mut ErrorList);

/// Something of the binary itself, or of a custom resource that comes and goes.
pub enum Held<T: ?Sized + 'static> {
    Static(&'static T),
    Shared(Arc<T>),
}

impl<T: ?Sized> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Held::Static(value) => value,
            Held::Shared(value) => value,
        }
    }
}

/// One resource in one version, as it is served.
pub struct Served {
    pub resource: Arc<Resource>,
    pub group_resource: GroupResource,
    pub kind: GroupVersionKind,
    /// What stands in `apiVersion`.
    pub api_version: String,
    pub strategy: Held<dyn Strategy>,
    pub schema: Held<Schema>,
    /// `None` where the schema says nothing of this kind: any object goes.
    pub type_id: Option<TypeId>,
    pub cache: Arc<Cache>,
    /// The kind in the version that is stored.
    pub stored_kind: GroupVersionKind,
    /// What its definition says, where a definition made it.
    pub custom: Option<Arc<Custom>>,
    /// What is checked beyond the strategy.
    pub check: Option<Check>,
    /// What `kubectl get` shows.
    pub printer: Printer,
    /// Where `scale` finds its numbers, if not in the usual places.
    pub scale: Option<ScalePaths>,
}

impl Served {
    pub fn built_in(resource: &Arc<Resource>, cache: Arc<Cache>, stored_kind: GroupVersionKind) -> Self {
        let (group_resource, kind) = (resource.group_resource(), resource.gvk());
        let check: Option<Check> = match &*group_resource.group {
            _ if group_resource == custom_resources::definitions() => Some(custom_resources::rules::check_definition),
            "admissionregistration.k8s.io" | "resource.k8s.io" => Some(policy_expressions),
            _ => None,
        };
        Served {
            strategy: Held::Static(strategy::strategy(&group_resource, &kind)),
            schema: Held::Static(schema::schema()),
            type_id: schema::schema().by_gvk(&kind),
            api_version: kind.api_version(),
            resource: resource.clone(),
            group_resource,
            kind,
            cache,
            stored_kind,
            printer: Printer::built_in(&resource.gvr()),
            custom: None,
            check,
            scale: None,
        }
    }

    pub fn namespaced(&self) -> bool {
        self.resource.namespaced()
    }

    /// Whether stored bytes can be sent as they are.
    pub fn stored_as_served(&self) -> bool {
        self.kind == self.stored_kind && !self.asks_webhook()
    }

    /// The verbs that discovery tells of: a kind whose definition is being deleted is not for new objects.
    pub fn shown_verbs(&self) -> Vec<&str> {
        let terminating = self.custom.as_ref().is_some_and(|custom| custom.kind.terminating);
        let hidden = |verb: &str| terminating && matches!(verb, "create" | "patch" | "update");
        self.resource.verbs.iter().map(String::as_str).filter(|verb| !hidden(verb)).collect()
    }

    /// Whether a webhook converts between the versions of this kind: then any version may be stored.
    pub fn asks_webhook(&self) -> bool {
        self.custom.as_ref().is_some_and(|custom| custom.asks_webhook())
    }

    /// The key within the resource: `namespace/name`, or `name`.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced() { format!("{namespace}/{name}") } else { name.to_string() }
    }

    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind.kind),
        }
    }
}

/// All resources served at one moment.
#[derive(Default, Clone)]
pub struct Table {
    by_path: HashMap<String, Arc<Served>, RandomState>,
    /// The version that is stored, or else the first, of each resource.
    stored: HashMap<GroupResource, Arc<Served>, RandomState>,
    /// In discovery's order.
    pub rows: Vec<Arc<Served>>,
}

fn path_of(group: &str, version: &str, resource: &str) -> String {
    [group, "/", version, "/", resource].concat()
}

impl Table {
    pub fn new(rows: Vec<Arc<Served>>) -> Self {
        let path = |s: &Served| path_of(&s.resource.group, &s.resource.version, &s.resource.resource);
        let mut stored: HashMap<GroupResource, Arc<Served>, RandomState> = HashMap::default();
        for row in &rows {
            let chosen = stored.entry(row.group_resource.clone()).or_insert_with(|| row.clone());
            if !chosen.stored_as_served() && row.stored_as_served() {
                *chosen = row.clone();
            }
        }
        Table { by_path: rows.iter().map(|s| (path(s), s.clone())).collect(), stored, rows }
    }

    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Served>> {
        self.by_path.get(&path_of(group, version, resource))
    }

    /// The version that is stored; any other where that one is not served.
    pub fn stored_version(&self, resource: &GroupResource) -> Option<&Arc<Served>> {
        self.stored.get(resource)
    }

    /// Any served version of a resource.
    pub fn any_version(&self, resource: &GroupResource) -> Option<&Arc<Served>> {
        self.rows.iter().find(|s| s.group_resource == *resource)
    }

    pub fn by_kind(&self, kind: &GroupVersionKind) -> Option<&Arc<Served>> {
        self.rows.iter().find(|s| s.kind == *kind)
    }
}

/// Where a resource's objects are kept: two resources may share their objects.
pub fn stored_resource(resource: &Resource) -> GroupResource {
    match resource.group_resource() {
        GroupResource { group, resource } if group == "events.k8s.io" && resource == "events" => {
            GroupResource::new("", resource)
        }
        own => own,
    }
}
