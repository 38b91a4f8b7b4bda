//! Cluster IPs, node ports and health check ports of services.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::field::{FieldError, Path};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::pool::Pool;
use super::ranges::{AddressRange, PortRange};
use super::{Allocator, Reservation, families};
use crate::objects::Objects;

struct Pools {
    addresses: Pool,
    ports: Pool,
}

/// The allocator of services. What is taken is what stored services have: it is read at start and kept by their writes.
pub struct ServiceAllocator {
    addresses: AddressRange,
    ports: PortRange,
    pools: Arc<Mutex<Pools>>,
}

/// A number of one of the pools, by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Address(u64),
    Port(u64),
}

fn release(pools: &mut Pools, number: Number, owner: &str) {
    match number {
        Number::Address(n) => pools.addresses.release(n, owner),
        Number::Port(n) => pools.ports.release(n, owner),
    }
}

struct Taken {
    pools: Arc<Mutex<Pools>>,
    owner: String,
    taken: Vec<Number>,
    obsolete: Vec<Number>,
}

impl Reservation for Taken {
    fn commit(mut self: Box<Self>) {
        self.taken = std::mem::take(&mut self.obsolete);
        // Dropping gives back what is obsolete.
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut pools = self.pools.lock();
        for number in self.taken.drain(..) {
            release(&mut pools, number, &self.owner);
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

fn owner(object: &Object) -> String {
    format!("{}/{}", object.namespace(), object.name())
}

impl ServiceAllocator {
    pub fn new(addresses: AddressRange, ports: PortRange) -> Self {
        let pools = Pools {
            addresses: Pool::new(addresses.size(), addresses.band()),
            ports: Pool::new(ports.size(), ports.band()),
        };
        ServiceAllocator { addresses, ports, pools: Arc::new(Mutex::new(pools)) }
    }

    /// Takes what stored services have. Run before the first request is served.
    pub async fn load(&self, objects: &dyn Objects) -> Result<(), StatusError> {
        let services = objects.list(&GroupResource::new("", "services"), "").await?;
        let mut pools = self.pools.lock();
        for service in services {
            let owner = owner(&service);
            for number in self.numbers(&service) {
                let taken = match number {
                    Number::Address(n) => pools.addresses.take(n, &owner),
                    Number::Port(n) => pools.ports.take(n, &owner),
                };
                if !taken {
                    tracing::warn!(service = owner, ?number, "a stored service has an address or port of another");
                }
            }
        }
        Ok(())
    }

    /// Everything an object holds.
    fn numbers(&self, object: &Object) -> Vec<Number> {
        let spec = &object["spec"];
        let mut out = Vec::new();
        if needs_address(spec) {
            let listed =
                spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let first = Some(text(spec, "clusterIP"));
            for address in listed.chain(first) {
                let offset = address.parse().ok().and_then(|a| self.addresses.offset(a)).map(Number::Address);
                out.extend(offset.filter(|n| !out.contains(n)));
            }
        }
        let mut used: Vec<i64> = Vec::new();
        if may_have_node_ports(spec) {
            used.extend(ports(spec).iter().map(|p| number(p, "nodePort")));
        }
        used.push(number(spec, "healthCheckNodePort"));
        for port in used {
            let offset = self.ports.offset(port).map(Number::Port);
            out.extend(offset.filter(|n| !out.contains(n)));
        }
        out
    }

    fn complete(&self, object: &mut Object, old: Option<&Object>, taken: &mut Taken) -> Result<(), StatusError> {
        let name = object.name().to_string();
        if needs_address(&object["spec"]) {
            normalize_addresses(object);
            families::complete(object, &name, self.addresses.family())?;
            self.take_address(object, &name, taken)?;
        }
        let had_ports = old.is_some_and(|o| may_have_node_ports(&o["spec"]));
        if needs_node_ports(&object["spec"]) || (may_have_node_ports(&object["spec"]) && !had_ports) {
            self.take_ports(object, &name, taken)?;
        }
        if needs_health_port(&object["spec"]) {
            self.take_health_port(object, taken)?;
        }
        Ok(())
    }

    fn take_address(&self, object: &mut Object, name: &str, taken: &mut Taken) -> Result<(), StatusError> {
        let spec = &mut object["spec"];
        if families::is_headless(spec) {
            return Ok(());
        }
        let mut pools = self.pools.lock();
        let wanted = text(spec, "clusterIP");
        if wanted.is_empty() {
            let Some(offset) = pools.addresses.take_any(&taken.owner) else {
                return Err(StatusError::internal("failed to allocate a serviceIP: range is full"));
            };
            taken.taken.push(Number::Address(offset));
            let address = self.addresses.address(offset).to_string();
            spec["clusterIP"] = address.clone().into();
            spec["clusterIPs"] = json!([address]);
            return Ok(());
        }
        // What is no address at all is the validation's to refuse.
        let Ok(address) = wanted.parse::<IpAddr>() else { return Ok(()) };
        let why = match self.addresses.offset(address) {
            None => format!(
                "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
                self.addresses.shown()
            ),
            Some(offset) if pools.addresses.available(offset, &taken.owner) => {
                if pools.addresses.take(offset, &taken.owner) {
                    taken.taken.push(Number::Address(offset));
                }
                return Ok(());
            }
            Some(_) => "provided IP is already allocated".to_string(),
        };
        let root = Path::ROOT;
        let path = root.child("spec");
        let why = format!("failed to allocate IP {address}: {why}");
        Err(invalid(name, FieldError::invalid(&path.child("clusterIPs"), &spec["clusterIPs"], why)))
    }

    fn take_ports(&self, object: &mut Object, name: &str, taken: &mut Taken) -> Result<(), StatusError> {
        let root = Path::ROOT;
        let spec_path = root.child("spec");
        let ports_path = spec_path.child("ports");
        let allocates = needs_node_ports(&object["spec"]);
        let mut pools = self.pools.lock();
        // One number may serve one service under several protocols.
        let mut mine: Vec<(i64, String)> = Vec::new();
        let Some(list) = object["spec"]["ports"].as_array_mut() else { return Ok(()) };
        for (i, port) in list.iter().enumerate().filter(|(_, p)| number(p, "nodePort") != 0) {
            let wanted = number(port, "nodePort");
            let protocol = text(port, "protocol").to_string();
            let shared = mine.iter().any(|(n, p)| *n == wanted && *p != protocol);
            let why = match self.ports.offset(wanted) {
                None => format!(
                    "provided port is not in the valid range. The range of valid ports is {}",
                    self.ports.shown()
                ),
                Some(_) if mine.contains(&(wanted, protocol.clone())) => "provided port is already allocated".into(),
                Some(offset) if shared || pools.ports.available(offset, &taken.owner) => {
                    if !shared && pools.ports.take(offset, &taken.owner) {
                        taken.taken.push(Number::Port(offset));
                    }
                    mine.push((wanted, protocol));
                    continue;
                }
                Some(_) => "provided port is already allocated".into(),
            };
            let path = ports_path.index(i);
            return Err(invalid(name, FieldError::invalid(&path.child("nodePort"), &port["nodePort"], why)));
        }
        for port in list.iter_mut().filter(|p| allocates && number(p, "nodePort") == 0) {
            let (number_of_port, protocol) = (number(port, "port"), text(port, "protocol").to_string());
            let Some(offset) = pools.ports.take_any(&taken.owner) else {
                return Err(StatusError::internal(format!(
                    "failed to allocate a nodePort for {protocol} port {number_of_port}: range is full"
                )));
            };
            taken.taken.push(Number::Port(offset));
            port["nodePort"] = self.ports.port(offset).into();
        }
        Ok(())
    }

    fn take_health_port(&self, object: &mut Object, taken: &mut Taken) -> Result<(), StatusError> {
        let spec = &mut object["spec"];
        let wanted = number(spec, "healthCheckNodePort");
        let mut pools = self.pools.lock();
        if wanted == 0 {
            let Some(offset) = pools.ports.take_any(&taken.owner) else {
                return Err(StatusError::internal("failed to allocate a HealthCheck NodePort : range is full"));
            };
            taken.taken.push(Number::Port(offset));
            spec["healthCheckNodePort"] = self.ports.port(offset).into();
            return Ok(());
        }
        let why = match self.ports.offset(wanted) {
            None => {
                format!("provided port is not in the valid range. The range of valid ports is {}", self.ports.shown())
            }
            Some(offset) if pools.ports.take(offset, &taken.owner) => {
                taken.taken.push(Number::Port(offset));
                return Ok(());
            }
            Some(_) => "provided port is already allocated".into(),
        };
        Err(StatusError::internal(format!("failed to allocate requested HealthCheck NodePort {wanted}: {why}")))
    }
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

/// What an update leaves out of the numbers it was given before is as it was.
fn carry_over(object: &mut Object, old: &Object) {
    let (spec, before) = (&mut object["spec"], &old["spec"]);
    if needs_address(before) && needs_address(spec) {
        if text(spec, "clusterIP").is_empty() {
            spec["clusterIP"] = before["clusterIP"].clone();
        }
        let listed = spec.get("clusterIPs").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
        if !listed && spec["clusterIP"] == before["clusterIP"] {
            spec["clusterIPs"] = before["clusterIPs"].clone();
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field).is_none_or(Value::is_null) && before.get(field).is_some() {
                spec[field] = before[field].clone();
            }
        }
    }
    if needs_node_ports(before) && needs_node_ports(spec) {
        carry_over_ports(spec, before);
    }
    if needs_health_port(before) && needs_health_port(spec) && number(spec, "healthCheckNodePort") == 0 {
        spec["healthCheckNodePort"] = before["healthCheckNodePort"].clone();
    }
}

fn carry_over_ports(spec: &mut Value, before: &Value) {
    let mut used: Vec<i64> = ports(spec).iter().map(|p| number(p, "nodePort")).filter(|n| *n != 0).collect();
    let Some(list) = spec["ports"].as_array_mut() else { return };
    for port in list.iter_mut().filter(|p| number(p, "nodePort") == 0) {
        let same =
            |p: &&Value| number(p, "port") == number(port, "port") && text(p, "protocol") == text(port, "protocol");
        let held = ports(before).iter().find(same).map(|p| number(p, "nodePort")).unwrap_or_default();
        if held != 0 && !used.contains(&held) {
            used.push(held);
            port["nodePort"] = held.into();
        }
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
        if let Some(old) = old {
            carry_over(object, old);
        }
        let mut taken =
            Taken { pools: self.pools.clone(), owner: owner(object), taken: Vec::new(), obsolete: Vec::new() };
        let held = old.map(|o| self.numbers(o)).unwrap_or_default();
        let outcome = self.complete(object, old, &mut taken);
        // What the service held before is not this write's to give back if it fails.
        taken.taken.retain(|n| !held.contains(n));
        outcome?;
        let now = self.numbers(object);
        taken.obsolete = held.into_iter().filter(|n| !now.contains(n)).collect();
        // A dry run has seen what it would get; dropping the reservation gives it back.
        Ok((!dry_run).then(|| Box::new(taken) as Box<dyn Reservation>))
    }

    fn released(&self, object: &Object) {
        let owner = owner(object);
        let mut pools = self.pools.lock();
        for number in self.numbers(object) {
            release(&mut pools, number, &owner);
        }
    }
}

#[cfg(test)]
mod tests;
