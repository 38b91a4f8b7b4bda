//! What the two kinds of replica owners have in common, and how each writes it down.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerCondition};
use knarr_client::{Error, Watched};
use kube::core::Selector;
use serde::Serialize;

use crate::meta;

/// What a replica owner asks for.
pub(crate) struct Wanted<'a> {
    pub replicas: i32,
    pub min_ready_seconds: i32,
    pub selector: Selector,
    pub template: Option<&'a PodTemplateSpec>,
}

/// What it has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub replicas: i32,
    pub fully_labeled: i32,
    pub ready: i32,
    pub available: i32,
    pub terminating: i32,
}

/// What the condition `ReplicaFailure` should say.
pub(crate) enum Failure {
    None,
    /// Nothing was tried.
    AsBefore,
    Because {
        reason: &'static str,
        message: String,
    },
}

/// A kind that keeps a number of pods.
pub(crate) trait ReplicaOwner:
    Watched + kube::Resource<Scope = NamespaceResourceScope> + Serialize + Debug
{
    const CONTROLLER: &'static str;

    fn wanted(&self) -> Result<Wanted<'_>, Error>;
    fn set_status(&mut self, counts: Counts, failure: Failure);
    fn status_differs(&self, before: &Self) -> bool;
}

/// The two kinds differ in types that are alike field by field.
macro_rules! set_status {
    ($owner:expr, $counts:expr, $failure:expr, $condition:ident) => {{
        let generation = $owner.metadata.generation;
        let status = $owner.status.get_or_insert_default();
        status.replicas = $counts.replicas;
        status.fully_labeled_replicas = Some($counts.fully_labeled).filter(|count| *count != 0);
        status.ready_replicas = Some($counts.ready).filter(|count| *count != 0);
        status.available_replicas = Some($counts.available).filter(|count| *count != 0);
        status.observed_generation = generation;
        let conditions = status.conditions.get_or_insert_default();
        match $failure {
            Failure::AsBefore => {}
            Failure::None => conditions.retain(|condition| condition.type_ != "ReplicaFailure"),
            Failure::Because { reason, message } => {
                let stands = |condition: &$condition| {
                    condition.type_ == "ReplicaFailure" && condition.reason.as_deref() == Some(reason)
                };
                if !conditions.iter().any(stands) {
                    conditions.retain(|condition| condition.type_ != "ReplicaFailure");
                    conditions.push($condition {
                        type_: "ReplicaFailure".into(),
                        status: "True".into(),
                        reason: Some(reason.into()),
                        message: Some(message),
                        last_transition_time: Some(meta::now()),
                    });
                }
            }
        }
        if conditions.is_empty() {
            status.conditions = None;
        }
    }};
}

impl ReplicaOwner for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";

    fn wanted(&self) -> Result<Wanted<'_>, Error> {
        let spec = self.spec.as_ref().ok_or_else(|| Error::other("no spec"))?;
        Ok(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: meta::selector_of(&spec.selector)?,
            template: spec.template.as_ref(),
        })
    }

    fn set_status(&mut self, counts: Counts, failure: Failure) {
        set_status!(self, counts, failure, ReplicaSetCondition);
        if let Some(status) = &mut self.status {
            status.terminating_replicas = Some(counts.terminating);
        }
    }

    fn status_differs(&self, before: &Self) -> bool {
        self.status != before.status
    }
}

impl ReplicaOwner for ReplicationController {
    const CONTROLLER: &'static str = "replication-controller";

    fn wanted(&self) -> Result<Wanted<'_>, Error> {
        let spec = self.spec.as_ref().ok_or_else(|| Error::other("no spec"))?;
        Ok(Wanted {
            replicas: spec.replicas.unwrap_or(1),
            min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
            selector: spec.selector.clone().unwrap_or_default().into_iter().collect(),
            template: spec.template.as_ref(),
        })
    }

    fn set_status(&mut self, counts: Counts, failure: Failure) {
        set_status!(self, counts, failure, ReplicationControllerCondition);
    }

    fn status_differs(&self, before: &Self) -> bool {
        self.status != before.status
    }
}
