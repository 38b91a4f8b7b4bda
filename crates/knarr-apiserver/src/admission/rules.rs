//! `RuleWithOperations`: which requests a rule of a webhook or a policy is about.

use serde_json::Value;

use super::{Operation, operation_name};

/// A request's coordinates, as rules see them.
#[derive(Clone, Copy)]
pub(super) struct Coordinates<'a> {
    pub operation: Operation,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

/// `RuleWithOperations`
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: Scope,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Any,
    Cluster,
    Namespaced,
}

impl Rule {
    pub(super) fn of(value: &Value) -> Rule {
        let texts = |field: &str| -> Vec<String> {
            value[field].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect()
        };
        Rule {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: texts("resources"),
            scope: match value["scope"].as_str() {
                Some("Cluster") => Scope::Cluster,
                Some("Namespaced") => Scope::Namespaced,
                _ => Scope::Any,
            },
        }
    }

    pub(super) fn matches(&self, at: &Coordinates<'_>) -> bool {
        self.in_scope(at)
            && holds(&self.operations, operation_name(at.operation))
            && holds(&self.groups, at.group)
            && holds(&self.versions, at.version)
            && self.resources.iter().any(|pattern| names(pattern, at))
    }

    fn in_scope(&self, at: &Coordinates<'_>) -> bool {
        // A namespace is a cluster-scoped object, whatever namespace its request names.
        let cluster = at.namespace.is_empty() || (at.group.is_empty() && at.resource == "namespaces");
        match self.scope {
            Scope::Any => true,
            Scope::Cluster => cluster,
            Scope::Namespaced => !cluster,
        }
    }
}

fn holds(items: &[String], wanted: &str) -> bool {
    items.iter().any(|item| item == "*" || item == wanted)
}

/// `pods`, `pods/status`, `pods/*`, `*/status`, `*/*`; a star alone means no subresource.
fn names(pattern: &str, at: &Coordinates<'_>) -> bool {
    let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
    (resource == "*" || resource == at.resource) && (subresource == "*" || subresource == at.subresource)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(rule: Value, resource: &str, subresource: &str, namespace: &str) -> bool {
        let at =
            Coordinates { operation: Operation::Create, group: "", version: "v1", resource, subresource, namespace };
        let mut whole = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"]});
        whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
        Rule::of(&whole).matches(&at)
    }

    #[test]
    fn resources_and_subresources_match_by_pattern() {
        for (pattern, resource, subresource, expected) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/*", "pods", "status", true),
            ("*/*", "pods", "", true),
            ("pods/*", "pods", "exec", true),
            ("pods/*", "pods", "", true),
            ("*/scale", "deployments", "scale", true),
            ("*/scale", "deployments", "", false),
        ] {
            let got = matches(json!({"resources": [pattern]}), resource, subresource, "ns");
            assert_eq!(got, expected, "{pattern} {resource}/{subresource}");
        }
    }

    #[test]
    fn namespaces_are_cluster_scoped() {
        for (scope, resource, namespace, expected) in [
            ("Namespaced", "pods", "ns", true),
            ("Cluster", "pods", "ns", false),
            ("Namespaced", "namespaces", "ns", false),
            ("Cluster", "namespaces", "ns", true),
            ("Cluster", "nodes", "", true),
            ("Namespaced", "nodes", "", false),
            ("*", "nodes", "", true),
        ] {
            let got = matches(json!({"resources": ["*"], "scope": scope}), resource, "", namespace);
            assert_eq!(got, expected, "{scope} {resource}");
        }
    }

    #[test]
    fn operations_groups_and_versions_must_all_match() {
        assert!(matches(json!({"operations": ["UPDATE", "CREATE"]}), "pods", "", "ns"));
        assert!(!matches(json!({"operations": ["UPDATE"]}), "pods", "", "ns"));
        assert!(!matches(json!({"apiGroups": ["apps"]}), "pods", "", "ns"));
        assert!(!matches(json!({"apiVersions": ["v2"]}), "pods", "", "ns"));
    }
}
