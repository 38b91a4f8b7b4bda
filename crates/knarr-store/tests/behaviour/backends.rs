//! How to come by a store of each kind.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use knarr_store::etcd::Endpoints;
use knarr_store::{Embedded, Etcd, Store};
use tempfile::TempDir;

/// A store that lives as long as this does.
pub struct EmbeddedBackend {
    store: Arc<Embedded>,
    _directory: TempDir,
}

impl EmbeddedBackend {
    pub async fn start() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Arc::new(Embedded::open(directory.path()).expect("an empty store opens"));
        Some(EmbeddedBackend { store, _directory: directory })
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}

/// An etcd server of one test.
pub struct EtcdServer {
    process: Child,
    port: u16,
    directory: TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

fn spawn(directory: &TempDir, port: u16) -> std::io::Result<Child> {
    let url = format!("http://127.0.0.1:{port}");
    Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path().join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"])
        // A test's data need not survive the machine.
        .args(["--unsafe-no-fsync"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

impl EtcdServer {
    /// `None`, and a word, where etcd is not installed.
    pub fn start() -> Option<Self> {
        let (directory, port) = (tempfile::tempdir().expect("a temporary directory"), free_port());
        match spawn(&directory, port) {
            Ok(process) => Some(EtcdServer { process, port, directory }),
            Err(error) => {
                eprintln!("skipped: etcd cannot be started ({error}); scripts/setup test installs it");
                None
            }
        }
    }

    pub fn endpoints(&self) -> Endpoints {
        Endpoints { urls: vec![format!("http://127.0.0.1:{}", self.port)], ..Endpoints::default() }
    }

    /// As a crash, and a start some time later.
    pub fn kill_and_start_again(&mut self) {
        self.kill();
        self.process = spawn(&self.directory, self.port).expect("etcd starts again");
    }

    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The etcd backend and its server.
pub struct EtcdBackend {
    store: Arc<Etcd>,
    _server: EtcdServer,
}

impl EtcdBackend {
    pub async fn start() -> Option<Self> {
        let server = EtcdServer::start()?;
        let store = Etcd::connect(&server.endpoints()).await.expect("etcd answers");
        Some(EtcdBackend { store: Arc::new(store), _server: server })
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}
