//! Who may, and what is encrypted: flags with the names that kube-apiserver gives them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Command};
use knarr_api::go_duration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Everything that may be said about access; a field that is `None` was not said here.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct AccessSaid {
    /// Whether requests without credentials are let through as system:anonymous [default: true]
    #[arg(long, env = "KNARR_ANONYMOUS_AUTH", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub anonymous_auth: Option<bool>,
    /// What tokens for the API server itself are meant for [default: the issuer of service-account tokens]
    #[arg(long, env = "KNARR_API_AUDIENCES", value_delimiter = ',', value_name = "NAMES")]
    pub api_audiences: Option<Vec<String>>,
    /// An AuthenticationConfiguration; read again when it changes
    #[arg(long, env = "KNARR_AUTHENTICATION_CONFIG", value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// An OpenID issuer whose tokens are believed
    #[arg(long, env = "KNARR_OIDC_ISSUER_URL", value_name = "URL")]
    pub oidc_issuer_url: Option<String>,
    /// The audience that its tokens must have
    #[arg(long, env = "KNARR_OIDC_CLIENT_ID", value_name = "NAME")]
    pub oidc_client_id: Option<String>,
    /// The authorities of its certificate [default: the system's]
    #[arg(long, env = "KNARR_OIDC_CA_FILE", value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name [default: sub]
    #[arg(long, env = "KNARR_OIDC_USERNAME_CLAIM", value_name = "CLAIM")]
    pub oidc_username_claim: Option<String>,
    /// What stands before it; - for nothing [default: the issuer and #, unless the claim is email]
    #[arg(long, env = "KNARR_OIDC_USERNAME_PREFIX", value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that is the user's groups
    #[arg(long, env = "KNARR_OIDC_GROUPS_CLAIM", value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What stands before each group
    #[arg(long, env = "KNARR_OIDC_GROUPS_PREFIX", value_name = "TEXT")]
    pub oidc_groups_prefix: Option<String>,
    /// Algorithms that its tokens may be signed by [default: RS256]
    #[arg(long, env = "KNARR_OIDC_SIGNING_ALGS", value_delimiter = ',', value_name = "NAMES")]
    pub oidc_signing_algs: Option<Vec<String>>,
    /// A claim that its tokens must have; may be repeated
    #[arg(long, env = "KNARR_OIDC_REQUIRED_CLAIM", value_name = "CLAIM=VALUE")]
    pub oidc_required_claim: Option<Vec<String>>,
    /// Tokens that never change: token,user,uid,"group1,group2" a line
    #[arg(long, env = "KNARR_TOKEN_AUTH_FILE", value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,
    /// A kubeconfig of a service that is asked whose a token is
    #[arg(long, env = "KNARR_AUTHENTICATION_TOKEN_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// The version of TokenReview that it speaks [default: v1beta1]
    #[arg(long, env = "KNARR_AUTHENTICATION_TOKEN_WEBHOOK_VERSION", value_name = "VERSION")]
    pub authentication_token_webhook_version: Option<String>,
    /// How long its answers hold [default: 2m]
    #[arg(long, env = "KNARR_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL", value_name = "DURATION")]
    pub authentication_token_webhook_cache_ttl: Option<String>,
    /// The authorizers in order, of Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny [default: Node,RBAC]
    #[arg(long, env = "KNARR_AUTHORIZATION_MODE", value_delimiter = ',', value_name = "MODES")]
    pub authorization_mode: Option<Vec<String>>,
    /// An AuthorizationConfiguration; read again when it changes
    #[arg(long, env = "KNARR_AUTHORIZATION_CONFIG", value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// A kubeconfig of a service that decides what is allowed
    #[arg(long, env = "KNARR_AUTHORIZATION_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The version of SubjectAccessReview that it speaks [default: v1beta1]
    #[arg(long, env = "KNARR_AUTHORIZATION_WEBHOOK_VERSION", value_name = "VERSION")]
    pub authorization_webhook_version: Option<String>,
    /// How long its yes holds [default: 5m]
    #[arg(long, env = "KNARR_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL", value_name = "DURATION")]
    pub authorization_webhook_cache_authorized_ttl: Option<String>,
    /// How long its no holds [default: 30s]
    #[arg(long, env = "KNARR_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL", value_name = "DURATION")]
    pub authorization_webhook_cache_unauthorized_ttl: Option<String>,
    /// Admission plug-ins that run beside the default ones, which are all that there are
    #[arg(long, env = "KNARR_ENABLE_ADMISSION_PLUGINS", value_delimiter = ',', value_name = "NAMES")]
    pub enable_admission_plugins: Option<Vec<String>>,
    /// Admission plug-ins that do not run
    #[arg(long, env = "KNARR_DISABLE_ADMISSION_PLUGINS", value_delimiter = ',', value_name = "NAMES")]
    pub disable_admission_plugins: Option<Vec<String>>,
    /// An EncryptionConfiguration: which resources are encrypted in the store, and how
    #[arg(long, env = "KNARR_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether it is read again when it changes
    #[arg(long, env = "KNARR_ENCRYPTION_PROVIDER_CONFIG_AUTOMATIC_RELOAD", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub encryption_provider_config_automatic_reload: Option<bool>,
}

