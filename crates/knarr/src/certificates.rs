//! Follows the API server's certificate and its clients' authorities on disk: whoever renews them need not restart anything.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use knarr_apiserver::ServerTls;
use knarr_apiserver::authentication::x509::ClientCertificates;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use crate::credentials::Pki;

/// A certificate and its key are two files: the second is given this long to follow the first.
const SETTLE: Duration = Duration::from_millis(200);

/// The files, and who uses what is in them.
pub struct Files {
    directory: PathBuf,
    changes: AsyncFd<Watch>,
    tls: Arc<ServerTls>,
    clients: Arc<ClientCertificates>,
}

struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Files {
    /// Watches the directory from now on. Fails where the kernel gives no watch.
    pub fn watch(directory: &Path, tls: Arc<ServerTls>, clients: Arc<ClientCertificates>) -> Result<Self> {
        let watch = || -> std::io::Result<AsyncFd<Watch>> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
            inotify.add_watch(directory, flags)?;
            // SAFETY: the descriptor is the inotify instance's own, which lives and is owned as long as the watch.
            Ok(unsafe { AsyncFd::register(Watch(inotify)) }?)
        };
        let changes = watch().with_context(|| format!("watching {}", directory.display()))?;
        Ok(Files { directory: directory.to_path_buf(), changes, tls, clients })
    }

    /// Takes over what changes, for ever. What cannot be used changes nothing and is said.
    pub async fn follow(self) {
        loop {
            if let Err(error) = self.changed().await {
                return warn!(%error, "the certificates are no longer watched");
            }
            match self.take_over() {
                Ok(()) => info!("certificates read again"),
                Err(error) => warn!("the certificates on disk cannot be used, the old ones stay: {error:#}"),
            }
        }
    }

    async fn changed(&self) -> std::io::Result<()> {
        self.drain().await?;
        loop {
            match tokio::time::timeout(SETTLE, self.drain()).await {
                Ok(more) => more?,
                Err(_) => return Ok(()),
            }
        }
    }

    async fn drain(&self) -> std::io::Result<()> {
        let mut ready = self.changes.readable().await?;
        match ready.try_io(|watch| Ok(watch.get_ref().0.read_events()?)) {
            Ok(events) => events.map(drop),
            // Nothing there after all.
            Err(_) => Ok(()),
        }
    }

    fn take_over(&self) -> Result<()> {
        let files = Pki::reread(&self.directory)?;
        let authorities = format!("{}{}", files.authority_pem, files.front_proxy_pem);
        let tls = knarr_pki::server_config(&files.serving, &authorities)?;
        self.clients.verifier.replace(Arc::new(knarr_pki::root_store(&files.authority_pem)?))?;
        self.tls.store(Arc::new(tls));
        Ok(())
    }
}
