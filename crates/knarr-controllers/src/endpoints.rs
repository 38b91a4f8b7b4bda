//! Endpoints: the older list of what stands behind a service, one object a service.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use knarr_client::error::found;
use knarr_client::{Action, Controller, Error, Informer, ObjectKey, Reconciler};
use kube::api::{DeleteParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::context::Context;
use crate::service_endpoints::{self as behind, Port};
use crate::{meta, pods};

const CONTROLLER: &str = "endpoint-controller";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses one object lists.
const CAPACITY: usize = 1000;

pub(crate) async fn run(context: Arc<Context>) {
    let services = context.informers.all::<Service>();
    let pods = context.informers.all::<Pod>();
    let endpoints = context.informers.all::<Endpoints>();
    let loop_ = EndpointsLoop {
        services: services.clone(),
        pods: pods.clone(),
        endpoints: endpoints.clone(),
        client: context.client(CONTROLLER),
    };
    let all = services.clone();
    Controller::new(loop_)
        .watch(&services, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&pods, move |event| behind::services_of(&all, event))
        .watch(&endpoints, |event| vec![ObjectKey::of(&**event.object())])
        .run(context.shutdown.clone())
        .await;
}

struct EndpointsLoop {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for EndpointsLoop {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let known = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            let ours = known.is_some_and(|known| {
                known.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY))
            });
            if ours {
                found(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            return Ok(Action::Done);
        };
        if behind::selector(&service).is_none() {
            return Ok(Action::Done);
        }
        let wanted = self.wanted(&service, known.as_deref());
        match known {
            Some(known) if *known == wanted => {}
            Some(_) => drop(api.replace(&key.name, &PostParams::default(), &wanted).await?),
            None => drop(api.create(&PostParams::default(), &wanted).await?),
        }
        Ok(Action::Done)
    }
}

impl EndpointsLoop {
    fn wanted(&self, service: &Service, known: Option<&Endpoints>) -> Endpoints {
        let mut metadata = known.map(|known| known.metadata.clone()).unwrap_or_else(|| ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        });
        let mut labels = service.metadata.labels.clone().unwrap_or_default();
        labels.insert(MANAGED_BY.into(), CONTROLLER.into());
        if behind::is_headless(service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        metadata.labels = Some(labels);
        let (subsets, truncated) = self.subsets(service);
        if truncated {
            metadata.annotations.get_or_insert_default().insert(OVER_CAPACITY.into(), "truncated".into());
        } else if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(OVER_CAPACITY);
        }
        Endpoints { metadata, subsets: Some(subsets).filter(|subsets| !subsets.is_empty()) }
    }

    /// Pods grouped by the ports they serve, and whether some had to be left out.
    fn subsets(&self, service: &Service) -> (Vec<EndpointSubset>, bool) {
        let tolerate_unready = behind::publishes_not_ready(service);
        let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
        let ipv6 = families.first().is_some_and(|family| family == "IPv6");
        let mut groups: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
        let (mut count, mut truncated) = (0, false);
        for pod in behind::pods_behind(&self.pods, service) {
            if meta::is_deleted(&*pod) && !tolerate_unready {
                continue;
            }
            let ports = behind::ports(service, &pod);
            let portless = ports.is_empty() && !behind::is_headless(service);
            let Some(ip) = behind::address(&pod, ipv6).filter(|_| !portless) else { continue };
            if count == CAPACITY {
                truncated = true;
                break;
            }
            count += 1;
            let (ready, not_ready) = groups.entry(ports).or_default();
            let side = if tolerate_unready || pods::is_ready(&pod) { ready } else { not_ready };
            side.push(EndpointAddress {
                ip,
                hostname: behind::hostname(service, &pod),
                node_name: pods::node_name(&pod).map(str::to_string),
                target_ref: Some(behind::target_ref(&pod)),
            });
        }
        (groups.into_iter().map(subset).collect(), truncated)
    }
}

fn subset((ports, (ready, not_ready)): (Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>))) -> EndpointSubset {
    let listed = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(addresses).filter(|addresses| !addresses.is_empty())
    };
    let ports = ports.into_iter().map(|port| EndpointPort {
        name: port.name,
        port: port.number,
        protocol: Some(port.protocol),
        app_protocol: port.app_protocol,
    });
    EndpointSubset {
        addresses: listed(ready),
        not_ready_addresses: listed(not_ready),
        ports: Some(ports.collect::<Vec<_>>()).filter(|ports| !ports.is_empty()),
    }
}