impl AccessSaid {
    /// This, and where it is silent, `file`.
    pub fn or(self, file: AccessSaid) -> AccessSaid {
        AccessSaid {
            anonymous_auth: self.anonymous_auth.or(file.anonymous_auth),
            api_audiences: self.api_audiences.or(file.api_audiences),
            authentication_config: self.authentication_config.or(file.authentication_config),
            oidc_issuer_url: self.oidc_issuer_url.or(file.oidc_issuer_url),
            oidc_client_id: self.oidc_client_id.or(file.oidc_client_id),
            oidc_ca_file: self.oidc_ca_file.or(file.oidc_ca_file),
            oidc_username_claim: self.oidc_username_claim.or(file.oidc_username_claim),
            oidc_username_prefix: self.oidc_username_prefix.or(file.oidc_username_prefix),
            oidc_groups_claim: self.oidc_groups_claim.or(file.oidc_groups_claim),
            oidc_groups_prefix: self.oidc_groups_prefix.or(file.oidc_groups_prefix),
            oidc_signing_algs: self.oidc_signing_algs.or(file.oidc_signing_algs),
            oidc_required_claim: self.oidc_required_claim.or(file.oidc_required_claim),
            token_auth_file: self.token_auth_file.or(file.token_auth_file),
            authentication_token_webhook_config_file: self
                .authentication_token_webhook_config_file
                .or(file.authentication_token_webhook_config_file),
            authentication_token_webhook_version: self
                .authentication_token_webhook_version
                .or(file.authentication_token_webhook_version),
            authentication_token_webhook_cache_ttl: self
                .authentication_token_webhook_cache_ttl
                .or(file.authentication_token_webhook_cache_ttl),
            authorization_mode: self.authorization_mode.or(file.authorization_mode),
            authorization_config: self.authorization_config.or(file.authorization_config),
            authorization_webhook_config_file: self
                .authorization_webhook_config_file
                .or(file.authorization_webhook_config_file),
            authorization_webhook_version: self.authorization_webhook_version.or(file.authorization_webhook_version),
            authorization_webhook_cache_authorized_ttl: self
                .authorization_webhook_cache_authorized_ttl
                .or(file.authorization_webhook_cache_authorized_ttl),
            authorization_webhook_cache_unauthorized_ttl: self
                .authorization_webhook_cache_unauthorized_ttl
                .or(file.authorization_webhook_cache_unauthorized_ttl),
            enable_admission_plugins: self.enable_admission_plugins.or(file.enable_admission_plugins),
            disable_admission_plugins: self.disable_admission_plugins.or(file.disable_admission_plugins),
            encryption_provider_config: self.encryption_provider_config.or(file.encryption_provider_config),
            encryption_provider_config_automatic_reload: self
                .encryption_provider_config_automatic_reload
                .or(file.encryption_provider_config_automatic_reload),
        }
    }

    /// Takes these flags' keys out of a configuration file's.
    pub fn take(file: &mut Map<String, Value>) -> Result<AccessSaid, serde_json::Error> {
        let command = AccessSaid::augment_args(Command::new(""));
        let own = command.get_arguments().filter_map(|argument| file.remove_entry(argument.get_long()?));
        serde_json::from_value(Value::Object(own.collect()))
    }

    /// Refuses what contradicts itself, as upstream.
    pub fn check(&self) -> Result<()> {
        let oidc = self.oidc_issuer_url.is_some() || self.oidc_client_id.is_some();
        if oidc && (self.oidc_issuer_url.is_none() || self.oidc_client_id.is_none()) {
            bail!("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set");
        }
        if oidc && self.authentication_config.is_some() {
            bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        let webhook = self.authorization_webhook_config_file.is_some()
            || self.authorization_webhook_version.is_some()
            || self.authorization_webhook_cache_authorized_ttl.is_some()
            || self.authorization_webhook_cache_unauthorized_ttl.is_some();
        if self.authorization_config.is_some() && (self.authorization_mode.is_some() || webhook) {
            bail!(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
            );
        }
        if self.encryption_provider_config_automatic_reload == Some(true) && self.encryption_provider_config.is_none() {
            bail!("--encryption-provider-config-automatic-reload must be set with --encryption-provider-config");
        }
        Ok(())
    }
}

/// A file named by a flag.
pub fn read_file(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("--{flag} {}", path.display()))
}

/// A duration said by a flag, such as `2m`.
pub fn duration(flag: &str, said: Option<&str>, default: Duration) -> Result<Duration> {
    let Some(text) = said else { return Ok(default) };
    let nanos = go_duration::nanos(text).map_err(|why| anyhow::anyhow!("--{flag}: {why}"))?;
    Ok(Duration::from_nanos(u64::try_from(nanos).with_context(|| format!("--{flag} {text} is negative"))?))
}
