//! Directories whose whole content changes at once, as readers see it.
//!
//! The content lies in a directory of its own (`..2026_01_02_03_04_05.000000000`); `..data` is a symbolic link to it, and every
//! visible name is a link through `..data`. Replacing that one link replaces everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const LINK: &str = "..data";
const NEW_LINK: &str = "..data_tmp";

/// A file of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFile {
    pub bytes: Vec<u8>,
    pub mode: u32,
    /// Who owns it, where that is not root.
    pub owner: Option<u32>,
}

/// The content of a volume, by path.
pub type Payload = BTreeMap<String, PayloadFile>;

/// Makes `payload` the content of `directory`, unless it is already. `prepare` sets ownership before anybody sees the content.
pub fn write(directory: &Path, payload: &Payload, prepare: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    if let Some(bad) = payload.keys().find(|path| !is_inside(path)) {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("invalid path {bad:?}")));
    }
    fs::create_dir_all(directory)?;
    let old = fs::read_link(directory.join(LINK)).ok();
    if old.as_ref().is_some_and(|old| holds(&directory.join(old), payload)) {
        return link_names(directory, payload);
    }
    let version = directory.join(version_name());
    fs::create_dir(&version)?;
    fs::set_permissions(&version, fs::Permissions::from_mode(0o755))?;
    write_files(&version, payload)?;
    prepare(&version)?;
    switch_to(directory, &version)?;
    link_names(directory, payload)?;
    unlink_stale(directory, payload)?;
    match old {
        Some(old) => fs::remove_dir_all(directory.join(old)).or_else(ignore_missing),
        None => Ok(()),
    }
}

/// Paths may be nested, but never leave the volume nor collide with the writer's own names.
fn is_inside(path: &str) -> bool {
    let components: Vec<_> = Path::new(path).components().collect();
    let first_is_own = path.starts_with("..");
    !path.is_empty() && !first_is_own && components.iter().all(|component| matches!(component, Component::Normal(_)))
}

fn version_name() -> String {
    let now = Timestamp::now();
    format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond())
}

fn write_files(version: &Path, payload: &Payload) -> io::Result<()> {
    for (path, file) in payload {
        let target = version.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut options = fs::OpenOptions::new();
        let mut opened = options.write(true).create_new(true).mode(0o600).open(&target)?;
        io::Write::write_all(&mut opened, &file.bytes)?;
        // Set apart from opening, which the process's mask would cut.
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
        if let Some(owner) = file.owner {
            std::os::unix::fs::chown(&target, Some(owner), None)?;
        }
    }
    Ok(())
}

fn switch_to(directory: &Path, version: &Path) -> io::Result<()> {
    let fresh = directory.join(NEW_LINK);
    fs::remove_file(&fresh).or_else(ignore_missing)?;
    symlink(version.file_name().unwrap_or_default(), &fresh)?;
    fs::rename(fresh, directory.join(LINK))
}

fn visible_names(payload: &Payload) -> BTreeSet<&str> {
    payload.keys().filter_map(|path| path.split('/').next()).collect()
}

fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    for name in visible_names(payload) {
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(PathBuf::from(LINK).join(name), link)?;
        }
    }
    Ok(())
}

fn unlink_stale(directory: &Path, payload: &Payload) -> io::Result<()> {
    let wanted = visible_names(payload);
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            fs::remove_file(directory.join(name)).or_else(ignore_missing)?;
        }
    }
    Ok(())
}

/// Whether a version's files are exactly the payload's.
fn holds(version: &Path, payload: &Payload) -> bool {
    let same =
        |(path, file): (&String, &PayloadFile)| fs::read(version.join(path)).is_ok_and(|bytes| bytes == file.bytes);
    payload.iter().all(same) && count_files(version).is_ok_and(|count| count == payload.len())
}

fn count_files(directory: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| PayloadFile { bytes: text.into(), mode: 0o644, owner: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    fn nothing(_: &Path) -> io::Result<()> {
        Ok(())
    }

    #[test]
    fn content_changes_at_once_and_stale_names_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        write(directory.path(), &payload(&[("a", "1"), ("sub/b", "2")]), &nothing).expect("written");
        assert_eq!(fs::read_to_string(at("sub/b")).expect("readable"), "2");
        let first = fs::read_link(at(LINK)).expect("a link");

        write(directory.path(), &payload(&[("a", "1"), ("sub/b", "2")]), &nothing).expect("written");
        assert_eq!(fs::read_link(at(LINK)).expect("a link"), first, "unchanged content is left alone");

        write(directory.path(), &payload(&[("a", "3")]), &nothing).expect("written");
        assert_eq!(fs::read_to_string(at("a")).expect("readable"), "3");
        assert!(fs::symlink_metadata(at("sub")).is_err() && !at(&first.to_string_lossy()).exists());
    }

    #[test]
    fn a_path_may_not_leave_the_volume() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in ["../x", "/x", "a/../../x", "..data/x", ""] {
            assert!(write(directory.path(), &payload(&[(path, "1")]), &nothing).is_err(), "{path}");
        }
    }
}
