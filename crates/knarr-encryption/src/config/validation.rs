//! What upstream demands of an `EncryptionConfiguration`, in its words.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::{EncryptionConfiguration, Key, KmsConfiguration, ProviderConfiguration};
use crate::kms::timeout_of;
use crate::rules::parse_group_resource;

const AES_KEY_SIZES: [usize; 3] = [16, 24, 32];
const SECRETBOX_KEY_SIZES: [usize; 1] = [32];
/// What upstream keeps beside its objects and serves under no path.
const NOT_SERVED: [&str; 3] = ["apiserveripinfo", "serviceipallocations", "servicenodeportallocations"];

/// Every fault of a configuration; none if it may be used.
pub fn validate(config: &EncryptionConfiguration) -> Vec<FieldError> {
    let root = Path::ROOT.child("resources");
    let mut errors = Vec::new();
    if config.resources.is_empty() {
        errors.push(FieldError::required(&root, "at least one resources is required"));
    }
    let mut kms_names: Vec<&str> = Vec::new();
    for (i, rule) in config.resources.iter().enumerate() {
        let at = root.index(i);
        check_resources(&rule.resources, &at.child("resources"), &mut errors);
        let providers = at.child("providers");
        if rule.providers.is_empty() {
            errors.push(FieldError::required(&providers, format!("at least one {providers} is required")));
        }
        for (j, provider) in rule.providers.iter().enumerate() {
            check_provider(provider, &providers.index(j), &mut kms_names, &mut errors);
        }
    }
    errors
}

fn check_resources(resources: &[String], path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if resources.is_empty() {
        errors.push(FieldError::required(path, format!("at least one {path} is required")));
    }
    let parsed: Vec<(&str, &str)> = resources.iter().map(|r| parse_group_resource(r)).collect();
    let pairs = || parsed.iter().enumerate().flat_map(|(i, a)| parsed[i + 1..].iter().map(move |b| (a, b)));
    if pairs().any(|(a, b)| a == b) {
        let why = "the same resource cannot be specified multiple times";
        errors.push(FieldError::invalid(path, &json!(resources), why));
    }
    let all = ("*", "*");
    let overlap = |a: &(&str, &str), b: &(&str, &str)| {
        a != b && (*a == all || *b == all || (a.0 == b.0 && (a.1 == "*" || b.1 == "*")))
    };
    if pairs().any(|(a, b)| overlap(a, b)) {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked";
        errors.push(FieldError::invalid(path, &json!(resources), why));
    }
    for (j, resource) in resources.iter().enumerate() {
        if let Some(why) = refused_resource(resource) {
            errors.push(FieldError::invalid(&path.index(j), &json!(resource), why));
        }
    }
}

fn refused_resource(resource: &str) -> Option<&'static str> {
    let (group, name) = parse_group_resource(resource);
    if resource.to_lowercase() != resource {
        Some("resource name should not contain capital letters")
    } else if resource == "*" {
        Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources")
    } else if NOT_SERVED.contains(&resource) {
        Some("resources which do not have REST API/s cannot be encrypted")
    } else if group == "events.k8s.io" {
        Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file",
        )
    } else if group == "extensions" {
        Some("'extensions' group has been removed and cannot be used for encryption")
    } else if group == "*" && name != "*" {
        Some("encrypting the same resource across groups is not supported")
    } else {
        None
    }
}

