//! A containerd of the tests' own: its root, state, socket and network are its own, and nothing is left of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use knarr_cri::{RemoteRuntime, RuntimeService};
use knarr_image::{Config, Entry, Image, Layer};

/// A running containerd; dropping it ends it and unmounts what is left.
pub struct Containerd {
    process: Child,
    directory: PathBuf,
}

impl Containerd {
    /// Starts one below `directory`, or says why tests with it are skipped.
    pub fn start(directory: &Path) -> Result<Containerd, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        if !Path::new("/bin/busybox").exists() {
            return Err("no static busybox".to_owned());
        }
        fs::create_dir_all(directory.join("cni")).map_err(|error| error.to_string())?;
        write_configuration(directory);
        let log = fs::File::create(directory.join("containerd.log")).map_err(|error| error.to_string())?;
        let process = Command::new("containerd")
            .arg("--config")
            .arg(directory.join("config.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("containerd: {error}"))?;
        let containerd = Containerd { process, directory: directory.to_owned() };
        containerd.wait()?;
        containerd.import(&knarr_image::pause());
        containerd.import(&busybox());
        Ok(containerd)
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.directory.join("containerd.sock").display())
    }

    fn ctr(&self) -> Command {
        let mut ctr = Command::new("ctr");
        ctr.arg("--address").arg(self.directory.join("containerd.sock")).args(["--namespace", "k8s.io"]);
        ctr.stdout(Stdio::null()).stderr(Stdio::null());
        ctr
    }

    fn wait(&self) -> Result<(), String> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if self.ctr().arg("version").status().is_ok_and(|status| status.success()) {
                return Ok(());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Err("containerd does not answer".to_owned())
    }

    fn import(&self, image: &Image) {
        let archive = self.directory.join("image.tar");
        image.write(fs::File::create(&archive).expect("a file")).expect("an archive");
        let status = self.ctr().args(["images", "import"]).arg(&archive).status().expect("ctr runs");
        assert!(status.success(), "an image cannot be imported");
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A test that failed leaves its pods; a containerd that ends does not end them, nor gives up their networks.
        let endpoint = self.endpoint();
        let _ = std::thread::spawn(move || remove_pods(&endpoint)).join();
        let _ = self.process.kill();
        let _ = self.process.wait();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let ours = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|point| Path::new(point).starts_with(&self.directory));
        for point in ours {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

fn remove_pods(endpoint: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let Ok(client) = RemoteRuntime::new(endpoint) else { return };
        for container in client.list_containers(None).await.unwrap_or_default() {
            let _ = client.stop_container(&container.id, Duration::ZERO).await;
        }
        for sandbox in client.list_pod_sandboxes(None).await.unwrap_or_default() {
            let _ = client.stop_pod_sandbox(&sandbox.id).await;
            let _ = client.remove_pod_sandbox(&sandbox.id).await;
        }
    });
}

fn write_configuration(directory: &Path) {
    let at = |name: &str| directory.join(name).display().to_string();
    let config = format!(
        r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = at("root"),
        state = at("state"),
        socket = at("containerd.sock"),
        pause = knarr_image::PAUSE_IMAGE,
        cni = at("cni"),
    );
    fs::write(directory.join("config.toml"), config).expect("written");
    // Point-to-point links leave no bridge behind: they go with their sandboxes.
    let network = format!(
        r#"{{"cniVersion": "0.4.0", "name": "kubelet-test", "plugins": [{{"type": "ptp",
            "ipam": {{"type": "host-local", "dataDir": "{}", "ranges": [[{{"subnet": "10.213.7.0/24"}}]]}}}}]}}"#,
        at("ipam")
    );
    fs::write(directory.join("cni/10-test.conflist"), network).expect("written");
}

fn busybox() -> Image {
    let mut layer = Layer::default();
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "var"] {
        layer.push(Entry::directory(directory, 0o755));
    }
    layer.push(Entry::copy("bin/busybox", Path::new("/bin/busybox"), 0o755).expect("busybox"));
    for applet in [
        "sh", "cat", "sleep", "echo", "true", "false", "ls", "httpd", "test", "hostname", "mkdir", "id", "wget", "env",
        "rm", "touch",
    ] {
        layer.push(Entry::link(format!("bin/{applet}"), "/bin/busybox"));
    }
    let config = Config { command: vec!["sh".into()], environment: vec!["PATH=/bin".into()], ..Config::default() };
    Image { names: vec!["docker.io/library/busybox:test".into()], layers: vec![layer], config }
}
