//! Claims, volumes and attribute classes stay as long as somebody uses them: the finalizer that admission gave them goes once they are being
//! deleted and nobody does.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use knarr_client::error::found;
use knarr_client::{Action, Controller, Error, Event, Informer, ObjectKey, Reconciler, Watched};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;

use crate::context::Context;
use crate::{meta, pods};

/// Pods by the claims they name, as `namespace/name`.
const BY_CLAIM: &str = "claim";

/// Holds claims that scheduled pods use.
pub(crate) async fn claims(context: Arc<Context>) {
    let all = context.informers.all::<Pod>();
    all.add_index(BY_CLAIM, |pod| claim_names(pod).map(|name| index_key(meta::namespace_of(pod), &name)).collect());
    let client = context.client("pvc-protection-controller");
    let users = Pods { pods: all.clone(), client: client.clone() };
    let protection = Protection::<PersistentVolumeClaim>::new(&context, client, Box::new(users));
    let claims = protection.all.clone();
    Controller::new(protection)
        .watch(&claims, key)
        .watch(&all, |event| {
            let pod = event.object();
            let lets_go =
                matches!(event, Event::Deleted(_)) || pods::is_finished(pod) || pods::node_name(pod).is_none();
            let names = lets_go.then(|| claim_names(pod)).into_iter().flatten();
            names.map(|name| ObjectKey::new(meta::namespace_of(&**pod), &name)).collect()
        })
        .run(context.shutdown.clone())
        .await;
}

/// Holds volumes that are bound.
pub(crate) async fn volumes(context: Arc<Context>) {
    let client = context.client("pv-protection-controller");
    let protection = Protection::<PersistentVolume>::new(&context, client, Box::new(Binding));
    let volumes = protection.all.clone();
    Controller::new(protection).watch(&volumes, key).run(context.shutdown.clone()).await;
}

/// Holds attribute classes that claims or volumes name.
pub(crate) async fn attribute_classes(context: Arc<Context>) {
    let claims = context.informers.all::<PersistentVolumeClaim>();
    let volumes = context.informers.all::<PersistentVolume>();
    let users = ClaimsAndVolumes { claims: claims.clone(), volumes: volumes.clone() };
    let client = context.client("volumeattributesclass-protection-controller");
    let protection = Protection::<VolumeAttributesClass>::new(&context, client, Box::new(users));
    let classes = protection.all.clone();
    let named = |names: Vec<&str>| names.into_iter().map(|name| ObjectKey::new("", name)).collect();
    Controller::new(protection)
        .watch(&classes, key)
        .watch(&claims, move |event| named(event.objects().flat_map(|claim| classes_of_claim(claim)).collect()))
        .watch(&volumes, move |event| named(event.objects().filter_map(|volume| class_of_volume(volume)).collect()))
        .run(context.shutdown.clone())
        .await;
}

fn key<K: Watched>(event: &Event<K>) -> Vec<ObjectKey> {
    vec![ObjectKey::of(&**event.object())]
}

/// A kind that is held while it is used.
trait Protected: Watched + Serialize {
    /// Upstream's name of the controller, and the finalizer by which it holds.
    const NAME: &'static str;
    const FINALIZER: &'static str;

    fn api(client: &Client, namespace: &str) -> Api<Self>;
}

impl Protected for PersistentVolumeClaim {
    const NAME: &'static str = "persistentvolumeclaim-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pvc-protection";

    fn api(client: &Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client.clone(), namespace)
    }
}

impl Protected for PersistentVolume {
    const NAME: &'static str = "persistentvolume-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/pv-protection";

    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }
}

impl Protected for VolumeAttributesClass {
    const NAME: &'static str = "volumeattributesclass-protection-controller";
    const FINALIZER: &'static str = "kubernetes.io/vac-protection";

    fn api(client: &Client, _: &str) -> Api<Self> {
        Api::all(client.clone())
    }
}

/// Who may use objects of a kind.
#[async_trait]
trait Users<K>: Send + Sync {
    async fn have(&self, object: &K) -> Result<bool, Error>;
}

