use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::Kubectl;

/// Lines of a log that a failed test shows.
const LAST_COMPLAINTS: usize = 10;

/// How a test's cluster differs from the default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Run pods (needs root); otherwise the control plane alone.
    pub node: bool,
    /// More flags for `knarr up`.
    pub flags: Vec<String>,
}

/// A running cluster; dropped, it is purged.
pub struct Cluster {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Cluster {
    /// Starts a cluster and returns when it is ready.
    pub fn up(options: &Options) -> Result<Cluster> {
        let cluster = Self::prepare(options)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// A cluster that is not yet started.
    pub fn prepare(options: &Options) -> Result<Cluster> {
        let directory = TempDir::with_prefix("knarr-test-")?;
        let port = free_port();
        let mut arguments = vec![
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--bind=0.0.0.0:{port}"),
            format!("--kubelet-port={}", free_port()),
        ];
        if !options.node {
            arguments.push("--no-node".into());
        }
        arguments.extend(options.flags.iter().cloned());
        Ok(Cluster { directory, port, arguments })
    }

    /// `knarr up --detach` with this cluster's flags, not yet run.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary().unwrap_or_else(|_| "knarr".into()));
        command.args(["up", "--detach"]).args(&self.arguments);
        command
    }

    /// `knarr up --detach` with this cluster's flags, again after [`Cluster::kill`] or [`Cluster::down`].
    pub fn start(&self) -> Result<()> {
        let output = self.command().output()?;
        succeed("knarr up --detach", &output).inspect_err(|_| self.show_log())
    }

    /// `kill -9` of the knarr process, as a crash would end it.
    pub fn kill(&self) -> Result<()> {
        let pid = self.pid()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
        // The lock on the data directory goes with the process; wait for that rather than for the number to vanish.
        let file = std::fs::File::open(self.data_dir().join("knarr.lock"))?;
        nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        Ok(())
    }

    /// `knarr down`: pods keep running.
    pub fn down(&self) -> Result<()> {
        self.knarr(&["down"]).map(drop)
    }

    /// The number of the knarr process.
    pub fn pid(&self) -> Result<i32> {
        Ok(std::fs::read_to_string(self.data_dir().join("knarr.lock"))?.trim().parse()?)
    }

    /// Runs `knarr ARGUMENTS --data-dir …` and returns what it printed.
    pub fn knarr(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(binary()?).args(arguments).arg(&self.arguments[0]).output()?;
        succeed(&format!("knarr {}", arguments.join(" ")), &output)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Writes the demo's images and loads them into the node's runtime.
    pub fn load_images(&self) -> Result<()> {
        let output =
            Command::new(binary()?.with_file_name("mkimage")).arg(self.directory.path().join("images")).output()?;
        succeed("mkimage", &output)?;
        let archive = |name: &str| self.image_archive(name).display().to_string();
        self.knarr(&["images", "load", &archive("busybox"), &archive("web")]).map(drop)
    }

    /// The archive of a demo image, once they are loaded.
    pub fn image_archive(&self, name: &str) -> PathBuf {
        self.directory.path().join("images").join(format!("{name}.tar"))
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// `https://127.0.0.1:PORT`
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A client with the administrator's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        let config = kube::config::Kubeconfig::read_from(self.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(config, &kube::config::KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// kubectl with the administrator's rights; `None`, said aloud, where the machine has no kubectl.
    pub fn kubectl(&self) -> Option<Kubectl> {
        Kubectl::new(&self.kubeconfig())
    }

    /// An error of a test, with what the cluster and its runtime complained of last: a failure seen once should say enough.
    pub fn explain(&self, error: &anyhow::Error) -> String {
        let mut told = format!("{error:#}");
        for (log, marks) in
            [("knarr.log", ["WARN", "ERROR"]), ("containerd/containerd.log", ["level=warn", "level=error"])]
        {
            let text = std::fs::read_to_string(self.data_dir().join(log)).unwrap_or_default();
            let complaints: Vec<&str> =
                text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
            let last = complaints.len().saturating_sub(LAST_COMPLAINTS);
            if !complaints.is_empty() {
                told += &format!("\n--- {log} complains last\n{}", complaints[last..].join("\n"));
            }
        }
        told
    }

    fn show_log(&self) {
        if let Ok(log) = std::fs::read_to_string(self.data_dir().join("knarr.log")) {
            eprintln!("--- knarr.log\n{log}---");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        if let Err(error) = self.knarr(&["down", "--purge"]) {
            eprintln!("purging a test's cluster: {error:#}");
        }
    }
}

fn succeed(what: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    bail!(
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The knarr executable that was built with these tests.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let directory = own.parent().context("an executable is in a directory")?;
    // A test runs from target/PROFILE/deps, the bench from target/PROFILE.
    let profile = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    let binary = profile.join("knarr");
    if !binary.exists() {
        bail!("{} is not built: run `cargo build -p knarr -p knarr-image` first", binary.display());
    }
    Ok(binary)
}

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the machine has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}
