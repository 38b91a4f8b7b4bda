use std::collections::HashMap;
use std::sync::Arc;

use knarr_api::Object;
use knarr_api::object::ObjectExt;
use serde_json::Value;

use super::rule::Rule;
use crate::authentication::User;

/// A role by where it lives; an empty namespace means a ClusterRole.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleKey {
    pub namespace: String,
    pub name: String,
}

/// A RoleBinding, or with an empty namespace a ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub namespace: String,
    pub name: String,
    pub role: RoleKey,
    subjects: Vec<Subject>,
}

/// Whom a binding names. A service account is the user it authenticates as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// All roles and bindings, ready to answer: bindings are found by subject, so that a decision costs what its user is bound to,
/// not how many bindings there are.
#[derive(Default)]
pub struct Index {
    roles: HashMap<RoleKey, Arc<[Rule]>>,
    bindings: HashMap<RoleKey, Arc<Binding>>,
    /// Invariant: exactly the bindings of `bindings`, under each of their subjects.
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
}

impl Binding {
    pub fn from_object(object: &Object) -> Self {
        let namespace = object.namespace().to_string();
        let reference = &object["roleRef"];
        let text = |v: &Value, field: &str| v.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
        let role_namespace = if text(reference, "kind") == "Role" { namespace.clone() } else { String::new() };
        let list = object.get("subjects").and_then(Value::as_array);
        let subjects = list.into_iter().flatten().filter_map(|s| Subject::from_value(s, &namespace)).collect();
        let role = RoleKey { namespace: role_namespace, name: text(reference, "name") };
        Binding { name: object.name().to_string(), role, subjects, namespace }
    }

    /// What upstream gives as the reason of an allowed request.
    pub fn reason(&self, user: &User) -> String {
        let kind = |namespace: &str| if namespace.is_empty() { "ClusterRole" } else { "Role" };
        let name =
            if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.name, self.namespace) };
        let subject = self.subjects.iter().find(|s| s.applies_to(user)).map(Subject::shown).unwrap_or_default();
        format!(
            "RBAC: allowed by {}Binding {name:?} of {} {:?} to {subject}",
            kind(&self.namespace),
            kind(&self.role.namespace),
            self.role.name
        )
    }
}

impl Subject {
    fn from_value(value: &Value, binding_namespace: &str) -> Option<Self> {
        let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        match text("kind") {
            "User" => Some(Subject::User(text("name").into())),
            "Group" => Some(Subject::Group(text("name").into())),
            "ServiceAccount" => {
                let namespace = if text("namespace").is_empty() { binding_namespace } else { text("namespace") };
                let known = !namespace.is_empty();
                known.then(|| Subject::User(format!("system:serviceaccount:{namespace}:{}", text("name"))))
            }
            _ => None,
        }
    }

    fn applies_to(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => *name == user.name,
            Subject::Group(name) => user.in_group(name),
        }
    }

    fn shown(&self) -> String {
        match self {
            Subject::Group(name) => format!("Group {name:?}"),
            Subject::User(name) => match name.strip_prefix("system:serviceaccount:").and_then(|s| s.split_once(':')) {
                Some((namespace, account)) => format!("ServiceAccount {:?}", format!("{account}/{namespace}")),
                None => format!("User {name:?}"),
            },
        }
    }
}

impl Index {
    pub fn set_role(&mut self, object: &Object) {
        self.roles.insert(role_key(object), Rule::of_role(object).into());
    }

    pub fn remove_role(&mut self, object: &Object) {
        self.roles.remove(&role_key(object));
    }

    pub fn set_binding(&mut self, object: &Object) {
        self.remove_binding(object);
        let binding = Arc::new(Binding::from_object(object));
        for subject in &binding.subjects {
            let bound = self.bound(subject);
            if !bound.iter().any(|b| Arc::ptr_eq(b, &binding)) {
                bound.push(binding.clone());
            }
        }
        self.bindings.insert(role_key(object), binding);
    }

    pub fn remove_binding(&mut self, object: &Object) {
        let Some(old) = self.bindings.remove(&role_key(object)) else { return };
        for subject in &old.subjects {
            let bound = self.bound(subject);
            bound.retain(|b| !Arc::ptr_eq(b, &old));
            if bound.is_empty() {
                match subject {
                    Subject::User(name) => self.users.remove(name),
                    Subject::Group(name) => self.groups.remove(name),
                };
            }
        }
    }

    fn bound(&mut self, subject: &Subject) -> &mut Vec<Arc<Binding>> {
        match subject {
            Subject::User(name) => self.users.entry(name.clone()).or_default(),
            Subject::Group(name) => self.groups.entry(name.clone()).or_default(),
        }
    }

    pub fn rules(&self, role: &RoleKey) -> Option<&Arc<[Rule]>> {
        self.roles.get(role)
    }

    /// Every binding that gives this user something in this namespace: the cluster's, then the namespace's own.
    pub fn bindings_of<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Binding>> {
        let named = self.users.get(&user.name).into_iter();
        let grouped = user.groups.iter().filter_map(|g| self.groups.get(g));
        let all = named.chain(grouped).flatten();
        all.filter(move |b| b.namespace.is_empty() || b.namespace == namespace)
    }
}

fn role_key(object: &Object) -> RoleKey {
    RoleKey { namespace: object.namespace().into(), name: object.name().into() }
}
