use std::sync::Arc;

use super::{Attributes, Authorizer, Decision};

/// The group that may do anything; also true of the server's own work.
const MASTERS: &str = "system:masters";

/// The authorizers in order: the first that allows or denies decides, and no opinion at all is no.
#[derive(Clone, Default)]
pub struct Chain {
    authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Chain {
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Chain { authorizers }
    }

    /// The decision, with all reasons of those who had no opinion where nobody allowed it.
    pub async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons: Vec<String> = Vec::new();
        for authorizer in &self.authorizers {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    pub async fn allows(&self, attributes: &Attributes<'_>) -> bool {
        matches!(self.authorize(attributes).await, Decision::Allow { .. })
    }
}
