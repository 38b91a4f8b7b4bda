use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::status::{Cause, Details};
use knarr_api::{GroupResource, StatusError};

use super::refusal::forbidden;
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Nothing is made in a namespace that is not there or is going away.
pub struct NamespaceLifecycle {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        let is_namespace = request.resource.group.is_empty() && request.resource.resource == "namespaces";
        if is_namespace && request.operation == Operation::Delete && IMMORTAL.contains(&request.name.as_str()) {
            return Err(forbidden(request, "this namespace may not be deleted"));
        }
        let review = request.resource.resource == "localsubjectaccessreviews";
        if is_namespace || review || request.namespace.is_empty() || request.operation == Operation::Delete {
            return Ok(());
        }
        let namespaces = GroupResource::new("", "namespaces");
        let phase = self.objects.selectable_field(&namespaces, "", &request.namespace, "status.phase").await?;
        let Some(phase) = phase else {
            return Err(StatusError::not_found(&namespaces, &request.namespace));
        };
        if request.operation == Operation::Create && phase == "Terminating" {
            return Err(terminating(request));
        }
        Ok(())
    }
}

fn terminating(request: &Request) -> StatusError {
    let namespace = &request.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = forbidden(request, why);
    error.details.get_or_insert_with(|| Box::new(Details::default())).causes.push(Cause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    error
}
