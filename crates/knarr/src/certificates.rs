//! Follows the API server's certificate and its clients' authorities on disk: whoever renews them need not restart anything.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use knarr_apiserver::ServerTls;
use knarr_apiserver::authentication::x509::ClientCertificates;
use knarr_files::Directory;
use tracing::{info, warn};

use crate::credentials::{Pki, Reread};

/// A certificate and its key are two files: the second is given this long to follow the first.
const SETTLE: Duration = Duration::from_millis(200);
/// The files are looked at so often even so, where their file system tells nothing.
const FALLBACK: Duration = Duration::from_secs(60);

/// The files, and who uses what is in them.
pub struct Files {
    directory: Directory,
    last: Reread,
    tls: Arc<ServerTls>,
    clients: Arc<ClientCertificates>,
}

impl Files {
    /// Watches the directory from now on.
    pub fn watch(directory: &Path, tls: Arc<ServerTls>, clients: Arc<ClientCertificates>) -> Result<Self> {
        let mut directory = Directory::new(directory);
        directory.listen().with_context(|| format!("watching {}", directory.path().display()))?;
        let last = Pki::reread(directory.path())?;
        Ok(Files { directory, last, tls, clients })
    }

    /// Takes over what changes, for ever. What cannot be used changes nothing and is said.
    pub async fn follow(mut self) {
        loop {
            self.changed().await;
            match self.take_over() {
                Ok(true) => info!("certificates read again"),
                Ok(false) => {}
                Err(error) => warn!("the certificates on disk cannot be used, the old ones stay: {error:#}"),
            }
        }
    }

    async fn changed(&mut self) {
        self.directory.changed(FALLBACK).await;
        while self.directory.is_listening()
            && tokio::time::timeout(SETTLE, self.directory.changed(FALLBACK)).await.is_ok()
        {}
        let _ = self.directory.listen();
    }

    /// False where the files say nothing new.
    fn take_over(&mut self) -> Result<bool> {
        let files = Pki::reread(self.directory.path())?;
        if files == self.last {
            return Ok(false);
        }
        let authorities = format!("{}{}", files.authority_pem, files.front_proxy_pem);
        let tls = knarr_pki::server_config(&files.serving, &authorities)?;
        self.clients.verifier.replace(Arc::new(knarr_pki::root_store(&files.authority_pem)?))?;
        self.tls.store(Arc::new(tls));
        self.last = files;
        Ok(true)
    }
}
