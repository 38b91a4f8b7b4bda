//! Resource quotas: `status.used` is what the namespace's objects really use.
//!
//! Admission counts what comes; this loop counts again when something goes, when a quota changes, and every few minutes. It watches
//! only namespaces that have a quota, and there only the resources that the quotas name ([`census`]).

mod census;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Written;
use knarr_api::quantity::Quantity;
use knarr_api::quota::{Quota, Usage};
use knarr_client::{Action, Controller, Error, Event, Informer, ObjectKey, Reconciler, WorkQueue};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::Context;
use crate::meta;
use census::Census;

const CONTROLLER: &str = "resourcequota-controller";
/// How often everything is counted again, whatever was seen.
const RESYNC: Duration = Duration::from_secs(300);
/// How long a quota must have been left alone before its usage is lowered: what admission has counted may not be visible yet.
const SETTLING: Duration = Duration::from_millis(200);
/// Under a steady stream of creations the usage is lowered all the same after this long.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(context: Arc<Context>) {
    let quotas = context.informers.all::<ResourceQuota>();
    let client = context.client(CONTROLLER);
    let queue = WorkQueue::new();
    let census = Census::new(client.clone(), quotas.clone(), queue.clone(), context.shutdown.clone());
    let loop_ = Arc::new(Quotas { quotas: quotas.clone(), client, census, charged: Mutex::default() });
    let (later, observing) = (queue.clone(), loop_.clone());
    Controller::with_queue(loop_.clone(), queue)
        .watch(&quotas, move |event| {
            let key = ObjectKey::of(&**event.object());
            match event {
                Event::Updated { old, new } if old.spec == new.spec => {
                    observing.note_charge(&key);
                    later.add_after(key, SETTLING);
                    Vec::new()
                }
                _ => vec![key],
            }
        })
        .run(context.shutdown.clone())
        .await;
    loop_.census.stopped().await;
}

struct Quotas {
    quotas: Informer<ResourceQuota>,
    client: Client,
    census: Census,
    charged: Mutex<HashMap<ObjectKey, Charged>>,
}

/// When a quota's status was written, since it was last found right.
#[derive(Clone, Copy)]
struct Charged {
    first: Instant,
    last: Instant,
}

#[async_trait::async_trait]
impl Reconciler for Quotas {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(object) = self.quotas.get(&key.namespace, &key.name) else {
            self.charged.lock().remove(key);
            self.census.release_unneeded();
            return Ok(Action::Done);
        };
        let quota =
            Quota::of(&knarr_client::kinds::to_tree(&*object).map_err(|error| Error::other(error.to_string()))?);
        let used = self.census.usage(&key.namespace, &quota).await?;
        let status = object.status.as_ref();
        let known = amounts(status.and_then(|status| status.used.as_ref()));
        let hard_known = amounts(status.and_then(|status| status.hard.as_ref())) == quota.hard;
        if hard_known && known == used {
            self.charged.lock().remove(key);
            return Ok(Action::RequeueAfter(RESYNC));
        }
        if known.iter().any(|(name, before)| used.get(name).is_some_and(|now| now < before)) && self.is_unsettled(key) {
            return Ok(Action::RequeueAfter(SETTLING));
        }
        self.write(&object, &used).await?;
        Ok(Action::RequeueAfter(RESYNC))
    }
}

impl Quotas {
    fn note_charge(&self, key: &ObjectKey) {
        let now = Instant::now();
        self.charged.lock().entry(key.clone()).or_insert(Charged { first: now, last: now }).last = now;
    }

    fn is_unsettled(&self, key: &ObjectKey) -> bool {
        let charged = self.charged.lock().get(key).copied();
        charged.is_some_and(|charged| charged.last.elapsed() < SETTLING && charged.first.elapsed() < PATIENCE)
    }

    /// Written against the revision that was counted against: a charge in between is a conflict, and another count.
    async fn write(&self, object: &ResourceQuota, used: &Usage) -> Result<(), Error> {
        let hard = object.spec.as_ref().and_then(|spec| spec.hard.clone());
        let used: BTreeMap<_, _> =
            used.iter().map(|(name, amount)| (name.clone(), Written(amount.to_string()))).collect();
        let status = ResourceQuotaStatus { hard, used: Some(used) };
        let updated = ResourceQuota { status: Some(status), ..object.clone() };
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), meta::namespace_of(object));
        let written = api.replace_status(meta::name_of(object), &PostParams::default(), &updated).await;
        knarr_client::error::found(written)?;
        Ok(())
    }
}

fn amounts(written: Option<&BTreeMap<String, Written>>) -> Usage {
    let parsed = |(name, amount): (&String, &Written)| Some((name.clone(), amount.0.parse::<Quantity>().ok()?));
    written.into_iter().flatten().filter_map(parsed).collect()
}
