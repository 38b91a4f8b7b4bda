//! The API server with everything that decides for it, and the loops that are its clients.

use std::sync::Arc;

use anyhow::{Context, Result};
use knarr_apiserver::allocation::{AddressRange, PortRange, ServiceAllocator};
use knarr_apiserver::authentication::front_proxy::FrontProxy;
use knarr_apiserver::authentication::service_account::ServiceAccounts;
use knarr_apiserver::authentication::x509::{CertificateVerifier, ClientCertificates};
use knarr_apiserver::authentication::{self, Authenticator, User};
use knarr_apiserver::authorization::node::NodeAuthorizer;
use knarr_apiserver::authorization::rbac::Rbac;
use knarr_apiserver::authorization::{self, Authorizer};
use knarr_apiserver::objects::Objects;
use knarr_apiserver::{ApiServer, Registry, bootstrap, tokens};
use knarr_store::{Embedded, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::Pki;
use crate::layout::Layout;
use crate::settings::Settings;

/// A serving control plane.
pub struct ControlPlane {
    server: ApiServer,
}

impl ControlPlane {
    /// Opens the store, assembles the server, and returns once it answers.
    pub async fn start(
        settings: &Settings,
        layout: &Layout,
        pki: &Pki,
        listener: TcpListener,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Arc<ControlPlane>> {
        let store = Embedded::open(&layout.store()).await.context("opening the store")?;
        let store: Arc<dyn Store> = Arc::new(store);
        let registry = Registry::open(store, false, stop.clone()).await.context("reading the store")?;
        let config = Assembly::new(settings, pki, &registry)?.config(tasks).await?;
        let server = ApiServer::new(config, registry.clone());
        let objects: Arc<dyn Objects> = registry;
        bootstrap::run(&objects, &cluster(settings, pki)).await.context("writing the default objects")?;
        let tls = knarr_pki::server_config(&pki.serving, pki.authority.certificate_pem())?;
        let serving = server.clone();
        let stop = stop.clone();
        tasks.spawn(async move { serving.serve(listener, Arc::new(tls), stop).await });
        Ok(Arc::new(ControlPlane { server }))
    }
}
