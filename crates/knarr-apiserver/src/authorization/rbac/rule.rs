use knarr_api::Object;
use serde_json::Value;

use crate::authorization::Attributes;

/// A `PolicyRule`, read once so that a decision compares strings and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub api_groups: Vec<String>,
    pub resources: Vec<String>,
    pub resource_names: Vec<String>,
    pub non_resource_urls: Vec<String>,
}

/// The strings of a list field; anything else in it is ignored.
fn strings(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
}

impl Rule {
    pub fn from_value(value: &Value) -> Self {
        Rule {
            verbs: strings(value, "verbs"),
            api_groups: strings(value, "apiGroups"),
            resources: strings(value, "resources"),
            resource_names: strings(value, "resourceNames"),
            non_resource_urls: strings(value, "nonResourceURLs"),
        }
    }

    /// The `rules` of a Role or ClusterRole.
    pub fn of_role(role: &Object) -> Vec<Rule> {
        role.get("rules").and_then(Value::as_array).into_iter().flatten().map(Rule::from_value).collect()
    }

    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if !a.is_resource {
            return self.non_resource_urls.iter().any(|url| url_matches(url, a.path));
        }
        has(&self.api_groups, a.group)
            && self.resources.iter().any(|r| resource_matches(r, a.resource, a.subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == a.name))
    }
}

/// Whether a list names this word or everything.
fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|w| w == "*" || w == word)
}

/// `*`, `pods`, `pods/status` or `*/status`. Who asks in a review may have put both into the resource.
pub fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.rsplit_once('/').filter(|_| !subresource.is_empty()) {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => s == subresource && (r == "*" || r == resource),
    }
}

/// `*`, an exact path, or a prefix that ends in `*`.
pub fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix.trim_end_matches('*')),
        None => rule == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_subresources_match_apart() {
        for (rule, resource, subresource, want) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/status", "pods", "", false),
            ("pods/status", "pods/status", "", true),
            ("*/status", "pods/status", "", false),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
            ("*", "deployments", "scale", true),
        ] {
            assert_eq!(resource_matches(rule, resource, subresource), want, "{rule} {resource}/{subresource}");
        }
    }

    #[test]
    fn a_url_rule_may_end_in_a_star() {
        assert!(url_matches("/healthz", "/healthz"));
        assert!(!url_matches("/healthz", "/healthz/etcd"));
        assert!(url_matches("/healthz/*", "/healthz/etcd"));
        assert!(url_matches("*", "/anything"));
    }
}
