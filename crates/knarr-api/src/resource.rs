//! The table of served resources: names, scope, verbs and subresources, embedded from `generated/resources.json`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};

type Name = Cow<'static, str>;

/// `apps/v1`, or `v1` for the core group (an empty group).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersion {
    pub group: Name,
    pub version: Name,
}

impl GroupVersion {
    pub fn new(group: impl Into<Name>, version: impl Into<Name>) -> Self {
        GroupVersion { group: group.into(), version: version.into() }
    }

    /// Parses an `apiVersion`. `None` where it has more than one slash.
    pub fn parse(api_version: &str) -> Option<Self> {
        match api_version.split_once('/') {
            None => Some(Self::new("", api_version.to_string())),
            Some((group, version)) if !version.contains('/') => Some(Self::new(group.to_string(), version.to_string())),
            Some(_) => None,
        }
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

/// A kind in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersionKind {
    pub group: Name,
    pub version: Name,
    pub kind: Name,
}

impl GroupVersionKind {
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, kind: impl Into<Name>) -> Self {
        GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// What stands in an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        self.group_version().to_string()
    }
}

/// A resource (plural, lower case) in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersionResource {
    pub group: Name,
    pub version: Name,
    pub resource: Name,
}

impl GroupVersionResource {
    pub fn new(group: impl Into<Name>, version: impl Into<Name>, resource: impl Into<Name>) -> Self {
        GroupVersionResource { group: group.into(), version: version.into(), resource: resource.into() }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

/// A resource whatever its version; shown as `deployments.apps`, or `pods` in the core group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupResource {
    pub group: Name,
    pub resource: Name,
}

impl GroupResource {
    pub fn new(group: impl Into<Name>, resource: impl Into<Name>) -> Self {
        GroupResource { group: group.into(), resource: resource.into() }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Scope {
    Namespaced,
    Cluster,
}

/// A kind as the generated table writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KindRef {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// A subresource of a [`Resource`], such as `status`, `scale` or `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Subresource {
    pub name: String,
    pub kind: KindRef,
    pub verbs: Vec<String>,
}

/// One row: a resource in one version, built-in or custom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    pub group: String,
    pub version: String,
    /// Plural, lower case: the word in the URL.
    pub resource: String,
    pub singular: String,
    pub kind: KindRef,
    pub scope: Scope,
    pub verbs: Vec<String>,
    #[serde(default)]
    pub short_names: Vec<String>,
    #[serde(default)]
    pub categories: Vec<String>,
    #[serde(default)]
    pub subresources: Vec<Subresource>,
}

impl Resource {
    pub fn gvr(&self) -> GroupVersionResource {
        GroupVersionResource::new(self.group.clone(), self.version.clone(), self.resource.clone())
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.kind.group.clone(), self.kind.version.clone(), self.kind.kind.clone())
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.group.clone(), self.resource.clone())
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(self.group.clone(), self.version.clone())
    }

    pub fn namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// Group versions in discovery order, with their resources.
pub struct BuiltIn {
    /// (group, version) in the order discovery lists them.
    pub group_versions: Vec<GroupVersion>,
    pub resources: Vec<Arc<Resource>>,
    by_gvr: BTreeMap<GroupVersionResource, Arc<Resource>>,
    by_gvk: BTreeMap<GroupVersionKind, Arc<Resource>>,
}

impl BuiltIn {
    pub fn by_gvr(&self, gvr: &GroupVersionResource) -> Option<&Arc<Resource>> {
        self.by_gvr.get(gvr)
    }

    /// The resource whose objects have this kind (never a subresource's kind).
    pub fn by_gvk(&self, gvk: &GroupVersionKind) -> Option<&Arc<Resource>> {
        self.by_gvk.get(gvk)
    }
}

static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| {
    let rows: Vec<Resource> = serde_json::from_str(include_str!("../generated/resources.json"))
        .expect("the generator wrote it and a test reads it");
    let mut group_versions: Vec<GroupVersion> = Vec::new();
    let resources: Vec<Arc<Resource>> = rows.into_iter().map(Arc::new).collect();
    for row in &resources {
        if !group_versions.contains(&row.group_version()) {
            group_versions.push(row.group_version());
        }
    }
    let by_gvr = resources.iter().map(|r| (r.gvr(), r.clone())).collect();
    let by_gvk = resources.iter().map(|r| (r.gvk(), r.clone())).collect();
    BuiltIn { group_versions, resources, by_gvr, by_gvk }
});

/// The resources of Kubernetes v1.36 that a default server serves.
pub fn built_in() -> &'static BuiltIn {
    &BUILT_IN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_loads_and_knows_pods() {
        let pods = built_in().by_gvr(&GroupVersionResource::new("", "v1", "pods")).expect("pods are served");
        assert_eq!(pods.kind.kind, "Pod");
        assert!(pods.namespaced() && pods.has_verb("watch") && pods.subresource("exec").is_some());
        assert!(built_in().by_gvk(&GroupVersionKind::new("apps", "v1", "Deployment")).is_some());
    }
}
