//! Being told when a configuration file changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use knarr_files::Directory;

/// A file is looked at so often even so, where its file system tells nothing.
const FALLBACK: Duration = Duration::from_secs(60);

/// A file whose contents are wanted whenever they change, replaced by another or through a link that now leads elsewhere included.
pub struct WatchedFile {
    path: PathBuf,
    last: String,
    directory: Directory,
}

impl WatchedFile {
    /// `text` is what was read of it last.
    pub fn new(path: &Path, text: String) -> Self {
        let mut directory = Directory::of_file(path);
        if let Err(error) = directory.listen() {
            tracing::warn!(path = %path.display(), %error, "changes of the file are noticed late");
        }
        WatchedFile { path: path.to_path_buf(), last: text, directory }
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
            // In a directory of few files; which of them it was is not worth a question.
            self.directory.changed(FALLBACK).await;
            let _ = self.directory.listen();
        }
    }
}
