//! Object metadata as control loops read and write it: owners, selectors, times.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time};
use knarr_client::{Error, ObjectKey};
use kube::Resource;
use kube::core::{ObjectMeta, Selector, SelectorExt};

/// The index of objects by the UID of their controller.
pub(crate) const BY_CONTROLLER: &str = "controller-uid";
/// The index of objects without a controller, by namespace.
pub(crate) const ORPHANS: &str = "orphans";

pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

pub(crate) fn controller_uid<K: Resource>(object: &K) -> Vec<String> {
    controller_of(object.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
}

pub(crate) fn orphan_namespace<K: Resource>(object: &K) -> Vec<String> {
    match controller_of(object.meta()) {
        Some(_) => Vec::new(),
        None => vec![object.meta().namespace.clone().unwrap_or_default()],
    }
}

/// The key of the controller of `object`, if that is a `K`.
pub(crate) fn controller_key<K: Resource<DynamicType = ()>>(object: &ObjectMeta) -> Option<ObjectKey> {
    let owner = controller_of(object)
        .filter(|owner| owner.kind == K::kind(&()) && group_of(&owner.api_version) == K::group(&()))?;
    Some(ObjectKey::new(object.namespace.as_deref().unwrap_or_default(), &owner.name))
}

pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The reference that makes `owner` the controller of what carries it.
pub(crate) fn controller_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    let meta = owner.meta();
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A label selector made ready to match; an object with an invalid one cannot be worked with.
pub(crate) fn selector_of(selector: &LabelSelector) -> Result<Selector, Error> {
    Selector::try_from(selector.clone()).map_err(|error| Error::other(format!("invalid label selector: {error}")))
}

pub(crate) fn selects(selector: &Selector, meta: &ObjectMeta) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// Whether every pair of `wanted` is among `labels`.
pub(crate) fn contains_labels(wanted: &BTreeMap<String, String>, labels: Option<&BTreeMap<String, String>>) -> bool {
    wanted.iter().all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
}

pub(crate) fn is_deleted<K: Resource>(object: &K) -> bool {
    object.meta().deletion_timestamp.is_some()
}

pub(crate) fn name_of<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace_of<K: Resource>(object: &K) -> &str {
    object.meta().namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid_of<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

pub(crate) fn annotation<'a, K: Resource>(object: &'a K, key: &str) -> Option<&'a str> {
    object.meta().annotations.as_ref()?.get(key).map(String::as_str)
}

/// Now, to the second, as the API keeps times.
pub(crate) fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).expect("the current second is a valid timestamp"))
}

/// How long ago `time` was; zero if it is yet to come.
pub(crate) fn since(time: &Time) -> std::time::Duration {
    std::time::Duration::try_from(Timestamp::now().duration_since(time.0)).unwrap_or_default()
}
