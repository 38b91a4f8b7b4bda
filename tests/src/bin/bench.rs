//! `bench`: the figures of docs/specification.md, measured from outside against the knarr binary beside this one. Build both with
//! `--release`; `make bench` does. `--no-node` leaves the node's figures out, as does a user who is not root.
//!
//! The load is upstream's usual yardstick: ConfigMaps of 1 KiB, 64 requests in flight over four HTTP/2 connections, watchers on
//! connections of their own. Arguments name the parts to run (`start`, `load`, `many`, `watches`); without one, all run.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use knarr_tests::{Cluster, Options, Raw, is_root};
use serde_json::json;

const OBJECTS: usize = 5000;
const IN_FLIGHT: usize = 64;
/// Each answer of a whole list has several megabytes: a few at once are load enough.
const LISTS_IN_FLIGHT: usize = 2;
const CONNECTIONS: usize = 4;
const WATCHERS: usize = 20;
const LISTS: usize = 200;
/// Objects of the row on memory.
const MANY_OBJECTS: usize = 100_000;
/// Idle watches, as of 200 machines with 50 informers each.
const WATCH_CONNECTIONS: usize = 200;
const WATCHES_A_CONNECTION: usize = 50;
/// How long a cluster is left alone before its memory and CPU time count as idle.
const IDLE: Duration = Duration::from_secs(10);
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::main]
async fn main() -> Result<()> {
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runs = |part: &str| asked.is_empty() || asked.iter().any(|name| name == part);
    if runs("start") {
        starts().await?;
    }
    if runs("load") {
        load().await?;
    }
    if runs("many") {
        many_objects().await?;
    }
    if runs("watches") {
        idle_watches().await?;
    }
    Ok(())
}

async fn starts() -> Result<()> {
    let binary = knarr_tests::binary()?;
    row("release binary", format!("{:.1} MB", std::fs::metadata(&binary)?.len() as f64 / 1e6));
    let (ready, _) = cold_start(false).await?;
    row("cold start to /readyz, control plane alone", format!("{ready:.0?}"));
    let node = std::env::args().all(|arg| arg != "--no-node");
    if is_root() && node {
        let (ready, node) = cold_start(true).await?;
        row("cold start to /readyz, with the node", format!("{ready:.0?}"));
        row("cold start to node Ready", format!("{node:.0?}"));
    } else {
        eprintln!("not root, or --no-node: the node's figures are not measured");
    }
    Ok(())
}

fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}

/// Starts a new cluster; the time until `/readyz` says ok, and until the detached start reports everything ready.
async fn cold_start(node: bool) -> Result<(Duration, Duration)> {
    let cluster = Cluster::prepare(&Options { node, ..Options::default() })?;
    let started = Instant::now();
    let mut child: Child = cluster.command().stdout(Stdio::null()).spawn()?;
    let raw = loop {
        if let Ok(raw) = Raw::new(&cluster)
            && raw.get("/readyz").await.is_ok_and(|(code, _)| code == 200)
        {
            break raw;
        }
        if let Some(status) = child.try_wait()?.filter(|status| !status.success()) {
            bail!("knarr up: {status}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    let ready = started.elapsed();
    if !child.wait()?.success() {
        bail!("knarr up failed");
    }
    let all = started.elapsed();
    let scope = if node { "everything" } else { "control plane alone" };
    tokio::time::sleep(IDLE).await;
    row(&format!("resident memory idle, {scope}"), resident(&cluster)?);
    let before = cpu_time(&cluster)?;
    tokio::time::sleep(IDLE).await;
    let used = (cpu_time(&cluster)? - before).as_secs_f64() / IDLE.as_secs_f64();
    row(&format!("CPU idle, {scope}"), format!("{:.1} % of a core", used * 100.0));
    let (code, _) = raw.get("/readyz").await?;
    anyhow::ensure!(code == 200);
    Ok((ready, all))
}

fn resident(cluster: &Cluster) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid()?))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(format!("{:.0} MB", kilobytes * 1024.0 / 1e6))
}

/// What the process has used so far, in user and system mode.
fn cpu_time(cluster: &Cluster) -> Result<Duration> {
    /// `USER_HZ`: what the kernel counts in, whatever it ticks at.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", cluster.pid()?))?;
    // The name, in parentheses, may hold spaces.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap_or(0)).sum();
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

async fn load() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let clients = connect(&cluster)?;
    phase("create", OBJECTS, IN_FLIGHT, &clients, create).await?;
    phase("get", OBJECTS * 4, IN_FLIGHT, &clients, |client, i| async move {
        client.ok("GET", &map(i), "", String::new()).await
    })
    .await?;
    let merge = "application/merge-patch+json";
    phase("merge patch", OBJECTS, IN_FLIGHT, &clients, |client, i| async move {
        client.ok("PATCH", &map(i), merge, json!({"metadata": {"annotations": {"a": i.to_string()}}}).to_string()).await
    })
    .await?;
    let list = |client: Client, _| async move { client.ok("GET", MAPS, "", String::new()).await };
    phase("list of 5,000", LISTS, LISTS_IN_FLIGHT, &clients, list).await?;
    phase("delete", OBJECTS, IN_FLIGHT, &clients, |client, i| async move {
        client.ok("DELETE", &map(i), "", String::new()).await
    })
    .await?;
    fan_out(&cluster, &clients).await?;
    row("resident memory after the load", resident(&cluster)?);
    Ok(())
}

/// A share of the connections.
#[derive(Clone)]
struct Client(Arc<Vec<Raw>>, usize);

