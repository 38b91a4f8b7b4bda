//! An APIService for every group and version that is served here.
//!
//! Built-in versions are registered once at start (`automanaged: onstart`): whoever deletes or changes theirs means it. Those of
//! custom resources follow their definitions (`automanaged: true`). One without the label is its user's own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{GroupResource, GroupVersion, Object, StatusError, resource};
use serde_json::{Value, json};

use super::{Aggregator, api_services, availability, priorities};
use crate::cache::Snapshot;
use crate::health::StartStage;
use crate::objects::Objects;

const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Registered at once: the store makes one fsync of them.
const AT_ONCE: usize = 64;
const RETRY: Duration = Duration::from_secs(1);

/// How an APIService is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    OnStart,
    Always,
}

impl Keeping {
    fn label(self) -> &'static str {
        match self {
            Keeping::OnStart => "onstart",
            Keeping::Always => "true",
        }
    }

    fn of(object: &Object) -> Option<Keeping> {
        match object.metadata()?.get("labels")?.get(MANAGED)?.as_str()? {
            "onstart" => Some(Keeping::OnStart),
            "true" => Some(Keeping::Always),
            _ => None,
        }
    }
}

/// Follows definitions and APIServices.
pub(super) async fn run(aggregator: &Aggregator, registered: &StartStage) {
    let services = aggregator.registry.cache(&api_services());
    let definitions =
        aggregator.registry.cache(&GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions"));
    let mut first = true;
    loop {
        let (at_services, at_definitions) = (services.snapshot().revision, definitions.snapshot().revision);
        let wanted = wanted(&definitions.snapshot(), first);
        let stored = std::sync::Arc::clone(&services.snapshot());
        match reconcile(aggregator, &stored, &wanted, first).await {
            Ok(()) => {
                first = false;
                registered.done();
            }
            Err(error) => {
                tracing::warn!(%error, "cannot register all APIServices");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        }
        tokio::select! {
            () = services.changed_after(at_services) => {}
            () = definitions.changed_after(at_definitions) => {}
        }
    }
}

type Wanted = BTreeMap<String, (Object, Keeping)>;

fn wanted(definitions: &Snapshot, first: bool) -> Wanted {
    let mut wanted = Wanted::new();
    for version in resource::built_in().group_versions.iter().filter(|_| first) {
        // A version that has no place is not registered: it might turn out to be a custom resource's.
        if let Some(priority) = priorities::built_in(&version.group, &version.version) {
            let (name, object) = api_service(version, priority, Keeping::OnStart);
            wanted.insert(name, (object, Keeping::OnStart));
        }
    }
    for entry in definitions.entries.values() {
        for version in versions_of(&entry.object()) {
            let (name, object) = api_service(&version, priorities::CUSTOM, Keeping::Always);
            wanted.insert(name, (object, Keeping::Always));
        }
    }
    wanted
}

/// The served versions of an established definition.
fn versions_of(definition: &Object) -> Vec<GroupVersion> {
    let conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
    let established = conditions.into_iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    let served = versions.filter(|v| established && v["served"] == true);
    served.filter_map(|v| Some(GroupVersion::new(group.to_string(), v["name"].as_str()?.to_string()))).collect()
}

fn api_service(version: &GroupVersion, (group, own): (i64, i64), keeping: Keeping) -> (String, Object) {
    let name = format!("{}.{}", version.version, version.group);
    let mut spec = json!({"version": version.version, "groupPriorityMinimum": group, "versionPriority": own});
    if !version.group.is_empty() {
        spec["group"] = json!(version.group);
    }
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {MANAGED: keeping.label()}}, "spec": spec,
    });
    (name, object)
}

async fn reconcile(
    aggregator: &Aggregator,
    stored: &Snapshot,
    wanted: &Wanted,
    first: bool,
) -> Result<(), StatusError> {
    let names: std::collections::BTreeSet<&str> =
        stored.entries.keys().map(|name| &**name).chain(wanted.keys().map(String::as_str)).collect();
    let mut steps = Vec::with_capacity(names.len());
    for name in names {
        let current = stored.entries.get(name).map(|entry| entry.object());
        steps.push(reconcile_one(aggregator, name, current, wanted.get(name), first));
    }
    let mut all = stream::iter(steps).buffer_unordered(AT_ONCE);
    while let Some(done) = all.next().await {
        done?;
    }
    Ok(())
}

async fn reconcile_one(
    aggregator: &Aggregator,
    name: &str,
    current: Option<Object>,
    wanted: Option<&(Object, Keeping)>,
    first: bool,
) -> Result<(), StatusError> {
    let registry = &*aggregator.registry;
    let keeping = current.as_ref().and_then(Keeping::of);
    match (current, wanted) {
        (None, Some((object, _))) => match Objects::create(registry, &api_services(), object.clone()).await {
            Ok(_) => {}
            // Another server was faster.
            Err(error) if error.reason == Reason::AlreadyExists => {}
            Err(error) => return Err(error),
        },
        (None, None) => return Ok(()),
        (Some(current), wanted) => match (keeping, wanted) {
            (None, _) => {}
            (Some(kept), None) if kept == Keeping::Always || first => {
                return gone(Objects::delete(registry, &api_services(), "", name, json!({})).await);
            }
            (Some(_), None) => {}
            (Some(_), Some((object, keeping))) => {
                let label = &object["metadata"]["labels"][MANAGED];
                if current["spec"] != object["spec"] || current["metadata"]["labels"][MANAGED] != *label {
                    mend(aggregator, name, object, *keeping).await?;
                }
            }
        },
    }
    local(aggregator, name).await
}

fn gone<T>(result: Result<T, StatusError>) -> Result<(), StatusError> {
    match result {
        Err(error) if error.reason != Reason::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn mend(aggregator: &Aggregator, name: &str, wanted: &Object, keeping: Keeping) -> Result<(), StatusError> {
    let mut change = |object: &mut Object| {
        object["spec"] = wanted["spec"].clone();
        object["metadata"]["labels"][MANAGED] = keeping.label().into();
        Ok(())
    };
    gone(Objects::modify(&*aggregator.registry, &api_services(), "", name, &mut change).await)
}

/// What is served here is available.
async fn local(aggregator: &Aggregator, name: &str) -> Result<(), StatusError> {
    let mut change = |object: &mut Object| {
        if object["spec"].get("service").is_none_or(Value::is_null) {
            availability::set(object, "True", "Local", "Local APIServices are always available");
        }
        Ok(())
    };
    gone(Objects::modify(&*aggregator.registry, &api_services(), "", name, &mut change).await)
}
