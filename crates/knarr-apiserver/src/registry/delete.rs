//! DELETE: preconditions, grace, finalizers and the three propagation policies.

mod options;
mod step;

use std::sync::Arc;

use http::{Response, StatusCode};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, GroupVersionKind, Object, StatusError};
use knarr_store::{Expect, Revision};
use serde_json::json;

pub use self::options::{DeleteOptions, Preconditions, Propagation};
use self::step::Step;
pub use self::step::{held_by_spec, warning};
use super::commit::{self, CommitError, Target};
use super::render::{self, Presenter, Written};
use super::{Registry, Served, Writer};
use crate::admission::Operation;
use crate::cache::Entry;
use crate::http::Body;

const ATTEMPTS: usize = 100;

/// What a delete came to.
pub struct Deleted {
    /// The object as it last was, or as it now waits to be deleted.
    pub object: Written,
    pub uid: String,
    /// It is gone.
    pub gone: bool,
}

impl Registry {
    pub async fn delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
        writer: &mut Writer,
    ) -> Result<Deleted, StatusError> {
        for _ in 0..ATTEMPTS {
            let (entry, object) = self.current(target).await?.ok_or_else(|| target.not_found())?;
            check_preconditions(target, &options.preconditions, &entry)?;
            let object = Arc::new(object);
            self.admit_delete(target, options, writer, &object).await?;
            match self.delete_once(target, options, &entry, &object).await {
                Ok(deleted) => return Ok(deleted),
                Err(CommitError::Status(error)) => return Err(error),
                Err(CommitError::Raced(winner)) => self.after_race(winner).await?,
            }
        }
        Err(commit::too_many_races(target))
    }

    async fn admit_delete(
        &self,
        target: &Target,
        options: &DeleteOptions,
        writer: &mut Writer,
        object: &Arc<Object>,
    ) -> Result<(), StatusError> {
        if writer.unadmitted {
            return Ok(());
        }
        let mut request = self.admission_request(Operation::Delete, target, writer, None, Some(object.clone()));
        request.options = options.object.clone();
        request.dry_run = options.dry_run;
        let admitted = self.hooks().admission.admit(&mut request).await;
        writer.warnings.append(&mut request.warnings);
        admitted
    }

    async fn delete_once(
        &self,
        target: &Target,
        options: &DeleteOptions,
        entry: &Arc<Entry>,
        object: &Object,
    ) -> Result<Deleted, CommitError> {
        let uid = entry.uid.to_string();
        let revision = Revision(entry.revision);
        let (object, gone) = match step::next(&target.served, object, options) {
            Step::Pending => (Written::Stored(entry.clone()), false),
            Step::Remove if options.dry_run => (Written::Stored(entry.clone()), true),
            Step::Mark(marked) if options.dry_run => (self.shown(target, marked).await?, false),
            Step::MarkAndRemove(marked) if options.dry_run => (self.shown(target, marked).await?, true),
            Step::Mark(marked) => {
                (Written::Stored(self.put(target, marked, Expect::Revision(revision), false).await?), false)
            }
            Step::MarkAndRemove(marked) => {
                let marked = self.put(target, marked, Expect::Revision(revision), false).await?;
                (self.remove_marked(target, &marked).await?, true)
            }
            Step::Remove => (self.remove_entry(target, entry).await?, true),
        };
        Ok(Deleted { object, uid, gone })
    }

    async fn shown(&self, target: &Target, object: Object) -> Result<Written, StatusError> {
        Ok(commit::unstored(commit::to_stored(&target.served, object).await?))
    }

    /// Who watches sees the mark, and may be the first to remove the object, or may write to it once more: the former is this
    /// delete's success too, the latter is to be looked at again.
    async fn remove_marked(&self, target: &Target, marked: &Arc<Entry>) -> Result<Written, CommitError> {
        let winner = match self.remove_entry(target, marked).await {
            Err(CommitError::Raced(winner)) => winner,
            done => return done,
        };
        self.after_race(winner).await?;
        match target.served.cache.snapshot().get(&target.key()) {
            Some(current) if current.uid == marked.uid => Err(CommitError::Raced(winner)),
            _ => Ok(Written::Stored(marked.clone())),
        }
    }

    /// The object as of its deletion, which has a version of its own.
    async fn remove_entry(&self, target: &Target, entry: &Arc<Entry>) -> Result<Written, CommitError> {
        let revision = self.remove(target, Revision(entry.revision)).await?;
        if !returns_object(&target.served) {
            return Ok(Written::Stored(entry.clone()));
        }
        let mut object = entry.object();
        object.set_meta_str("resourceVersion", &revision.0.to_string());
        Ok(commit::unstored(object))
    }
}

