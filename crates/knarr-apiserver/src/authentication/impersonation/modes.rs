//! The ways in which impersonation may be allowed.

use std::collections::BTreeMap;

use knarr_api::{StatusError, names};

use super::super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, User};
use crate::authorization::{Attributes, Chain, Decision, forbidden};

const AUTHENTICATION: &str = "authentication.k8s.io";
const MASTERS: &str = "system:masters";
const NODES: &str = "system:nodes";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From so many values on, one check of all of them comes before a check of each.
const MANY: usize = 4;

/// In the order in which they are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account of a pod as that pod's node.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is neither node nor service account.
    UserInfo,
    /// Who may be somebody may do everything as them.
    Legacy,
}

const MODES: [Mode; 5] =
    [Mode::AssociatedNode, Mode::ArbitraryNode, Mode::ServiceAccount, Mode::UserInfo, Mode::Legacy];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    /// Whether this mode is about such a user at all.
    fn applies(self, wanted: &User, requester: &User) -> bool {
        let only_name = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_name(&wanted.name);
        match self {
            Mode::AssociatedNode => {
                let own = requester.extra.get(NODE_NAME).map(Vec::as_slice);
                let account = service_account(&requester.name).is_some();
                only_name && account && node.is_some_and(|node| own == Some(&[node.to_string()]))
            }
            Mode::ArbitraryNode => only_name && node.is_some(),
            Mode::ServiceAccount => only_name && service_account(&wanted.name).is_some(),
            Mode::UserInfo => node.is_none() && service_account(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }
}

fn node_name(user: &str) -> Option<&str> {
    user.strip_prefix("system:node:").filter(|name| names::dns_subdomain(name).is_empty())
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = names::dns_label(namespace).is_empty() && names::dns_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// The user as whom the request is done, by the first mode that allows it; otherwise the first refusal.
pub(super) async fn impersonated(
    wanted: &User,
    request: &Attributes<'_>,
    authorizer: &Chain,
) -> Result<User, StatusError> {
    let mut refusal = None;
    for mode in MODES.into_iter().filter(|mode| mode.applies(wanted, request.user)) {
        match allowed(mode, wanted, request, authorizer).await {
            Ok(user) => return Ok(user),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| StatusError::internal("all impersonation modes failed")))
}

async fn allowed(mode: Mode, wanted: &User, request: &Attributes<'_>, authorizer: &Chain) -> Result<User, StatusError> {
    // Of an associated node the authorizers learn nothing that differs from pod to pod.
    let stripped = match mode {
        Mode::AssociatedNode => {
            let keys: Vec<String> = request.user.extra.keys().cloned().collect();
            let extra = BTreeMap::from([("authentication.kubernetes.io/associated-node-keys".to_string(), keys)]);
            Some(User { extra, ..request.user.clone() })
        }
        _ => None,
    };
    let requester = stripped.as_ref().unwrap_or(request.user);
    let verb = match mode {
        Mode::Legacy => "impersonate".to_string(),
        constrained => {
            let verb = format!("impersonate-on:{}:{}", constrained.name(), request.verb);
            check(authorizer, &Attributes { user: requester, verb: &verb, ..request.clone() }).await?;
            format!("impersonate:{}", constrained.name())
        }
    };
    Checks { mode, verb: &verb, requester, authorizer }.user(wanted).await
}

async fn check(authorizer: &Chain, attributes: &Attributes<'_>) -> Result<(), StatusError> {
    match authorizer.authorize(attributes).await {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(forbidden(attributes, &reason)),
        Decision::Failed { error, .. } => Err(forbidden(attributes, &error)),
    }
}

/// May the requester be each part of the wanted user.
struct Checks<'a> {
    mode: Mode,
    verb: &'a str,
    requester: &'a User,
    authorizer: &'a Chain,
}

impl<'a> Checks<'a> {
    fn attributes(&self, group: &'a str, resource: &'a str, name: &'a str) -> Attributes<'a> {
        Attributes {
            user: self.requester,
            verb: self.verb,
            is_resource: true,
            group,
            version: "v1",
            resource,
            name,
            ..Attributes::default()
        }
    }

    /// Users and groups stand in the core group in the old mode.
    fn users_group(&self) -> &'static str {
        if self.mode == Mode::Legacy { "" } else { AUTHENTICATION }
    }

    async fn user(&self, wanted: &'a User) -> Result<User, StatusError> {
        let mut user = wanted.clone();
        self.check_name(wanted, &mut user).await?;
        if !wanted.uid.is_empty() {
            check(self.authorizer, &self.attributes(AUTHENTICATION, "uids", &wanted.uid)).await?;
        }
        self.check_groups(&wanted.groups).await?;
        self.check_extra(&wanted.extra).await?;
        let everyone = match user.name.as_str() {
            ANONYMOUS => ALL_UNAUTHENTICATED,
            _ if user.in_group(ALL_UNAUTHENTICATED) => ALL_UNAUTHENTICATED,
            _ => ALL_AUTHENTICATED,
        };
        if !user.in_group(everyone) {
            user.groups.push(everyone.into());
        }
        Ok(user)
    }

    async fn check_name(&self, wanted: &'a User, user: &mut User) -> Result<(), StatusError> {
        let mut attributes = self.attributes(self.users_group(), "users", &wanted.name);
        if let Some(node) = node_name(&wanted.name).filter(|_| self.mode != Mode::Legacy) {
            attributes.resource = "nodes";
            attributes.name = if self.mode == Mode::AssociatedNode { "*" } else { node };
            user.groups = vec![NODES.into()];
        }
        if let Some((namespace, name)) = service_account(&wanted.name) {
            attributes.resource = "serviceaccounts";
            attributes.namespace = namespace;
            attributes.name = name;
            if wanted.groups.is_empty() {
                user.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        check(self.authorizer, &attributes).await
    }

    async fn check_groups(&self, groups: &'a [String]) -> Result<(), StatusError> {
        let attributes = |name: &'a str| self.attributes(self.users_group(), "groups", name);
        if self.mode != Mode::Legacy {
            if groups.iter().any(String::is_empty) {
                return Err(forbidden(&attributes(""), "impersonating the empty string group is not allowed"));
            }
            if groups.iter().any(|g| g == MASTERS) {
                return Err(forbidden(&attributes(MASTERS), "impersonating the system:masters group is not allowed"));
            }
            if groups.len() >= MANY && check(self.authorizer, &attributes("*")).await.is_ok() {
                return Ok(());
            }
        }
        for group in groups {
            check(self.authorizer, &attributes(group)).await?;
        }
        Ok(())
    }

    async fn check_extra(&self, extra: &'a BTreeMap<String, Vec<String>>) -> Result<(), StatusError> {
        let attributes = |key: &'a str, value: &'a str| Attributes {
            subresource: key,
            ..self.attributes(AUTHENTICATION, "userextras", value)
        };
        if self.mode != Mode::Legacy {
            if let Some(fault) = extra.iter().find_map(|(key, values)| extra_fault(key, values)) {
                return Err(forbidden(&attributes("", ""), &fault));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count >= MANY && check(self.authorizer, &attributes("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                check(self.authorizer, &attributes(key, value)).await?;
            }
        }
        Ok(())
    }
}

/// What the constrained modes refuse, whoever asks.
fn extra_fault(key: &str, values: &[String]) -> Option<String> {
    let prefixed = key.split_once('/').is_some_and(|(domain, rest)| !domain.is_empty() && !rest.is_empty());
    if key.is_empty() {
        Some("impersonating the empty string key in extra is not allowed".into())
    } else if !prefixed {
        Some(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: must be a domain-prefixed path (such as \"acme.io/foo\")"
        ))
    } else if key.to_lowercase() != key {
        Some(format!("impersonating a non-lowercase key in extra is not allowed: {key:?}"))
    } else if values.iter().any(String::is_empty) {
        Some("impersonating the empty string value in extra is not allowed".into())
    } else {
        None
    }
}
