//! A container's mounts: its pod's volumes, as it asks for them.

use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::VolumeMount;
use knarr_cri::v1::{Mount, MountPropagation};

use super::PodVolumes;
use crate::environment::expansion;
use crate::pod::{DesiredContainer, DesiredPod};

/// The runtime's mounts of a container. Errors are as they show in the container's status.
pub fn of_container(
    pod: &DesiredPod,
    container: &DesiredContainer,
    volumes: &PodVolumes,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let wanted = container.spec.volume_mounts.iter().flatten();
    wanted.map(|mount| one(pod, mount, volumes, environment)).collect()
}

fn one(
    pod: &DesiredPod,
    mount: &VolumeMount,
    volumes: &PodVolumes,
    environment: &[(String, String)],
) -> Result<Mount, String> {
    let root = volumes
        .paths
        .get(&mount.name)
        .ok_or_else(|| format!("cannot find volume \"{}\" to mount into container", mount.name))?;
    let host_path = match sub_path(mount, environment)? {
        Some(sub_path) => inside(root, &sub_path)?,
        None => root.clone(),
    };
    let container_path =
        if mount.mount_path.starts_with('/') { mount.mount_path.clone() } else { format!("/{}", mount.mount_path) };
    Ok(Mount {
        container_path,
        host_path: host_path.to_string_lossy().into_owned(),
        readonly: mount.read_only.unwrap_or(false) || is_read_only_volume(pod, &mount.name),
        propagation: propagation(mount.mount_propagation.as_deref()) as i32,
        recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
        ..Mount::default()
    })
}

/// Volumes made of API objects are read-only for every container.
fn is_read_only_volume(pod: &DesiredPod, name: &str) -> bool {
    let volume = pod.spec().volumes.iter().flatten().find(|volume| volume.name == name);
    volume.is_some_and(|volume| {
        volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    })
}

fn propagation(mode: Option<&str>) -> MountPropagation {
    match mode {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

fn sub_path(mount: &VolumeMount, environment: &[(String, String)]) -> Result<Option<String>, String> {
    let lookup = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let path = match (&mount.sub_path, &mount.sub_path_expr) {
        (_, Some(expression)) if !expression.is_empty() => {
            if let Some(unknown) = expansion::first_unknown(expression, &lookup) {
                return Err(format!("failed to expand subPath \"{expression}\": missing value for \"{unknown}\""));
            }
            expansion::expand(expression, &lookup)
        }
        (Some(path), _) => path.clone(),
        _ => return Ok(None),
    };
    if path.is_empty() {
        return Ok(None);
    }
    let plain =
        Path::new(&path).components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(format!("error SubPath `{path}` must not be an absolute path and must not contain '..'"));
    }
    Ok(Some(path))
}

/// The path of `sub_path` in a volume, made if missing; links that lead out of the volume are refused.
fn inside(root: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("failed to prepare subPath for volumeMount: {error}");
    let root = root.canonicalize().map_err(failed)?;
    let wanted = root.join(sub_path);
    let existing = nearest_existing(&wanted).canonicalize().map_err(failed)?;
    let escapes = || format!("subpath \"{sub_path}\" not within volume path \"{}\"", root.display());
    if !existing.starts_with(&root) {
        return Err(escapes());
    }
    if std::fs::symlink_metadata(&wanted).is_err() {
        std::fs::create_dir_all(&wanted).map_err(failed)?;
    }
    let resolved = wanted.canonicalize().map_err(failed)?;
    if resolved.starts_with(&root) { Ok(resolved) } else { Err(escapes()) }
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| std::fs::symlink_metadata(ancestor).is_ok()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_is_made_and_may_not_leave_its_volume() {
        let volume = tempfile::tempdir().expect("a directory");
        let made = inside(volume.path(), "a/b").expect("made");
        assert!(made.is_dir());
        std::os::unix::fs::symlink("/", volume.path().join("out")).expect("a link");
        assert!(inside(volume.path(), "out/etc").is_err());
        assert!(inside(volume.path(), "out").is_err());
    }

    #[test]
    fn a_sub_path_expression_needs_all_its_values() {
        let environment = [("POD".to_owned(), "x".to_owned())];
        let mount =
            |expression: &str| VolumeMount { sub_path_expr: Some(expression.to_owned()), ..VolumeMount::default() };
        assert_eq!(sub_path(&mount("logs/$(POD)"), &environment), Ok(Some("logs/x".to_owned())));
        assert!(sub_path(&mount("$(OTHER)"), &environment).is_err());
        assert!(sub_path(&mount("../x"), &environment).is_err());
    }
}
