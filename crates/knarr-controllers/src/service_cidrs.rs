//! A ServiceCIDR may be used once it is protected by a finalizer, and goes when no address of it is left without another range.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "service-cidrs-controller";
const MANAGER: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// So long the allocators may not have heard of a deletion, and hand out an address of the range.
const GRACE: Duration = Duration::from_secs(10);

pub(crate) async fn run(context: Arc<Context>) {
    let cidrs = context.informers.all::<ServiceCIDR>();
    let addresses = context.informers.all::<IPAddress>();
    let loop_ = ServiceCidrs { cidrs: cidrs.clone(), addresses: addresses.clone(), client: context.client(CONTROLLER) };
    let (all, leaving) = (cidrs.clone(), cidrs.clone());
    Controller::new(loop_)
        // A range that comes or goes may be what another waits for.
        .watch(&cidrs, move |event| match event {
            Event::Updated { new, .. } => vec![meta::name_of(&**new).to_string()],
            _ => names(&all, |_| true),
        })
        .watch(&addresses, move |event| match event {
            Event::Deleted(_) => names(&leaving, meta::is_deleted),
            _ => Vec::new(),
        })
        .run(context.shutdown.clone())
        .await;
}

fn names(cidrs: &Informer<ServiceCIDR>, wanted: impl Fn(&ServiceCIDR) -> bool) -> Vec<String> {
    let wanted = cidrs.list().into_iter().filter(|cidr| wanted(cidr));
    wanted.map(|cidr| meta::name_of(&*cidr).to_string()).collect()
}

struct ServiceCidrs {
    cidrs: Informer<ServiceCIDR>,
    addresses: Informer<IPAddress>,
    client: Client,
}

fn networks(cidr: &ServiceCIDR) -> Vec<IpNet> {
    let texts = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn has_finalizer(cidr: &ServiceCIDR) -> bool {
    cidr.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

#[async_trait::async_trait]
impl Reconciler for ServiceCidrs {
    type Key = String;

    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(cidr) = self.cidrs.get("", name) else { return Ok(Action::Done) };
        match cidr.metadata.deletion_timestamp.as_ref() {
            Some(since) => self.let_go(&cidr, since.0).await,
            None => self.protect(&cidr).await,
        }
    }
}

impl ServiceCidrs {
    fn api(&self) -> Api<ServiceCIDR> {
        Api::all(self.client.clone())
    }

    async fn protect(&self, cidr: &ServiceCIDR) -> Result<Action, Error> {
        if !has_finalizer(cidr) {
            self.patch(cidr, json!({"metadata": {"finalizers": [FINALIZER]}})).await?;
        }
        self.say(cidr, "True", "", "Kubernetes Service CIDR is ready").await
    }

    async fn let_go(&self, cidr: &ServiceCIDR, since: Timestamp) -> Result<Action, Error> {
        if !self.may_go(cidr) {
            let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
            return self.say(cidr, "False", "Terminating", why).await;
        }
        let waited = Timestamp::now().duration_since(since);
        if let Some(left) = GRACE.checked_sub(waited.unsigned_abs()).filter(|left| !left.is_zero()) {
            return Ok(Action::RequeueAfter(left));
        }
        if has_finalizer(cidr) {
            self.patch(cidr, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}})).await?;
        }
        Ok(Action::Done)
    }

    /// Whether every address of the range is also in another, or there is none.
    fn may_go(&self, cidr: &ServiceCIDR) -> bool {
        let name = meta::name_of(cidr);
        let all = self.cidrs.list();
        let others: Vec<IpNet> =
            all.iter().filter(|c| meta::name_of(&***c) != name).flat_map(|c| networks(c)).collect();
        let own = networks(cidr);
        if own.iter().all(|network| others.iter().any(|other| other.contains(network))) {
            return true;
        }
        let managed = |address: &IPAddress| {
            address.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|by| by == ALLOCATOR)
        };
        let addresses = self.addresses.list().into_iter().filter(|address| managed(address));
        let mut addresses = addresses.filter_map(|address| meta::name_of(&*address).parse::<std::net::IpAddr>().ok());
        !addresses.any(|address| {
            own.iter().any(|network| network.contains(&address))
                && !others.iter().any(|network| network.contains(&address))
        })
    }

    async fn patch(&self, cidr: &ServiceCIDR, patch: Value) -> Result<(), Error> {
        let patched = self.api().patch(meta::name_of(cidr), &PatchParams::default(), &Patch::Strategic(patch)).await;
        match patched.map_err(Error::from) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// States the condition `Ready`, unless it says so already.
    async fn say(&self, cidr: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<Action, Error> {
        let conditions = cidr.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let said = conditions.filter(|c| c.type_ == "Ready");
        if said.into_iter().any(|c| (&*c.status, &*c.reason, &*c.message) == (status, reason, message)) {
            return Ok(Action::Done);
        }
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now});
        let apply = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": meta::name_of(cidr)}, "status": {"conditions": [condition]}});
        let params = PatchParams::apply(MANAGER).force();
        self.api().patch_status(meta::name_of(cidr), &params, &Patch::Apply(apply)).await?;
        Ok(Action::Done)
    }
}