struct Protection<K: Watched> {
    all: Informer<K>,
    client: Client,
    users: Box<dyn Users<K>>,
}

impl<K: Protected> Protection<K> {
    fn new(context: &Context, client: Client, users: Box<dyn Users<K>>) -> Self {
        Protection { all: context.informers.all(), client, users }
    }

    async fn write(&self, object: &K, finalizers: Vec<String>) -> Result<Action, Error> {
        let mut changed = object.clone();
        changed.meta_mut().finalizers = Some(finalizers);
        let api = K::api(&self.client, meta::namespace_of(object));
        found(api.replace(meta::name_of(object), &PostParams::default(), &changed).await)?;
        Ok(Action::Done)
    }
}

#[async_trait]
impl<K: Protected> Reconciler for Protection<K> {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        K::NAME
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.all.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        let held = finalizers.iter().any(|finalizer| finalizer == K::FINALIZER);
        match meta::is_deleted(&*object) {
            true if held && !self.users.have(&object).await? => {
                finalizers.retain(|finalizer| finalizer != K::FINALIZER);
                self.write(&object, finalizers).await
            }
            // It was made while admission held nothing.
            false if !held => {
                finalizers.push(K::FINALIZER.into());
                self.write(&object, finalizers).await
            }
            _ => Ok(Action::Done),
        }
    }
}

struct Pods {
    pods: Informer<Pod>,
    client: Client,
}

#[async_trait]
impl Users<PersistentVolumeClaim> for Pods {
    async fn have(&self, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
        let namespace = meta::namespace_of(claim);
        let known = self.pods.indexed(BY_CLAIM, &index_key(namespace, meta::name_of(claim)));
        if known.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        // A pod may be too young for the cache, and its node must not find the claim gone.
        let all = Api::<Pod>::namespaced(self.client.clone(), namespace).list(&ListParams::default()).await?;
        Ok(all.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// Whether the pod has the claim. One that has no node yet does not: no kubelet starts a pod whose claim is being deleted.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let name = meta::name_of(claim);
    let own = meta::controller_of(&claim.metadata).is_some_and(|owner| owner.uid == meta::uid_of(pod));
    let over = meta::is_deleted(pod) && pod.metadata.deletion_grace_period_seconds == Some(0) && pods::is_finished(pod);
    pods::node_name(pod).is_some()
        && volumes_of(pod).any(|volume| {
            named_claim(volume) == Some(name)
                || (own && !over && ephemeral_claim(pod, volume).is_some_and(|ephemeral| ephemeral == name))
        })
}

fn volumes_of(pod: &Pod) -> impl Iterator<Item = &Volume> {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn named_claim(volume: &Volume) -> Option<&str> {
    volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str())
}

fn ephemeral_claim(pod: &Pod, volume: &Volume) -> Option<String> {
    volume.ephemeral.as_ref().map(|_| format!("{}-{}", meta::name_of(pod), volume.name))
}

fn claim_names(pod: &Pod) -> impl Iterator<Item = String> {
    volumes_of(pod).filter_map(|volume| named_claim(volume).map(String::from).or_else(|| ephemeral_claim(pod, volume)))
}

fn index_key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

struct Binding;

#[async_trait]
impl Users<PersistentVolume> for Binding {
    async fn have(&self, volume: &PersistentVolume) -> Result<bool, Error> {
        Ok(volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound"))
    }
}

struct ClaimsAndVolumes {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

#[async_trait]
impl Users<VolumeAttributesClass> for ClaimsAndVolumes {
    async fn have(&self, class: &VolumeAttributesClass) -> Result<bool, Error> {
        self.claims.synced().await;
        self.volumes.synced().await;
        let name = meta::name_of(class);
        let claimed = self.claims.list().iter().any(|claim| classes_of_claim(claim).contains(&name));
        Ok(claimed || self.volumes.list().iter().any(|volume| class_of_volume(volume) == Some(name)))
    }
}

/// The class that a claim wants, has, and is on the way to.
fn classes_of_claim(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let next = status.and_then(|status| status.modify_volume_status.as_ref());
    let target = next.and_then(|next| next.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().collect()
}

fn class_of_volume(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref())
}
