//! Whether the servers of remote APIServices answer.
//!
//! One task a remote APIService: it looks when something that it depends on changes, and every now and then besides, since a network
//! can break without any object changing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use knarr_api::{GroupResource, GroupVersion, Object, StatusError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::documents::{self, Document};
use super::services::{ApiService, Remote};
use super::{Aggregator, api_services, forward};
use crate::authentication::User;
use crate::objects::Objects;
use crate::outbound::{Limits, resolve};
use crate::registry::commit::now_text;

/// Upstream looks again this often.
const PERIOD: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const CHECK_LIMITS: Limits = Limits { timeout: Duration::from_secs(5), size: 4 << 20 };
/// Endpoints tried at once; one that answers is enough.
const ATTEMPTS: usize = 5;

/// As whom the aggregator itself asks.
pub(super) fn aggregator_user() -> User {
    User::new("system:kube-aggregator", &["system:masters"])
}

/// Follows the APIServices: starts a watcher for each remote one and ends it with it.
pub(super) async fn run(aggregator: &Arc<Aggregator>, stop: CancellationToken) {
    let _ended = stop.clone().drop_guard();
    let cache = aggregator.registry.cache(&api_services());
    let watchers = TaskTracker::new();
    let mut running: HashMap<GroupVersion, (Remote, CancellationToken)> = HashMap::new();
    loop {
        let revision = cache.snapshot().revision;
        let services = aggregator.services();
        running.retain(|version, (remote, token)| {
            let same = services.remote.get(version).is_some_and(|s| s.remote.as_ref() == Some(remote));
            if !same {
                token.cancel();
                documents::forget(aggregator, version);
            }
            same
        });
        for (version, service) in &services.remote {
            if let (false, Some(remote)) = (running.contains_key(version), &service.remote) {
                let token = stop.child_token();
                running.insert(version.clone(), (remote.clone(), token.clone()));
                let watcher =
                    Watcher { aggregator: aggregator.clone(), service: service.clone(), remote: remote.clone() };
                watchers.spawn(async move { token.run_until_cancelled(watcher.run()).await });
            }
        }
        cache.changed_after(revision).await;
    }
}

/// Watches over one remote APIService.
struct Watcher {
    aggregator: Arc<Aggregator>,
    service: Arc<ApiService>,
    remote: Remote,
}

