//! The end of a namespace: everything in it is deleted, kind by kind as discovery tells them, and then its finalizer is taken off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use knarr_client::{Action, Controller, Error, Informer, Reconciler};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};

use crate::context::Context;
use crate::discovery::{self, Discovered};
use crate::meta;

const CONTROLLER: &str = "namespace-controller";
const FINALIZER: &str = "kubernetes";
/// How soon to look again at content that is still going away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: Arc<Context>) {
    let namespaces = context.informers.all::<Namespace>();
    let loop_ = Namespaces { namespaces: namespaces.clone(), client: context.client(CONTROLLER) };
    Controller::new(loop_)
        .watch(&namespaces, |event| match meta::is_deleted(&**event.object()) {
            true => vec![meta::name_of(&**event.object()).to_string()],
            false => Vec::new(),
        })
        .workers(10)
        .run(context.shutdown.clone())
        .await;
}

struct Namespaces {
    namespaces: Informer<Namespace>,
    client: Client,
}

/// What is left of a namespace's content after an attempt to delete it.
#[derive(Default)]
struct Remains {
    /// How many objects of each resource.
    objects: BTreeMap<String, usize>,
    /// How many objects carry each finalizer.
    finalizers: BTreeMap<String, usize>,
    discovery_failures: Vec<String>,
    deletion_failures: Vec<String>,
}

#[async_trait::async_trait]
impl Reconciler for Namespaces {
    type Key = String;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(namespace) = self.namespaces.get("", name) else { return Ok(Action::Done) };
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_deref()).unwrap_or_default();
        if !meta::is_deleted(&*namespace) || !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Action::Done);
        }
        let namespace = self.mark_terminating(&namespace).await?;
        let remains = self.delete_content(name).await;
        let namespace = self.write_conditions(namespace, &remains).await?;
        if !remains.deletion_failures.is_empty() || !remains.discovery_failures.is_empty() {
            let failures = [remains.discovery_failures, remains.deletion_failures].concat();
            return Err(Error::other(failures.join(", ")));
        }
        if !remains.objects.is_empty() {
            return Ok(Action::RequeueAfter(LOOK_AGAIN));
        }
        self.finalize(namespace).await?;
        Ok(Action::Done)
    }
}

impl Namespaces {
    fn api(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    async fn mark_terminating(&self, namespace: &Namespace) -> Result<Namespace, Error> {
        let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Terminating") {
            return Ok(namespace.clone());
        }
        let mut updated = namespace.clone();
        updated.status.get_or_insert_default().phase = Some("Terminating".into());
        Ok(self.api().replace_status(meta::name_of(namespace), &PostParams::default(), &updated).await?)
    }

    async fn delete_content(&self, namespace: &str) -> Remains {
        let mut remains = Remains::default();
        let (resources, failures) = discovery::preferred_resources(&self.client).await;
        remains.discovery_failures = failures;
        // Pods first: what they use (a token, a configuration, a policy that guards them) must not go from under them.
        let (pods, others): (Vec<_>, Vec<_>) =
            resources.iter().filter(|resource| resource.namespaced).partition(|resource| is_pods(&resource.kind));
        for stage in [pods, others] {
            for resource in stage {
                if let Err(error) = self.delete_all_of(namespace, resource, &mut remains).await {
                    remains.deletion_failures.push(crate::replicas::describe(&error));
                }
            }
            if !remains.objects.is_empty() {
                break;
            }
        }
        remains
    }

