//! A containerd private to one test: its own root, state, socket and images; ended and removed with the test.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use knarr_cri::v1::{
    ContainerConfig, ContainerMetadata, ImageSpec, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
};
use knarr_cri::{RemoteRuntime, RuntimeService};
use knarr_image::{Config, Entry, Image, Layer};

const IMAGE: &str = "localhost/busybox:test";

pub struct Containerd {
    pub directory: PathBuf,
    pub runtime: Arc<RemoteRuntime>,
    child: Child,
}

impl Containerd {
    /// Starts one; `None`, with a word on stderr, where it cannot be.
    pub async fn start(test: &str) -> Option<Containerd> {
        let programs = ["/usr/bin/containerd", "/bin/busybox"];
        if !nix::unistd::geteuid().is_root() || programs.iter().any(|path| !Path::new(path).exists()) {
            eprintln!("skipped: needs root, containerd and a static busybox");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("knarr-kubelet-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = directory.join("config.toml");
        std::fs::write(&config, configuration(&directory)).unwrap();
        let log = std::fs::File::create(directory.join("containerd.log")).unwrap();
        let child = Command::new(programs[0])
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let socket = directory.join("containerd.sock");
        let runtime = Arc::new(RemoteRuntime::new(&format!("unix://{}", socket.display())).unwrap());
        let containerd = Containerd { directory, runtime, child };
        containerd.wait_until_ready().await;
        containerd.import();
        Some(containerd)
    }

    async fn wait_until_ready(&self) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.runtime.version().await.is_err() {
            assert!(Instant::now() < patience, "containerd does not answer; see {}", self.directory.display());
            tokio::task::yield_now().await;
        }
    }

    fn import(&self) {
        let mut layer = Layer::default();
        for directory in ["bin", "tmp", "proc", "dev", "sys", "etc"] {
            layer.push(Entry::directory(directory, 0o755));
        }
        layer.push(Entry::copy("bin/busybox", Path::new("/bin/busybox"), 0o755).unwrap());
        for applet in ["sh", "cat", "echo", "sleep", "head", "tr", "id", "mkdir"] {
            layer.push(Entry::link(format!("bin/{applet}"), "busybox"));
        }
        let config = Config { environment: vec!["PATH=/bin".into()], ..Config::default() };
        let busybox = Image { names: vec![IMAGE.into()], layers: vec![layer], config };
        for (name, image) in [("busybox.tar", busybox), ("pause.tar", knarr_image::pause())] {
            let path = self.directory.join(name);
            image.write(std::fs::File::create(&path).unwrap()).unwrap();
            let output = Command::new("ctr")
                .args(["-a", self.directory.join("containerd.sock").to_str().unwrap(), "-n", "k8s.io"])
                .args(["images", "import", path.to_str().unwrap()])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Runs a pod on the host's network with one container; the id of its sandbox and the directory of its logs.
    pub async fn run_pod(&self, container: &str, script: &str) -> (String, PathBuf) {
        let logs = self.directory.join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let labels: HashMap<String, String> = [
            ("io.kubernetes.pod.namespace", "ns"),
            ("io.kubernetes.pod.name", "pod"),
            ("io.kubernetes.pod.uid", "uid"),
            ("io.kubernetes.container.name", container),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let namespaces = NamespaceOption { network: NamespaceMode::Node as i32, ..NamespaceOption::default() };
        let security = LinuxSandboxSecurityContext {
            namespace_options: Some(namespaces),
            ..LinuxSandboxSecurityContext::default()
        };
        let sandbox_config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: "pod".into(),
                uid: "uid".into(),
                namespace: "ns".into(),
                attempt: 0,
            }),
            log_directory: logs.display().to_string(),
            labels: labels.clone(),
            linux: Some(LinuxPodSandboxConfig { security_context: Some(security), ..LinuxPodSandboxConfig::default() }),
            ..PodSandboxConfig::default()
        };
        let sandbox = self.runtime.run_pod_sandbox(sandbox_config.clone(), "").await.unwrap();
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: container.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
            command: vec!["/bin/sh".into(), "-c".into(), script.to_owned()],
            log_path: "0.log".to_owned(),
            labels,
            ..ContainerConfig::default()
        };
        let id = self.runtime.create_container(&sandbox, config, sandbox_config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        (sandbox, logs)
    }

    /// Shims outlive containerd: what runs must be stopped through it first.
    fn stop_pods(&self) {
        let socket = self.directory.join("containerd.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = std::thread::spawn(move || {
            runtime.block_on(async {
                let client = RemoteRuntime::new(&format!("unix://{}", socket.display())).unwrap();
                for sandbox in client.list_pod_sandboxes(None).await.unwrap_or_default() {
                    let _ = client.stop_pod_sandbox(&sandbox.id).await;
                    let _ = client.remove_pod_sandbox(&sandbox.id).await;
                }
            });
        })
        .join();
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.stop_pods();
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.child.id() as i32),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/containerd.sock"
[ttrpc]
  address = "{directory}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
"#,
        pause = knarr_image::PAUSE_IMAGE,
    )
}
