//! `hostPath` volumes: paths of the node, with a check of what is there.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::VolumeError;

/// Checks, or makes, what a `hostPath` volume of that type promises.
pub fn set_up(path: &Path, kind: &str) -> Result<(), VolumeError> {
    let shown = path.display();
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(test);
    let complaint =
        |what: &str| Err(VolumeError::HostPath(format!("hostPath type check failed: {shown} is not {what}")));
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => make_directory(path).map_err(VolumeError::Io),
        "FileOrCreate" if found.is_none() => make_file(path).map_err(VolumeError::Io),
        "DirectoryOrCreate" | "Directory" if is(fs::FileType::is_dir) => Ok(()),
        "DirectoryOrCreate" | "Directory" => complaint("a directory"),
        "FileOrCreate" | "File" if is(fs::FileType::is_file) => Ok(()),
        "FileOrCreate" | "File" => complaint("a file"),
        "Socket" if is(fs::FileType::is_socket) => Ok(()),
        "Socket" => complaint("a socket file"),
        "CharDevice" if is(fs::FileType::is_char_device) => Ok(()),
        "CharDevice" => complaint("a character device"),
        "BlockDevice" if is(fs::FileType::is_block_device) => Ok(()),
        "BlockDevice" => complaint("a block device"),
        other => Err(VolumeError::HostPath(format!("{other:?} is an invalid volume type"))),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn make_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().create_new(true).write(true).open(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}
