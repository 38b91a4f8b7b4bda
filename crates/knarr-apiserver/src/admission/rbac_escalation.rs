use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::refusal::{forbidden, text};
use super::{Operation, Plugin, Request};
use crate::authorization::rbac::{self, Rbac, RoleKey, Rule, compact_string, covers, quoted_list};
use crate::authorization::{Attributes, Chain};

/// Nobody grants by a role or a binding what they do not hold, unless they may `escalate` or `bind`.
///
/// Not one of upstream's plug-ins: there it sits between admission and storage of the RBAC kinds, which is where running last
/// among the mutating ones puts it.
pub struct RbacEscalation {
    pub rbac: Arc<Rbac>,
    pub authorizer: Chain,
}

#[async_trait]
impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if request.resource.group != rbac::GROUP || request.user.in_group("system:masters") {
            return Ok(());
        }
        let Some(object) = &request.object else { return Ok(()) };
        if request.old_object.as_ref().is_some_and(|old| same_grant(object, old)) {
            return Ok(());
        }
        match request.resource.resource.as_str() {
            "roles" | "clusterroles" => self.check_role(request, object).await,
            _ => self.check_binding(request, object).await,
        }
    }
}

/// The garbage collector's fields may change without a new grant.
fn same_grant(object: &Object, old: &Object) -> bool {
    let stripped = |o: &Object| {
        let mut o = o.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            o.metadata_mut().remove(field);
        }
        o
    };
    stripped(object) == stripped(old)
}

impl RbacEscalation {
    async fn may(&self, request: &Request, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let attributes = Attributes {
            user: &request.user,
            verb,
            is_resource: true,
            group: rbac::GROUP,
            version: "*",
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        self.authorizer.allows(&attributes).await
    }

    async fn check_role(&self, request: &Request, role: &Object) -> Result<(), StatusError> {
        let resource = &request.resource.resource;
        if self.may(request, "escalate", resource, &request.namespace, role.name()).await {
            return Ok(());
        }
        self.confirm(request, &request.namespace, &Rule::of_role(role))?;
        // To take a rule away may grant as much as to add one: it ends what kept the rules tight.
        let aggregates = |role: &Object| role.get("aggregationRule").is_some_and(|a| !a.is_null());
        let aggregated = aggregates(role) || request.old_object.as_deref().is_some_and(aggregates);
        if aggregated && !self.holds_everything(request) {
            return Err(forbidden(request, "must have cluster-admin privileges to use the aggregationRule"));
        }
        Ok(())
    }

    fn holds_everything(&self, request: &Request) -> bool {
        let all = || vec!["*".to_string()];
        let everything = [
            Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
            Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
        ];
        covers(&self.rbac.rules_for(&request.user, "").0, &everything).is_empty()
    }

    async fn check_binding(&self, request: &Request, binding: &Object) -> Result<(), StatusError> {
        let (kind, name) = (text(binding, "/roleRef/kind"), text(binding, "/roleRef/name"));
        let resource = if kind == "Role" { "roles" } else { "clusterroles" };
        if self.may(request, "bind", resource, &request.namespace, name).await {
            return Ok(());
        }
        let namespace = if kind == "Role" { request.namespace.clone() } else { String::new() };
        let role = RoleKey { namespace, name: name.to_string() };
        let Some(rules) = self.rbac.rules_of_role(&role) else {
            return Err(StatusError::not_found(&GroupResource::new(rbac::GROUP, resource.trim_end_matches('s')), name));
        };
        self.confirm(request, &request.namespace, &rules)
    }

    fn confirm(&self, request: &Request, namespace: &str, rules: &[Rule]) -> Result<(), StatusError> {
        let user = &request.user;
        let (held, unresolved) = self.rbac.rules_for(user, namespace);
        let mut missing: Vec<String> = covers(&held, rules).iter().map(compact_string).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        missing.dedup();
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            quoted_list(&user.groups),
            missing.join("\n")
        );
        if !unresolved.is_empty() {
            why.push_str(&format!("; resolution errors: {}", Value::from(unresolved)));
        }
        Err(forbidden(request, why))
    }
}
