//! What is left on the node, and what pods use of it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use knarr_cri::v1::ContainerStats;

use super::Signal;
use crate::context::NodeContext;
use crate::node::machine;
use crate::pod::{DesiredPod, resources};
use crate::runtime::labels;

/// What is left of something, and how much there is in all.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub available: i64,
    pub capacity: i64,
}

/// The room there is now; what cannot be told has none of its own.
pub async fn rooms(node: &NodeContext) -> HashMap<Signal, Room> {
    let mut rooms = HashMap::new();
    let memory = Room { available: machine::memory_info("MemAvailable"), capacity: machine::memory_info("MemTotal") };
    rooms.insert(Signal::Memory, memory);
    if let Some((available, capacity)) = machine::free_pids() {
        rooms.insert(Signal::Pids, Room { available, capacity });
    }
    add_disk(&mut rooms, &node.config.root_dir, Signal::NodeDisk, Signal::NodeInodes);
    if let Some(images) = crate::orphans::image_file_system(node).await {
        add_disk(&mut rooms, images.as_ref(), Signal::ImageDisk, Signal::ImageInodes);
    }
    rooms
}

fn add_disk(rooms: &mut HashMap<Signal, Room>, path: &Path, bytes: Signal, inodes: Signal) {
    let Some(disk) = machine::disk(path) else { return };
    rooms.insert(bytes, Room { available: disk.available, capacity: disk.total });
    if disk.inodes > 0 {
        rooms.insert(inodes, Room { available: disk.free_inodes, capacity: disk.inodes });
    }
}

/// What one container uses, in bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerUsage {
    pub name: String,
    pub memory: i64,
    /// Its writable layer and its logs.
    pub disk: i64,
}

/// What one pod uses, in bytes.
#[derive(Clone, Debug, Default)]
pub struct PodUsage {
    pub containers: Vec<ContainerUsage>,
    /// Of its `emptyDir`s on disk, by name.
    pub volumes: HashMap<String, i64>,
}

impl PodUsage {
    pub fn memory(&self) -> i64 {
        self.containers.iter().map(|container| container.memory).sum()
    }

    pub fn disk(&self) -> i64 {
        self.containers.iter().map(|container| container.disk).chain(self.volumes.values().copied()).sum()
    }
}

/// What the containers of all pods use, as the runtime counts it.
pub async fn statistics(node: &NodeContext) -> Vec<ContainerStats> {
    node.runtime.list_container_stats(None).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the runtime does not say what containers use");
        Vec::new()
    })
}

/// What `pod` uses. Walks its volumes and logs: not to be called where one may not wait.
pub fn of_pod(node: &NodeContext, pod: &DesiredPod, statistics: &[ContainerStats]) -> PodUsage {
    let logs = node.config.pod_log_dir(&pod.namespace, &pod.name, &pod.uid);
    let of_pod = statistics.iter().filter_map(|stats| {
        let attributes = stats.attributes.as_ref()?;
        (attributes.labels.get(labels::POD_UID) == Some(&pod.uid)).then_some((attributes, stats))
    });
    let containers = of_pod.map(|(attributes, stats)| {
        let name = attributes.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
        let layer = stats.writable_layer.as_ref().and_then(|layer| layer.used_bytes.as_ref());
        let memory = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
        let bytes = |value: u64| i64::try_from(value).unwrap_or(i64::MAX / 2);
        ContainerUsage {
            memory: memory.map_or(0, |memory| bytes(memory.value)),
            disk: layer.map_or(0, |layer| bytes(layer.value)) + size(&logs.join(&name)),
            name,
        }
    });
    let volumes = node.config.pod_dir(&pod.uid).join("volumes/kubernetes.io~empty-dir");
    let on_disk =
        pod.spec().volumes.iter().flatten().filter(|volume| {
            volume.empty_dir.as_ref().is_some_and(|source| source.medium.as_deref() != Some("Memory"))
        });
    PodUsage {
        containers: containers.collect(),
        volumes: on_disk.map(|volume| (volume.name.clone(), size(&volumes.join(&volume.name)))).collect(),
    }
}

/// Whether anything of the pod's use of the disk is limited by itself.
pub fn is_limited(pod: &DesiredPod) -> bool {
    let by_volume = pod.spec().volumes.iter().flatten().any(|volume| {
        volume
            .empty_dir
            .as_ref()
            .is_some_and(|source| source.size_limit.as_ref().is_some_and(|limit| resources::whole(limit) > 0))
    });
    by_volume
        || pod
            .containers
            .iter()
            .any(|container| resources::limit_millis(container.spec.resources.as_ref(), "ephemeral-storage").is_some())
}

/// The room that a directory takes on its disk, in bytes, without what other disks are mounted in it.
fn size(path: &Path) -> i64 {
    fn add(path: &Path, device: u64) -> u64 {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
        if metadata.dev() != device {
            return 0;
        }
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten().filter(|_| metadata.is_dir());
        metadata.blocks() * 512 + entries.map(|entry| add(&entry.path(), device)).sum::<u64>()
    }
    let device = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.dev());
    i64::try_from(add(path, device)).unwrap_or(i64::MAX / 2)
}
