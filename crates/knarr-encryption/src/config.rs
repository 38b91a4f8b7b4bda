//! Upstream's `EncryptionConfiguration` (`apiserver.config.k8s.io/v1`).

mod validation;

use serde::Deserialize;

pub use validation::validate;

/// Which resources are encrypted, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionConfiguration {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub resources: Vec<ResourceConfiguration>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceConfiguration {
    /// `secrets`, `deployments.apps`, `*.` (the core group), `*.apps`, `*.*`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// The first encrypts; all decrypt.
    #[serde(default)]
    pub providers: Vec<ProviderConfiguration>,
}

/// Exactly one of its fields is set.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderConfiguration {
    pub aesgcm: Option<Keys>,
    pub aescbc: Option<Keys>,
    pub secretbox: Option<Keys>,
    pub identity: Option<Identity>,
    pub kms: Option<KmsConfiguration>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[serde(default)]
    pub keys: Vec<Key>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    #[serde(default)]
    pub name: String,
    /// Base64.
    #[serde(default)]
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `identity: {}`: no encryption.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KmsConfiguration {
    /// `v2`; `v1`, the default, is refused as upstream refuses it.
    #[serde(default = "version_one")]
    pub api_version: String,
    #[serde(default)]
    pub name: String,
    pub cachesize: Option<i64>,
    #[serde(default)]
    pub endpoint: String,
    /// A Go duration, such as `3s`.
    pub timeout: Option<String>,
}

fn version_one() -> String {
    "v1".into()
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("error decoding encryption provider configuration file: {0}")]
    Syntax(String),
    #[error("got unexpected config type: {0}, Kind={1}")]
    Kind(String, String),
    #[error("{0}")]
    Invalid(String),
}

impl EncryptionConfiguration {
    /// Reads and validates the file's text.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Err(ConfigError::Invalid("encryption provider configuration file is empty".into()));
        }
        let config: EncryptionConfiguration = knarr_api::yaml::from_str(text).map_err(ConfigError::Syntax)?;
        let kinds = ["EncryptionConfiguration", "EncryptionConfig"];
        let versions = ["apiserver.config.k8s.io/v1", "v1"];
        if !kinds.contains(&config.kind.as_str()) || !versions.contains(&config.api_version.as_str()) {
            return Err(ConfigError::Kind(config.api_version, config.kind));
        }
        let errors = validate(&config);
        match errors.as_slice() {
            [] => Ok(config),
            [one] => Err(ConfigError::Invalid(one.to_string())),
            more => {
                let texts: Vec<String> = more.iter().map(ToString::to_string).collect();
                Err(ConfigError::Invalid(format!("[{}]", texts.join(", "))))
            }
        }
    }
}

#[cfg(test)]
mod tests;
