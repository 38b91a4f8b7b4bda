//! A private containerd: its own root, state, socket and configuration under the data directory, so that nothing else on the
//! machine is touched. Containers hang on shims, not on containerd: it may be ended and started anew while pods run.

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::layout::Layout;

/// How long containerd may take to answer on its socket.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Where Debian and everyone else put the CNI plug-ins.
const CNI_DIRECTORIES: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const CAP_SYS_RESOURCE: u32 = 24;

/// A running private containerd.
pub struct Containerd {
    child: Child,
    binary: PathBuf,
    layout: Layout,
}

impl Containerd {
    /// Writes the configuration, ends a containerd that an earlier process left behind, starts one and waits until it answers.
    pub async fn start(layout: &Layout) -> Result<Self> {
        let binary = find_program("containerd").context(
            "containerd is not installed: install the package containerd, or name a CRI socket with --runtime-endpoint",
        )?;
        let directory = layout.containerd();
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        fs::create_dir_all(layout.cni().join("net.d"))?;
        fs::write(config_path(layout), configuration(layout)?).context("writing containerd's configuration")?;
        end_leftover(layout).await;
        let child = spawn(&binary, layout)?;
        let mut containerd = Containerd { child, binary, layout: layout.clone() };
        containerd.answers().await?;
        Ok(containerd)
    }

    async fn answers(&mut self) -> Result<()> {
        let socket = self.layout.private_runtime_socket();
        let started = Instant::now();
        while started.elapsed() < START_LIMIT {
            if tokio::net::UnixStream::connect(&socket).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("containerd ended at once ({status}); its log is {}", log_path(&self.layout).display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bail!("containerd did not answer on {} within {START_LIMIT:?}", socket.display())
    }

    /// Starts containerd again whenever it ends, until `shutdown`; then ends it.
    pub async fn supervise(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return self.stop().await,
                status = self.child.wait() => warn!(?status, "containerd ended; starting it again"),
            }
            while !shutdown.is_cancelled() {
                match spawn(&self.binary, &self.layout) {
                    Ok(child) => {
                        self.child = child;
                        break;
                    }
                    Err(error) => warn!("starting containerd: {error:#}"),
                }
                tokio::time::sleep(RESTART_DELAY).await;
            }
        }
    }

    /// Ends containerd and waits for it. Pods keep running.
    pub async fn stop(&mut self) {
        if let Some(pid) = self.child.id() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
            if tokio::time::timeout(STOP_LIMIT, self.child.wait()).await.is_err() {
                let _ = self.child.kill().await;
            }
        }
        let _ = fs::remove_file(pid_path(&self.layout));
        info!("containerd stopped");
    }
}

fn spawn(binary: &Path, layout: &Layout) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log_path(layout)).context("containerd's log")?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(config_path(layout)).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Its own process group: an interrupt typed at the terminal is for Knarr, which ends containerd in its own time.
    command.process_group(0);
    let child = tokio::process::Command::from(command).spawn().with_context(|| binary.display().to_string())?;
    if let Some(pid) = child.id() {
        fs::write(pid_path(layout), pid.to_string()).context("noting containerd's process number")?;
    }
    Ok(child)
}

/// Ends a containerd that an earlier Knarr started and, being killed, could not stop.
pub async fn end_leftover(layout: &Layout) {
    let Some(pid) = leftover(layout) else { return };
    let _ = kill(pid, Signal::SIGTERM);
    let started = Instant::now();
    while kill(pid, None).is_ok() {
        if started.elapsed() > STOP_LIMIT {
            let _ = kill(pid, Signal::SIGKILL);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The process of the noted number, if it is (still) containerd with our configuration.
fn leftover(layout: &Layout) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(pid_path(layout)).ok()?.trim().parse().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let config = config_path(layout);
    let ours = command_line.split(|byte| *byte == 0).any(|argument| argument == config.as_os_str().as_encoded_bytes());
    ours.then(|| Pid::from_raw(pid))
}

fn config_path(layout: &Layout) -> PathBuf {
    layout.containerd().join("config.toml")
}

fn log_path(layout: &Layout) -> PathBuf {
    layout.containerd().join("containerd.log")
}

fn pid_path(layout: &Layout) -> PathBuf {
    layout.containerd().join("containerd.pid")
}

/// The configuration, in the version that containerd 1.6, 1.7 and 2.x all read.
fn configuration(layout: &Layout) -> Result<String> {
    let directory = layout.containerd();
    let text = |path: PathBuf| serde_json::to_string(&path).expect("a path under the data directory is text");
    let runtime = match (find_program("runc"), find_program("crun")) {
        (Some(_), _) => String::new(),
        (None, Some(crun)) => format!("BinaryName = {}\n", text(crun)),
        (None, None) => bail!("no OCI runtime is installed: install the package runc (or crun)"),
    };
    let cni = CNI_DIRECTORIES.iter().find(|d| Path::new(d).join("bridge").exists());
    let cni = cni.context("the CNI plug-ins are not installed: install the package containernetworking-plugins")?;
    Ok(format!(
        r#"version = 2
root = {root}
state = {state}
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]

[grpc]
address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = {restrict}
stream_server_address = "127.0.0.1"
stream_server_port = "0"
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
{runtime}
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni}"
conf_dir = {cni_configuration}

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = {registries}
"#,
        root = text(directory.join("root")),
        state = text(directory.join("state")),
        socket = text(layout.private_runtime_socket()),
        pause = knarr_image::PAUSE_IMAGE,
        restrict = !may_lower_oom_score(),
        snapshotter = snapshotter(&directory),
        cni_configuration = text(layout.cni().join("net.d")),
        registries = text(directory.join("certs.d")),
    ))
}

/// Lowering `oom_score_adj` needs CAP_SYS_RESOURCE, which containers and some machines lack.
fn may_lower_oom_score() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    set & (1 << CAP_SYS_RESOURCE) != 0
}

/// An overlay cannot stand on an overlay.
fn snapshotter(directory: &Path) -> &'static str {
    match nix::sys::statfs::statfs(directory) {
        Ok(fs) if fs.filesystem_type() == nix::sys::statfs::OVERLAYFS_SUPER_MAGIC => "native",
        _ => "overlayfs",
    }
}

/// Looks a program up on the PATH and where administrators' programs lie.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(extra).map(|directory| directory.join(name)).find(|file| file.is_file())
}
