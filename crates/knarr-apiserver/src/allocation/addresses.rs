//! Cluster IPs. An address is taken by creating the IPAddress of its name: of several servers, only one can.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::ranges::AddressRange;
use crate::cache::Cache;
use crate::objects::Objects;

const GROUP: &str = "networking.k8s.io";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";

/// An address without its service is given so much time: the service may be on its way into the store.
const GRACE_SECONDS: i64 = 60;

/// A service, as what belongs to it names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

impl Owner {
    pub fn of(service: &Object) -> Self {
        Owner { namespace: service.namespace().into(), name: service.name().into() }
    }

    fn of_address(address: &Object) -> Option<Self> {
        let parent = address.pointer("/spec/parentRef")?;
        let text = |field: &str| parent.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        (text("resource") == "services" && text("group").is_empty())
            .then(|| Owner { namespace: text("namespace"), name: text("name") })
    }
}

/// What became of an attempt to take an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    Taken,
    /// It is this owner's already.
    Held,
    Anothers,
    OutOfRange,
}

pub struct Addresses {
    /// Of `--service-cidr`.
    own: AddressRange,
    objects: Arc<dyn Objects>,
    /// The IPAddresses that this server knows of; `None` over objects that are no registry's.
    known: Option<Arc<Cache>>,
}

pub fn ip_addresses() -> GroupResource {
    GroupResource::new(GROUP, "ipaddresses")
}

/// The cluster IPs that a service has, `None` among them not.
pub fn cluster_ips(service: &Object) -> Vec<IpAddr> {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return Vec::new();
    }
    let listed = spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten();
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in listed.chain(spec.get("clusterIP")).filter_map(Value::as_str) {
        addresses.extend(text.parse::<IpAddr>().ok().filter(|address| !addresses.contains(address)));
    }
    addresses
}

impl Addresses {
    pub fn new(own: AddressRange, objects: Arc<dyn Objects>) -> Self {
        let known = objects.clone().registry().map(|registry| registry.cache(&ip_addresses()));
        Addresses { own, objects, known }
    }

    pub fn family(&self) -> &'static str {
        self.own.family()
    }

    /// The configured range, and those of every ServiceCIDR that is ready.
    async fn ranges(&self) -> Result<Vec<AddressRange>, StatusError> {
        let mut ranges = vec![self.own];
        for cidr in self.objects.list(&GroupResource::new(GROUP, "servicecidrs"), "").await? {
            if !is_ready(&cidr) {
                continue;
            }
            let networks = cidr.pointer("/spec/cidrs").and_then(Value::as_array).into_iter().flatten();
            let networks = networks.filter_map(|network| network.as_str()?.parse().ok()).map(AddressRange::new);
            ranges.extend(networks.filter(|range| range.family() == self.family() && *range != self.own));
        }
        Ok(ranges)
    }

    /// Takes this address; a dry run only says whether it could.
    pub async fn take(&self, address: IpAddr, owner: &Owner, dry_run: bool) -> Result<Take, StatusError> {
        if !self.ranges().await?.iter().any(|range| range.offset(address).is_some()) {
            return Ok(Take::OutOfRange);
        }
        if !dry_run && self.create(address, owner).await? {
            return Ok(Take::Taken);
        }
        let current = self.objects.get(&ip_addresses(), "", &address.to_string()).await?;
        Ok(match current {
            None => Take::Taken,
            Some(current) if Owner::of_address(&current).as_ref() == Some(owner) => Take::Held,
            Some(_) => Take::Anothers,
        })
    }

    /// Takes any free address: from the upper bands first (KEP-3070), beginning anywhere. `None`: all are taken.
    pub async fn take_any(&self, owner: &Owner, dry_run: bool) -> Result<Option<IpAddr>, StatusError> {
        for range in self.ranges().await? {
            for band in [range.band()..range.size(), 0..range.band()] {
                for offset in from_anywhere(band) {
                    let address = range.address(offset);
                    if !self.is_known(address).await? && (dry_run || self.create(address, owner).await?) {
                        return Ok(Some(address));
                    }
                }
            }
        }
        Ok(None)
    }

    async fn is_known(&self, address: IpAddr) -> Result<bool, StatusError> {
        let name = address.to_string();
        match &self.known {
            Some(known) => Ok(known.snapshot().get(&name).is_some()),
            None => Ok(self.objects.get(&ip_addresses(), "", &name).await?.is_some()),
        }
    }

    /// Whether the address was free and now is the owner's.
    async fn create(&self, address: IpAddr, owner: &Owner) -> Result<bool, StatusError> {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": address.to_string(), "labels": {FAMILY: family, MANAGED_BY: ALLOCATOR}},
            "spec": {"parentRef": {"resource": "services", "namespace": owner.namespace, "name": owner.name}},
        });
        match self.objects.create(&ip_addresses(), object).await {
            Ok(_) => Ok(true),
            Err(error) if error.reason == Reason::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives an address back, if it is this owner's.
    pub async fn release(&self, address: IpAddr, owner: &Owner) {
        let name = address.to_string();
        let released = match self.objects.get(&ip_addresses(), "", &name).await {
            Ok(Some(current)) if Owner::of_address(&current).as_ref() == Some(owner) => self.delete(&current).await,
            Ok(_) => return,
            Err(error) => Err(error),
        };
        if let Err(error) = released {
            tracing::warn!(%error, name, "cannot release a cluster IP; it is tried again later");
        }
    }

    /// Deletes this very IPAddress.
    async fn delete(&self, address: &Object) -> Result<(), StatusError> {
        let options = json!({"preconditions": {"uid": address.uid()}});
        match self.objects.delete(&ip_addresses(), "", address.name(), options).await {
            Err(error) if error.reason != Reason::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes IPAddresses say what services have. True where something is left that may mend itself.
    pub async fn repair(&self, services: &[Arc<Object>]) -> Result<bool, StatusError> {
        let mut missing: HashMap<String, Owner> = HashMap::new();
        for service in services {
            for address in cluster_ips(service) {
                if let Some(other) = missing.insert(address.to_string(), Owner::of(service)) {
                    tracing::warn!(%address, ?other, service = ?Owner::of(service), "two services have the same address");
                }
            }
        }
        let mut later = false;
        for address in self.objects.list(&ip_addresses(), "").await? {
            let owner = Owner::of_address(&address);
            let managed = address.pointer("/metadata/labels").is_some_and(|labels| labels[MANAGED_BY] == ALLOCATOR);
            match missing.get(address.name()) {
                Some(service) if owner.as_ref() == Some(service) => drop(missing.remove(address.name())),
                // Nobody's: the service may be on its way.
                _ if managed && is_older_than_grace(&address) => self.delete(&address).await?,
                _ => later |= managed,
            }
        }
        for (address, owner) in missing {
            if let Ok(address) = address.parse() {
                later |= !self.create(address, &owner).await?;
            }
        }
        Ok(later)
    }
}

/// All offsets of a band, from one that is picked at random.
fn from_anywhere(band: Range<u64>) -> impl Iterator<Item = u64> {
    let size = (band.end - band.start).max(1);
    let start = band.start + (uuid::Uuid::new_v4().as_u128() % u128::from(size)) as u64;
    (start..band.end).chain(band.start..start.min(band.end))
}

fn is_ready(cidr: &Object) -> bool {
    let conditions = cidr.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    !cidr.is_deleting() && conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn is_older_than_grace(object: &Object) -> bool {
    let created = object.meta_str("creationTimestamp").parse::<Timestamp>();
    created.is_ok_and(|created| Timestamp::now().as_second() - created.as_second() > GRACE_SECONDS)
}
