//! The hooks of all configurations, compiled once per change of one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use knarr_cel::admission::{Available, MatchConditions};
use serde_json::Value;

use super::super::matching::Matching;
use super::DEFAULT_TIMEOUT;
use crate::cache::{Entry, Snapshot};
use crate::outbound::{OpenError, Target};

/// `admissionReviewVersions` that this server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1Beta1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SideEffects {
    None,
    NoneOnDryRun,
    SomeOrUnknown,
}

impl SideEffects {
    pub(super) fn allow_dry_run(self) -> bool {
        self != SideEffects::SomeOrUnknown
    }
}

/// One webhook of a configuration.
pub(super) struct Hook {
    pub configuration: String,
    pub name: String,
    /// Tells hooks apart, also those of one name.
    pub id: String,
    pub target: Result<Target, OpenError>,
    pub matching: Matching,
    pub ignores_failure: bool,
    pub side_effects: SideEffects,
    pub timeout: Duration,
    /// The first that both sides know.
    pub review_version: Option<ReviewVersion>,
    /// `reinvocationPolicy: IfNeeded`
    pub reinvoked: bool,
    pub conditions: MatchConditions,
}

impl Hook {
    fn of(configuration: &str, index: usize, value: &Value) -> Hook {
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let versions = value["admissionReviewVersions"].as_array().into_iter().flatten();
        let review_version = versions.into_iter().find_map(|version| match version.as_str() {
            Some("v1") => Some(ReviewVersion::V1),
            Some("v1beta1") => Some(ReviewVersion::V1Beta1),
            _ => None,
        });
        Hook {
            configuration: configuration.to_string(),
            name: text("name").to_string(),
            id: format!("{configuration}/{}/{index}", text("name")),
            target: Target::of_client_config(&value["clientConfig"]),
            matching: Matching::of_webhook(value),
            ignores_failure: text("failurePolicy") == "Ignore",
            side_effects: match text("sideEffects") {
                "None" => SideEffects::None,
                "NoneOnDryRun" => SideEffects::NoneOnDryRun,
                _ => SideEffects::SomeOrUnknown,
            },
            timeout: value["timeoutSeconds"].as_u64().map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            review_version,
            reinvoked: text("reinvocationPolicy") == "IfNeeded",
            conditions: MatchConditions::compile(
                &value["matchConditions"],
                Available { params: false, authorizer: true },
            )
            .0,
        }
    }
}

/// One configuration as it is stored, and its hooks.
type Own = (Arc<Entry>, Vec<Arc<Hook>>);

/// The hooks of all configurations of one kind. What is stored when a request arrives is what it sees: there is nothing to wait for.
#[derive(Default)]
pub(super) struct Configurations {
    by_name: HashMap<Arc<str>, Own, RandomState>,
    /// In the order of the configurations' names, then as they stand there.
    pub hooks: Vec<Arc<Hook>>,
}

/// Compiles what has changed since `before`.
pub(super) fn compile(snapshot: &Snapshot, before: Option<&Configurations>) -> Configurations {
    let mut all = Configurations::default();
    for (name, entry) in &snapshot.entries {
        let known = before.and_then(|b| b.by_name.get(name)).filter(|(of, _)| Arc::ptr_eq(of, entry));
        let own = known.map(|(_, hooks)| hooks.clone()).unwrap_or_else(|| hooks_of(entry));
        all.hooks.extend(own.iter().cloned());
        all.by_name.insert(name.clone(), (entry.clone(), own));
    }
    all
}

fn hooks_of(entry: &Entry) -> Vec<Arc<Hook>> {
    let object = entry.object();
    let hooks = object["webhooks"].as_array().into_iter().flatten().enumerate();
    hooks.map(|(index, hook)| Arc::new(Hook::of(entry.name(), index, hook))).collect()
}
