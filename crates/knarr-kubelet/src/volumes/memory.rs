//! Directories in memory: secrets, tokens, and `emptyDir` of medium `Memory`.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts memory at `directory`, which exists, unless it is mounted already. `size` is in bytes.
///
/// A kernel or container that refuses mounts is no error: the directory then lies on the node's disk, with a warning.
pub fn mount_at(directory: &Path, size: Option<i64>) {
    if is_mount_point(directory) {
        return;
    }
    let options = size.filter(|size| *size > 0).map(|size| format!("size={size}"));
    let mounted = mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), options.as_deref());
    if let Err(error) = mounted {
        tracing::warn!(%error, directory = %directory.display(), "no memory can be mounted for a volume; it lies on disk");
    }
}

/// Takes away what is mounted at `directory`, if anything.
pub fn unmount(directory: &Path) {
    while is_mount_point(directory) {
        if let Err(error) = umount2(directory, MntFlags::MNT_DETACH) {
            tracing::warn!(%error, directory = %directory.display(), "a volume cannot be unmounted");
            return;
        }
    }
}

/// Another device, or another directory than its parent's entry says, means that something is mounted there.
fn is_mount_point(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| std::fs::symlink_metadata(path).map(|metadata| metadata.dev());
    match (device(directory), directory.parent().map(device)) {
        (Ok(own), Some(Ok(parent))) => own != parent,
        _ => false,
    }
}
