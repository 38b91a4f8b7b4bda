//! `namespaces/finalize`: who has emptied a namespace lets go of it.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::{Answer, Call, Handler};
use crate::objects::Objects;

pub struct Finalize {
    pub objects: Arc<dyn Objects>,
}

fn held_by_spec(namespace: &Object) -> bool {
    namespace.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|f| !f.is_empty())
}

#[async_trait]
impl Handler for Finalize {
    async fn handle(&self, call: Call) -> Result<Answer, StatusError> {
        let namespaces = GroupResource::new("", "namespaces");
        if call.dry_run {
            return Ok(Answer::ok(Arc::new(call.object)));
        }
        let wanted = &call.object;
        let mut change = |namespace: &mut Object| {
            check_version(&namespaces, namespace, wanted)?;
            namespace["spec"]["finalizers"] = wanted.pointer("/spec/finalizers").cloned().unwrap_or(json!([]));
            Ok(())
        };
        let updated = self.objects.modify(&namespaces, "", &call.name, &mut change).await?;
        if updated.is_deleting() && !held_by_spec(&updated) && updated.finalizers().is_empty() {
            let options = json!({"preconditions": {"uid": updated.uid()}});
            self.objects.delete(&namespaces, "", &call.name, options).await?;
        }
        Ok(Answer::ok(updated))
    }
}

fn check_version(resource: &GroupResource, current: &Object, wanted: &Object) -> Result<(), StatusError> {
    let version = wanted.resource_version();
    if version.is_empty() || version == current.resource_version() {
        return Ok(());
    }
    Err(StatusError::conflict(
        resource,
        current.name(),
        "the object has been modified; please apply your changes to the latest version and try again",
    ))
}
