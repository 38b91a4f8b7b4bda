//! Volumes: what containers find at their mount paths.

pub mod atomic;
mod host_path;
mod memory;
pub mod mounts;
mod ownership;
mod payload;
pub mod references;
pub mod token;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Volume;

use crate::pod::{DesiredPod, resources};

pub use payload::Sources;

/// Why a volume cannot be made. The texts are upstream's, as they show in events.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    #[error("references non-existent config key: {0}")]
    NoSuchKey(String),
    #[error("{0}")]
    Field(String),
    #[error("{0}")]
    Api(String),
    #[error("{0}")]
    HostPath(String),
    #[error("{0} is not supported by this kubelet")]
    Unsupported(String),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A volume that cannot be made, by name.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {error}")]
pub struct SetUpError {
    pub volume: String,
    #[source]
    pub error: VolumeError,
}

/// Where a pod's volumes lie on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodVolumes {
    pub paths: HashMap<String, PathBuf>,
    /// When the content is to be looked at again although nothing told: a token wants renewing.
    pub refresh_at: Option<Timestamp>,
}

/// Makes all volumes of `pod`, or brings them up to date. Making what is there already changes nothing.
pub async fn set_up(pod: &DesiredPod, pod_dir: &Path, sources: &Sources<'_>) -> Result<PodVolumes, SetUpError> {
    let mut volumes = PodVolumes::default();
    for volume in pod.spec().volumes.iter().flatten() {
        let of_volume = |error| SetUpError { volume: volume.name.clone(), error };
        let (path, refresh_at) = set_up_one(volume, pod, pod_dir, sources).await.map_err(of_volume)?;
        volumes.paths.insert(volume.name.clone(), path);
        volumes.refresh_at = [volumes.refresh_at, refresh_at].into_iter().flatten().min();
    }
    Ok(volumes)
}

async fn set_up_one(
    volume: &Volume,
    pod: &DesiredPod,
    pod_dir: &Path,
    sources: &Sources<'_>,
) -> Result<(PathBuf, Option<Timestamp>), VolumeError> {
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        host_path::set_up(&path, source.type_.as_deref().unwrap_or_default())?;
        return Ok((path, None));
    }
    let plugin = plugin_of(volume).ok_or_else(|| VolumeError::Unsupported("this kind of volume".to_owned()))?;
    let path = pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name);
    let group = sources.fs_group;
    if let Some(source) = &volume.empty_dir {
        let limit = source.size_limit.as_ref().map(resources::whole);
        let in_memory = source.medium.as_deref() == Some("Memory");
        let only_on_mismatch = changes_only_on_mismatch(pod);
        let at = path.clone();
        blocking(move || empty_dir(&at, in_memory, limit, group, only_on_mismatch)).await?;
        return Ok((path, None));
    }
    let built = payload::build(volume, sources).await?.unwrap_or_default();
    let (at, in_memory) = (path.clone(), volume.config_map.is_none());
    blocking(move || {
        let fresh = !at.exists();
        std::fs::create_dir_all(&at)?;
        if in_memory {
            memory::mount_at(&at, None);
        }
        if fresh {
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o777))?;
            group.map_or(Ok(()), |group| ownership::give_to_group(&at, group, true))?;
        }
        let to_group = |version: &Path| group.map_or(Ok(()), |group| ownership::give_to_group(version, group, true));
        atomic::write(&at, &built.payload, &to_group)
    })
    .await?;
    Ok((path, built.refresh_at))
}

fn plugin_of(volume: &Volume) -> Option<&'static str> {
    let plugins = [
        (volume.empty_dir.is_some(), "empty-dir"),
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
        (volume.downward_api.is_some(), "downward-api"),
        (volume.projected.is_some(), "projected"),
    ];
    plugins.into_iter().find_map(|(is, plugin)| is.then_some(plugin))
}

fn changes_only_on_mismatch(pod: &DesiredPod) -> bool {
    let context = pod.spec().security_context.as_ref();
    context.and_then(|context| context.fs_group_change_policy.as_deref()) == Some("OnRootMismatch")
}

fn empty_dir(
    path: &Path,
    in_memory: bool,
    limit: Option<i64>,
    group: Option<u32>,
    only_on_mismatch: bool,
) -> io::Result<()> {
    let fresh = !path.exists();
    std::fs::create_dir_all(path)?;
    if in_memory {
        memory::mount_at(path, limit);
    }
    if fresh {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    }
    match group {
        Some(group) if fresh || !(only_on_mismatch && ownership::root_matches(path, group)) => {
            ownership::give_to_group(path, group, false)
        }
        _ => Ok(()),
    }
}

/// Takes away everything of a pod on this node's disk, except its logs. What is mounted is unmounted first, so that nothing of a
/// mounted file system is removed.
pub async fn tear_down(pod_dir: PathBuf) -> io::Result<()> {
    blocking(move || {
        for plugin in subdirectories(&pod_dir.join("volumes")) {
            subdirectories(&plugin).iter().for_each(|volume| memory::unmount(volume));
        }
        match std::fs::remove_dir_all(&pod_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
    .await
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
