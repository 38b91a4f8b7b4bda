//! FlowSchemas: which requests are of one flow schema, and what tells its flows apart.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::FixedState;
use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1 as api;

use super::level::Level;
use super::metrics::SchemaMeters;
use crate::authentication::User;
use crate::chain::request_info::RequestInfo;

/// A list that may say "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Words {
    any: bool,
    words: Vec<String>,
}

impl Words {
    fn new(words: Vec<String>) -> Self {
        Words { any: matches!(words.as_slice(), [one] if one == "*"), words }
    }

    fn contains(&self, word: &str) -> bool {
        self.any || self.words.iter().any(|w| w == word)
    }

    /// Whether `resource` or `resource/subresource` is among the words.
    fn contains_resource(&self, resource: &str, subresource: &str) -> bool {
        self.any
            || self.words.iter().any(|word| match subresource {
                "" => word == resource,
                _ => word.split_once('/') == Some((resource, subresource)),
            })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
    /// The user names of a namespace's service accounts begin so.
    AccountsOf(String),
}

impl Subject {
    fn read(subject: api::Subject) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => subject.user.map(|user| Subject::User(user.name)),
            "Group" => subject.group.map(|group| Subject::Group(group.name)),
            "ServiceAccount" => subject.service_account.map(|account| match account.name.as_str() {
                "*" => Subject::AccountsOf(format!("system:serviceaccount:{}:", account.namespace)),
                name => Subject::User(format!("system:serviceaccount:{}:{name}", account.namespace)),
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.in_group(name),
            Subject::AccountsOf(prefix) => user.name.starts_with(prefix),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    cluster_scope: bool,
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let in_scope = match info.namespace.as_str() {
            "" => self.cluster_scope,
            namespace => self.namespaces.contains(namespace),
        };
        in_scope
            && self.verbs.contains(&info.verb)
            && self.groups.contains(&info.group)
            && self.resources.contains_resource(&info.resource, &info.subresource)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PathRule {
    verbs: Words,
    paths: Vec<String>,
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        self.verbs.contains(&info.verb) && self.paths.iter().any(|rule| path_matches(rule, &info.path))
    }
}

/// A rule is a path and everything below it, with or without a `*` at its end, as upstream.
fn path_matches(rule: &str, path: &str) -> bool {
    if rule == "*" || rule == path {
        return true;
    }
    let prefix = rule.strip_suffix('*').unwrap_or(rule).trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// One of a schema's rules: any of its subjects doing any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

impl Rule {
    fn read(rule: api::PolicyRulesWithSubjects) -> Self {
        let resources = rule.resource_rules.unwrap_or_default().into_iter().map(|r| ResourceRule {
            verbs: Words::new(r.verbs),
            groups: Words::new(r.api_groups),
            resources: Words::new(r.resources),
            namespaces: Words::new(r.namespaces.unwrap_or_default()),
            cluster_scope: r.cluster_scope.unwrap_or_default(),
        });
        let paths = rule.non_resource_rules.unwrap_or_default().into_iter();
        Rule {
            subjects: rule.subjects.into_iter().filter_map(Subject::read).collect(),
            resources: resources.collect(),
            paths: paths.map(|r| PathRule { verbs: Words::new(r.verbs), paths: r.non_resource_urls }).collect(),
        }
    }

    fn matches(&self, info: &RequestInfo, user: &User) -> bool {
        self.subjects.iter().any(|s| s.is(user))
            && match info.is_resource {
                true => self.resources.iter().any(|r| r.matches(info)),
                false => self.paths.iter().any(|r| r.matches(info)),
            }
    }
}

/// What makes requests of one schema different flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    User,
    Namespace,
}

/// The rules of one FlowSchema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    pub precedence: i32,
    pub distinguisher: Option<Distinguisher>,
    /// The name of the PriorityLevelConfiguration that it refers to.
    pub level: String,
    rules: Vec<Rule>,
}

impl Rules {
    pub fn read(spec: api::FlowSchemaSpec) -> Self {
        Rules {
            precedence: spec.matching_precedence.unwrap_or(1000),
            distinguisher: spec.distinguisher_method.and_then(|method| match method.type_.as_str() {
                "ByUser" => Some(Distinguisher::User),
                "ByNamespace" => Some(Distinguisher::Namespace),
                _ => None,
            }),
            level: spec.priority_level_configuration.name,
            rules: spec.rules.unwrap_or_default().into_iter().map(Rule::read).collect(),
        }
    }

