use std::sync::Arc;

use knarr_api::StatusError;

use super::{Plugin, Request};
use crate::audit;

/// The plug-ins in upstream's order. The registry calls [`Chain::mutate`] on the defaulted object and [`Chain::validate`] once
/// the object is otherwise valid, right before it is stored.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Vec<Arc<dyn Plugin>>,
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Chain { plugins }
    }

    /// Every plug-in that handles the operation may change the object; the first refusal ends it. All run once more where one wants
    /// the others to see its change.
    pub async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        self.mutate_once(request).await?;
        if request.reinvocation.wanted {
            request.reinvocation.second_round = true;
            self.mutate_once(request).await?;
        }
        Ok(())
    }

    async fn mutate_once(&self, request: &mut Request) -> Result<(), StatusError> {
        let operation = request.operation;
        for plugin in self.plugins.iter().filter(|p| p.handles(operation)) {
            let admitted = plugin.mutate(request).await;
            annotate(request);
            admitted?;
        }
        Ok(())
    }

    /// Every plug-in that handles the operation may refuse the object; the first refusal ends it.
    pub async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let operation = request.operation;
        for plugin in self.plugins.iter().filter(|p| p.handles(operation)) {
            let admitted = plugin.validate(request).await;
            annotate(request);
            admitted?;
        }
        Ok(())
    }

    /// Both, for operations without an object of their own: deletes and connects.
    pub async fn admit(&self, request: &mut Request) -> Result<(), StatusError> {
        self.mutate(request).await?;
        self.validate(request).await
    }
}

/// What a plug-in has to say to the audit log, whether it admits or refuses.
fn annotate(request: &mut Request) {
    for (key, value) in request.audit_annotations.drain(..) {
        audit::annotate(&key, value);
    }
}
