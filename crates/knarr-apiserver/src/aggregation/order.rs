//! All groups and versions in the order in which discovery shows them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use knarr_api::GroupVersion;

use super::{ApiServices, priorities};
use crate::discovery::version_order;
use crate::registry::Table;

/// The group of APIServices has none itself and comes first.
const REGISTRATION: &str = "apiregistration.k8s.io";
const FIRST: i64 = 20_001;

/// A group with its versions, the preferred first.
#[derive(Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    pub versions: Vec<Version>,
}

/// A version of a group.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    pub name: String,
    /// An aggregated server has it.
    pub remote: bool,
}

type Priority = (i64, i64);

/// What is served here and elsewhere.
pub fn groups(table: &Table, services: &ApiServices) -> Vec<Group> {
    let mut versions: BTreeMap<GroupVersion, Priority> = BTreeMap::new();
    for served in &table.rows {
        let version = served.resource.group_version();
        versions.entry(version).or_insert_with_key(|version| own_priority(version, services));
    }
    for (version, service) in &services.remote {
        versions.insert(version.clone(), (service.group_priority, service.version_priority));
    }
    let mut groups: BTreeMap<String, Vec<(GroupVersion, Priority)>> = BTreeMap::new();
    for (version, priority) in versions {
        groups.entry(version.group.to_string()).or_default().push((version, priority));
    }
    // Sorting is stable: groups of one priority stay in the order of their names.
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, versions)| Reverse(versions.iter().map(|(_, priority)| priority.0).max()));
    groups.into_iter().map(|(name, versions)| group(name, versions, services)).collect()
}

fn own_priority(version: &GroupVersion, services: &ApiServices) -> Priority {
    if version.group == REGISTRATION {
        return (FIRST, 0);
    }
    match services.by_version.get(version) {
        Some(service) => (service.group_priority, service.version_priority),
        None => priorities::built_in(&version.group, &version.version).unwrap_or(priorities::CUSTOM),
    }
}

fn group(name: String, mut versions: Vec<(GroupVersion, Priority)>, services: &ApiServices) -> Group {
    versions.sort_by_key(|(version, priority)| Reverse((priority.1, version_order(&version.version))));
    let version = |(version, _): (GroupVersion, Priority)| Version {
        remote: services.remote.contains_key(&version),
        name: version.version.into_owned(),
    };
    Group { name, versions: versions.into_iter().map(version).collect() }
}
