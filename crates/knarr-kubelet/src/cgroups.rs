//! The control groups of pods: a parent a pod, below one a quality of service, so that the kernel holds what a pod promises as a whole.
//!
//! The runtime makes the containers' own groups below. Where the kernel or an outer container refuses, pods run without: a warning says so.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::pod::{DesiredPod, QosClass, resources};

const MOUNT: &str = "/sys/fs/cgroup";
/// Where pods' groups lie below the root: guaranteed, burstable and best-effort ones.
const CLASSES: [&str; 3] = ["", "/burstable", "/besteffort"];

/// How the node's control groups are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Layout {
    /// One hierarchy.
    Unified(PathBuf),
    /// A hierarchy a controller; the hybrid layout is this with an empty unified one beside.
    PerController(PathBuf),
}

/// The control groups of this node's pods.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Layout,
    root: String,
}

impl Cgroups {
    /// The groups below `root` (such as `/kubepods`) of whatever layout this node has.
    pub fn new(root: &str) -> Cgroups {
        Cgroups::at(Path::new(MOUNT), root)
    }

    fn at(mount: &Path, root: &str) -> Cgroups {
        let unified = mount.join("cgroup.controllers").exists();
        let layout = if unified { Layout::Unified(mount.to_owned()) } else { Layout::PerController(mount.to_owned()) };
        Cgroups { layout, root: root.trim_end_matches('/').to_owned() }
    }

    /// The parent group of a pod's containers, as the runtime is told it.
    pub fn parent_of(&self, pod: &DesiredPod) -> String {
        let class = match pod.qos {
            QosClass::Guaranteed => CLASSES[0],
            QosClass::Burstable => CLASSES[1],
            QosClass::BestEffort => CLASSES[2],
        };
        format!("{}{class}/pod{}", self.root, pod.uid)
    }

    /// Makes a pod's group with the pod's limits. What is refused is warned of.
    pub fn prepare(&self, pod: &DesiredPod) {
        for (file, error) in self.set(pod) {
            tracing::warn!(%error, file = %file.display(), "a pod's limit is not held by the kernel");
        }
    }

    /// Makes a pod's group with the pod's limits, as far as the kernel takes them; returns what it refused.
    pub fn set(&self, pod: &DesiredPod) -> Vec<(PathBuf, io::Error)> {
        let parent = self.parent_of(pod);
        if let Layout::Unified(mount) = &self.layout {
            enable_controllers(mount, &parent);
        }
        let set = |(controller, file, value): (&str, &str, String)| {
            let directory = self.directory(controller, &parent);
            write(&directory, file, &value).err().map(|error| (directory.join(file), error))
        };
        self.settings(pod).into_iter().filter_map(set).collect()
    }

    /// Takes a pod's group away with all in it. Fails while a process of the pod still ends.
    pub fn remove(&self, pod: &DesiredPod) -> io::Result<()> {
        self.remove_group(&self.parent_of(pod))
    }

    /// The uids of all pods that have a group, whether or not the API knows them.
    pub fn pods(&self) -> HashSet<String> {
        let mut uids = HashSet::new();
        for directory in self.hierarchies() {
            for class in CLASSES {
                let entries = fs::read_dir(below(&directory, &format!("{}{class}", self.root))).into_iter().flatten();
                let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
                uids.extend(names.filter_map(|name| name.strip_prefix("pod").map(str::to_owned)));
            }
        }
        uids
    }

    /// Takes the group of a pod away of which only the uid is known.
    pub fn remove_orphan(&self, uid: &str) -> io::Result<()> {
        CLASSES.iter().try_for_each(|class| self.remove_group(&format!("{}{class}/pod{uid}", self.root)))
    }

    fn remove_group(&self, group: &str) -> io::Result<()> {
        self.hierarchies().iter().try_for_each(|directory| remove_tree(&below(directory, group)))
    }

    fn hierarchies(&self) -> Vec<PathBuf> {
        match &self.layout {
            Layout::Unified(mount) => vec![mount.clone()],
            Layout::PerController(mount) => controllers_of(mount),
        }
    }

    fn directory(&self, controller: &str, parent: &str) -> PathBuf {
        match &self.layout {
            Layout::Unified(mount) => below(mount, parent),
            Layout::PerController(mount) => below(&mount.join(controller), parent),
        }
    }

    /// Controller, file and value of what a pod asks for as a whole.
    fn settings(&self, pod: &DesiredPod) -> Vec<(&'static str, &'static str, String)> {
        let requests = resources::pod_requests(pod.spec());
        let limits = resources::pod_limits(pod.spec());
        let shares = resources::cpu_shares(requests.get("cpu").copied().unwrap_or(0));
        let quota = limits.get("cpu").map(|millis| resources::cpu_quota(*millis)).filter(|quota| *quota > 0);
        let memory = limits.get("memory").map(|millis| millis / 1000).filter(|bytes| *bytes > 0);
        let period = resources::QUOTA_PERIOD;
        let mut settings = Vec::new();
        match &self.layout {
            Layout::Unified(_) => {
                settings.push(("cpu", "cpu.weight", weight(shares).to_string()));
                settings.extend(quota.map(|quota| ("cpu", "cpu.max", format!("{quota} {period}"))));
                settings.extend(memory.map(|bytes| ("memory", "memory.max", bytes.to_string())));
            }
            Layout::PerController(_) => {
                settings.push(("cpu", "cpu.shares", shares.to_string()));
                settings.extend(quota.map(|quota| ("cpu", "cpu.cfs_quota_us", quota.to_string())));
                settings.extend(memory.map(|bytes| ("memory", "memory.limit_in_bytes", bytes.to_string())));
            }
        }
        settings
    }
}

/// The weight of version 2 for shares of version 1, linearly from the one range to the other.
fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

fn below(directory: &Path, parent: &str) -> PathBuf {
    directory.join(parent.trim_start_matches('/'))
}

fn controllers_of(mount: &Path) -> Vec<PathBuf> {
    fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A group has a controller only if all its ancestors hand it down.
fn enable_controllers(mount: &Path, parent: &str) {
    let mut directory = mount.to_owned();
    for component in parent.split('/').filter(|component| !component.is_empty()) {
        for controller in ["+cpu", "+memory", "+pids"] {
            if let Err(error) = fs::write(directory.join("cgroup.subtree_control"), controller) {
                tracing::debug!(%error, controller, group = %directory.display(), "a controller is not handed down");
            }
        }
        directory.push(component);
        if fs::create_dir_all(&directory).is_err() {
            return;
        }
    }
}

/// Removes a group, those in it first. What is gone already is no error.
fn remove_tree(group: &Path) -> io::Result<()> {
    let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let entries = match fs::read_dir(group) {
        Err(error) if is_gone(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path())?;
    }
    match fs::remove_dir(group) {
        Err(error) if !is_gone(&error) => Err(error),
        _ => Ok(()),
    }
}

fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join(file), value)
}
