//! The stores that tests run over.

use std::sync::Arc;

use knarr_store::etcd::Endpoints;
use knarr_store::{Embedded, Etcd, Store};

#[path = "../../../../tests/src/etcd.rs"]
mod etcd;

use etcd::EtcdServer;

/// A store of one test's own, and what must live as long.
pub struct TestStore {
    pub store: Arc<dyn Store>,
    pub shared: bool,
    _etcd: Option<EtcdServer>,
    _directory: tempfile::TempDir,
}

impl TestStore {
    /// An etcd for the tests of `over_etcd` where the machine has one, else the embedded store.
    pub async fn start() -> TestStore {
        let directory = tempfile::tempdir().expect("a directory");
        let etcd = if module_path!().starts_with("over_etcd") { EtcdServer::start() } else { None };
        let store: Arc<dyn Store> = match &etcd {
            Some(etcd) => {
                let urls = vec![format!("http://{}", etcd.address())];
                Arc::new(Etcd::connect(&Endpoints { urls, ..Endpoints::default() }).await.expect("etcd answers"))
            }
            None => Arc::new(Embedded::open(directory.path()).expect("an empty store")),
        };
        TestStore { store, shared: etcd.is_some(), _etcd: etcd, _directory: directory }
    }
}
