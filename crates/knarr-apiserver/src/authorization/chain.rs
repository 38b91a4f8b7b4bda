use std::sync::Arc;

use arc_swap::ArcSwap;

use super::rbac::Rule;
use super::{Attributes, Authorizer, Decision};
use crate::authentication::User;

/// The group that may do anything; also true of the server's own work.
const MASTERS: &str = "system:masters";

/// The authorizers in order: the first that allows or denies decides, and no opinion at all is no. Clones share them, and they may
/// be replaced while the server runs.
#[derive(Clone, Default)]
pub struct Chain {
    authorizers: Arc<ArcSwap<Vec<Arc<dyn Authorizer>>>>,
}

/// What a user may do in a namespace, as far as the authorizers can tell.
#[derive(Debug, Default)]
pub struct Enumerated {
    pub rules: Vec<Rule>,
    /// Not all that is allowed is in the rules.
    pub incomplete: bool,
    pub errors: Vec<String>,
}

impl Chain {
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Chain { authorizers: Arc::new(ArcSwap::from_pointee(authorizers)) }
    }

    /// Other authorizers from the next decision on.
    pub fn replace(&self, authorizers: Vec<Arc<dyn Authorizer>>) {
        self.authorizers.store(Arc::new(authorizers));
    }

    /// The decision, with all reasons of those who had no opinion where nobody allowed it.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons: Vec<String> = Vec::new();
        let mut errors: Vec<String> = Vec::new();
        let authorizers = self.authorizers.load_full();
        for authorizer in authorizers.iter() {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                Decision::Failed { denied: false, error } => errors.push(error),
                decided => return decided,
            }
        }
        match errors.as_slice() {
            [] => Decision::NoOpinion { reason: reasons.join("\n") },
            [one] => Decision::Failed { denied: false, error: one.clone() },
            more => Decision::Failed { denied: false, error: format!("[{}]", more.join(", ")) },
        }
    }

    pub async fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.authorize(attributes).await, Decision::Allow { .. })
    }

    /// Everything that the authorizers can say this user may do in this namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Enumerated {
        let mut all = Enumerated::default();
        for authorizer in self.authorizers.load().iter() {
            let theirs = authorizer.rules_for(user, namespace);
            all.rules.extend(theirs.rules);
            all.errors.extend(theirs.errors);
            all.incomplete |= theirs.incomplete;
        }
        all
    }
}

/// `AlwaysAllow` and `AlwaysDeny`.
pub struct Always(pub bool);

#[async_trait::async_trait]
impl Authorizer for Always {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        match self.0 {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: "Everything is forbidden.".into() },
        }
    }

    fn rules_for(&self, _: &User, _: &str) -> Enumerated {
        let all = || vec!["*".to_string()];
        let everything = Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            resource_names: Vec::new(),
            non_resource_urls: all(),
        };
        Enumerated { rules: if self.0 { vec![everything] } else { Vec::new() }, ..Enumerated::default() }
    }
}
