//! What pods that are gone left behind, and images that nobody uses.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use knarr_cri::v1;

use crate::context::NodeContext;
use crate::node::machine;
use crate::runtime::labels;
use crate::volumes;

/// What an orphan gets between being asked and being killed: its pod's grace is no longer known.
const GRACE: Duration = Duration::from_secs(30);

/// How often orphans are looked for: only a call to the runtime that was given up, and had its effect after all, makes one.
const PERIOD: Duration = Duration::from_secs(60);

/// What pods that are gone left on this node.
#[derive(Default)]
pub struct Orphans {
    containers: Vec<v1::Container>,
    sandboxes: Vec<v1::PodSandbox>,
    directories: Vec<PathBuf>,
    /// Uids of pods that left a control group.
    groups: Vec<String>,
}

/// Looks for everything of pods that the API does not know (any more): they were deleted while no kubelet looked.
pub async fn find(node: &NodeContext, known: &HashSet<String>) -> Orphans {
    let listed = futures::try_join!(node.runtime.list_pod_sandboxes(None), node.runtime.list_containers(None));
    let (sandboxes, containers) = listed.unwrap_or_else(|error| {
        tracing::warn!(%error, "orphans cannot be looked for");
        Default::default()
    });
    // What has no pod's label is somebody else's, on a runtime that is shared.
    let is_orphan =
        |labels: &HashMap<String, String>| labels.get(labels::POD_UID).is_some_and(|uid| !known.contains(uid));
    let entries = fs::read_dir(node.config.root_dir.join("pods")).into_iter().flatten().flatten();
    Orphans {
        containers: containers.into_iter().filter(|container| is_orphan(&container.labels)).collect(),
        sandboxes: sandboxes.into_iter().filter(|sandbox| is_orphan(&sandbox.labels)).collect(),
        directories: entries
            .filter(|entry| !known.contains(&*entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect(),
        groups: node.cgroups.pods().into_iter().filter(|uid| !known.contains(uid)).collect(),
    }
}

/// Looks for orphans again and again. One is removed when it was one at two looks: what is seen once may belong to a pod that came
/// between the answers of the runtime and of the API.
pub async fn keep_away(node: &NodeContext, known: &(dyn Fn() -> HashSet<String> + Send + Sync)) {
    let mut seen = HashSet::new();
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut found = find(node, &known()).await;
        let now = found.names();
        found.keep_only(&seen);
        remove(node, found).await;
        seen = now;
    }
}

impl Orphans {
    fn names(&self) -> HashSet<String> {
        let containers = self.containers.iter().map(|container| container.id.clone());
        let sandboxes = self.sandboxes.iter().map(|sandbox| sandbox.id.clone());
        let directories = self.directories.iter().map(|directory| directory.display().to_string());
        containers.chain(sandboxes).chain(directories).chain(self.groups.iter().cloned()).collect()
    }

    fn keep_only(&mut self, names: &HashSet<String>) {
        self.containers.retain(|container| names.contains(&container.id));
        self.sandboxes.retain(|sandbox| names.contains(&sandbox.id));
        self.directories.retain(|directory| names.contains(&directory.display().to_string()));
        self.groups.retain(|uid| names.contains(uid));
    }
}

/// Stops and removes orphans.
pub async fn remove(node: &NodeContext, orphans: Orphans) {
    for container in &orphans.containers {
        remove_container(node, container).await;
    }
    for sandbox in orphans.sandboxes {
        remove_sandbox(node, &sandbox.id).await;
        let of_pod = sandbox.metadata.unwrap_or_default();
        crate::logs::remove_pod(&node.config.pod_log_dir(&of_pod.namespace, &of_pod.name, &of_pod.uid));
    }
    for directory in orphans.directories {
        let shown = directory.display().to_string();
        if let Err(error) = volumes::tear_down(directory).await {
            tracing::warn!(%error, directory = shown, "an orphaned pod's directory cannot be removed");
        }
    }
    for uid in orphans.groups {
        if let Err(error) = node.cgroups.remove_orphan(&uid) {
            tracing::warn!(%error, uid, "an orphaned pod's control group cannot be removed");
        }
    }
}

async fn remove_container(node: &NodeContext, container: &v1::Container) {
    if container.state == v1::ContainerState::ContainerRunning as i32
        && let Err(error) = node.runtime.stop_container(&container.id, GRACE).await
    {
        tracing::warn!(%error, id = container.id, "an orphaned container does not stop");
    }
    if let Err(error) = node.runtime.remove_container(&container.id).await {
        tracing::warn!(%error, id = container.id, "an orphaned container cannot be removed");
    }
}

async fn remove_sandbox(node: &NodeContext, id: &str) {
    let stopped = node.runtime.stop_pod_sandbox(id).await;
    let removed = match stopped {
        Ok(()) => node.runtime.remove_pod_sandbox(id).await,
        Err(error) => Err(error),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, id, "an orphaned sandbox cannot be removed");
    }
}

/// Removes images that no container uses while their file system is fuller than it may be.
pub async fn collect_images(node: &NodeContext) {
    let config = &node.config;
    let Some(mountpoint) = image_file_system(node).await else { return };
    let percent_used =
        || machine::disk(mountpoint.as_ref()).map_or(0, |disk| 100 - disk.available * 100 / disk.total.max(1));
    if percent_used() < i64::from(config.image_gc_high) {
        return;
    }
    remove_images(node, || percent_used() < i64::from(config.image_gc_low)).await;
}

/// Removes every image that no container uses: the node runs out of disk.
pub async fn remove_unused_images(node: &NodeContext) {
    remove_images(node, || false).await;
}

async fn remove_images(node: &NodeContext, enough: impl Fn() -> bool) {
    let lists = futures::try_join!(node.runtime.list_images(), node.runtime.list_containers(None));
    let Ok((images, containers)) = lists else { return };
    let used: HashSet<&str> =
        containers.iter().flat_map(|container| [container.image_ref.as_str(), container.image_id.as_str()]).collect();
    let is_used = |image: &v1::Image| {
        used.contains(image.id.as_str()) || image.repo_digests.iter().any(|digest| used.contains(digest.as_str()))
    };
    // Sandboxes are not containers, so nothing here shows that their image is used.
    let is_pinned =
        |image: &v1::Image| image.pinned || image.repo_tags.iter().any(|t| node.config.pinned_images.contains(t));
    for image in images.iter().filter(|image| !is_pinned(image) && !is_used(image)) {
        if enough() {
            return;
        }
        if let Err(error) = node.runtime.remove_image(&image.id).await {
            tracing::warn!(%error, image = image.id, "an unused image cannot be removed");
        }
    }
}

/// Where the runtime keeps images.
pub async fn image_file_system(node: &NodeContext) -> Option<String> {
    let info = node.runtime.image_fs_info().await.ok()?;
    info.image_filesystems.into_iter().find_map(|usage| usage.fs_id).map(|id| id.mountpoint)
}