/// What an APIService's condition says.
struct Verdict {
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Watcher {
    async fn run(self) {
        let mut retry = FIRST_RETRY;
        loop {
            let seen = self.dependencies();
            let verdict = self.check().await;
            let available = verdict.status == "True";
            if let Err(error) = self.tell(verdict).await {
                tracing::debug!(%error, service = self.service.name, "cannot write the APIService's status");
            }
            self.fetch(available).await;
            retry = if available { FIRST_RETRY } else { (retry * 2).min(PERIOD) };
            let wait = if available { PERIOD } else { retry };
            let _ = tokio::time::timeout(wait, self.changed(&seen)).await;
        }
    }

    /// The revisions of the service and of its slices.
    fn dependencies(&self) -> Vec<u64> {
        let registry = &self.aggregator.registry;
        let service = &self.remote.service;
        let services = registry.cache(&GroupResource::new("", "services"));
        let slices = registry.cache(&GroupResource::new("discovery.k8s.io", "endpointslices"));
        let own = services.snapshot().get(&format!("{}/{}", service.namespace, service.name)).map(|e| e.revision);
        let snapshot = slices.snapshot();
        let of_service = snapshot.range(&service.namespace, None).filter(|entry| {
            entry.labels.iter().any(|(k, v)| &**k == "kubernetes.io/service-name" && **v == *service.name)
        });
        own.into_iter().chain([0]).chain(of_service.map(|e| e.revision)).collect()
    }

    async fn changed(&self, seen: &[u64]) {
        let registry = &self.aggregator.registry;
        let services = registry.cache(&GroupResource::new("", "services"));
        let slices = registry.cache(&GroupResource::new("discovery.k8s.io", "endpointslices"));
        loop {
            let (at_services, at_slices) = (services.snapshot().revision, slices.snapshot().revision);
            if self.dependencies() != seen {
                return;
            }
            tokio::select! {
                () = services.changed_after(at_services) => {}
                () = slices.changed_after(at_slices) => {}
            }
        }
    }

    async fn check(&self) -> Verdict {
        let no = |reason, message| Verdict { status: "False", reason, message };
        let (name, namespace) = (&self.remote.service.name, &self.remote.service.namespace);
        let registry = &*self.aggregator.registry;
        let service = match Objects::get(registry, &GroupResource::new("", "services"), namespace, name).await {
            Ok(Some(service)) => service,
            Ok(None) => {
                return no("ServiceNotFound", format!("service/{name} in \"{namespace}\" is not present"));
            }
            Err(error) => {
                let message = format!("service/{name} in \"{namespace}\" cannot be checked due to: {error}");
                return Verdict { status: "Unknown", reason: "ServiceAccessError", message };
            }
        };
        if service["spec"]["type"].as_str().unwrap_or("ClusterIP") == "ClusterIP"
            && let Err((reason, message)) = self.check_endpoints(&service).await
        {
            return no(reason, message);
        }
        match self.check_discovery().await {
            Ok(()) => Verdict { status: "True", reason: "Passed", message: "all checks passed".into() },
            Err(why) => no("FailedDiscoveryCheck", why),
        }
    }

    async fn check_endpoints(&self, service: &Object) -> Result<(), (&'static str, String)> {
        let reference = &self.remote.service;
        let (name, namespace) = (&reference.name, &reference.namespace);
        let port = resolve::port(service, reference).map_err(|_| {
            let message = format!("service/{name} in \"{namespace}\" is not listening on port {}", reference.port);
            ("ServicePortError", message)
        })?;
        let port_name = port["name"].as_str().unwrap_or_default();
        let slices = resolve::slices_of(&*self.aggregator.registry, reference).await.map_err(|error| {
            let message = format!("service/{name} in \"{namespace}\" cannot be checked due to: {error}");
            ("EndpointsAccessError", message)
        })?;
        let of_service = |s: &&Arc<Object>| s["metadata"]["labels"]["kubernetes.io/service-name"] == name.as_str();
        if !slices.iter().any(|s| of_service(&s)) {
            let message = format!("cannot find endpointslices for service/{name} in \"{namespace}\"");
            return Err(("EndpointsNotFound", message));
        }
        if resolve::ready_endpoints(&slices, name, port_name).is_empty() {
            let message = format!(
                "endpointslices for service/{name} in \"{namespace}\" have no addresses with port name {port_name:?}"
            );
            return Err(("MissingEndpoints", message));
        }
        Ok(())
    }

    /// Any endpoint that answers to its discovery path will do.
    async fn check_discovery(&self) -> Result<(), String> {
        let mut attempts: FuturesUnordered<_> = (0..ATTEMPTS).map(|_| self.ask_endpoint()).collect();
        let mut last = Ok(());
        while let Some(result) = attempts.next().await {
            if result.is_ok() {
                return Ok(());
            }
            last = result;
        }
        last
    }

    async fn ask_endpoint(&self) -> Result<(), String> {
        let endpoint = self.aggregator.outbound.resolve(&self.remote.service).await;
        let (host, port) = endpoint.map_err(|error| error.to_string())?;
        let client = self.aggregator.client_at(&self.remote, &host, port).map_err(|error| error.to_string())?;
        let path = format!("/apis/{}", self.service.version);
        let url = client.url(&path);
        let failing = |why: String| format!("failing or missing response from {url}: {why}");
        let answer = client.get_with(&path, headers("application/json"), CHECK_LIMITS).await;
        let code = answer.map_err(|error| failing(error.to_string()))?.status();
        if code.is_success() { Ok(()) } else { Err(failing(format!("bad status from {url}: {}", code.as_u16()))) }
    }

    async fn tell(&self, verdict: Verdict) -> Result<(), StatusError> {
        let mut change = |object: &mut Object| {
            set(object, verdict.status, verdict.reason, &verdict.message);
            Ok(())
        };
        let registry = &*self.aggregator.registry;
        registry.modify_status(&api_services(), &self.service.name, &mut change).await.map(|_| ())
    }

    /// Renews what discovery and OpenAPI show; what was there before stays, marked as old.
    async fn fetch(&self, available: bool) {
        let version = &self.service.version;
        let before = self.aggregator.document(version);
        let fresh = match (available, self.aggregator.client(&self.remote)) {
            (true, Ok(client)) => documents::fetch(&client, version, before.as_deref()).await,
            _ => None,
        };
        let document = fresh.unwrap_or_else(|| before.as_deref().map(Document::stale).unwrap_or_default());
        documents::remember(&self.aggregator, version, document);
    }
}

/// The headers of the aggregator's own requests.
pub(super) fn headers(accept: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::ACCEPT, http::HeaderValue::from_static(accept));
    forward::set_identity(&mut headers, &aggregator_user());
    headers
}

/// Sets the condition `Available`; its time changes with its status.
pub(super) fn set(object: &mut Object, status: &str, reason: &str, message: &str) {
    if !object["status"]["conditions"].is_array() {
        object["status"] = json!({"conditions": []});
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    let mut condition: Value = json!({
        "type": "Available", "status": status, "lastTransitionTime": now_text(), "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|c| c["type"] == "Available") {
        Some(current) => {
            if current["status"] == status {
                condition["lastTransitionTime"] = current["lastTransitionTime"].take();
            }
            *current = condition;
        }
        None => conditions.push(condition),
    }
}
