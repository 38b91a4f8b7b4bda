//! The API server with everything that decides for it, and the loops that are its clients.

use std::sync::Arc;

use anyhow::{Context, Result};
use knarr_apiserver::authentication::User;
use knarr_apiserver::objects::Objects;
use knarr_apiserver::{ApiServer, Registry, ServerTls};
use knarr_client::leader::{Election, LeaderElector};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::assembly;
use crate::certificates;
use crate::credentials::Pki;
use crate::encryption;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::start_stages::StartStages;
use crate::tasks::Tasks;

/// The parts of the control plane that are its clients.
pub const CONTROLLERS: &str = "controllers";
pub const SCHEDULER: &str = "scheduler";

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
        let store = settings.store.open(&layout.store()).await.context("opening the store")?;
        let (store, checks) = encryption::around(settings, store, tasks).await?;
        let shared = settings.store.is_shared();
        let registry = Registry::open(store, shared, tasks.ended.clone()).await.context("reading the store")?;
        let objects: Arc<dyn Objects> = registry.clone();
        let access = Arc::new(assembly::access(settings, pki, objects)?);
        let stages = StartStages::new();
        let config = assembly::config(settings, pki, &access, checks, &stages, tasks)?;
        let server = ApiServer::new(config, registry);
        access.prepare().await.context("writing the default objects")?;
        stages.objects.done();
        let (following, stopped) = (access.clone(), tasks.stop.clone());
        tasks.spawn("access", async move {
            stopped.run_until_cancelled(following.clone().run()).await;
            following.leave().await;
        });
        let (flow, stopped) = (server.clone(), tasks.stop.clone());
        tasks.spawn("priority and fairness", async move {
            stopped.run_until_cancelled(flow.follow_flow_control()).await.unwrap_or_default();
        });
        stages.flow_control.done();
        let (auditing, stop) = (server.clone(), tasks.stop.clone());
        tasks.spawn("audit", async move { auditing.write_audit(stop).await });
        let aggregation = server.aggregator().clone().run(stages.aggregation.clone(), tasks.stop.clone());
        tasks.spawn("aggregation", aggregation);
        access.synced().await;
        stages.following.done();
        assembly::follow_files(settings, &access, tasks)?;
        let tls = knarr_pki::server_config(&pki.serving, &pki.client_authorities())?;
        let tls = Arc::new(ServerTls::from_pointee(tls));
        let files = certificates::Files::watch(pki.directory(), tls.clone(), access.client_certificates.clone())?;
        let stop = tasks.stop.clone();
        tasks.spawn("certificates", async move { stop.run_until_cancelled(files.follow()).await.unwrap_or_default() });
        // Who is told that the server answers finds it healthy.
        tasks.stop.run_until_cancelled(stages.aggregation.reached()).await;
        let (serving, stop) = (server.clone(), tasks.stop.clone());
        tasks.spawn("API server", async move { serving.serve(listener, tls, stop).await });
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

    /// Starts the controllers and the scheduler; they end with `stop`. On a store that other servers share, only the one that holds
    /// upstream's lease is at work.
    pub fn start_loops(self: &Arc<Self>, settings: &Settings, pki: &Pki, tasks: &Tasks) -> Result<()> {
        let config = knarr_controllers::Config {
            cluster_cidr: Some(settings.cluster_cidr.into()),
            root_ca: pki.authority.certificate_pem().to_string(),
            signing_authority: Some(pki.authority.clone()),
            token_key: Some(Arc::new(pki.token_key()?)),
            enabled: settings.controllers.clone(),
            ..knarr_controllers::Config::default()
        };
        let (shared, stop) = (settings.store.is_shared(), &tasks.stop);
        let elector = shared.then(|| self.elector("kube-controller-manager", settings));
        let server = self.clone();
        let controllers = move |stop| {
            let server = server.clone();
            knarr_controllers::run(move |user| server.controller_client(user), config.clone(), stop)
        };
        tasks.spawn(CONTROLLERS, while_leading(elector, stop.clone(), controllers));
        if !settings.controllers.has_scheduler() {
            return Ok(());
        }
        let elector = shared.then(|| self.elector("kube-scheduler", settings));
        let client = self.client("system:kube-scheduler", &[]);
        let scheduler = move |stop| knarr_scheduler::run(client.clone(), knarr_scheduler::Config::default(), stop);
        tasks.spawn(SCHEDULER, while_leading(elector, stop.clone(), scheduler));
        Ok(())
    }

    /// How `component` of this server stands for election.
    fn elector(&self, component: &str, settings: &Settings) -> impl Fn() -> LeaderElector + Send + use<> {
        let client = self.client(&format!("system:{component}"), &[]);
        // As upstream: the host's name for who reads it, and what no other process has.
        let identity = format!("{}_{}", settings.node_name, uuid::Uuid::new_v4());
        let election = Election::new("kube-system", component, &identity);
        move || LeaderElector::new(client.clone(), election.clone())
    }
}

/// Runs `work` until `stop`; with an elector only while it leads, and again whenever it leads again.
async fn while_leading<F: Future<Output = ()>>(
    elector: Option<impl Fn() -> LeaderElector>,
    stop: CancellationToken,
    work: impl Fn(CancellationToken) -> F,
) {
    let Some(elector) = elector else { return work(stop).await };
    while !stop.is_cancelled() {
        elector().run(stop.clone(), &work).await;
    }
}