impl Client {
    async fn ok(&self, method: &str, path: &str, content_type: &str, body: String) -> Result<()> {
        let content_type = if content_type.is_empty() { "application/json" } else { content_type };
        let (code, _) = self.0[self.1 % self.0.len()].bytes(method, path, content_type, body).await?;
        anyhow::ensure!(code < 300, "{method} {path}: {code}");
        Ok(())
    }
}

fn map(i: usize) -> String {
    format!("{MAPS}/cm-{}", i % OBJECTS)
}

async fn create(client: Client, i: usize) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("cm-{i}"), "labels": {"bench": "1"}}, "data": {"k": "x".repeat(1024)}});
    client.ok("POST", MAPS, "application/json", body.to_string()).await
}

/// Runs `total` requests, `in_flight` at a time, and prints the rate and the latencies.
async fn phase<F, Fut>(name: &str, total: usize, in_flight: usize, clients: &Arc<Vec<Raw>>, request: F) -> Result<()>
where
    F: Fn(Client, usize) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let started = Instant::now();
    let timed = |i: usize| {
        let begun = Instant::now();
        let answer = request(Client(clients.clone(), i), i);
        tokio::spawn(async move { answer.await.map(|()| begun.elapsed()) })
    };
    let mut running = futures::stream::iter(0..total).map(timed).buffer_unordered(in_flight);
    let mut latencies = Vec::with_capacity(total);
    while let Some(done) = running.next().await {
        latencies.push(done??);
    }
    let seconds = started.elapsed().as_secs_f64();
    latencies.sort();
    let at = |quantile: f64| latencies[((latencies.len() - 1) as f64 * quantile) as usize];
    row(name, format!("{:.0}/s, p50 {:.1?}, p99 {:.1?}", total as f64 / seconds, at(0.5), at(0.99)));
    Ok(())
}

fn connect(cluster: &Cluster) -> Result<Arc<Vec<Raw>>> {
    Ok(Arc::new((0..CONNECTIONS).map(|_| Raw::new(cluster)).collect::<Result<_>>()?))
}

/// Watches that count what they are told.
struct Watchers {
    seen: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Watchers {
    async fn start(cluster: &Cluster, query: &str) -> Result<Watchers> {
        let mut watchers = Watchers { seen: Arc::default(), tasks: Vec::new() };
        for _ in 0..WATCHERS {
            let response =
                Raw::http1(cluster)?.stream(&format!("{MAPS}?watch=1&labelSelector=bench%3D1{query}")).await?;
            let seen = watchers.seen.clone();
            watchers.tasks.push(tokio::spawn(async move {
                let mut chunks = response.bytes_stream();
                while let Some(Ok(chunk)) = chunks.next().await {
                    seen.fetch_add(memchr::memchr_iter(b'\n', &chunk).count(), Ordering::Relaxed);
                }
            }));
        }
        Ok(watchers)
    }

    /// Waits until each has seen everything, and tells how fast.
    async fn all_told(self, what: &str, started: Instant) {
        while self.seen.load(Ordering::Relaxed) < OBJECTS * WATCHERS && started.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let delivered = self.seen.load(Ordering::Relaxed);
        row(what, format!("{:.0}/s ({delivered} in all)", delivered as f64 / started.elapsed().as_secs_f64()));
        self.tasks.iter().for_each(|task| task.abort());
    }
}

/// Twenty watchers see objects as they are made, which is bounded by the making; and then the same events out of the past.
async fn fan_out(cluster: &Cluster, clients: &Arc<Vec<Raw>>) -> Result<()> {
    let (_, list) = clients[0].get(MAPS).await?;
    let before = list["metadata"]["resourceVersion"].as_str().context("a list has a version")?.to_string();
    let watchers = Watchers::start(cluster, "").await?;
    let started = Instant::now();
    phase("create with 20 watchers", OBJECTS, IN_FLIGHT, clients, create).await?;
    watchers.all_told("watch events delivered, 20 watchers, as they happen", started).await;
    let started = Instant::now();
    let watchers = Watchers::start(cluster, &format!("&resourceVersion={before}")).await?;
    watchers.all_told("watch events delivered, 20 watchers, out of the past", started).await;
    Ok(())
}

async fn many_objects() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let clients = connect(&cluster)?;
    phase("create, 100,000 of them", MANY_OBJECTS, IN_FLIGHT, &clients, create).await?;
    row("resident memory with 100,000 ConfigMaps of 1 KiB", resident(&cluster)?);
    tokio::time::sleep(IDLE).await;
    row("resident memory with 100,000 ConfigMaps of 1 KiB, a little later", resident(&cluster)?);
    Ok(())
}

async fn idle_watches() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let clients = connect(&cluster)?;
    // Once for nothing: the first writes of a process are slower.
    phase("create, first", OBJECTS, IN_FLIGHT, &clients, create).await?;
    let again = |client: Client, i| create(client, i + OBJECTS);
    phase("create without idle watches", OBJECTS, IN_FLIGHT, &clients, again).await?;
    row("resident memory before the idle watches", resident(&cluster)?);
    let mut open = Vec::with_capacity(WATCH_CONNECTIONS * WATCHES_A_CONNECTION);
    for _ in 0..WATCH_CONNECTIONS {
        let client = Raw::new(&cluster)?;
        for n in 0..WATCHES_A_CONNECTION {
            let path = format!("/api/v1/namespaces/kube-system/configmaps?watch=1&fieldSelector=metadata.name%3Dn{n}");
            open.push(client.stream(&path).await?);
        }
    }
    row("resident memory with 10,000 idle watches", resident(&cluster)?);
    let again = |client: Client, i| create(client, i + 2 * OBJECTS);
    phase("create with 10,000 idle watches", OBJECTS, IN_FLIGHT, &clients, again).await?;
    drop(open);
    Ok(())
}
