//! Cluster IPs, node ports and health check ports of services.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use knarr_api::field::{FieldError, Path};
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::validation::service;
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use super::addresses::{Addresses, Owner, Take, cluster_ips, ip_addresses};
use super::node_ports::NodePorts;
use super::ranges::{AddressRange, PortRange};
use super::{Allocator, Reservation, families};
use crate::objects::{Change, Objects};

/// How long after a change of the addresses it is looked whether they still fit the services.
const REPAIR_DELAY: Duration = Duration::from_secs(70);

/// The allocator of services.
#[derive(Clone)]
pub struct ServiceAllocator(Arc<Numbers>);

struct Numbers {
    addresses: Addresses,
    ports: NodePorts,
    objects: Arc<dyn Objects>,
    /// What failed writes give back.
    releases: TaskTracker,
}

const ALLOCATED: &str = "provided port is already allocated";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Address(IpAddr),
    /// By offset.
    Port(u64),
}

struct Taken {
    numbers: Arc<Numbers>,
    owner: Owner,
    dry_run: bool,
    /// What the owner had before this write.
    held: Vec<Number>,
    taken: Vec<Number>,
    /// What a dry run would have taken.
    asked: Vec<Number>,
    obsolete: Vec<Number>,
}

impl Taken {
    fn note_address(&mut self, address: IpAddr) {
        // A dry run has taken none.
        if !self.dry_run {
            self.taken.push(Number::Address(address));
        }
    }
}

#[async_trait]
impl Reservation for Taken {
    async fn commit(mut self: Box<Self>) {
        self.taken.clear();
        self.numbers.release(&std::mem::take(&mut self.obsolete), &self.owner).await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let (numbers, owner, taken) = (self.numbers.clone(), self.owner.clone(), std::mem::take(&mut self.taken));
        // Where no runtime is left to give them back, the next start finds them without a service.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            self.numbers.releases.spawn_on(async move { numbers.release(&taken, &owner).await }, &runtime);
        }
    }
}

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn service_type(spec: &Value) -> &str {
    match text(spec, "type") {
        "" => "ClusterIP",
        other => other,
    }
}

fn needs_address(spec: &Value) -> bool {
    service_type(spec) != "ExternalName"
}

fn needs_node_ports(spec: &Value) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

fn may_have_node_ports(spec: &Value) -> bool {
    matches!(service_type(spec), "NodePort" | "LoadBalancer")
}

