//! What a delete does to the object it finds: nothing yet, a mark, or its end.

use jiff::{SignedDuration, Timestamp};
use knarr_api::Object;
use knarr_api::object::ObjectExt;
use serde_json::{Value, json};

use super::{DeleteOptions, Propagation};
use crate::custom_resources;
use crate::registry::{Served, commit};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// The next step of a deletion.
pub(super) enum Step {
    /// It is on its way already; nothing to write.
    Pending,
    /// Write that it is being deleted.
    Mark(Object),
    /// Write that its grace is over, then remove it: who watches sees both.
    MarkAndRemove(Object),
    Remove,
}

pub(super) fn next(served: &Served, object: &Object, options: &DeleteOptions) -> Step {
    if ends_in_two_phases(served) && !object.is_deleting() {
        return Step::Mark(first_phase(served, object, options));
    }
    if held_by_spec(object) {
        return Step::Pending;
    }
    let mut marked = object.clone();
    let grace = give_grace(served, &mut marked, options.grace_seconds);
    if grace == Grace::Pending {
        return Step::Pending;
    }
    set_finalizers(&mut marked, &finalizers_for(served, object, options));
    let held = !marked.finalizers().is_empty();
    match grace {
        Grace::Seconds(0) if !held => return Step::MarkAndRemove(marked),
        Grace::None if !held => return Step::Remove,
        Grace::None => mark_deleting(&mut marked),
        Grace::Seconds(_) | Grace::Pending => {}
    }
    if marked == *object { Step::Pending } else { Step::Mark(marked) }
}

/// Namespaces and definitions are marked first whatever holds them: something else must go before them.
pub(super) fn ends_in_two_phases(served: &Served) -> bool {
    is_namespace(served) || served.group_resource == custom_resources::definitions()
}

fn is_namespace(served: &Served) -> bool {
    served.kind.group.is_empty() && served.kind.kind == "Namespace"
}

fn first_phase(served: &Served, object: &Object, options: &DeleteOptions) -> Object {
    let mut marked = object.clone();
    marked.metadata_mut().insert("deletionTimestamp".into(), commit::time_text(Timestamp::now()).into());
    if is_namespace(served) {
        marked["status"]["phase"] = "Terminating".into();
        set_finalizers(&mut marked, &finalizers_of_namespace(object, options));
    } else {
        custom_resources::mark_terminating(&mut marked);
    }
    marked
}

/// A namespace is held by what its spec lists, until its `finalize` subresource empties it.
pub fn held_by_spec(object: &Object) -> bool {
    object["kind"] == "Namespace" && object["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty())
}

/// The time that an object is given to end.
#[derive(PartialEq, Eq)]
enum Grace {
    /// Its kind knows none, or it is over.
    None,
    /// It runs already, and is not shortened.
    Pending,
    /// From now on; the object says so.
    Seconds(i64),
}

fn give_grace(served: &Served, object: &mut Object, asked: Option<i64>) -> Grace {
    let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let Some(seconds) = served.strategy.grace_seconds(object, asked) else { return Grace::None };
    if object.is_deleting() {
        return shorten(object, asked);
    }
    let ends = Timestamp::now().saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    bump_generation(object);
    let metadata = object.metadata_mut();
    metadata.insert("deletionTimestamp".into(), commit::time_text(ends).into());
    metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
    Grace::Seconds(seconds)
}

/// Who is ending already may be given less time, never more.
fn shorten(object: &mut Object, asked: Option<i64>) -> Grace {
    let metadata = object.metadata_mut();
    let current = metadata.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or_default();
    match asked {
        _ if current == 0 => Grace::None,
        Some(asked) if asked < current => {
            let now = Timestamp::now();
            let ends = metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|t| t.parse().ok());
            let sooner = SignedDuration::from_secs(current.saturating_sub(asked));
            let ends = ends.and_then(|ends: Timestamp| ends.checked_sub(sooner).ok()).unwrap_or(now);
            // All of it has passed: whoever ends the object is told once more, with the least there is.
            let seconds = if ends < now { asked.min(1) } else { asked };
            metadata.insert("deletionTimestamp".into(), commit::time_text(ends.max(now)).into());
            metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
            Grace::Seconds(seconds)
        }
        _ => Grace::Pending,
    }
}

