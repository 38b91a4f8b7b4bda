//! `knarr down`: ends the process; with `--purge` leaves nothing of it on the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::stream::{self, StreamExt};
use knarr_cri::{RemoteRuntime, RuntimeService};
use knarr_kubelet::runtime::labels::POD_UID;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::Down;
use crate::containerd::{self, Containerd};
use crate::layout::{self, Layout};

/// How long a running Knarr may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const SANDBOXES_AT_ONCE: usize = 8;

pub async fn run(down: Down) -> Result<()> {
    let layout = Layout::new(&std::path::absolute(&down.data_dir)?);
    let was_running = stop(&layout).await?;
    if down.purge {
        return purge(&layout).await;
    }
    match was_running {
        true => println!(
            "knarr stopped; its pods keep running. `knarr up` takes them over again, `knarr down --purge` ends them."
        ),
        false => println!("knarr does not run on {}", layout.root().display()),
    }
    Ok(())
}

/// Ends the owner of the data directory, if there is one, and waits until it is gone.
async fn stop(layout: &Layout) -> Result<bool> {
    let Some(pid) = layout::owner(layout) else { return Ok(false) };
    kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("ending process {pid}"))?;
    let started = Instant::now();
    while layout::owner(layout).is_some() {
        if started.elapsed() > STOP_LIMIT {
            bail!("process {pid} did not end within {STOP_LIMIT:?}; end it with `kill -9 {pid}` and try again");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(true)
}

async fn purge(layout: &Layout) -> Result<()> {
    if !layout.root().exists() {
        println!("nothing to remove: {} does not exist", layout.root().display());
        return Ok(());
    }
    let mut node = Ok(());
    if let Ok(Some(note)) = fs::read_to_string(layout.runtime_note()).map(|note| note_path(&note)) {
        remove_pods(layout, &note).await?;
        node = crate::node::purge(layout, &note).await;
    }
    containerd::end_leftover(layout).await;
    end_shims(layout);
    unmount_below(layout.root())?;
    // With its files there, a purge that failed can be tried again.
    node?;
    fs::remove_dir_all(layout.root()).with_context(|| layout.root().display().to_string())?;
    println!("removed {} and everything that ran from it", layout.root().display());
    Ok(())
}

fn note_path(note: &str) -> Option<PathBuf> {
    let note = note.trim();
    (!note.is_empty()).then(|| note.into())
}

/// Stops and removes every pod of a kubelet, through the runtime that runs them (started for that if it is the private one). What a shared runtime
/// runs for others bears no pod's label.
async fn remove_pods(layout: &Layout, socket: &Path) -> Result<()> {
    let private = socket == layout.private_runtime_socket();
    let mut containerd = match private {
        true => Some(Containerd::start(layout).await.context("starting containerd to remove the pods")?),
        false => None,
    };
    let runtime = crate::node::answering(socket).await?;
    let removed = remove_sandboxes(&runtime).await;
    if let Some(containerd) = &mut containerd {
        containerd.stop().await;
    }
    removed
}

async fn remove_sandboxes(runtime: &RemoteRuntime) -> Result<()> {
    let sandboxes = runtime.list_pod_sandboxes(None).await.context("listing pods")?;
    let of_pods = sandboxes.into_iter().filter(|sandbox| sandbox.labels.contains_key(POD_UID));
    let results: Vec<Result<()>> = stream::iter(of_pods)
        .map(|sandbox| async move {
            for container in runtime.list_containers(None).await?.into_iter().filter(|c| c.pod_sandbox_id == sandbox.id)
            {
                let _ = runtime.stop_container(&container.id, Duration::ZERO).await;
                runtime.remove_container(&container.id).await?;
            }
            runtime.stop_pod_sandbox(&sandbox.id).await?;
            runtime.remove_pod_sandbox(&sandbox.id).await?;
            Ok(())
        })
        .buffer_unordered(SANDBOXES_AT_ONCE)
        .collect()
        .await;
    results.into_iter().collect::<Result<()>>().context("removing pods")
}

/// Unmounts everything below `root`, deepest first.
fn unmount_below(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    let mut below: Vec<PathBuf> = points.filter(|point| point.starts_with(root)).collect();
    below.sort_by_key(|point| std::cmp::Reverse(point.components().count()));
    for point in below {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", point.display()))?;
    }
    Ok(())
}

/// mountinfo writes blanks and backslashes as octal (`\040`).
fn unescape(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let octal = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                out.push(byte as char);
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out.into()
}

/// Ends the shims of a containerd that is gone: one whose pod went in the same moment is asked by nobody to end.
fn end_shims(layout: &Layout) {
    let socket = layout.private_runtime_socket().display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command);
        let mut words = command.split('\0');
        if words.next().is_some_and(|program| program.contains("containerd-shim")) && words.any(|word| word == socket) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
