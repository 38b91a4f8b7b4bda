//! Endpoint slices of services without a selector: what somebody wrote into their Endpoints, so that whoever follows slices (the service
//! proxy, the cluster's DNS) knows it too.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use knarr_client::events::reference_to;
use knarr_client::expectations::Expectations;
use knarr_client::{Action, Controller, Error, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::Client;
use kube::core::ObjectMeta;

use crate::context::Context;
use crate::endpoint_slices::{MANAGED_BY, Plan, SERVICE_NAME, endpoint_port, observe, ports_of, service_of};
use crate::meta;
use crate::service_endpoints::Port;

const CONTROLLER: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints alone.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// The most addresses of one subset that are mirrored: a subset is then one slice.
const CAPACITY: usize = 1000;
const BY_ENDPOINTS: &str = "mirrored";

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informers.all::<Service>();
    let endpoints = context.informers.all::<Endpoints>();
    let slices = context.informers.all::<EndpointSlice>();
    slices.add_index(BY_ENDPOINTS, |slice| service_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect());
    let client = context.client(CONTROLLER);
    let mirror = Arc::new(Mirror {
        services: services.clone(),
        endpoints: endpoints.clone(),
        slices: slices.clone(),
        recorder: context.recorder(&client, "endpoint-slice-mirroring-controller"),
        client,
        expectations: Expectations::new(),
    });
    let observing = mirror.clone();
    Controller::shared(mirror)
        .watch(&services, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&endpoints, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&slices, move |event| observe(&observing.expectations, MANAGER, event))
        .run(context.shutdown.clone())
        .await;
}

struct Mirror {
    services: Informer<Service>,
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    client: Client,
    recorder: Recorder,
    expectations: Expectations<ObjectKey>,
}

#[async_trait::async_trait]
impl Reconciler for Mirror {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let existing = self.slices.indexed(BY_ENDPOINTS, &key.to_string());
        let plan = match self.mirrored(key) {
            Some(_) if !self.expectations.satisfied(key) => return Ok(Action::Done),
            Some(endpoints) => self.plan(&endpoints, existing),
            None => {
                self.expectations.forget(key);
                Plan { delete: existing, ..Plan::default() }
            }
        };
        plan.carry_out(&self.client, key, &self.expectations).await?;
        Ok(Action::Done)
    }
}

/// What stands in the slices of one address family and one set of ports, by address.
type Group = BTreeMap<String, Endpoint>;
type Groups = BTreeMap<(&'static str, Vec<Port>), Group>;

impl Mirror {
    /// The Endpoints of that key, where they stand for themselves: of a service without a selector, and not marked as something else.
    fn mirrored(&self, key: &ObjectKey) -> Option<Arc<Endpoints>> {
        let service = self.services.get(&key.namespace, &key.name)?;
        let selects = service.spec.as_ref().is_some_and(|spec| spec.selector.is_some());
        let endpoints = self.endpoints.get(&key.namespace, &key.name)?;
        let metadata = &endpoints.metadata;
        let skipped = metadata.labels.iter().flatten().any(|(name, value)| name == SKIP_MIRROR && value == "true");
        let leads = metadata.annotations.iter().flatten().any(|(name, _)| name == LEADER);
        (!selects && !skipped && !leads && !meta::is_deleted(&*endpoints)).then_some(endpoints)
    }

    fn plan(&self, endpoints: &Endpoints, existing: Vec<Arc<EndpointSlice>>) -> Plan {
        let mut plan = Plan::default();
        let mut known: HashMap<(String, Vec<Port>), Vec<Arc<EndpointSlice>>> = HashMap::new();
        for slice in existing {
            known.entry((slice.address_type.clone(), ports_of(&slice))).or_default().push(slice);
        }
        for ((family, ports), wanted) in self.groups(endpoints) {
            let mut same = known.remove(&(family.to_owned(), ports.clone())).unwrap_or_default().into_iter();
            let mut slice = mirror(endpoints, family, &ports, wanted);
            let Some(kept) = same.next() else {
                plan.create.push(slice);
                continue;
            };
            plan.delete.extend(same);
            let told = std::mem::take(&mut slice.metadata);
            slice.metadata = kept.metadata.clone();
            slice.metadata.labels = told.labels;
            slice.metadata.annotations = told.annotations;
            slice.metadata.owner_references = told.owner_references;
            if slice != *kept {
                plan.update.push(slice);
            }
        }
        plan.delete.extend(known.into_values().flatten());
        plan
    }

    fn groups(&self, endpoints: &Endpoints) -> Groups {
        let mut groups = Groups::new();
        let mut skipped = 0;
        for subset in endpoints.subsets.iter().flatten() {
            let ports = ports(subset);
            let ready = subset.addresses.iter().flatten().map(|address| (address, true));
            let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
            for (count, (address, ready)) in ready.chain(not_ready).enumerate() {
                // Whatever is no address cannot have been written: the API has looked.
                let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
                if count >= CAPACITY {
                    skipped += 1;
                    continue;
                }
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let group = groups.entry((family, ports.clone())).or_default();
                let uid = address.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
                // One that is said to be both is not ready.
                group.insert(format!("{ip} {uid}"), endpoint(address, ip, ready));
            }
        }
        if skipped > 0 {
            self.tell_skipped(endpoints, skipped);
        }
        groups
    }

    fn tell_skipped(&self, endpoints: &Endpoints, skipped: usize) {
        let message = format!(
            "A max of {CAPACITY} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
        );
        let about = reference_to(endpoints);
        self.recorder.event(&about, EventType::Warning, "TooManyAddressesToMirror", message);
    }
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().filter(|name| !name.is_empty()),
        number: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        app_protocol: port.app_protocol.clone(),
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn mirror(endpoints: &Endpoints, family: &str, ports: &[Port], wanted: Group) -> EndpointSlice {
    let name = meta::name_of(endpoints);
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|annotation, _| !OWN_ANNOTATIONS.contains(&annotation.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![meta::controller_reference(endpoints)]),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: Some(wanted.into_values().collect()),
        ports: Some(ports.iter().map(endpoint_port).collect::<Vec<_>>()).filter(|ports| !ports.is_empty()),
    }
}
