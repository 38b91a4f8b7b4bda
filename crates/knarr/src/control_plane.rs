//! The API server with everything that decides for it, and the loops that are its clients.

use std::sync::Arc;

use anyhow::{Context, Result};
use knarr_apiserver::authentication::User;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::{ApiServer, Registry};
use knarr_store::Embedded;
use tokio::net::TcpListener;

use crate::assembly;
use crate::credentials::Pki;
use crate::encryption;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::tasks::Tasks;

/// A serving control plane.
pub struct ControlPlane {
    server: ApiServer,
}

impl ControlPlane {
    /// Opens the store, assembles the server, and returns once it serves.
    pub async fn start(
        settings: &Settings,
        layout: &Layout,
        pki: &Pki,
        listener: TcpListener,
        tasks: &Tasks,
    ) -> Result<Arc<ControlPlane>> {
        let store = Embedded::open(&layout.store()).context("opening the store")?;
        let (store, checks) = encryption::around(settings, Arc::new(store), tasks).await?;
        let registry = Registry::open(store, false, tasks.stop.clone()).await.context("reading the store")?;
        let objects: Arc<dyn Objects> = registry.clone();
        let access = Arc::new(assembly::access(settings, pki, objects)?);
        let server = ApiServer::new(assembly::config(settings, pki, &access, checks)?, registry);
        access.prepare().await.context("writing the default objects")?;
        let (following, stopped) = (access.clone().run(), tasks.stop.clone());
        tasks.spawn("authorization", async move { stopped.run_until_cancelled(following).await.unwrap_or_default() });
        access.synced().await;
        tasks.spawn("aggregation", server.aggregator().clone().run(tasks.stop.clone()));
        assembly::follow_files(settings, &access, tasks)?;
        let tls = knarr_pki::server_config(&pki.serving, &pki.client_authorities())?;
        let (serving, stop) = (server.clone(), tasks.stop.clone());
        tasks.spawn("API server", async move { serving.serve(listener, Arc::new(tls), stop).await });
        Ok(Arc::new(ControlPlane { server }))
    }

    /// A client in this process that is this user.
    pub fn client(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut all = vec!["system:authenticated"];
        all.extend(groups);
        self.server.client(User::new(user, &all))
    }

    /// A client that may do everything.
    pub fn administrator(&self) -> kube::Client {
        self.client("system:apiserver", &["system:masters"])
    }

    /// A client for the controller of this user name; a service account is in its accounts' groups.
    fn controller_client(&self, user: &str) -> kube::Client {
        match user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            Some((namespace, _)) => {
                let namespaced = format!("system:serviceaccounts:{namespace}");
                self.client(user, &["system:serviceaccounts", &namespaced])
            }
            None => self.client(user, &[]),
        }
    }

    /// Starts the controllers and the scheduler; they end with `stop`.
    pub fn start_loops(self: &Arc<Self>, settings: &Settings, pki: &Pki, tasks: &Tasks) -> Result<()> {
        let config = knarr_controllers::Config {
            cluster_cidr: Some(settings.cluster_cidr.into()),
            root_ca: pki.authority.certificate_pem().to_string(),
            signing_authority: Some(pki.authority.clone()),
            token_key: Some(Arc::new(pki.token_key()?)),
            ..knarr_controllers::Config::default()
        };
        let server = self.clone();
        let controllers =
            knarr_controllers::run(move |user| server.controller_client(user), config, tasks.stop.clone());
        tasks.spawn("controllers", controllers);
        let client = self.client("system:kube-scheduler", &[]);
        let scheduler = knarr_scheduler::run(client, knarr_scheduler::Config::default(), tasks.stop.clone());
        tasks.spawn("scheduler", scheduler);
        Ok(())
    }
}
