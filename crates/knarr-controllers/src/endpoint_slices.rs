//! Endpoint slices: what stands behind a service, a hundred endpoints an object, so that one pod's change is a small write.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use knarr_client::error::found;
use knarr_client::expectations::Expectations;
use knarr_client::{Action, Controller, Error, Event, Informer, ObjectKey, Reconciler};
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::context::Context;
use crate::service_endpoints::{self as behind, Port};
use crate::{meta, pods};

const CONTROLLER: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The most endpoints one slice lists.
const CAPACITY: usize = 100;
const BY_SERVICE: &str = "service";

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informers.all::<Service>();
    let pods = context.informers.all::<Pod>();
    let nodes = context.informers.all::<Node>();
    let slices = context.informers.all::<EndpointSlice>();
    slices.add_index(BY_SERVICE, |slice| service_of(slice, MANAGER).map(|key| key.to_string()).into_iter().collect());
    let loop_ = Arc::new(Slices {
        services: services.clone(),
        pods: pods.clone(),
        nodes: nodes.clone(),
        slices: slices.clone(),
        client: context.client(CONTROLLER),
        expectations: Expectations::new(),
    });
    let observing = loop_.clone();
    let all = services.clone();
    Controller::shared(loop_)
        .after(&nodes)
        .watch(&services, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&pods, move |event| behind::services_of(&all, event))
        .watch(&slices, move |event| observe(&observing.expectations, MANAGER, event))
        .run(context.shutdown.clone())
        .await;
}

struct Slices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    client: Client,
    expectations: Expectations<ObjectKey>,
}

/// The service of a slice that `manager` manages.
pub(crate) fn service_of(slice: &EndpointSlice, manager: &str) -> Option<ObjectKey> {
    let labels =
        slice.metadata.labels.as_ref().filter(|labels| labels.get(MANAGED_BY).is_some_and(|m| m == manager))?;
    Some(ObjectKey::new(meta::namespace_of(slice), labels.get(SERVICE_NAME)?))
}

#[async_trait::async_trait]
impl Reconciler for Slices {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return Ok(Action::Done);
        };
        if behind::selector(&service).is_none() || meta::is_deleted(&*service) || !self.expectations.satisfied(key) {
            return Ok(Action::Done);
        }
        let existing = self.slices.indexed(BY_SERVICE, &key.to_string());
        let mut plan = Plan::default();
        for family in families(&service) {
            let ours = existing.iter().filter(|slice| slice.address_type == family && !meta::is_deleted(&***slice));
            self.plan(&service, family, ours.cloned().collect(), &mut plan);
        }
        plan.carry_out(&self.client, key, &self.expectations).await?;
        Ok(Action::Done)
    }
}

/// The slices to write, to make and to delete.
#[derive(Default)]
pub(crate) struct Plan {
    pub update: Vec<EndpointSlice>,
    pub create: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

impl Plan {
    /// Does it for the service of that key; what is created is expected until it has been seen.
    pub async fn carry_out(
        self,
        client: &Client,
        key: &ObjectKey,
        expectations: &Expectations<ObjectKey>,
    ) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(client.clone(), &key.namespace);
        for slice in &self.update {
            api.replace(meta::name_of(slice), &PostParams::default(), slice).await?;
        }
        if !self.create.is_empty() {
            expectations.expect_creations(key, self.create.len());
        }
        for (made, slice) in self.create.iter().enumerate() {
            if let Err(error) = api.create(&PostParams::default(), slice).await {
                (made..self.create.len()).for_each(|_| expectations.creation_observed(key));
                return Err(error.into());
            }
        }
        for slice in &self.delete {
            found(api.delete(meta::name_of(&**slice), &DeleteParams::default()).await)?;
        }
        Ok(())
    }
}

/// The keys of services whose slices an event concerns; a slice that came is one less to expect.
pub(crate) fn observe(
    expectations: &Expectations<ObjectKey>,
    manager: &str,
    event: &Event<EndpointSlice>,
) -> Vec<ObjectKey> {
    let keys: Vec<_> = event.objects().filter_map(|slice| service_of(slice, manager)).collect();
    if let (Event::Added(_), Some(key)) = (event, keys.first()) {
        expectations.creation_observed(key);
    }
    keys
}

fn families(service: &Service) -> Vec<&'static str> {
    let named = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    match named {
        [] => vec!["IPv4"],
        named => named.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect(),
    }
}

