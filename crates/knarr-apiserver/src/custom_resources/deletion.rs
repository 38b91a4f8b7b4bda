//! The end of a definition: its objects are deleted, then it lets itself go.

use std::sync::Arc;

use knarr_api::custom_resource::Definition;
use knarr_api::custom_resource::definition::CLEANUP_FINALIZER;
use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};
use serde_json::json;

use super::definitions;
use super::names::set_condition;
use crate::authentication::User;
use crate::registry::commit::Target;
use crate::registry::delete::DeleteOptions;
use crate::registry::{Registry, Served, Writer};

/// Makes a definition, as it is marked for deletion, wait for its objects.
pub fn mark(object: &mut Object) {
    let mut finalizers: Vec<String> = object.finalizers().into_iter().map(str::to_string).collect();
    if !finalizers.iter().any(|f| f == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.to_string());
        object.metadata_mut().insert("finalizers".into(), json!(finalizers));
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(object, "Terminating", true, "InstanceDeletionPending", message);
}

/// Whether the definition waits for its objects to be deleted.
pub fn is_due(object: &Object) -> bool {
    object.is_deleting() && object.finalizers().contains(&CLEANUP_FINALIZER)
}

/// Deletes all objects of a definition, waits until they are gone, and takes the finalizer off. `stored` is `None` where the
/// resource was never served.
pub async fn finish(registry: Arc<Registry>, name: String, stored: Option<Arc<Served>>) -> Result<(), StatusError> {
    let established = |object: &Object| Definition(object).is("Established");
    let mut begin = |object: &mut Object| {
        let message = "CustomResource deletion is in progress";
        set_condition(object, "Terminating", true, "InstanceDeletionInProgress", message);
        Ok(())
    };
    let started = registry.modify_status(&definitions(), &name, &mut begin).await?;
    let (reason, message) = match stored.filter(|_| established(&started)) {
        None => ("NeverEstablished", "resource was never established"),
        Some(stored) => {
            empty(&registry, &stored).await?;
            ("InstanceDeletionCompleted", "removed all instances")
        }
    };
    let mut let_go = |object: &mut Object| {
        set_condition(object, "Terminating", false, reason, message);
        let left: Vec<String> =
            object.finalizers().into_iter().filter(|f| *f != CLEANUP_FINALIZER).map(str::to_string).collect();
        match left.is_empty() {
            true => drop(object.metadata_mut().remove("finalizers")),
            false => drop(object.metadata_mut().insert("finalizers".into(), json!(left))),
        }
        Ok(())
    };
    registry.modify_status(&definitions(), &name, &mut let_go).await?;
    Ok(())
}

/// Deletes everything and returns once nothing is left: objects with finalizers take their time.
async fn empty(registry: &Arc<Registry>, stored: &Arc<Served>) -> Result<(), StatusError> {
    let mut writer = Writer::new(Arc::new(User::new("system:apiserver", &["system:masters"])));
    writer.unadmitted = true;
    let options = DeleteOptions::of_object(json!({"kind": "DeleteOptions"}))?;
    loop {
        registry.wait_until_fresh().await?;
        let snapshot = arc_swap::Guard::into_inner(stored.cache.snapshot());
        if snapshot.entries.is_empty() {
            return Ok(());
        }
        for entry in snapshot.range("", None) {
            let target = Target::new(stored, entry.namespace(), entry.name());
            match registry.delete(&target, &options, &mut writer).await {
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        stored.cache.changed_after(snapshot.revision).await;
    }
}
