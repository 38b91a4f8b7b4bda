//! `knarr up`: the stages that make a cluster, in order; each that fails says what failed and what to do.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use knarr_client::{Informers, Selection};
use nix::unistd::geteuid;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::control_plane::ControlPlane;
use crate::credentials::Pki;
use crate::detach::Report;
use crate::layout::{self, Layout};
use crate::node;
use crate::settings::Settings;
use crate::tasks::Tasks;

/// How long a new node may take to become Ready before `up` gives up waiting (the cluster goes on).
const READY_LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Runs the cluster until SIGINT or SIGTERM.
pub async fn run(settings: Settings, report: &mut Report) -> Result<()> {
    let started = Instant::now();
    check_privileges(&settings)?;
    let layout = Layout::new(&settings.data_dir);
    let _ownership = take_ownership(&layout)?;
    let listener = listen(settings.bind, "--bind").await?;
    let _place = settings.node.then(node::claim_network).transpose()?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let tasks = Tasks::default();

    let cluster = start(&settings, &layout, listener, &tasks, report, started);
    let outcome = tokio::select! {
        ended = cluster => ended,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if outcome.is_ok() {
        info!("stopping");
        tasks.leaving.cancel();
        // A second signal is impatience.
        tokio::select! {
            () = tokio::time::sleep(settings.serving.shutdown_delay) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
    tasks.end().await;
    outcome
}

/// Brings everything up, then waits for ever.
async fn start(
    settings: &Settings,
    layout: &Layout,
    listener: TcpListener,
    tasks: &Tasks,
    report: &mut Report,
    started: Instant,
) -> Result<()> {
    let pki = Pki::load_or_create(settings, layout).context("keys and certificates")?;
    let runtime = async {
        match settings.node {
            true => node::start_runtime(settings, layout, tasks).await.map(Some),
            false => Ok(None),
        }
    };
    let server = ControlPlane::start(settings, layout, &pki, listener, tasks);
    let (server, runtime) = tokio::try_join!(server, runtime)?;
    pki.write_admin_kubeconfig(settings).context("the administrator's kubeconfig")?;
    println!("knarr {}", crate::version::FULL);
    println!("API server  https://{}  ready after {:.2?}", settings.advertised(), started.elapsed());
    println!("kubeconfig  {}", settings.kubeconfig.display());
    server.start_loops(settings, &pki, tasks)?;
    if let Some(runtime) = runtime {
        node::start(settings, layout, &pki, &server, runtime, tasks).await?;
        wait_for_node(settings, &server).await?;
        println!("node        {}  Ready after {:.2?}", settings.node_name, started.elapsed());
    }
    report.ready();
    std::future::pending().await
}

async fn wait_for_node(settings: &Settings, server: &Arc<ControlPlane>) -> Result<()> {
    match tokio::time::timeout(READY_LIMIT, node_ready(&settings.node_name, server)).await {
        Ok(()) => Ok(()),
        Err(_) => bail!("node {} is not Ready after {READY_LIMIT:?}: see `kubectl describe node`", settings.node_name),
    }
}

async fn node_ready(name: &str, server: &Arc<ControlPlane>) {
    let end = CancellationToken::new();
    let _end_the_watch = end.clone().drop_guard();
    let nodes = Informers::new(server.administrator(), end);
    let mut events = nodes.selected::<Node>(Selection::fields(&format!("metadata.name={name}"))).subscribe();
    while let Some(event) = events.recv().await {
        if is_ready(event.object()) {
            return;
        }
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}

fn check_privileges(settings: &Settings) -> Result<()> {
    if !settings.node {
        return Ok(());
    }
    if !geteuid().is_root() {
        bail!("running pods needs root: run as root, or start the control plane alone with --no-node");
    }
    let mounted = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let cgroups = mounted.lines().any(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    if !cgroups {
        bail!("no control groups are mounted: mount cgroup2 on /sys/fs/cgroup, or start with --no-node");
    }
    Ok(())
}

fn take_ownership(layout: &Layout) -> Result<layout::Ownership> {
    match layout::own(layout)? {
        Ok(ownership) => Ok(ownership),
        Err(pid) => bail!(
            "another knarr (process {pid}) already runs on {}: stop it with `knarr down`, or choose another --data-dir",
            layout.root().display()
        ),
    }
}

/// Listens there; `flag` is what to change where somebody else does.
pub async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is taken by another process: stop that, or choose another with {flag}")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {error}; choose another with {flag}"),
    })
}
