//! Which pods stand behind a service, and on which ports: what [`crate::endpoints`] and [`crate::endpoint_slices`] both write down.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerPort, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use knarr_client::{Event, Informer, ObjectKey};

use crate::{meta, pods};

/// A port of a service as one pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Port {
    pub name: Option<String>,
    pub number: i32,
    pub protocol: String,
    pub app_protocol: Option<String>,
}

/// The services whose endpoints an event of a pod may change.
pub(crate) fn services_of(services: &Informer<Service>, event: &Event<Pod>) -> Vec<ObjectKey> {
    if let Event::Updated { old, new } = event
        && !matters(old, new)
    {
        return Vec::new();
    }
    let mut keys = Vec::new();
    for pod in event.objects() {
        for service in services.in_namespace(meta::namespace_of(&**pod)) {
            if selector(&service).is_some_and(|wanted| meta::contains_labels(wanted, pod.metadata.labels.as_ref())) {
                keys.push(ObjectKey::of(&*service));
            }
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

/// Whether a pod changed in anything that endpoints tell of.
fn matters(old: &Pod, new: &Pod) -> bool {
    let told = |pod: &Pod| {
        let place = (pods::node_name(pod).map(str::to_string), pod.metadata.labels.clone(), pod.metadata.uid.clone());
        (addresses(pod), pods::is_ready(pod), pods::is_finished(pod), meta::is_deleted(pod), place)
    };
    told(old) != told(new)
}

/// The selector of a service that has one and is not a mere name for something outside.
pub(crate) fn selector(service: &Service) -> Option<&std::collections::BTreeMap<String, String>> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() != Some("ExternalName"))?;
    spec.selector.as_ref().filter(|selector| !selector.is_empty())
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true)
}

/// The pods that the service selects, have an address and have not finished, by name.
pub(crate) fn pods_behind(pods: &Informer<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    let Some(wanted) = selector(service) else { return Vec::new() };
    let mut behind = pods.in_namespace(meta::namespace_of(service));
    behind.retain(|pod| {
        meta::contains_labels(wanted, pod.metadata.labels.as_ref())
            && !pods::is_finished(pod)
            && !addresses(pod).is_empty()
    });
    behind.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    behind
}

pub(crate) fn addresses(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut all: Vec<String> =
        status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).filter(|ip| !ip.is_empty()).collect();
    if all.is_empty() {
        all.extend(status.pod_ip.clone().filter(|ip| !ip.is_empty()));
    }
    all
}

/// The address of that family, if the pod has one.
pub(crate) fn address(pod: &Pod, ipv6: bool) -> Option<String> {
    addresses(pod).into_iter().find(|ip| ip.contains(':') == ipv6)
}

/// The service's ports as `pod` serves them, in order; a named target port that the pod lacks is left out.
pub(crate) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let declared = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let mut ports: Vec<Port> = declared
        .iter()
        .filter_map(|port| {
            Some(Port {
                name: port.name.clone(),
                number: target(port, pod)?,
                protocol: protocol(port.protocol.as_deref()).into(),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort();
    ports
}

fn protocol(given: Option<&str>) -> &str {
    given.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let all = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let fits = |candidate: &&ContainerPort| {
                candidate.name.as_ref() == Some(name)
                    && protocol(candidate.protocol.as_deref()) == protocol(port.protocol.as_deref())
            };
            all.into_iter().find(fits).map(|found| found.container_port)
        }
    }
}

/// The pod's host name where the service makes it a name of its own.
pub(crate) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| *subdomain == meta::name_of(service));
    subdomain.and(spec.hostname.clone()).filter(|hostname| !hostname.is_empty())
}

pub(crate) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
