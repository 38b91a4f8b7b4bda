//! A directory of small files whose contents are wanted whenever they change.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The directory is looked at so often even so, where it does not exist yet or its file system tells nothing; as upstream.
const FALLBACK: Duration = Duration::from_secs(20);
/// A larger file is no manifest.
const LARGEST: u64 = 10 << 20;

/// A directory being watched.
pub struct Watched {
    directory: PathBuf,
    inotify: Option<AsyncFd<Descriptor>>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watched {
    pub fn new(directory: PathBuf) -> Watched {
        Watched { directory, inotify: None }
    }

    /// The contents of the directory's files; hidden ones (those of editors that save) do not count.
    pub fn read(&mut self) -> BTreeMap<PathBuf, Vec<u8>> {
        if self.inotify.is_none() {
            // Before reading, so that no change falls between.
            self.inotify = watch(&self.directory).ok();
        }
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let is_wanted = |path: &PathBuf| {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST)
        };
        let files = entries.map(|entry| entry.path()).filter(is_wanted);
        files.filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
    }

    /// Returns when something in the directory may have changed.
    pub async fn changed(&mut self) {
        let Some(inotify) = &self.inotify else { return tokio::time::sleep(FALLBACK).await };
        let Ok(Ok(mut ready)) = tokio::time::timeout(FALLBACK, inotify.readable()).await else { return };
        match ready.get_inner().0.read_events() {
            Ok(events) => {
                drop(ready);
                // The directory itself went: another of its name is to be watched.
                if events
                    .iter()
                    .any(|event| event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF))
                {
                    self.inotify = None;
                }
            }
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(_) => {
                drop(ready);
                self.inotify = None;
            }
        }
    }
}

fn watch(directory: &Path) -> std::io::Result<AsyncFd<Descriptor>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let of_files = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO;
    let of_itself = AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(directory, of_files | of_itself | AddWatchFlags::IN_CREATE)?;
    // SAFETY: the descriptor is owned by `Descriptor`, open as long as it lives, and always the same.
    Ok(unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?)
}
