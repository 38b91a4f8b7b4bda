//! The control groups of pods: a parent a pod, below one a quality of service, so that the kernel holds what a pod promises as a whole.
//!
//! The runtime makes the containers' own groups below. Where the kernel or an outer container refuses, pods run without: a warning says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::pod::{DesiredPod, QosClass, resources};

const MOUNT: &str = "/sys/fs/cgroup";

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
            QosClass::Guaranteed => "",
            QosClass::Burstable => "/burstable",
            QosClass::BestEffort => "/besteffort",
        };
        format!("{}{class}/pod{}", self.root, pod.uid)
    }

    /// Makes a pod's group with the pod's limits. What is refused is warned of.
    pub fn prepare(&self, pod: &DesiredPod) {
        let parent = self.parent_of(pod);
        let settings = self.settings(pod);
        if let Layout::Unified(mount) = &self.layout {
            enable_controllers(mount, &parent);
        }
        for (controller, file, value) in settings {
            let directory = self.directory(controller, &parent);
            if let Err(error) = write(&directory, file, &value) {
                tracing::warn!(%error, group = %directory.display(), file, "a pod's limit is not held by the kernel");
            }
        }
    }

    /// Takes a pod's group away, if its containers are gone.
    pub fn remove(&self, pod: &DesiredPod) {
        let parent = self.parent_of(pod);
        let directories = match &self.layout {
            Layout::Unified(mount) => vec![mount.clone()],
            Layout::PerController(mount) => controllers_of(mount),
        };
        for directory in directories {
            // Of no use to anybody any more; a group that is busy or gone is none of our business.
            let _ = fs::remove_dir(below(&directory, &parent));
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

fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join(file), value)
}
