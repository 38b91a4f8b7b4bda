//! Container logs on disk: rotation, and removal with their containers.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use knarr_cri::Runtime;
use knarr_cri::v1::{ContainerFilter, ContainerState, ContainerStateValue};

/// Removes a container's log and its rotated files.
pub fn remove(log: &Path) {
    for file in rotated(log).into_iter().chain([log.to_owned()]) {
        if let Err(error) = fs::remove_file(&file) {
            tracing::debug!(%error, file = %file.display(), "a log cannot be removed");
        }
    }
}

/// Removes all logs of a pod.
pub fn remove_pod(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, directory = %directory.display(), "a pod's logs cannot be removed");
    }
}

/// The rotated files of a log (`0.log.20260102-030405`), the oldest first.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (log.parent(), log.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Rotates the logs of running containers that grew past `max_size`, keeping `max_files` of each.
pub async fn rotate(runtime: &dyn Runtime, max_size: u64, max_files: u32) {
    let running = ContainerStateValue { state: ContainerState::ContainerRunning as i32 };
    let containers =
        match runtime.list_containers(Some(ContainerFilter { state: Some(running), ..Default::default() })).await {
            Ok(containers) => containers,
            Err(error) => return tracing::debug!(%error, "logs cannot be looked at"),
        };
    for container in containers {
        let Ok(status) = runtime.container_status(&container.id).await else { continue };
        let log = PathBuf::from(status.log_path);
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > max_size) {
            rotate_one(runtime, &container.id, &log, max_files).await;
        }
    }
}

async fn rotate_one(runtime: &dyn Runtime, id: &str, log: &Path, max_files: u32) {
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string();
    let target = PathBuf::from(format!("{}.{stamp}", log.display()));
    if let Err(error) = fs::rename(log, &target) {
        return tracing::warn!(%error, log = %log.display(), "a log cannot be rotated");
    }
    if let Err(error) = runtime.reopen_container_log(id).await {
        tracing::warn!(%error, log = %log.display(), "the runtime does not reopen a log");
        // The runtime goes on writing to the old file; give it its name back.
        if let Err(error) = fs::rename(&target, log) {
            tracing::warn!(%error, log = %log.display(), "a rotated log does not get its name back");
        }
        return;
    }
    // The file being written counts as one of those kept.
    let rotated = rotated(log);
    let excess = rotated.len().saturating_sub(usize::try_from(max_files).unwrap_or(1).saturating_sub(1));
    for file in &rotated[..excess] {
        if let Err(error) = fs::remove_file(file) {
            tracing::debug!(%error, file = %file.display(), "an old log cannot be removed");
        }
    }
}
