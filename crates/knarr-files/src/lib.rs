//! Hearing of changes in a directory: from the kernel (inotify), and by a look now and then where it tells nothing.
//!
//! Directories are listened to and not files, since a file that is replaced by another of its name would be heard of no more.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use nix::sys::inotify::{AddWatchFlags, InotifyEvent};

/// A directory, which need not exist.
pub struct Directory {
    path: PathBuf,
    /// `None` where nothing is heard: not asked for yet, or not to be had.
    inotify: Option<AsyncFd<Descriptor>>,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Directory {
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into(), inotify: None }
    }

    /// The directory that a file lies in.
    pub fn of_file(file: &Path) -> Directory {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        Directory::new(parent.unwrap_or(Path::new(".")))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins to listen, unless it does already. To be called before the files are read, so that no change falls between. Fails where the
    /// directory does not exist or the kernel has no watch left.
    pub fn listen(&mut self) -> io::Result<()> {
        if !self.is_listening() {
            self.inotify = Some(watch(&self.path)?);
        }
        Ok(())
    }

    /// Whether the kernel is heard.
    pub fn is_listening(&self) -> bool {
        self.inotify.is_some()
    }

    /// Waits for events; they may concern any file of the directory. Fails where nothing is heard (any more).
    pub async fn events(&mut self) -> io::Result<Vec<InotifyEvent>> {
        let heard = match &self.inotify {
            Some(inotify) => read(inotify).await,
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        // The directory itself went: another of its name is to be listened to.
        let gone = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        if heard.as_ref().map_or(true, |events| events.iter().any(|event| event.mask.intersects(gone))) {
            self.inotify = None;
        }
        heard
    }

    /// Returns when something in the directory may have changed: once the kernel says so, and after `at_latest` in any case.
    pub async fn changed(&mut self, at_latest: Duration) {
        if !self.is_listening() {
            return tokio::time::sleep(at_latest).await;
        }
        if let Ok(Err(error)) = tokio::time::timeout(at_latest, self.events()).await {
            tracing::warn!(directory = %self.path.display(), %error, "changes are noticed late");
        }
    }
}

async fn read(inotify: &AsyncFd<Descriptor>) -> io::Result<Vec<InotifyEvent>> {
    loop {
        let mut ready = inotify.readable().await?;
        match ready.get_inner().0.read_events() {
            Ok(events) => return Ok(events),
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(error) => return Err(error.into()),
        }
    }
}

fn watch(directory: &Path) -> io::Result<AsyncFd<Descriptor>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let of_files = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
    let of_names = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_MOVED_FROM;
    let of_itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(directory, of_files | of_names | of_itself)?;
    // SAFETY: the descriptor is owned by `Descriptor`, open as long as it lives, and always the same.
    Ok(unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any test may take: whoever returns has heard.
    const NEVER: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn files_that_come_change_and_go_are_heard_of() {
        let parent = tempfile::tempdir().expect("a directory");
        let file = parent.path().join("a");
        let mut directory = Directory::of_file(&file);
        directory.listen().expect("listens");
        std::fs::write(&file, "1").expect("writes");
        directory.changed(NEVER).await;
        std::fs::rename(&file, parent.path().join("b")).expect("renames");
        let moved = loop {
            let events = directory.events().await.expect("hears");
            if let Some(moved) = events.into_iter().find(|event| event.mask.contains(AddWatchFlags::IN_MOVED_TO)) {
                break moved;
            }
        };
        assert_eq!(moved.name.as_deref(), Some("b".as_ref()));
    }

    #[tokio::test]
    async fn a_directory_made_anew_is_heard_of_once_asked_again() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("d");
        let mut directory = Directory::new(&path);
        assert!(directory.listen().is_err(), "there is none");
        directory.changed(Duration::ZERO).await;
        std::fs::create_dir(&path).expect("makes");
        directory.listen().expect("listens");
        std::fs::remove_dir(&path).expect("removes");
        directory.changed(NEVER).await;
        std::fs::create_dir(&path).expect("makes");
        directory.listen().expect("listens to the new one");
        std::fs::write(path.join("a"), "1").expect("writes");
        directory.changed(NEVER).await;
    }
}
