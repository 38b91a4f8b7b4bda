//! Registry credentials out of pull secrets.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_cri::v1::AuthConfig;
use serde::Deserialize;

const DEFAULT_REGISTRY: &str = "docker.io";

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// The credentials a pull secret's values hold for `image`, the most specific first.
pub fn credentials(values: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<AuthConfig> {
    let of_registry = registry_path(image);
    let mut matching: Vec<_> =
        entries(values).into_iter().filter(|(pattern, _)| matches(&without_scheme(pattern), &of_registry)).collect();
    matching.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
    matching.into_iter().map(|(_, entry)| auth_config(entry)).collect()
}

fn entries(values: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Entry> {
    if let Some(json) = values.get(".dockerconfigjson") {
        return serde_json::from_slice::<DockerConfig>(json).map(|config| config.auths).unwrap_or_default();
    }
    values.get(".dockercfg").and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
}

fn auth_config(entry: Entry) -> AuthConfig {
    let decoded =
        STANDARD.decode(entry.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (user, password) = decoded.split_once(':').unwrap_or_default();
    let or = |own: String, other: &str| if own.is_empty() { other.to_owned() } else { own };
    AuthConfig {
        username: or(entry.username, user),
        password: or(entry.password, password),
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
        // Not the server: a runtime takes an address without a scheme for no URL, and the secret was chosen for the image anyway.
        ..AuthConfig::default()
    }
}

/// `host[:port]/path` of an image, with the default registry written out.
fn registry_path(image: &str) -> String {
    let first = image.split('/').next().unwrap_or_default();
    let has_host = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if has_host { image.to_owned() } else { format!("{DEFAULT_REGISTRY}/{image}") }
}

fn without_scheme(pattern: &str) -> String {
    let pattern = pattern.trim_start_matches("https://").trim_start_matches("http://");
    let pattern = pattern.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    if pattern == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { pattern.to_owned() }
}

/// Whether a credential's server, whose host labels may be `*` globs, is the image's registry and a prefix of its path.
fn matches(pattern: &str, image: &str) -> bool {
    let (pattern_host, pattern_path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (host, path) = image.split_once('/').unwrap_or((image, ""));
    let pattern_labels: Vec<_> = pattern_host.split('.').collect();
    let labels: Vec<_> = host.split('.').collect();
    pattern_labels.len() == labels.len()
        && pattern_labels.iter().zip(&labels).all(|(pattern, label)| glob(pattern, label))
        && path.starts_with(pattern_path)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).filter(|index| rest.is_char_boundary(*index)).any(|index| glob(after, &rest[index..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(json: &str, image: &str) -> Vec<String> {
        let values = BTreeMap::from([(".dockerconfigjson".to_owned(), json.as_bytes().to_vec())]);
        credentials(&values, image).into_iter().map(|auth| format!("{}:{}", auth.username, auth.password)).collect()
    }

    #[test]
    fn a_credential_is_for_its_registry_and_the_specific_one_is_first() {
        let json = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"},
            "reg.example:5000": {"username": "c", "password": "d"}, "reg.example:5000/team": {"username": "e", "password": "f"},
            "*.cloud.example": {"username": "g", "password": "h"}}}"#;
        assert_eq!(users(json, "busybox"), ["a:b"]);
        assert_eq!(users(json, "reg.example:5000/team/x:1"), ["e:f", "c:d"]);
        assert_eq!(users(json, "eu.cloud.example/x"), ["g:h"]);
        assert!(users(json, "other.example/x").is_empty());
    }
}