fn needs_health_port(spec: &Value) -> bool {
    service_type(spec) == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

fn ports(spec: &Value) -> &[Value] {
    spec.get("ports").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn number(value: &Value, field: &str) -> i64 {
    value.get(field).and_then(Value::as_i64).unwrap_or_default()
}

impl Numbers {
    async fn release(&self, numbers: &[Number], owner: &Owner) {
        for number in numbers {
            match number {
                Number::Address(address) => self.addresses.release(*address, owner).await,
                Number::Port(offset) => self.ports.release(*offset).await,
            }
        }
    }

    /// The offsets of every port that an object has.
    fn ports_of(&self, object: &Object) -> Vec<u64> {
        let spec = &object["spec"];
        let mut used: Vec<i64> = Vec::new();
        if may_have_node_ports(spec) {
            used.extend(ports(spec).iter().map(|p| number(p, "nodePort")));
        }
        used.push(number(spec, "healthCheckNodePort"));
        let mut offsets: Vec<u64> = used.into_iter().filter_map(|port| self.ports.range.offset(port)).collect();
        offsets.sort_unstable();
        offsets.dedup();
        offsets
    }

    /// Everything an object holds.
    fn of(&self, object: &Object) -> Vec<Number> {
        let addresses = cluster_ips(object).into_iter().map(Number::Address);
        addresses.chain(self.ports_of(object).into_iter().map(Number::Port)).collect()
    }

    async fn services(&self) -> Result<Vec<Arc<Object>>, StatusError> {
        self.objects.list(&GroupResource::new("", "services"), "").await
    }

    async fn complete(&self, object: &mut Object, old: Option<&Object>, taken: &mut Taken) -> Result<(), StatusError> {
        let name = object.name().to_string();
        if needs_address(&object["spec"]) {
            normalize_addresses(object);
            let errors = service::cluster_ip_errors(object);
            if !errors.is_empty() {
                return Err(StatusError::invalid(&GroupVersionKind::new("", "v1", "Service"), &name, errors));
            }
            families::complete(object, &name, self.addresses.family())?;
            self.take_address(object, &name, taken).await?;
        }
        let had_ports = old.is_some_and(|o| may_have_node_ports(&o["spec"]));
        if needs_node_ports(&object["spec"]) || (may_have_node_ports(&object["spec"]) && !had_ports) {
            match old {
                None => self.take_new_ports(object, &name, taken).await?,
                Some(old) => self.take_changed_ports(object, old, &name, taken).await?,
            }
        }
        if needs_health_port(&object["spec"]) {
            self.take_health_port(object, taken).await?;
        }
        Ok(())
    }

    async fn take_address(&self, object: &mut Object, name: &str, taken: &mut Taken) -> Result<(), StatusError> {
        let spec = &mut object["spec"];
        if families::is_headless(spec) {
            return Ok(());
        }
        let wanted = text(spec, "clusterIP");
        if wanted.is_empty() {
            let Some(address) = self.addresses.take_any(&taken.owner, taken.dry_run).await? else {
                return Err(StatusError::internal("failed to allocate a serviceIP: range is full"));
            };
            taken.note_address(address);
            let address = address.to_string();
            spec["clusterIPs"] = json!([address]);
            spec["clusterIP"] = address.into();
            return Ok(());
        }
        // What is no address at all is the validation's to refuse.
        let Ok(address) = wanted.parse::<IpAddr>() else { return Ok(()) };
        if taken.held.contains(&Number::Address(address)) {
            return Ok(());
        }
        let why = match self.addresses.take(address, &taken.owner, taken.dry_run).await? {
            Take::Held => return Ok(()),
            Take::Taken => {
                taken.note_address(address);
                return Ok(());
            }
            Take::OutOfRange => "the provided network does not match the current range",
            Take::Anothers => "provided IP is already allocated",
        };
        let root = Path::ROOT;
        let path = root.child("spec");
        let why = format!("failed to allocate IP {address}: {why}");
        Err(invalid(name, FieldError::invalid(&path.child("clusterIPs"), &spec["clusterIPs"], why)))
    }

    /// Takes a port by its number, or says why it cannot be had.
    async fn take_port(&self, wanted: i64, taken: &mut Taken) -> Result<Result<(), String>, StatusError> {
        let Some(offset) = self.ports.range.offset(wanted) else {
            // Upstream's dry runs look only at what is taken.
            if taken.dry_run {
                return Ok(Ok(()));
            }
            let range = self.ports.range.shown();
            return Ok(Err(format!("provided port is not in the valid range. The range of valid ports is {range}")));
        };
        let number = Number::Port(offset);
        if taken.held.contains(&number) {
            return Ok(Ok(()));
        }
        // A dry run has what it asks for only for itself.
        let (free, own) = match taken.dry_run {
            true => (!self.ports.is_taken(offset).await?, &mut taken.asked),
            false => (self.ports.take(offset).await?, &mut taken.taken),
        };
        if !free || own.contains(&number) {
            return Ok(Err(ALLOCATED.into()));
        }
        own.push(number);
        Ok(Ok(()))
    }

    async fn take_any_port(&self, taken: &mut Taken) -> Result<Option<u64>, StatusError> {
        let Some(offset) = self.ports.take_any().await? else { return Ok(None) };
        taken.taken.push(Number::Port(offset));
        Ok(Some(self.ports.range.port(offset)))
    }

    /// The ports of a new service. Ports of one number are served at one node port, whatever their protocols.
    async fn take_new_ports(&self, object: &mut Object, name: &str, taken: &mut Taken) -> Result<(), StatusError> {
        let allocates = needs_node_ports(&object["spec"]);
        let given: Vec<(i64, i64)> =
            ports(&object["spec"]).iter().map(|p| (number(p, "port"), number(p, "nodePort"))).collect();
        // The first that is asked for, by the service's port.
        let mut asked: HashMap<i64, i64> = HashMap::new();
        for (port, wanted) in given.iter().filter(|(_, wanted)| *wanted != 0) {
            asked.entry(*port).or_insert(*wanted);
        }
        let mut chosen: HashMap<i64, i64> = HashMap::new();
        for (i, (port, own)) in given.iter().enumerate() {
            if *own == 0 && !allocates {
                continue;
            }
            let before = chosen.get(port).copied();
            let node_port = match (before, *own, asked.get(port)) {
                (Some(before), 0, _) => before,
                (Some(before), own, _) if before == own => continue,
                (Some(_), own, _) => self.take_asked_port(i, own, name, taken).await?,
                (None, _, Some(asked)) => self.take_asked_port(i, *asked, name, taken).await?,
                (None, _, None) => self.take_free_port(&object["spec"]["ports"][i], taken).await?,
            };
            chosen.entry(*port).or_insert(node_port);
            object["spec"]["ports"][i]["nodePort"] = node_port.into();
        }
        Ok(())
    }

    /// The ports of a changed service. One number may serve it under several protocols.
    async fn take_changed_ports(
        &self,
        object: &mut Object,
        old: &Object,
        name: &str,
        taken: &mut Taken,
    ) -> Result<(), StatusError> {
        let health = number(&old["spec"], "healthCheckNodePort");
        let allocates = needs_node_ports(&object["spec"]);
        let mut mine: Vec<(i64, String)> = Vec::new();
        for i in 0..ports(&object["spec"]).len() {
            let port = &object["spec"]["ports"][i];
            let (own, protocol) = (number(port, "nodePort"), text(port, "protocol").to_string());
            let node_port = match own {
                0 if !allocates => continue,
                0 => self.take_free_port(port, taken).await?,
                // What it is asked by stays its own, but not for this.
                _ if own == health => return Err(refused_port(i, own, name, ALLOCATED)),
                _ if mine.iter().any(|(number, _)| *number == own) => own,
                _ => self.take_asked_port(i, own, name, taken).await?,
            };
            if mine.contains(&(node_port, protocol.clone())) {
                let why = format!("duplicate nodePort: {{{protocol} {node_port}}}");
                return Err(StatusError::new(Reason::Unknown, why));
            }
            mine.push((node_port, protocol));
            object["spec"]["ports"][i]["nodePort"] = node_port.into();
        }
        Ok(())
    }

    /// Takes the node port that the port at an index asks for.
    async fn take_asked_port(
        &self,
        index: usize,
        wanted: i64,
        name: &str,
        taken: &mut Taken,
    ) -> Result<i64, StatusError> {
        match self.take_port(wanted, taken).await? {
            Ok(()) => Ok(wanted),
            Err(why) => Err(refused_port(index, wanted, name, &why)),
        }
    }

    async fn take_free_port(&self, port: &Value, taken: &mut Taken) -> Result<i64, StatusError> {
        let found = self.take_any_port(taken).await?.and_then(|port| i64::try_from(port).ok());
        found.ok_or_else(|| {
            let (protocol, number) = (text(port, "protocol"), number(port, "port"));
            let why = format!("failed to allocate a nodePort for {protocol} port {number}: range is full");
            StatusError::internal(why)
        })
    }

    async fn take_health_port(&self, object: &mut Object, taken: &mut Taken) -> Result<(), StatusError> {
        let spec = &mut object["spec"];
        let wanted = number(spec, "healthCheckNodePort");
        if wanted == 0 {
            let Some(port) = self.take_any_port(taken).await? else {
                return Err(StatusError::internal("failed to allocate a HealthCheck NodePort : range is full"));
            };
            spec["healthCheckNodePort"] = port.into();
            return Ok(());
        }
        let outcome = self.take_port(wanted, taken).await?;
        outcome.map_err(|why| {
            StatusError::internal(format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}"))
        })
    }

    /// Makes what is taken what services have; true where another look is due. Ports that nobody used the last time either are
    /// given back: a service that is on its way is there by then.
    async fn repair(&self, unused: &mut HashSet<u64>) -> Result<bool, StatusError> {
        let services = self.services().await?;
        let used: HashSet<u64> = services.iter().flat_map(|service| self.ports_of(service)).collect();
        let now_unused = self.ports.leaked(&used).await?;
        for offset in now_unused.intersection(unused) {
            self.ports.release(*offset).await;
        }
        *unused = now_unused.difference(unused).copied().collect();
        Ok(self.addresses.repair(&services).await? || !unused.is_empty())
    }
}

impl ServiceAllocator {
    /// Addresses and ports of these ranges, for the services among `objects`.
    pub fn new(addresses: AddressRange, ports: PortRange, objects: Arc<dyn Objects>) -> Self {
        let shared = objects.clone().registry().filter(|registry| registry.is_shared());
        ServiceAllocator(Arc::new(Numbers {
            addresses: Addresses::new(addresses, objects.clone()),
            ports: NodePorts::new(ports, shared.map(|registry| registry.store().clone())),
            objects,
            releases: TaskTracker::new(),
        }))
    }

    /// Takes what stored services have. Run before the first request is served.
    pub async fn load(&self) -> Result<(), StatusError> {
        let services = self.0.services().await?;
        let used = services.iter().flat_map(|service| self.0.ports_of(service)).collect();
        self.0.ports.load(&used).await?;
        self.0.addresses.repair(&services).await.map(|_| ())
    }

    /// Mends what failures left behind, until dropped: a while after addresses came or went, it is looked whether each has its
    /// service and each service its address.
    pub async fn run(&self) {
        let mut changes = self.0.objects.watch(&ip_addresses());
        let mut unused = HashSet::new();
        let mut due = Some(Instant::now() + REPAIR_DELAY);
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    None => return,
                    Some(Change::Set { old: Some(_), .. } | Change::Synced) => {}
                    Some(_) => due = due.or_else(|| Some(Instant::now() + REPAIR_DELAY)),
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let again = self.0.repair(&mut unused).await.unwrap_or_else(|error| {
                        tracing::warn!(%error, "cannot compare cluster IPs and services");
                        true
                    });
                    due = again.then(|| Instant::now() + REPAIR_DELAY);
                }
            }
        }
    }

    /// Everything that failed writes had to give back is given back.
    #[cfg(test)]
    async fn settled(&self) {
        self.0.releases.close();
        self.0.releases.wait().await;
        self.0.releases.reopen();
    }
}