fn check_provider<'a>(
    provider: &'a ProviderConfiguration,
    path: &Path<'_>,
    kms_names: &mut Vec<&'a str>,
    errors: &mut Vec<FieldError>,
) {
    let ciphers = [
        ("aesgcm", &provider.aesgcm, AES_KEY_SIZES.as_slice()),
        ("aescbc", &provider.aescbc, AES_KEY_SIZES.as_slice()),
        ("secretbox", &provider.secretbox, SECRETBOX_KEY_SIZES.as_slice()),
    ];
    let given = ciphers.iter().filter(|(_, keys, _)| keys.is_some()).count()
        + usize::from(provider.identity.is_some())
        + usize::from(provider.kms.is_some());
    if given == 0 {
        let why = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
        errors.push(FieldError::invalid(path, &json!({}), why));
    }
    if given > 1 {
        let why = "more than one provider specified in a single element, should split into different list elements";
        errors.push(FieldError::invalid(path, &json!({}), why));
    }
    if let Some(kms) = &provider.kms {
        check_kms(kms, &path.child("kms"), kms_names, errors);
        kms_names.push(&kms.name);
        return;
    }
    for (name, keys, sizes) in ciphers {
        let Some(keys) = keys else { continue };
        let cipher = path.child(name);
        let at = cipher.child("keys");
        if keys.keys.is_empty() {
            errors.push(FieldError::required(&at, "at least one keys is required"));
        }
        for (i, key) in keys.keys.iter().enumerate() {
            check_key(key, &at.index(i), sizes, errors);
        }
    }
}

fn check_key(key: &Key, path: &Path<'_>, sizes: &[usize], errors: &mut Vec<FieldError>) {
    if key.name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name is a mandatory field for a key"));
    }
    let at = path.child("secret");
    if key.secret.is_empty() {
        errors.push(FieldError::required(&at, "secret is a mandatory field for a key"));
        return;
    }
    let redacted = Value::from("REDACTED");
    match STANDARD.decode(&key.secret) {
        Err(_) => errors.push(FieldError::invalid(&at, &redacted, "secrets must be base64 encoded")),
        Ok(secret) if !sizes.contains(&secret.len()) => {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            let why = format!(
                "secret is not of the expected length, got {}, expected one of [{}]",
                secret.len(),
                sizes.join(" ")
            );
            errors.push(FieldError::invalid(&at, &redacted, why));
        }
        Ok(_) => {}
    }
}

fn check_kms(kms: &KmsConfiguration, path: &Path<'_>, names: &[&str], errors: &mut Vec<FieldError>) {
    let name = path.child("name");
    if kms.name.is_empty() {
        errors.push(FieldError::required(&name, "name is a mandatory field for a provider"));
    }
    if kms.api_version != "v1" && kms.name.contains(':') {
        let why = format!("invalid KMS provider name {}, must not contain ':'", kms.name);
        errors.push(FieldError::invalid(&name, &json!(kms.name), why));
    }
    if names.contains(&kms.name.as_str()) {
        let why = format!("duplicate KMS provider name {}, names must be unique", kms.name);
        errors.push(FieldError::invalid(&name, &json!(kms.name), why));
    }
    if timeout_of(kms).is_none_or(|t| t.is_zero()) {
        let why = "timeout should be a positive value";
        errors.push(FieldError::invalid(&path.child("timeout"), &json!(kms.timeout), why));
    }
    check_endpoint(&kms.endpoint, &path.child("endpoint"), errors);
    if let (Some(size), true) = (kms.cachesize, kms.api_version != "v1") {
        errors.push(FieldError::invalid(&path.child("cachesize"), &json!(size), "cachesize is not supported in v2"));
    }
    let version = path.child("apiVersion");
    match kms.api_version.as_str() {
        "v2" => {}
        "v1" => errors.push(FieldError::forbidden(
            &version,
            "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.",
        )),
        other => {
            let why = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
            errors.push(FieldError::invalid(&version, &json!(other), why));
        }
    }
}

fn check_endpoint(endpoint: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if endpoint.is_empty() {
        errors.push(FieldError::invalid(path, &json!(""), "endpoint is a mandatory field for a kms"));
        return;
    }
    let scheme = endpoint.split_once(':').map_or("", |(scheme, _)| scheme);
    if scheme != "unix" {
        let why = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
        errors.push(FieldError::invalid(path, &json!(endpoint), why));
    }
}