impl Slices {
    fn plan(&self, service: &Service, family: &str, existing: Vec<Arc<EndpointSlice>>, plan: &mut Plan) {
        let mut groups: BTreeMap<Vec<Port>, BTreeMap<String, Endpoint>> = BTreeMap::new();
        for pod in behind::pods_behind(&self.pods, service) {
            if let Some(address) = behind::address(&pod, family == "IPv6") {
                let endpoint = self.endpoint(service, &pod, address);
                let group = groups.entry(behind::ports(service, &pod)).or_default();
                group.insert(meta::uid_of(&*pod).to_string(), endpoint);
            }
        }
        if groups.is_empty() {
            // An empty slice says that nobody is there, which is more than saying nothing.
            groups.insert(Vec::new(), BTreeMap::new());
        }
        let mut by_ports: HashMap<Vec<Port>, Vec<Arc<EndpointSlice>>> = HashMap::new();
        for slice in existing {
            by_ports.entry(ports_of(&slice)).or_default().push(slice);
        }
        for (ports, wanted) in groups {
            let mut known = by_ports.remove(&ports).unwrap_or_default();
            known.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            pack(service, family, &ports, wanted, known, plan);
        }
        plan.delete.extend(by_ports.into_values().flatten());
    }

    fn endpoint(&self, service: &Service, pod: &Pod, address: String) -> Endpoint {
        let anyway = behind::publishes_not_ready(service);
        let terminating = meta::is_deleted(pod);
        let serving = pods::is_ready(pod);
        let zone = pods::node_name(pod).and_then(|node| self.nodes.get("", node));
        let zone = zone.and_then(|node| node.metadata.labels.as_ref()?.get(ZONE).cloned());
        Endpoint {
            addresses: vec![address],
            conditions: Some(EndpointConditions {
                ready: Some(anyway || (serving && !terminating)),
                serving: Some(serving),
                terminating: Some(terminating),
            }),
            hostname: behind::hostname(service, pod),
            node_name: pods::node_name(pod).map(str::to_string),
            target_ref: Some(behind::target_ref(pod)),
            zone,
            ..Endpoint::default()
        }
    }
}

/// Lets every endpoint stay in its slice, fills the gaps with new ones, and puts the rest into new slices.
fn pack(
    service: &Service,
    family: &str,
    ports: &[Port],
    mut wanted: BTreeMap<String, Endpoint>,
    known: Vec<Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let somebody = !wanted.is_empty();
    let none_known = known.is_empty();
    let mut kept: Vec<(Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in known {
        let uids = slice.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref()?.uid.clone());
        let staying: Vec<_> = uids.filter_map(|uid| wanted.remove(&uid)).collect();
        kept.push((slice, staying));
    }
    let mut new = wanted.into_values().peekable();
    for (position, (slice, mut endpoints)) in kept.into_iter().enumerate() {
        while endpoints.len() < CAPACITY && new.peek().is_some() {
            endpoints.extend(new.next());
        }
        if endpoints.is_empty() && (somebody || position > 0) {
            plan.delete.push(slice);
            continue;
        }
        let mut updated = (*slice).clone();
        // No list and an empty one are the same to the API.
        if updated.endpoints.is_some() || !endpoints.is_empty() {
            updated.endpoints = Some(endpoints);
        }
        updated.metadata.labels = Some(labels(service));
        if updated != *slice {
            plan.update.push(updated);
        }
    }
    while new.peek().is_some() {
        let endpoints: Vec<_> = new.by_ref().take(CAPACITY).collect();
        plan.create.push(slice(service, family, ports, endpoints));
    }
    if none_known && plan.create.is_empty() {
        plan.create.push(slice(service, family, ports, Vec::new()));
    }
}

fn slice(service: &Service, family: &str, ports: &[Port], endpoints: Vec<Endpoint>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", meta::name_of(service))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![meta::controller_reference(service)]),
            ..ObjectMeta::default()
        },
        address_type: family.into(),
        endpoints: Some(endpoints),
        ports: Some(ports.iter().map(endpoint_port).collect::<Vec<_>>()).filter(|ports| !ports.is_empty()),
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), meta::name_of(service).into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if behind::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels
}

pub(crate) fn endpoint_port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.number),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    }
}

pub(crate) fn ports_of(slice: &EndpointSlice) -> Vec<Port> {
    let mut ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| Port {
            name: port.name.clone().filter(|name| !name.is_empty()),
            number: port.port.unwrap_or(0),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
            app_protocol: port.app_protocol.clone(),
        })
        .collect();
    ports.sort();
    ports
}
