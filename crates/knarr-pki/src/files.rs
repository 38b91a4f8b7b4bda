use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::Error;

/// Writes `path` with mode 0600 through a temporary file in the same directory, so that a crash leaves the old file or the new
/// one. Makes the directory if it is missing.
pub fn write_private(path: &Path, contents: &str) -> Result<(), Error> {
    write(path, contents, 0o600)
}

pub(crate) fn write_public(path: &Path, contents: &str) -> Result<(), Error> {
    write(path, contents, 0o644)
}

fn write(path: &Path, contents: &str, mode: u32) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file(parent))?;
    }
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(contents.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(Error::file(&temporary))?;
    fs::rename(&temporary, path).map_err(Error::file(path))
}

/// The file's text; `None` if there is no such file.
pub(crate) fn read_if_present(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path)(e)),
    }
}
