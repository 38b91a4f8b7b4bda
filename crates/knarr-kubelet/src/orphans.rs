//! What pods that are gone left behind, and images that nobody uses.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use knarr_cri::v1;

use crate::context::NodeContext;
use crate::node::machine;
use crate::runtime::labels;
use crate::volumes;

/// What an orphan gets between being asked and being killed: its pod's grace is no longer known.
const GRACE: Duration = Duration::from_secs(30);

/// Stops and removes everything of pods that the API does not know (any more): they were deleted while no kubelet looked.
pub async fn clean_up(node: &NodeContext, known: HashSet<String>) {
    let listed = futures::try_join!(node.runtime.list_pod_sandboxes(None), node.runtime.list_containers(None));
    let (sandboxes, containers) = match listed {
        Ok(lists) => lists,
        Err(error) => return tracing::warn!(%error, "orphans cannot be looked for"),
    };
    for container in containers {
        let uid = container.labels.get(labels::POD_UID);
        if uid.is_some_and(|uid| !known.contains(uid)) {
            remove_container(node, &container).await;
        }
    }
    for sandbox in sandboxes {
        let metadata = sandbox.metadata.unwrap_or_default();
        if !metadata.uid.is_empty() && !known.contains(&metadata.uid) && sandbox.labels.contains_key(labels::POD_UID) {
            remove_sandbox(node, &sandbox.id).await;
            crate::logs::remove_pod(&node.config.pod_log_dir(&metadata.namespace, &metadata.name, &metadata.uid));
        }
    }
    remove_directories(node, &known).await;
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

async fn remove_directories(node: &NodeContext, known: &HashSet<String>) {
    let entries = fs::read_dir(node.config.root_dir.join("pods")).into_iter().flatten().flatten();
    for entry in entries {
        let uid = entry.file_name().to_string_lossy().into_owned();
        if known.contains(&uid) {
            continue;
        }
        if let Err(error) = volumes::tear_down(entry.path()).await {
            tracing::warn!(%error, uid, "an orphaned pod's directory cannot be removed");
        }
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
    let lists = futures::try_join!(node.runtime.list_images(), node.runtime.list_containers(None));
    let Ok((images, containers)) = lists else { return };
    let used: HashSet<&str> =
        containers.iter().flat_map(|container| [container.image_ref.as_str(), container.image_id.as_str()]).collect();
    let is_used = |image: &v1::Image| {
        used.contains(image.id.as_str()) || image.repo_digests.iter().any(|digest| used.contains(digest.as_str()))
    };
    for image in images.iter().filter(|image| !image.pinned && !is_used(image)) {
        if percent_used() < i64::from(config.image_gc_low) {
            return;
        }
        if let Err(error) = node.runtime.remove_image(&image.id).await {
            tracing::warn!(%error, image = image.id, "an unused image cannot be removed");
        }
    }
}

async fn image_file_system(node: &NodeContext) -> Option<String> {
    let info = node.runtime.image_fs_info().await.ok()?;
    info.image_filesystems.into_iter().find_map(|usage| usage.fs_id).map(|id| id.mountpoint)
}
