//! The audit policy file: which requests are recorded, and how much of them.

use std::path::Path;

use serde::Deserialize;

use crate::authentication::User;
use crate::chain::request_info::RequestInfo;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment in a request's life that makes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

/// `audit.k8s.io/v1 Policy`
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

/// What the policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub level: Level,
    pub omit_managed_fields: bool,
    omitted: [bool; 4],
}

impl Decision {
    pub fn omits(&self, stage: Stage) -> bool {
        self.omitted[stage as usize]
    }
}

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("failed to read file path {path:?}: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("failed decoding: {0}")]
    Decode(String),
    #[error("unknown group version field {0} in policy")]
    Version(String),
    #[error("loaded illegal policy with 0 rules")]
    NoRules,
    #[error("{0}")]
    Invalid(String),
}

impl Policy {
    pub fn load(path: &Path) -> Result<Self, PolicyError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: shown, source })?;
        Self::parse(&text)
    }

    /// From YAML or JSON.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let policy: Policy = knarr_api::yaml::from_str(text).map_err(PolicyError::Decode)?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(PolicyError::Version(format!("{}, Kind={}", policy.api_version, policy.kind)));
        }
        if policy.rules.is_empty() {
            return Err(PolicyError::NoRules);
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| PolicyError::Invalid(format!("rules[{i}].{why}")))?;
        }
        Ok(policy)
    }

    /// The first rule that matches decides; none is `None`.
    pub fn decide(&self, info: &RequestInfo, user: Option<&User>) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(info, user));
        let mut decision = Decision {
            level: rule.map_or(Level::None, |rule| rule.level),
            omit_managed_fields: rule.and_then(|rule| rule.omit_managed_fields).unwrap_or(self.omit_managed_fields),
            omitted: [false; 4],
        };
        for stage in self.omit_stages.iter().chain(rule.iter().flat_map(|rule| &rule.omit_stages)) {
            decision.omitted[*stage as usize] = true;
        }
        decision
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        for (i, url) in self.non_resource_urls.iter().enumerate() {
            if url == "*" {
                continue;
            }
            let path = format!("nonResourceURLs[{i}]: Invalid value: {url:?}: non-resource URL");
            if !url.starts_with('/') {
                return Err(format!("{path} rules must begin with a '/' character"));
            }
            if url[..url.len() - 1].contains('*') {
                return Err(format!("{path} wildcards '*' must be the final character of the rule"));
            }
        }
        let regular = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.non_resource_urls.is_empty() && regular {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            return Err(format!("nonResourceURLs: Invalid value: {:?}: {why}", self.non_resource_urls));
        }
        let nameless = self.resources.iter().find(|r| !r.resource_names.is_empty() && r.resources.is_empty());
        match nameless {
            Some(r) => Err(format!(
                "resources.resourceNames: Invalid value: {:?}: using resourceNames requires at least one resource",
                r.resource_names
            )),
            None => Ok(()),
        }
    }

    fn matches(&self, info: &RequestInfo, user: Option<&User>) -> bool {
        let in_list = |list: &[String], word: &str| list.iter().any(|w| w == word);
        let is_user = self.users.is_empty() || user.is_some_and(|u| in_list(&self.users, &u.name));
        let in_group = self.user_groups.is_empty()
            || user.is_some_and(|u| u.groups.iter().any(|group| in_list(&self.user_groups, group)));
        if !is_user || !in_group || !(self.verbs.is_empty() || in_list(&self.verbs, &info.verb)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && (self.namespaces.is_empty() || in_list(&self.namespaces, &info.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(info)));
        }
        self.non_resource_urls.is_empty()
            || (!info.is_resource && self.non_resource_urls.iter().any(|url| path_matches(url, &info.path)))
    }
}

impl GroupResources {
    fn matches(&self, info: &RequestInfo) -> bool {
        if self.group != "*" && self.group != info.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        named && self.resources.iter().any(|resource| resource_matches(resource, info))
    }
}

/// `*`, `resource`, `resource/subresource`, `resource/*`, `*/subresource`
fn resource_matches(rule: &str, info: &RequestInfo) -> bool {
    match (rule.split_once('/'), info.subresource.as_str()) {
        (None, _) if rule == "*" => true,
        (None, subresource) => rule == info.resource && subresource.is_empty(),
        (Some((resource, "*")), _) => resource == info.resource,
        (Some((resource, wanted)), subresource) => {
            subresource == wanted && !subresource.is_empty() && (resource == "*" || resource == info.resource)
        }
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*" || rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
  resources: [{group: "", resources: ["endpoints", "services"]}]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Metadata
  resources: [{group: "", resources: ["secrets", "*/log"]}]
- level: Request
  resources: [{group: "", resources: ["pods/*"], resourceNames: ["p"]}]
  omitStages: [ResponseStarted]
- level: RequestResponse
  userGroups: ["auditors"]
  namespaces: ["a", ""]
  omitManagedFields: true
"#;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = Policy::parse(POLICY).expect("a policy");
        let cases: &[(&str, &[&str], &str, Level)] = &[
            ("system:kube-proxy", &[], "/api/v1/services?watch=1", Level::None),
            ("someone", &["auditors"], "/api/v1/services?watch=1", Level::RequestResponse),
            ("someone", &[], "/healthz/ping", Level::None),
            ("someone", &[], "/api/v1/namespaces/a/secrets/s", Level::Metadata),
            ("someone", &[], "/api/v1/namespaces/a/pods/x/log", Level::Metadata),
            ("someone", &[], "/api/v1/namespaces/a/pods/p/status", Level::Request),
            ("someone", &[], "/api/v1/namespaces/a/pods/q/status", Level::None),
            ("someone", &["auditors"], "/api/v1/namespaces/a/pods/q", Level::RequestResponse),
            ("someone", &["auditors"], "/api/v1/namespaces/b/pods/q", Level::None),
            ("someone", &["auditors"], "/metrics", Level::None),
        ];
        for (user, groups, target, level) in cases {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::parse(&Method::GET, path, query).expect("a path");
            let decision = policy.decide(&info, Some(&User::new(user, groups)));
            assert_eq!(decision.level, *level, "{user} {target}");
            assert!(decision.omits(Stage::RequestReceived) && !decision.omits(Stage::ResponseComplete));
            assert_eq!(decision.omits(Stage::ResponseStarted), *level == Level::Request, "{target}");
            assert_eq!(decision.omit_managed_fields, *level == Level::RequestResponse, "{target}");
        }
    }

    #[test]
    fn wrong_policies_are_refused_in_upstreams_words() {
        let refusal = |rules: &str| {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
            Policy::parse(&text).expect_err("refused").to_string()
        };
        assert_eq!(refusal(""), "loaded illegal policy with 0 rules");
        assert!(refusal("rules: [{level: All}]").starts_with("failed decoding: "));
        assert!(refusal("rules: [{level: None, nonResourceURLs: [x]}]").contains("must begin with a '/'"));
        let both = refusal("rules: [{level: None, nonResourceURLs: [/x], namespaces: [a]}]");
        assert!(both.contains("cannot apply to both"), "{both}");
        let old = Policy::parse("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]");
        assert!(old.expect_err("refused").to_string().starts_with("unknown group version"));
    }
}
