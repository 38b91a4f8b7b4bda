//! Upstream's `AuthenticationConfiguration` (`apiserver.config.k8s.io/v1`): issuers of JSON web tokens, and where anonymous requests
//! may go.

use serde::Deserialize;

use super::oidc::validation::validate;

/// The file of `--authentication-config`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    pub api_version: String,
    pub kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<AnonymousConfig>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    #[serde(default)]
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    #[serde(default)]
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Issuer {
    pub url: String,
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; the system's authorities where empty.
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    pub audience_match_policy: String,
    pub egress_selector_type: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMappings {
    pub username: PrefixedClaimOrExpression,
    pub groups: PrefixedClaimOrExpression,
    pub uid: ClaimOrExpression,
    pub extra: Vec<ExtraMapping>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PrefixedClaimOrExpression {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimOrExpression {
    pub claim: String,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AnonymousConfig {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

impl AuthenticationConfiguration {
    /// Reads and validates the file's text. `own` are the issuers of the cluster's service-account tokens, which no other may be.
    pub fn parse(text: &str, own: &[String]) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("empty config data".into());
        }
        let config: AuthenticationConfiguration = knarr_api::yaml::from_str(text)?;
        if config.kind != "AuthenticationConfiguration" || !VERSIONS.contains(&config.api_version.as_str()) {
            return Err(format!(
                "expected AuthenticationConfiguration, got {}, Kind={}",
                config.api_version, config.kind
            ));
        }
        let errors: Vec<String> = validate(&config, own).iter().map(ToString::to_string).collect();
        match errors.as_slice() {
            [] => Ok(config),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }
}

/// The `--oidc-*` flags: one issuer, named the old way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OidcFlags {
    pub issuer_url: String,
    pub client_id: String,
    /// PEM.
    pub authority: String,
    /// `sub` where empty.
    pub username_claim: String,
    /// `-`: none. Where empty, the issuer and `#`, unless the claim is `email`.
    pub username_prefix: String,
    pub groups_claim: String,
    pub groups_prefix: String,
    pub required_claims: Vec<(String, String)>,
}

impl OidcFlags {
    /// The same as a configuration.
    pub fn into_authenticator(self) -> JwtAuthenticator {
        let claim = if self.username_claim.is_empty() { "sub".to_string() } else { self.username_claim };
        let prefix = match self.username_prefix.as_str() {
            "-" => String::new(),
            "" if claim == "email" => String::new(),
            "" => format!("{}#", self.issuer_url),
            given => given.to_string(),
        };
        let groups = PrefixedClaimOrExpression {
            prefix: (!self.groups_claim.is_empty()).then_some(self.groups_prefix),
            claim: self.groups_claim,
            expression: String::new(),
        };
        let rules = self.required_claims.into_iter().map(|(claim, required_value)| ClaimValidationRule {
            claim,
            required_value,
            ..ClaimValidationRule::default()
        });
        JwtAuthenticator {
            claim_validation_rules: rules.collect(),
            issuer: Issuer {
                url: self.issuer_url,
                audiences: vec![self.client_id],
                certificate_authority: self.authority,
                ..Issuer::default()
            },
            claim_mappings: ClaimMappings {
                username: PrefixedClaimOrExpression { claim, prefix: Some(prefix), expression: String::new() },
                groups,
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
        }
    }
}
