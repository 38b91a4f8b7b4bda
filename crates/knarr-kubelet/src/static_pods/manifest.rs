//! A manifest of a static pod: from the bytes of a file to the pod that this node runs.

use std::path::Path;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume};
use knarr_api::decode::{Encoding, FieldValidation, decode_object};
use knarr_api::resource::{GroupResource, GroupVersionKind};
use knarr_api::strategy::{Context, strategy};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{HASH, SEEN, SOURCE};

/// The pod that a file describes, as this node runs it: named after the node too, bound to it, and known by a hash of its content.
/// The error says what is wrong with the file.
pub fn read(path: &Path, bytes: &[u8], node_name: &str) -> Result<Pod, String> {
    let kind = GroupVersionKind::new("", "v1", "Pod");
    // JSON is YAML, too.
    let decoded = decode_object(bytes, Encoding::Yaml, &kind, FieldValidation::Warn).map_err(|error| error.message)?;
    for warning in &decoded.warnings {
        tracing::warn!(file = %path.display(), warning, "a static pod's manifest");
    }
    let mut object = decoded.object;
    complete(&mut object, path, bytes, node_name);
    let rules = strategy(&GroupResource::new("", "pods"), &kind);
    knarr_api::default::apply_defaults(&kind, &mut object);
    rules.default(&mut object);
    let errors = rules.validate_create(&Context::default(), &object);
    if !errors.is_empty() {
        return Err(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    }
    let pod: Pod = knarr_client::kinds::of_tree(&object).map_err(|error| error.to_string())?;
    match pod.spec.as_ref().and_then(reference_to_api) {
        Some(what) => Err(format!("static pods may not reference {what}")),
        None => Ok(pod),
    }
}

fn complete(object: &mut serde_json::Value, path: &Path, bytes: &[u8], node_name: &str) {
    let metadata = &mut object["metadata"];
    let name = format!("{}-{}", metadata["name"].as_str().unwrap_or_default(), node_name.to_lowercase());
    metadata["name"] = name.into();
    if metadata["namespace"].as_str().unwrap_or_default().is_empty() {
        metadata["namespace"] = "default".into();
    }
    let hash = match metadata["uid"].as_str() {
        Some(uid) if !uid.is_empty() => uid.to_owned(),
        _ => hash(path, bytes, node_name),
    };
    metadata["uid"] = hash.clone().into();
    metadata["annotations"][HASH] = hash.into();
    metadata["annotations"][SOURCE] = "file".into();
    metadata["annotations"][SEEN] = Timestamp::now().to_string().into();
    object["spec"]["nodeName"] = node_name.into();
    // Nothing drives a static pod off its node.
    let tolerates_all = json!({"operator": "Exists", "effect": "NoExecute"});
    match object["spec"]["tolerations"].as_array_mut() {
        Some(tolerations) => tolerations.push(tolerates_all),
        None => object["spec"]["tolerations"] = json!([tolerates_all]),
    }
    object["status"] = json!({"phase": "Pending"});
}

fn hash(path: &Path, bytes: &[u8], node_name: &str) -> String {
    let parts = [node_name.as_bytes(), path.as_os_str().as_encoded_bytes(), bytes];
    let digest = parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part).chain_update([0]));
    digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What of the API a spec needs, if anything: a static pod must be able to run without one.
fn reference_to_api(spec: &PodSpec) -> Option<&'static str> {
    let service_account = spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty());
    if service_account {
        return Some("serviceaccounts");
    }
    if spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()) {
        return Some("secrets");
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let of_containers = containers.filter_map(reference_of_container);
    of_containers.chain(spec.volumes.iter().flatten().filter_map(reference_of_volume)).next()
}

fn reference_of_container(container: &Container) -> Option<&'static str> {
    let sources = container.env_from.iter().flatten();
    let whole = sources.map(|source| (source.config_map_ref.is_some(), source.secret_ref.is_some()));
    let variables = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let keys = variables.map(|source| (source.config_map_key_ref.is_some(), source.secret_key_ref.is_some()));
    whole.chain(keys).find_map(named)
}

fn reference_of_volume(volume: &Volume) -> Option<&'static str> {
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims");
    }
    let projections = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let mut projections = projections.map(|projection| {
        let token = projection.service_account_token.is_some();
        (projection.config_map.is_some(), projection.secret.is_some() || token)
    });
    named((volume.config_map.is_some(), volume.secret.is_some())).or_else(|| projections.find_map(named))
}

fn named((config_map, secret): (bool, bool)) -> Option<&'static str> {
    if config_map { Some("configmaps") } else { secret.then_some("secrets") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Pod, String> {
        read(Path::new("/manifests/web.yaml"), text.as_bytes(), "node-1")
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let text =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: busybox}]}\n";
        let pod = read_text(text).expect("a pod");
        assert_eq!(pod.metadata.name.as_deref(), Some("web-node-1"));
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let annotations = pod.metadata.annotations.as_ref().expect("annotations");
        assert_eq!(Some(&annotations[HASH]), pod.metadata.uid.as_ref());
        let spec = pod.spec.expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("node-1"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
        let other = read_text(&text.replace("busybox", "busybox:2")).expect("a pod");
        assert_ne!(other.metadata.uid, pod.metadata.uid);
    }

    #[test]
    fn a_manifest_that_cannot_run_without_the_api_is_refused() {
        let with = |more: &str| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: web}}, spec: {{containers: [{{name: c, image: b}}], {more}}}}}"
            )
        };
        for (more, what) in [
            ("volumes: [{name: v, secret: {secretName: s}}]", "static pods may not reference secrets"),
            ("volumes: [{name: v, configMap: {name: s}}]", "static pods may not reference configmaps"),
            ("serviceAccountName: x", "static pods may not reference serviceaccounts"),
        ] {
            assert_eq!(read_text(&with(more)).expect_err("refused"), what);
        }
        assert!(read_text("kind: Service").is_err());
        assert!(read_text(&with("restartPolicy: Sometimes")).is_err());
    }
}
