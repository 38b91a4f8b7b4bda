//! Who owns a volume: `fsGroup`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Gives `root` and everything in it to `group`, readable and writable for it (only readable where `read_only`); new files in it
/// belong to the group too.
pub fn give_to_group(root: &Path, group: u32, read_only: bool) -> io::Result<()> {
    let metadata = fs::symlink_metadata(root)?;
    if metadata.gid() != group {
        lchown(root, None, Some(group))?;
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    let access = if read_only { 0o440 } else { 0o660 };
    let extra = if metadata.is_dir() { access | 0o2110 } else { access };
    let mode = metadata.permissions().mode();
    if mode | extra != mode {
        fs::set_permissions(root, fs::Permissions::from_mode((mode | extra) & 0o7777))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(root)? {
            give_to_group(&entry?.path(), group, read_only)?;
        }
    }
    Ok(())
}

/// Whether the root already is as [`give_to_group`] leaves it: enough for `fsGroupChangePolicy: OnRootMismatch`.
pub fn root_matches(root: &Path, group: u32) -> bool {
    let wanted = 0o2770;
    fs::symlink_metadata(root)
        .is_ok_and(|metadata| metadata.gid() == group && metadata.permissions().mode() & wanted == wanted)
}
