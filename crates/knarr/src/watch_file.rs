//! Being told when a configuration file changes.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A file is looked at so often even so, where its file system tells nothing.
const FALLBACK: Duration = Duration::from_secs(60);

/// A file whose contents are wanted whenever they change, replaced by another or through a link that now leads elsewhere included.
pub struct WatchedFile {
    path: PathBuf,
    last: String,
    inotify: Option<AsyncFd<Descriptor>>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl WatchedFile {
    /// `text` is what was read of it last.
    pub fn new(path: &Path, text: String) -> Self {
        let inotify = watch_directory(path).inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error, "changes of the file are noticed late");
        });
        WatchedFile { path: path.to_path_buf(), last: text, inotify: inotify.ok() }
    }

    /// Waits for other contents than those last returned; what cannot be read has not changed.
    pub async fn changed(&mut self) -> String {
        loop {
            match std::fs::read_to_string(&self.path) {
                Ok(text) if text != self.last && !text.trim().is_empty() => {
                    self.last.clone_from(&text);
                    return text;
                }
                _ => {}
            }
            self.something_happened().await;
        }
    }

    async fn something_happened(&mut self) {
        let Some(inotify) = &self.inotify else { return tokio::time::sleep(FALLBACK).await };
        let Ok(Ok(mut ready)) = tokio::time::timeout(FALLBACK, inotify.readable()).await else { return };
        match ready.get_inner().0.read_events() {
            // In a directory of few files; which of them it was is not worth a question.
            Ok(_) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => {
                tracing::warn!(%error, "changes of the file are noticed late");
                drop(ready);
                self.inotify = None;
            }
        }
    }
}

fn watch_directory(path: &Path) -> std::io::Result<AsyncFd<Descriptor>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).map_or(OsString::from("."), OsString::from);
    let events = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(Path::new(&directory), events)?;
    // SAFETY: the descriptor is owned by `Descriptor`, open as long as it lives, and always the same.
    Ok(unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?)
}