    async fn delete_all_of(&self, namespace: &str, resource: &Discovered, remains: &mut Remains) -> Result<(), Error> {
        if !resource.can("list") || !(resource.can("delete") || resource.can("deletecollection")) {
            return Ok(());
        }
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource.kind);
        if list(&api).await?.is_empty() {
            return Ok(());
        }
        if resource.can("deletecollection") {
            api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        } else {
            for object in list(&api).await? {
                let name = object.metadata.name.as_deref().unwrap_or_default();
                knarr_client::error::found(api.delete(name, &DeleteParams::background()).await)?;
            }
        }
        remains.count(&resource.kind, &list(&api).await?);
        Ok(())
    }

    async fn write_conditions(&self, namespace: Namespace, remains: &Remains) -> Result<Namespace, Error> {
        let mut updated = namespace.clone();
        let conditions = updated.status.get_or_insert_default().conditions.get_or_insert_default();
        for (kind, status, reason, message) in remains.conditions() {
            set_condition(conditions, kind, status, reason, message);
        }
        if updated == namespace {
            return Ok(namespace);
        }
        Ok(self.api().replace_status(meta::name_of(&namespace), &PostParams::default(), &updated).await?)
    }

    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let name = meta::name_of(&namespace).to_string();
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let result = self.api().replace_subresource("finalize", &name, &PostParams::default(), &namespace).await;
        knarr_client::error::found(result)?;
        Ok(())
    }
}

fn is_pods(kind: &ApiResource) -> bool {
    kind.group.is_empty() && kind.plural == "pods"
}

async fn list(api: &Api<DynamicObject>) -> Result<Vec<PartialObjectMeta<DynamicObject>>, Error> {
    match api.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // The resource went away, or cannot be listed after all: nothing of it holds the namespace.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

impl Remains {
    fn count(&mut self, kind: &ApiResource, left: &[PartialObjectMeta<DynamicObject>]) {
        if left.is_empty() {
            return;
        }
        let resource = match kind.group.as_str() {
            "" => format!("{}.", kind.plural),
            group => format!("{}.{group}", kind.plural),
        };
        *self.objects.entry(resource).or_default() += left.len();
        for finalizer in left.iter().flat_map(|object| object.metadata.finalizers.iter().flatten()) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// Type, status, reason and message of every condition of a namespace's end.
    fn conditions(&self) -> [(&'static str, &'static str, &'static str, String); 5] {
        let told = |counts: &BTreeMap<String, usize>, text: fn(&str, usize) -> String| {
            counts.iter().map(|(name, count)| text(name, *count)).collect::<Vec<_>>().join(", ")
        };
        let failures = |all: &[String], what: &str| format!("{what}, {all}", all = all.join(", "));
        let discovery = match self.discovery_failures.as_slice() {
            [] => ("False", "ResourcesDiscovered", "All resources successfully discovered".to_string()),
            all => ("True", "DiscoveryFailed", failures(all, "Discovery failed for some groups")),
        };
        let deletion = match self.deletion_failures.as_slice() {
            [] if self.objects.is_empty() => {
                ("False", "ContentDeleted", "All content successfully deleted".to_string())
            }
            [] => (
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".to_string(),
            ),
            all => ("True", "ContentDeletionFailed", failures(all, "Failed to delete all resource types")),
        };
        let remaining = match self.objects.is_empty() {
            true => ("False", "ContentRemoved", "All content successfully removed".to_string()),
            false => {
                let list = told(&self.objects, |name, count| format!("{name} has {count} resource instances"));
                ("True", "SomeResourcesRemain", format!("Some resources are remaining: {list}"))
            }
        };
        let finalizers = match self.finalizers.is_empty() {
            true => ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished".to_string()),
            false => {
                let list = told(&self.finalizers, |name, count| format!("{name} in {count} resource instances"));
                (
                    "True",
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {list}"),
                )
            }
        };
        let parsed = ("False", "ParsedGroupVersions", "All legacy kube types successfully parsed".to_string());
        [
            ("NamespaceDeletionDiscoveryFailure", discovery.0, discovery.1, discovery.2),
            ("NamespaceDeletionGroupVersionParsingFailure", parsed.0, parsed.1, parsed.2),
            ("NamespaceDeletionContentFailure", deletion.0, deletion.1, deletion.2),
            ("NamespaceContentRemaining", remaining.0, remaining.1, remaining.2),
            ("NamespaceFinalizersRemaining", finalizers.0, finalizers.1, finalizers.2),
        ]
    }
}

fn set_condition(conditions: &mut Vec<NamespaceCondition>, kind: &str, status: &str, reason: &str, message: String) {
    let known = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let transition = match &known {
        Some(known) if known.status == status => known.last_transition_time.clone(),
        _ => Some(meta::now()),
    };
    let condition = NamespaceCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_transition_time: transition,
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}