/// Of an object that waits for its finalizers only.
fn mark_deleting(object: &mut Object) {
    if !object.is_deleting() {
        bump_generation(object);
    }
    let now = Timestamp::now();
    let metadata = object.metadata_mut();
    let ends = metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok());
    if ends.is_none_or(|ends| ends > now) {
        metadata.insert("deletionTimestamp".into(), commit::time_text(now).into());
    }
    metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
}

fn bump_generation(object: &mut Object) {
    let generation = object.generation();
    if generation > 0 {
        object.metadata_mut().insert("generation".into(), (generation + 1).into());
    }
}

fn set_finalizers(object: &mut Object, finalizers: &[String]) {
    if finalizers.is_empty() {
        object.metadata_mut().remove("finalizers");
    } else {
        object.metadata_mut().insert("finalizers".into(), json!(finalizers));
    }
}

/// The object's finalizers with those of the garbage collector as this request wants them.
fn finalizers_for(served: &Served, object: &Object, options: &DeleteOptions) -> Vec<String> {
    let present = object.finalizers();
    let policy = match (options.propagation, options.orphan_dependents) {
        _ if has_no_dependents(served) => Propagation::Background,
        (Some(policy), _) => policy,
        (None, Some(true)) => Propagation::Orphan,
        (None, Some(false)) => Propagation::Background,
        (None, None) if present.contains(&ORPHAN) => Propagation::Orphan,
        (None, None) if present.contains(&FOREGROUND) => Propagation::Foreground,
        (None, None) => default_propagation(served),
    };
    with_policy(&present, policy)
}

/// As [`finalizers_for`], except that a namespace which is not to leave orphans waits for its dependents.
fn finalizers_of_namespace(namespace: &Object, options: &DeleteOptions) -> Vec<String> {
    let present = namespace.finalizers();
    match (options.propagation, options.orphan_dependents) {
        (_, Some(true)) => with_policy(&present, Propagation::Orphan),
        (_, Some(false)) => with_policy(&present, Propagation::Foreground),
        (Some(policy), None) => with_policy(&present, policy),
        (None, None) => present.iter().map(|finalizer| finalizer.to_string()).collect(),
    }
}

fn with_policy(present: &[&str], policy: Propagation) -> Vec<String> {
    let kept = present.iter().filter(|f| **f != ORPHAN && **f != FOREGROUND);
    let mut finalizers: Vec<String> = kept.map(|f| f.to_string()).collect();
    match policy {
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Background => {}
    }
    finalizers
}

/// Events are nobody's owners.
fn has_no_dependents(served: &Served) -> bool {
    matches!((&*served.group_resource.group, &*served.group_resource.resource), ("" | "events.k8s.io", "events"))
}

fn is_job(served: &Served) -> bool {
    served.group_resource.group == "batch" && served.group_resource.resource == "jobs"
}

/// Kinds that leave their dependents alone unless told otherwise, for the sake of old clients.
fn default_propagation(served: &Served) -> Propagation {
    match (&*served.group_resource.group, &*served.group_resource.resource) {
        ("", "replicationcontrollers") => Propagation::Orphan,
        _ if is_job(served) => Propagation::Orphan,
        _ => Propagation::Background,
    }
}

const JOBS_LEAVE_PODS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
propagationPolicy=Orphan to suppress this warning";

/// What who deletes objects of this kind should know.
pub fn warning(served: &Served, options: &DeleteOptions) -> Option<&'static str> {
    let said = options.propagation.is_some() || options.orphan_dependents.is_some();
    (is_job(served) && !said).then_some(JOBS_LEAVE_PODS)
}
