//! Being told when a log file grows, ends or is replaced.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often a silent log is looked at even so: where the file system tells nothing, or the end of a container was missed.
const FALLBACK: Duration = Duration::from_secs(5);

/// What happened to the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Another file has its name now (rotation).
    pub replaced: bool,
    /// Its writer closed it, or nothing happened for a while: worth asking whether the container still runs.
    pub perhaps_ended: bool,
}

/// Watches the directory of a file, so that a file that is renamed away and created anew is noticed.
pub(super) struct Watcher {
    inotify: AsyncFd<Descriptor>,
    name: OsString,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    pub(super) fn new(path: &Path) -> std::io::Result<Watcher> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let directory = path.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let events = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(&directory, events)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        // SAFETY: the descriptor is owned by `Descriptor`, open as long as it lives, and always the same.
        let inotify = unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?;
        Ok(Watcher { inotify, name })
    }

    /// Waits until something happened to the file.
    pub(super) async fn changed(&mut self) -> std::io::Result<Change> {
        loop {
            let readable = tokio::time::timeout(FALLBACK, self.inotify.readable()).await;
            let Ok(ready) = readable else { return Ok(Change { replaced: false, perhaps_ended: true }) };
            let mut guard = ready?;
            let events = match guard.get_inner().0.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    continue;
                }
                Err(errno) => return Err(errno.into()),
            };
            let mut change = None;
            for event in events {
                let directory_gone = event.mask.contains(AddWatchFlags::IN_DELETE_SELF);
                let overflowed = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                if event.name.as_ref() != Some(&self.name) && !directory_gone && !overflowed {
                    continue;
                }
                let change: &mut Change = change.get_or_insert_default();
                change.replaced |=
                    overflowed || event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
                change.perhaps_ended |=
                    overflowed || directory_gone || event.mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
            }
            if let Some(change) = change {
                return Ok(change);
            }
        }
    }
}
