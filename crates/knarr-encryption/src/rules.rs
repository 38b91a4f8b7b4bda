//! From a configuration to the transformer of each resource.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::ciphers::Cipher;
use crate::config::{ConfigError, EncryptionConfiguration, Keys, ProviderConfiguration};
use crate::kms::Kms;
use crate::transformer::{Provider, Transformer};

/// `resource.group` as (group, resource); `*.` is everything of the core group.
pub(crate) fn parse_group_resource(text: &str) -> (&str, &str) {
    text.split_once('.').map_or(("", text), |(resource, group)| (group, resource))
}

/// Group and resource.
type GroupResource<'a> = (&'a str, &'a str);
type Providers = Vec<Arc<Provider>>;

/// The transformers by resource, with the key services that some of them need.
#[derive(Default)]
pub struct Rules {
    /// By group, then resource; `*` stands for all.
    by_group: HashMap<String, HashMap<String, Arc<Transformer>>>,
    kms: Vec<Arc<Kms>>,
}

impl Rules {
    /// The rules of a valid configuration. Asks no key service yet: see [`Rules::follow_keys`].
    pub fn new(config: &EncryptionConfiguration) -> Result<Rules, ConfigError> {
        let mut kms = Vec::new();
        let mut found: Vec<(GroupResource<'_>, Providers)> = Vec::new();
        for rule in &config.resources {
            let providers = rule.providers.iter().map(|p| provider(p, &mut kms)).collect::<Result<Vec<_>, _>>()?;
            for resource in &rule.resources {
                let resource = parse_group_resource(resource);
                refuse_masked(resource, found.iter().map(|(earlier, _)| *earlier))?;
                match found.iter_mut().find(|(earlier, _)| *earlier == resource) {
                    Some((_, earlier)) => earlier.extend(providers.iter().cloned()),
                    None => found.push((resource, providers.clone())),
                }
            }
        }
        let mut rules = Rules { kms, ..Rules::default() };
        for ((group, resource), providers) in found {
            let group = rules.by_group.entry(group.to_string()).or_default();
            group.insert(resource.to_string(), Arc::new(Transformer { providers }));
        }
        Ok(rules)
    }

    /// What is done with this resource; `None`: nothing.
    pub fn of(&self, group: &str, resource: &str) -> Option<&Arc<Transformer>> {
        let in_group = self.by_group.get(group).and_then(|g| g.get(resource).or_else(|| g.get("*")));
        in_group.or_else(|| self.by_group.get("*").and_then(|g| g.get("*")))
    }

    pub fn key_services(&self) -> &[Arc<Kms>] {
        &self.kms
    }

    /// Asks every key service for its state and goes on asking, so that keys rotate, until the future is dropped.
    pub async fn follow_keys(&self) {
        futures::future::join_all(self.kms.iter().map(|kms| kms.follow())).await;
    }
}

/// A rule after one that already covers it would never be asked.
fn refuse_masked<'a>(
    (group, resource): (&str, &str),
    mut earlier: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<(), ConfigError> {
    let mask = earlier.find(|e| *e == (group, "*") || *e == ("*", "*"));
    match mask {
        None => Ok(()),
        Some((by_group, by)) => Err(ConfigError::Invalid(format!(
            "resource {:?} is masked by earlier rule {:?}",
            shown(group, resource),
            shown(by_group, by)
        ))),
    }
}

fn shown(group: &str, resource: &str) -> String {
    match (group, resource) {
        ("", "*") => "*.".into(),
        ("", resource) => resource.into(),
        _ => format!("{resource}.{group}"),
    }
}

fn provider(config: &ProviderConfiguration, kms: &mut Vec<Arc<Kms>>) -> Result<Arc<Provider>, ConfigError> {
    const UNKNOWN_AES: &str = "no matching key was found for the provided AES transformer";
    const UNKNOWN_SECRETBOX: &str = "no matching key was found for the provided Secretbox transformer";
    let provider = if let Some(config) = &config.kms {
        let service = Arc::new(Kms::new(config));
        kms.push(service.clone());
        Provider::Kms(service)
    } else if let Some(keys) = &config.aesgcm {
        Provider::Keys { prefix: "k8s:enc:aesgcm:v1:", unknown: UNKNOWN_AES, keys: ciphers(keys, Cipher::aes_gcm)? }
    } else if let Some(keys) = &config.aescbc {
        Provider::Keys { prefix: "k8s:enc:aescbc:v1:", unknown: UNKNOWN_AES, keys: ciphers(keys, Cipher::aes_cbc)? }
    } else if let Some(keys) = &config.secretbox {
        let keys = ciphers(keys, Cipher::secretbox)?;
        Provider::Keys { prefix: "k8s:enc:secretbox:v1:", unknown: UNKNOWN_SECRETBOX, keys }
    } else {
        Provider::Identity
    };
    Ok(Arc::new(provider))
}

fn ciphers(config: &Keys, make: fn(&[u8]) -> Option<Cipher>) -> Result<Vec<(String, Cipher)>, ConfigError> {
    let keys = config.keys.iter().map(|key| {
        let secret = STANDARD.decode(&key.secret).ok();
        let cipher = secret.as_deref().and_then(make);
        let cipher = cipher.ok_or_else(|| ConfigError::Invalid(format!("key {} cannot be used", key.name)))?;
        Ok((key.name.clone(), cipher))
    });
    keys.collect()
}
