//! A service that decides: it is sent a `SubjectAccessReview` and answers it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use knarr_api::selector::{FieldSelector, LabelSelector, Operator};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::conditions::MatchConditions;
use super::{Attributes, Authorizer, Decision, Enumerated};
use crate::authentication::User;
use crate::outbound::{Client, Limits, with_backoff};

/// Decisions remembered.
const REMEMBERED: usize = 8192;
/// Attributes longer than this together are not remembered: their sender may want to fill our memory.
const MAX_REMEMBERED_ATTRIBUTES: usize = 10_000;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How one webhook is asked and believed.
pub struct WebhookOptions {
    /// `v1` or `v1beta1`, of `authorization.k8s.io`.
    pub version: String,
    pub timeout: Duration,
    /// How long a yes holds; `None`: not at all.
    pub authorized_ttl: Option<Duration>,
    /// How long anything else holds.
    pub unauthorized_ttl: Option<Duration>,
    /// Whether a webhook that cannot be asked denies; otherwise it has no opinion.
    pub denies_on_failure: bool,
    pub conditions: MatchConditions,
}

/// Asks a service.
pub struct Webhook {
    client: Client,
    options: WebhookOptions,
    remembered: Mutex<HashMap<String, (Instant, Decision)>>,
}

impl Webhook {
    pub fn new(client: Client, options: WebhookOptions) -> Self {
        Webhook { client, options, remembered: Mutex::default() }
    }

    fn failed(&self, error: impl ToString) -> Decision {
        Decision::Failed { denied: self.options.denies_on_failure, error: error.to_string() }
    }

    async fn ask(&self, spec: &Value) -> Decision {
        let mut spec = spec.clone();
        if self.options.version == "v1beta1"
            && let Some(groups) = spec.as_object_mut().and_then(|s| s.remove("groups"))
        {
            // The old version's name for it.
            spec["group"] = groups;
        }
        let api_version = format!("authorization.k8s.io/{}", self.options.version);
        let review = json!({"apiVersion": api_version, "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false}});
        let limits = Limits { timeout: self.options.timeout, ..Limits::default() };
        match with_backoff(FIRST_PAUSE, || self.client.post(&review, limits)).await {
            Ok(answer) => decision(&answer["status"]),
            Err(error) => {
                tracing::error!(%error, "the authorization webhook gave no answer");
                self.failed(error)
            }
        }
    }

    fn remember(&self, key: String, decision: &Decision) {
        let ttl = match decision {
            Decision::Allow { .. } => self.options.authorized_ttl,
            Decision::Failed { .. } => None,
            _ => self.options.unauthorized_ttl,
        };
        let Some(ttl) = ttl else { return };
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, (Instant::now() + ttl, decision.clone()));
    }
}

fn decision(status: &Value) -> Decision {
    let reason = status["reason"].as_str().unwrap_or_default().to_string();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => Decision::Failed {
            denied: true,
            error: "webhook subject access review returned both allow and deny response".into(),
        },
        (true, false) => Decision::Allow { reason },
        (false, true) => Decision::Deny { reason },
        (false, false) => Decision::NoOpinion { reason },
    }
}

#[async_trait]
impl Authorizer for Webhook {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let spec = review_spec(attributes);
        match self.options.conditions.matches(&spec) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion { reason: String::new() },
            Err(error) => return self.failed(error),
        }
        let key = spec.to_string();
        if let Some((until, decision)) = self.remembered.lock().get(&key)
            && Instant::now() < *until
        {
            return decision.clone();
        }
        let decision = self.ask(&spec).await;
        if controlled_length(attributes) < MAX_REMEMBERED_ATTRIBUTES {
            self.remember(key, &decision);
        }
        decision
    }

    fn rules_for(&self, _: &User, _: &str) -> Enumerated {
        let error = "webhook authorizer does not support user rule resolution".to_string();
        Enumerated { incomplete: true, errors: vec![error], ..Enumerated::default() }
    }
}

fn controlled_length(a: &Attributes<'_>) -> usize {
    [a.namespace, a.verb, a.group, a.version, a.resource, a.subresource, a.name, a.path].iter().map(|t| t.len()).sum()
}

/// The `spec` of a SubjectAccessReview that asks this; what is empty is left out.
pub fn review_spec(a: &Attributes<'_>) -> Value {
    let mut spec = Map::new();
    let put = |into: &mut Map<String, Value>, name: &str, text: &str| {
        if !text.is_empty() {
            into.insert(name.into(), text.into());
        }
    };
    let mut asked = Map::new();
    if a.is_resource {
        for (name, text) in [
            ("namespace", a.namespace),
            ("verb", a.verb),
            ("group", a.group),
            ("version", a.version),
            ("resource", a.resource),
            ("subresource", a.subresource),
            ("name", a.name),
        ] {
            put(&mut asked, name, text);
        }
        asked.extend(field_requirements(a.field_selector).map(|r| ("fieldSelector".to_string(), r)));
        asked.extend(label_requirements(a.label_selector).map(|r| ("labelSelector".to_string(), r)));
        spec.insert("resourceAttributes".into(), asked.into());
    } else {
        put(&mut asked, "path", a.path);
        put(&mut asked, "verb", a.verb);
        spec.insert("nonResourceAttributes".into(), asked.into());
    }
    put(&mut spec, "user", &a.user.name);
    if !a.user.groups.is_empty() {
        spec.insert("groups".into(), json!(a.user.groups));
    }
    if !a.user.extra.is_empty() {
        spec.insert("extra".into(), json!(a.user.extra));
    }
    put(&mut spec, "uid", &a.user.uid);
    spec.into()
}

/// A selector that cannot be read is left out: it could only narrow what is asked.
fn field_requirements(selector: &str) -> Option<Value> {
    let selector = FieldSelector::parse(selector).ok().filter(|s| !s.is_everything())?;
    let terms = selector.terms().iter().map(|t| {
        let operator = if t.negated { "NotIn" } else { "In" };
        json!({"key": t.field, "operator": operator, "values": [t.value]})
    });
    Some(json!({ "requirements": terms.collect::<Vec<_>>() }))
}

fn label_requirements(selector: &str) -> Option<Value> {
    let selector = LabelSelector::parse(selector).ok().filter(|s| !s.is_everything())?;
    let terms = selector.requirements().iter().filter_map(|r| {
        let operator = match r.operator() {
            Operator::Equals | Operator::DoubleEquals | Operator::In => "In",
            Operator::NotEquals | Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // The API has no word for these.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        let mut term = json!({"key": r.key(), "operator": operator});
        if !r.values().is_empty() {
            term["values"] = json!(r.values());
        }
        Some(term)
    });
    let terms: Vec<Value> = terms.collect();
    (!terms.is_empty()).then(|| json!({ "requirements": terms }))
}
