//! Being told when a log file grows, ends or is replaced.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use knarr_files::{AddWatchFlags, Directory};

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
    directory: Directory,
    name: OsString,
}

impl Watcher {
    pub(super) fn new(path: &Path) -> std::io::Result<Watcher> {
        let mut directory = Directory::of_file(path);
        directory.listen()?;
        Ok(Watcher { directory, name: path.file_name().unwrap_or_default().to_owned() })
    }

    /// Waits until something happened to the file.
    pub(super) async fn changed(&mut self) -> std::io::Result<Change> {
        const SILENCE: Change = Change { replaced: false, perhaps_ended: true };
        if !self.directory.is_listening() {
            tokio::time::sleep(FALLBACK).await;
            return Ok(SILENCE);
        }
        loop {
            let Ok(events) = tokio::time::timeout(FALLBACK, self.directory.events()).await else {
                return Ok(SILENCE);
            };
            let mut change = None;
            for event in events? {
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
