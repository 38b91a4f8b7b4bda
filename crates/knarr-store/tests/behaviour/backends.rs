//! How to come by a store of each kind.

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

#[path = "../../../../tests/src/etcd.rs"]
mod etcd;

pub use etcd::EtcdServer;

/// Where a server is reached.
pub fn endpoints(server: &EtcdServer) -> Endpoints {
    Endpoints { urls: vec![format!("http://{}", server.address())], ..Endpoints::default() }
}

/// The etcd backend and its server.
pub struct EtcdBackend {
    store: Arc<Etcd>,
    _server: EtcdServer,
}

impl EtcdBackend {
    pub async fn start() -> Option<Self> {
        let server = EtcdServer::start()?;
        let store = Etcd::connect(&endpoints(&server)).await.expect("etcd answers");
        Some(EtcdBackend { store: Arc::new(store), _server: server })
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}