fn refused_port(index: usize, port: i64, name: &str, why: &str) -> StatusError {
    let path = format!("spec.ports[{index}].nodePort");
    invalid(name, FieldError::invalid(&Path::ROOT.child(&path), &port.into(), why))
}

fn invalid(name: &str, error: FieldError) -> StatusError {
    StatusError::invalid(&GroupVersionKind::new("", "v1", "Service"), name, vec![error])
}

/// A client of an older form sets `clusterIP` only.
fn normalize_addresses(object: &mut Object) {
    let spec = &mut object["spec"];
    let address = text(spec, "clusterIP").to_string();
    let listed = spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    if !address.is_empty() && !listed {
        spec["clusterIPs"] = json!([address]);
    }
}

#[async_trait]
impl Allocator for ServiceAllocator {
    fn handles(&self, resource: &GroupResource) -> bool {
        resource.group.is_empty() && resource.resource == "services"
    }

    async fn begin(
        &self,
        object: &mut Object,
        old: Option<&Object>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, StatusError> {
        if !object["spec"].is_object() {
            return Ok(None);
        }
        let held = old.map(|o| self.0.of(o)).unwrap_or_default();
        let mut taken = Taken {
            numbers: self.0.clone(),
            owner: Owner::of(object),
            dry_run,
            held,
            taken: Vec::new(),
            asked: Vec::new(),
            obsolete: Vec::new(),
        };
        self.0.complete(object, old, &mut taken).await?;
        if dry_run {
            // It has seen what it would get.
            self.0.release(&std::mem::take(&mut taken.taken), &taken.owner).await;
            return Ok(None);
        }
        let now = self.0.of(object);
        taken.obsolete = taken.held.iter().copied().filter(|n| !now.contains(n)).collect();
        Ok(Some(Box::new(taken)))
    }

    async fn released(&self, object: &Object) {
        self.0.release(&self.0.of(object), &Owner::of(object)).await;
    }
}

#[cfg(test)]
mod tests;
