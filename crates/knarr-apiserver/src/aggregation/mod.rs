//! API servers behind this one: APIServices, what is known of their servers, and the way to them.
//!
//! Every group and version that is served here has an APIService of its own ([`registration`]); one that names a service is served
//! by that service. [`services`] reads the stored APIServices, [`availability`] watches over the remote ones and fetches what
//! discovery and OpenAPI show of them, [`order`] says in which order groups and versions are shown, and [`forward`] passes requests
//! on under the front proxy's identity.
//!
//! Invariants: a client's credentials never leave; a remote server that fails or lies costs its own paths and nothing else; while
//! no APIService is remote a request costs two pointer loads.

mod availability;
mod documents;
mod forward;
mod openapi_v2;
pub mod order;
mod priorities;
mod registration;
mod services;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use knarr_api::{GroupResource, GroupVersion};
use knarr_pki::KeyedCertificate;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use documents::Document;
pub use forward::serve;
pub use services::{ApiService, ApiServices};

use crate::cache::Derived;
use crate::health::StartStage;
use crate::outbound::{Client, OpenError, Outbound, Route, ServiceReference, Target, TlsOptions};
use crate::registry::Registry;

/// The aggregator of one server.
pub struct Aggregator {
    registry: Arc<Registry>,
    outbound: Outbound,
    /// What this server shows the others; they believe its headers for that.
    identity: Option<KeyedCertificate>,
    services: Derived<ApiServices>,
    documents: ArcSwap<HashMap<GroupVersion, Arc<Document>>>,
    sessions: TaskTracker,
}

fn api_services() -> GroupResource {
    GroupResource::new("apiregistration.k8s.io", "apiservices")
}

impl Aggregator {
    pub fn new(registry: Arc<Registry>, identity: Option<KeyedCertificate>) -> Arc<Self> {
        let services = Derived::new(registry.cache(&api_services()), services::compile);
        Arc::new(Aggregator {
            outbound: Outbound::new(registry.clone()),
            registry,
            identity,
            services,
            documents: ArcSwap::default(),
            sessions: TaskTracker::new(),
        })
    }

    /// The APIServices as they are stored.
    pub fn services(&self) -> Arc<ApiServices> {
        self.services.get()
    }

    /// The remote APIService whose server has this (decoded) path.
    pub fn remote(&self, path: &str) -> Option<Arc<ApiService>> {
        let services = self.services();
        if services.remote.is_empty() {
            return None;
        }
        let mut words = path.strip_prefix("/apis/")?.splitn(3, '/');
        let (group, version) = (words.next()?, words.next().filter(|version| !version.is_empty())?);
        services.remote.get(&GroupVersion::new(group.to_string(), version.to_string())).cloned()
    }

    /// What is known of a remote group and version.
    pub fn document(&self, version: &GroupVersion) -> Option<Arc<Document>> {
        self.documents.load().get(version).cloned()
    }

    /// Registers what is served here, of which `registered` hears, and watches over what is served elsewhere, until `stop`.
    pub fn run(self: Arc<Self>, registered: StartStage, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let registering = registration::run(&self, &registered);
            let watching = availability::run(&self, stop.child_token());
            stop.run_until_cancelled(async { tokio::join!(registering, watching) }).await;
            self.sessions.close();
        })
    }

    fn tls(&self, service: &ServiceReference, tls: &TlsOptions) -> TlsOptions {
        let mut tls = TlsOptions { server_name: Some(service.server_name()), ..tls.clone() };
        if let Some(identity) = &self.identity {
            tls = tls.with_identity(identity);
        }
        tls
    }

    /// A client to any endpoint of the APIService's service.
    fn client(&self, remote: &services::Remote) -> Result<Client, OpenError> {
        let tls = self.tls(&remote.service, &remote.tls);
        self.outbound.client(&Target::of_service(remote.service.clone(), tls))
    }

    /// A client to one endpoint.
    fn client_at(&self, remote: &services::Remote, host: &str, port: u16) -> Result<Client, OpenError> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
        let route = Route::Direct { https: true, host, port };
        self.outbound.client(&Target { route, path: String::new(), tls: self.tls(&remote.service, &remote.tls) })
    }
}
