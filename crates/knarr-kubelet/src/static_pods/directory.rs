//! A directory of small files whose contents are wanted whenever they change.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use knarr_files::Directory;

/// The directory is looked at so often even so, where it does not exist yet or its file system tells nothing; as upstream.
const FALLBACK: Duration = Duration::from_secs(20);
/// A larger file is no manifest.
const LARGEST: u64 = 10 << 20;

/// A directory being watched.
pub struct Watched(Directory);

impl Watched {
    pub fn new(directory: PathBuf) -> Watched {
        Watched(Directory::new(directory))
    }

    /// The contents of the directory's files; hidden ones (those of editors that save) do not count.
    pub fn read(&mut self) -> BTreeMap<PathBuf, Vec<u8>> {
        if let Err(error) = self.0.listen() {
            tracing::debug!(directory = %self.0.path().display(), %error, "not heard of; it is looked at now and then");
        }
        let entries = fs::read_dir(self.0.path()).into_iter().flatten().flatten();
        let is_wanted = |path: &PathBuf| {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST)
        };
        let files = entries.map(|entry| entry.path()).filter(is_wanted);
        files.filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
    }

    /// Returns when something in the directory may have changed.
    pub async fn changed(&mut self) {
        self.0.changed(FALLBACK).await;
    }
}
