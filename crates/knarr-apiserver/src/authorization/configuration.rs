//! Upstream's `AuthorizationConfiguration` (`apiserver.config.k8s.io/v1`): the authorizers in their order.

mod validation;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use knarr_api::go_duration::parse as duration;
use serde::Deserialize;

use super::conditions::MatchConditions;
use super::webhook::{Webhook, WebhookOptions};
use super::{Always, Authorizer};
use crate::outbound;
pub use validation::validate;

/// The file of `--authorization-config`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub authorizers: Vec<AuthorizerConfiguration>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthorizerConfiguration {
    /// `Node`, `RBAC`, `Webhook`, `AlwaysAllow` or `AlwaysDeny`.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    pub webhook: Option<WebhookConfiguration>,
}

/// Durations are Go's, such as `5m`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WebhookConfiguration {
    #[serde(rename = "authorizedTTL")]
    pub authorized_ttl: String,
    pub cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    pub unauthorized_ttl: String,
    pub cache_unauthorized_requests: Option<bool>,
    pub timeout: String,
    pub subject_access_review_version: String,
    pub match_condition_subject_access_review_version: String,
    pub failure_policy: String,
    pub connection_info: ConnectionInfo,
    pub match_conditions: Vec<MatchCondition>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConnectionInfo {
    #[serde(rename = "type")]
    pub kind: String,
    pub kube_config_file: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct MatchCondition {
    pub expression: String,
}

pub(crate) const TYPES: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const AUTHORIZED_TTL: Duration = Duration::from_secs(300);
const UNAUTHORIZED_TTL: Duration = Duration::from_secs(30);

/// The authorizers that are part of every server, whichever configuration names them.
#[derive(Clone)]
pub struct Standing {
    pub node: Arc<dyn Authorizer>,
    pub rbac: Arc<dyn Authorizer>,
}

impl AuthorizationConfiguration {
    /// Reads and validates the file's text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: AuthorizationConfiguration = knarr_api::yaml::from_str(text)?;
        if config.kind != "AuthorizationConfiguration" || !VERSIONS.contains(&config.api_version.as_str()) {
            return Err(format!(
                "expected AuthorizationConfiguration, got {}, Kind={}",
                config.api_version, config.kind
            ));
        }
        let errors: Vec<String> = validate(&config).iter().map(ToString::to_string).collect();
        match errors.as_slice() {
            [] => Ok(config),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }

    /// What `--authorization-mode` says: these authorizers, the webhook of `--authorization-webhook-*` among them.
    pub fn of_modes(modes: &[String], webhook: Option<WebhookConfiguration>) -> Result<Self, String> {
        let mut authorizers: Vec<AuthorizerConfiguration> = Vec::new();
        for mode in modes {
            if !TYPES.contains(&mode.as_str()) {
                return Err(format!("authorization-mode {mode:?} is not a valid mode"));
            }
            if authorizers.iter().any(|a| a.kind == *mode) {
                return Err(format!("authorization-mode {modes:?} has mode specified more than once"));
            }
            let webhook = webhook.clone().filter(|_| mode == "Webhook");
            if mode == "Webhook" && webhook.is_none() {
                return Err("authorization-mode Webhook's authorization config file not passed".into());
            }
            authorizers.push(AuthorizerConfiguration { kind: mode.clone(), name: mode.to_lowercase(), webhook });
        }
        Ok(AuthorizationConfiguration { authorizers, ..AuthorizationConfiguration::default() })
    }

    /// The authorizers; an error where a webhook's kubeconfig or condition cannot be used.
    pub fn build(&self, standing: &Standing) -> Result<Vec<Arc<dyn Authorizer>>, String> {
        let build = |config: &AuthorizerConfiguration| -> Result<Arc<dyn Authorizer>, String> {
            Ok(match (config.kind.as_str(), &config.webhook) {
                ("Node", _) => standing.node.clone(),
                ("RBAC", _) => standing.rbac.clone(),
                ("Webhook", Some(webhook)) => Arc::new(webhook.build()?),
                ("AlwaysAllow", _) => Arc::new(Always(true)),
                ("AlwaysDeny", _) => Arc::new(Always(false)),
                (other, _) => return Err(format!("unknown authorization mode {other:?}")),
            })
        };
        self.authorizers.iter().map(build).collect()
    }

    /// Types other than webhooks that this configuration has and `newer` lacks: they must stay while the server runs.
    pub fn missing_in(&self, newer: &AuthorizationConfiguration) -> Vec<&str> {
        let lacks = |kind: &str| !newer.authorizers.iter().any(|a| a.kind == kind);
        self.authorizers.iter().map(|a| a.kind.as_str()).filter(|k| *k != "Webhook" && lacks(k)).collect()
    }
}

impl WebhookConfiguration {
    fn build(&self) -> Result<Webhook, String> {
        let path = self.connection_info.kube_config_file.as_deref().unwrap_or_default();
        let client = outbound::from_kubeconfig(Path::new(path)).map_err(|e| e.to_string())?;
        let expressions: Vec<String> = self.match_conditions.iter().map(|c| c.expression.clone()).collect();
        let ttl = |text: &str, default: Duration, cache: Option<bool>| {
            let ttl = duration(text).filter(|d| !d.is_zero()).unwrap_or(default);
            cache.unwrap_or(true).then_some(ttl)
        };
        let options = WebhookOptions {
            version: self.subject_access_review_version.clone(),
            timeout: duration(&self.timeout).unwrap_or(Duration::from_secs(30)),
            authorized_ttl: ttl(&self.authorized_ttl, AUTHORIZED_TTL, self.cache_authorized_requests),
            unauthorized_ttl: ttl(&self.unauthorized_ttl, UNAUTHORIZED_TTL, self.cache_unauthorized_requests),
            denies_on_failure: self.failure_policy == "Deny",
            conditions: MatchConditions::compile(&expressions)?,
        };
        Ok(Webhook::new(client, options))
    }
}
