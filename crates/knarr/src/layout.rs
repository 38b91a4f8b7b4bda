//! Where things lie under the data directory, and the lock that makes one `knarr up` its owner.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;

/// What the names of clusters' control groups begin with.
const CONTROL_GROUP: &str = "knarr-";

/// Paths under one data directory.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Layout { root: root.to_path_buf() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }
    pub fn containerd(&self) -> PathBuf {
        self.root.join("containerd")
    }
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }
    pub fn pod_logs(&self) -> PathBuf {
        self.root.join("log/pods")
    }
    pub fn cni(&self) -> PathBuf {
        self.root.join("cni")
    }
    /// What `--detach` writes the process's output to.
    pub fn log(&self) -> PathBuf {
        self.root.join("knarr.log")
    }
    /// Held locked while a `knarr up` runs; says its process number.
    pub fn lock(&self) -> PathBuf {
        self.root.join("knarr.lock")
    }
    /// The runtime socket that the last `up` used, so that `images` and `down --purge` find it.
    pub fn runtime_note(&self) -> PathBuf {
        self.root.join("runtime-endpoint")
    }
    /// Says the name of the control group above all of this cluster's pods.
    pub fn control_group_note(&self) -> PathBuf {
        self.root.join("control-group")
    }
    pub fn private_runtime_socket(&self) -> PathBuf {
        self.containerd().join("containerd.sock")
    }
}

/// The control group above all of this cluster's pods, below the root of every hierarchy. It is this cluster's alone: a kubelet takes away what
/// lies beside its pods' groups, and another cluster of the same kernel, of Knarr or not, is not to.
pub fn control_group(layout: &Layout) -> Result<String> {
    if let Some(name) = noted_control_group(layout) {
        return Ok(name);
    }
    let note = layout.control_group_note();
    let id = Uuid::new_v4().simple().to_string();
    let name = format!("{CONTROL_GROUP}{}", &id[..8]);
    fs::write(&note, &name).with_context(|| note.display().to_string())?;
    Ok(name)
}

/// The name noted by an earlier `up`. Half a note is none: what a purge removes below the hierarchies' roots is named by it.
pub fn noted_control_group(layout: &Layout) -> Option<String> {
    let name = fs::read_to_string(layout.control_group_note()).ok()?;
    let id = name.strip_prefix(CONTROL_GROUP)?;
    (id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(name)
}

/// Proof that this process owns the data directory; given up when dropped, or when the process dies.
pub struct Ownership {
    _file: Flock<File>,
}

/// Takes the lock. `Ok(Err(pid))`: another process has it.
pub fn own(layout: &Layout) -> Result<Result<Ownership, i32>> {
    fs::create_dir_all(layout.root()).with_context(|| layout.root().display().to_string())?;
    let path = layout.lock();
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| path.display().to_string())?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Ok(Ownership { _file: file }))
        }
        Err((mut file, _)) => Ok(Err(read_pid(&mut file).unwrap_or_default())),
    }
}

/// The process that owns the data directory, if one does.
pub fn owner(layout: &Layout) -> Option<i32> {
    let file = File::open(layout.lock()).ok()?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => None,
        Err((mut file, _)) => read_pid(&mut file),
    }
}

fn read_pid(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_keeps_its_name_and_half_a_note_names_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let layout = Layout::new(directory.path());
        assert_eq!(noted_control_group(&layout), None);
        let name = control_group(&layout).expect("a name");
        assert_eq!(control_group(&layout).expect("a name"), name);
        for half in ["", "knarr-", "knarr-12", "..", "knarr-../../x"] {
            fs::write(layout.control_group_note(), half).expect("written");
            assert_eq!(noted_control_group(&layout), None, "{half}");
        }
    }
}
