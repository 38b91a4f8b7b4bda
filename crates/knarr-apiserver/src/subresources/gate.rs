use std::sync::{Arc, OnceLock};

use knarr_api::{Object, StatusError};

use super::Call;
use crate::admission::{Chain, Operation, Request};

/// Admission, as the handlers of special endpoints run it. The chain is put in once, after the handlers are made.
#[derive(Clone, Default)]
pub struct Gate {
    chain: Arc<OnceLock<Chain>>,
}

impl Gate {
    pub fn new(chain: Chain) -> Self {
        let gate = Gate::default();
        let _ = gate.chain.set(chain);
        gate
    }

    /// Mutates and validates; answers the texts of warnings.
    pub async fn admit(&self, call: &Call, old: Option<Arc<Object>>) -> Result<Vec<String>, StatusError> {
        let operation = if call.verb == "create" { Operation::Create } else { Operation::Update };
        let mut request = Request {
            operation,
            resource: call.resource.clone(),
            subresource: call.subresource.clone(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            user: call.user.clone(),
            object: Some(call.object.clone()),
            old_object: old,
            options: call.options.clone(),
            dry_run: call.dry_run,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
            reinvocation: Default::default(),
        };
        match self.chain.get() {
            Some(chain) => chain.admit(&mut request).await?,
            None => return Err(StatusError::internal("admission is not ready")),
        }
        Ok(request.warnings)
    }
}
