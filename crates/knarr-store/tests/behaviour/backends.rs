//! How to come by a store of each kind.

use std::sync::Arc;

use knarr_store::{Embedded, Store};
use tempfile::TempDir;

/// A store that lives as long as this does.
pub struct EmbeddedBackend {
    store: Arc<Embedded>,
    _directory: TempDir,
}

impl EmbeddedBackend {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Arc::new(Embedded::open(directory.path()).expect("an empty store opens"));
        EmbeddedBackend { store, _directory: directory }
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }
}