fn check_preconditions(target: &Target, wanted: &Preconditions, entry: &Entry) -> Result<(), StatusError> {
    let (uid, version) = (&*entry.uid, entry.revision.to_string());
    if step::ends_in_two_phases(&target.served) {
        return wanted.check_storage(target, uid, &version);
    }
    wanted.check(&target.served.kind, &target.name, uid, &version)
}

impl Preconditions {
    /// Refuses to delete an object that is not, or no longer, the one that was meant.
    pub fn check(&self, kind: &GroupVersionKind, name: &str, uid: &str, version: &str) -> Result<(), StatusError> {
        let conflict = |why: String| {
            let kind = GroupResource::new(kind.group.clone(), kind.kind.clone());
            Err(StatusError::conflict(&kind, name, why))
        };
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            return conflict(format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
            ));
        }
        if let Some(wanted) = self.resource_version.as_deref().filter(|wanted| *wanted != version) {
            return conflict(format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). The object might have been modified"
            ));
        }
        Ok(())
    }

    /// As kinds say it that look before all others do.
    fn check_storage(&self, target: &Target, uid: &str, version: &str) -> Result<(), StatusError> {
        let failed = |what: &str, wanted: &str, found: &str| {
            target.conflict(format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            ))
        };
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            return Err(failed("UID", wanted, uid));
        }
        match self.resource_version.as_deref().filter(|wanted| *wanted != version) {
            Some(wanted) => Err(failed("ResourceVersion", wanted, version)),
            None => Ok(()),
        }
    }
}

/// Kinds whose delete answers with the object rather than a `Status`.
const RETURNS_OBJECT: &[(&str, &str)] = &[
    ("", "pods"),
    ("", "podtemplates"),
    ("", "persistentvolumes"),
    ("", "persistentvolumeclaims"),
    ("", "resourcequotas"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("", "namespaces"),
    ("resource.k8s.io", "deviceclasses"),
    ("resource.k8s.io", "devicetaintrules"),
    ("resource.k8s.io", "resourceclaims"),
    ("resource.k8s.io", "resourceclaimtemplates"),
    ("resource.k8s.io", "resourcepoolstatusrequests"),
    ("resource.k8s.io", "resourceslices"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattachments"),
    ("storage.k8s.io", "volumeattributesclasses"),
];

fn returns_object(served: &Served) -> bool {
    let resource = &served.group_resource;
    RETURNS_OBJECT.contains(&(&resource.group, &resource.resource))
}

/// The answer to a DELETE.
pub async fn answer(
    target: &Target,
    options: &DeleteOptions,
    deleted: &Deleted,
    presenter: &Presenter,
) -> Result<Response<Body>, StatusError> {
    let resource = &target.served.group_resource;
    let status = match (deleted.gone, options.orphan_dependents) {
        (false, Some(false)) => StatusCode::ACCEPTED,
        _ => StatusCode::OK,
    };
    if !deleted.gone || returns_object(&target.served) {
        return presenter.single(status, &deleted.object).await;
    }
    let mut details = json!({"name": target.name, "kind": resource.resource, "uid": deleted.uid});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    let success =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    render::encode(status, presenter.wanted.encoding, &success)
}
