//! The stores that tests run over.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use knarr_store::etcd::Endpoints;
use knarr_store::{Embedded, Etcd, Store};

/// A store of one test's own, and what must live as long.
pub struct TestStore {
    pub store: Arc<dyn Store>,
    pub shared: bool,
    etcd: Option<Child>,
    _directory: tempfile::TempDir,
}

impl TestStore {
    /// An etcd for the tests of `over_etcd` where the machine has one, else the embedded store.
    pub async fn start() -> TestStore {
        let directory = tempfile::tempdir().expect("a directory");
        if module_path!().starts_with("over_etcd")
            && let Some((etcd, store)) = start_etcd(&directory).await
        {
            return TestStore { store: Arc::new(store), shared: true, etcd: Some(etcd), _directory: directory };
        }
        let store = Arc::new(Embedded::open(directory.path()).expect("an empty store"));
        TestStore { store, shared: false, etcd: None, _directory: directory }
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if let Some(etcd) = &mut self.etcd {
            let _ = etcd.kill();
            let _ = etcd.wait();
        }
    }
}

async fn start_etcd(directory: &tempfile::TempDir) -> Option<(Child, Etcd)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let etcd = Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path().join("etcd"))
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", "http://127.0.0.1:0", "--log-level", "error"])
        // A test's data need not survive the machine.
        .arg("--unsafe-no-fsync")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(etcd) = etcd else {
        eprintln!("no etcd on the PATH (scripts/setup test installs it): over the embedded store instead");
        return None;
    };
    let store = Etcd::connect(&Endpoints { urls: vec![url], ..Endpoints::default() }).await;
    Some((etcd, store.expect("etcd answers")))
}
