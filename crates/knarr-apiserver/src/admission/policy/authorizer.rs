//! `authorizer` in expressions: the server's own authorization, asked in the name of the request's user.

use futures::FutureExt;
use knarr_cel::authorizer::{Authorizer, Decision, Question};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::authentication::User;
use crate::authorization::{self, Attributes};

/// Asks for one user.
pub struct Asking<'a> {
    pub chain: &'a authorization::Chain,
    pub user: &'a User,
}

impl Authorizer for Asking<'_> {
    fn authorize(&self, question: &Question) -> Decision {
        let account = question.service_account.as_ref().map(|(namespace, name)| service_account(namespace, name));
        let attributes = Attributes {
            user: account.as_ref().unwrap_or(self.user),
            verb: &question.verb,
            is_resource: question.path.is_none(),
            group: &question.group,
            version: if question.path.is_none() { "*" } else { "" },
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: question.path.as_deref().unwrap_or_default(),
            field_selector: &question.field_selector,
            label_selector: &question.label_selector,
        };
        let mut asking = Box::pin(self.chain.authorize(&attributes));
        // The authorizers of this process answer at once; only one that asks over the network has to be waited for.
        match asking.as_mut().now_or_never() {
            Some(decision) => decided(decision),
            None => wait(asking),
        }
    }
}

fn wait(asking: impl Future<Output = authorization::Decision>) -> Decision {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            decided(tokio::task::block_in_place(|| handle.block_on(asking)))
        }
        _ => Decision { error: Some("the authorizer cannot be waited for".to_string()), ..Decision::default() },
    }
}

fn decided(decision: authorization::Decision) -> Decision {
    let (allowed, reason) = match decision {
        authorization::Decision::Allow { reason } => (true, reason),
        authorization::Decision::Deny { reason } | authorization::Decision::NoOpinion { reason } => (false, reason),
        authorization::Decision::Failed { error, .. } => return Decision { error: Some(error), ..Decision::default() },
    };
    Decision { allowed, reason, error: None }
}

fn service_account(namespace: &str, name: &str) -> User {
    let group = format!("system:serviceaccounts:{namespace}");
    User::new(
        &format!("system:serviceaccount:{namespace}:{name}"),
        &["system:serviceaccounts", &group, "system:authenticated"],
    )
}