    pub fn matches(&self, info: &RequestInfo, user: &User) -> bool {
        self.rules.iter().any(|rule| rule.matches(info, user))
    }
}

/// A FlowSchema at work: its level exists.
pub struct Schema {
    pub name: Arc<str>,
    pub rules: Rules,
    pub level: Arc<Level>,
    /// The uids of schema and level, as the answers' headers show them.
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    pub meters: Arc<SchemaMeters>,
}

impl Schema {
    /// The text that tells the request's flow from the schema's others.
    pub fn distinguisher<'a>(&self, info: &'a RequestInfo, user: &'a User) -> &'a str {
        match self.rules.distinguisher {
            Some(Distinguisher::User) => &user.name,
            Some(Distinguisher::Namespace) => &info.namespace,
            None => "",
        }
    }

    /// The flow's hash: which queues are its hand.
    pub fn flow(&self, info: &RequestInfo, user: &User) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write(self.name.as_bytes());
        hasher.write_u8(0);
        hasher.write(self.distinguisher(info, user).as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::{Value, json};

    use super::*;

    fn rules(rule: &Value) -> Rules {
        let spec = json!({"priorityLevelConfiguration": {"name": "x"}, "rules": [rule]});
        Rules::read(serde_json::from_value(spec).expect("a spec"))
    }

    fn info(method: Method, path: &str) -> RequestInfo {
        RequestInfo::parse(&method, path, "").expect("a path")
    }

    #[test]
    fn subjects_match_as_upstream() {
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]);
        let with = |subject: Value| rules(&json!({"subjects": [subject], "resourceRules": everything}));
        let account = User::new("system:serviceaccount:a:b", &["system:serviceaccounts"]);
        let pods = info(Method::GET, "/api/v1/pods");
        let cases = [
            (json!({"kind": "User", "user": {"name": "*"}}), true),
            (json!({"kind": "User", "user": {"name": "b"}}), false),
            (json!({"kind": "Group", "group": {"name": "system:serviceaccounts"}}), true),
            (json!({"kind": "Group", "group": {"name": "system:nodes"}}), false),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "*"}}), true),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "b"}}), true),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "c"}}), false),
            (json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "", "name": "*"}}), false),
        ];
        for (subject, expected) in cases {
            assert_eq!(with(subject.clone()).matches(&pods, &account), expected, "{subject}");
        }
    }

    #[test]
    fn resources_scopes_and_paths_match_as_upstream() {
        let user = User::new("u", &[]);
        let anyone = json!([{"kind": "User", "user": {"name": "u"}}]);
        let leases = rules(&json!({"subjects": anyone, "resourceRules": [{"verbs": ["get", "update"],
            "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "namespaces": ["a"]}]}));
        let status = rules(&json!({"subjects": anyone, "resourceRules": [{"verbs": ["*"], "apiGroups": [""],
            "resources": ["nodes/status"], "clusterScope": true}]}));
        let paths = rules(&json!({"subjects": anyone, "nonResourceRules": [{"verbs": ["get"],
            "nonResourceURLs": ["/healthz", "/apis/*"]}]}));
        let cases = [
            (&leases, Method::GET, "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", true),
            (&leases, Method::GET, "/apis/coordination.k8s.io/v1/namespaces/b/leases/x", false),
            (&leases, Method::DELETE, "/apis/coordination.k8s.io/v1/namespaces/a/leases/x", false),
            (&leases, Method::GET, "/apis/coordination.k8s.io/v1/leases", false),
            (&status, Method::PUT, "/api/v1/nodes/n/status", true),
            (&status, Method::PUT, "/api/v1/nodes/n", false),
            (&paths, Method::GET, "/healthz", true),
            (&paths, Method::GET, "/healthz/ping", true),
            (&paths, Method::GET, "/healthzz", false),
            (&paths, Method::GET, "/apis/apps", true),
            (&paths, Method::POST, "/healthz", false),
        ];
        for (rules, method, path, expected) in cases {
            assert_eq!(rules.matches(&info(method.clone(), path), &user), expected, "{method} {path}");
        }
    }
}
