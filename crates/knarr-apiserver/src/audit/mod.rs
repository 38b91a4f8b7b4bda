//! The audit log: who asked for what, when, and what came of it, as the policy file wants it recorded.
//!
//! The way of an event: [`Auditor::begin`] asks the [`policy`] and starts a [`Record`]; the chain and whoever serves the request add to
//! it (from anywhere below, by [`annotate`]); each stage of the request makes an [`event::Event`] of what is known by then, which the
//! [`Backend`]s write: a [`log`] file, or a webhook behind a [`batch::Batcher`].
//!
//! Without a policy there is no auditor, and nothing of this costs anything.

pub mod batch;
pub mod event;
pub mod log;
pub mod policy;
pub mod webhook;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;
use http::request::Parts;
use knarr_api::Object;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::authentication::User;
use crate::chain::request_info::RequestInfo;
use crate::metrics::Maker;
use batch::{Batcher, Batching, Sink};
use event::{Event, UserInfo};
use log::Log;
use policy::{Decision, Level, Policy, Stage};

/// What a request is called in the log; in its headers and its answer's.
pub const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// How a backend takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Later, in batches.
    Batch,
    /// Before the answer.
    Blocking,
    /// Before the answer, and a request that cannot be recorded is not served.
    BlockingStrict,
}

impl Mode {
    /// The mode of upstream's name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "batch" => Some(Mode::Batch),
            "blocking" => Some(Mode::Blocking),
            "blocking-strict" => Some(Mode::BlockingStrict),
            _ => None,
        }
    }
}

/// Where events go, before it is at work.
pub enum BackendConfig {
    Log { log: Log, mode: Mode, batching: Batching },
    Sink { sink: Box<dyn Sink>, mode: Mode, batching: Batching },
}

enum Backend {
    Log {
        log: Log,
        strict: bool,
    },
    Batched(Batcher),
    /// As batched, but its events are waited for.
    Awaited {
        batcher: Batcher,
        strict: bool,
    },
}

/// What a server records, and where. Given to the server before it is made.
pub struct AuditConfig {
    pub policy: Policy,
    pub backends: Vec<BackendConfig>,
}

struct Meters {
    events: IntCounter,
    levels: IntCounterVec,
    errors: IntCounterVec,
    rejected: IntCounter,
}

/// Records requests.
pub struct Auditor {
    policy: Policy,
    backends: Vec<Backend>,
    meters: Meters,
}

/// A log that batches, as a sink.
struct BatchedLog(Log);

#[async_trait::async_trait]
impl Sink for BatchedLog {
    fn name(&self) -> &'static str {
        "log"
    }

    async fn write(&self, events: &[Bytes]) -> Result<(), String> {
        self.0.write(events).map_err(|error| error.to_string())
    }
}

impl Auditor {
    pub fn new(config: AuditConfig, registry: &prometheus::Registry) -> Arc<Self> {
        let make = Maker(registry);
        let meters = Meters {
            events: make.counter(
                "apiserver_audit_event_total",
                "[ALPHA] Counter of audit events generated and sent to the audit backend.",
            ),
            levels: make.counters(
                "apiserver_audit_level_total",
                "[ALPHA] Counter of policy levels for audit events (1 per request).",
                &["level"],
            ),
            errors: make.counters(
                "apiserver_audit_error_total",
                "[ALPHA] Counter of audit events that failed to be audited properly, by the plugin that failed.",
                &["plugin"],
            ),
            rejected: make.counter(
                "apiserver_audit_requests_rejected_total",
                "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.",
            ),
        };
        let backend = |config: BackendConfig| {
            let (sink, mode, batching): (Box<dyn Sink>, _, _) = match config {
                BackendConfig::Log { log, mode: Mode::Batch, batching } => {
                    (Box::new(BatchedLog(log)), Mode::Batch, batching)
                }
                BackendConfig::Log { log, mode, .. } => {
                    return Backend::Log { log, strict: mode == Mode::BlockingStrict };
                }
                BackendConfig::Sink { sink, mode, batching } => (sink, mode, batching),
            };
            match mode {
                Mode::Batch => Backend::Batched(Batcher::new(sink, batching, meters.errors.clone())),
                mode => {
                    let batching = Batching { most: 1, throttle: None, ..batching };
                    let batcher = Batcher::new(sink, batching, meters.errors.clone());
                    Backend::Awaited { batcher, strict: mode == Mode::BlockingStrict }
                }
            }
        };
        let backends = config.backends.into_iter().map(backend).collect();
        Arc::new(Auditor { policy: config.policy, backends, meters })
    }

    /// Empties the buffers until `shutdown`, and then what is left in them.
    pub async fn run(&self, shutdown: CancellationToken) {
        let batchers = self.backends.iter().filter_map(|backend| match backend {
            Backend::Batched(batcher) | Backend::Awaited { batcher, .. } => Some(batcher.run(shutdown.clone())),
            Backend::Log { .. } => None,
        });
        futures::future::join_all(batchers).await;
    }

    /// The record of a request; `None` where the policy wants none.
    pub fn begin(self: &Arc<Self>, parts: &Parts, info: &RequestInfo, user: Option<&User>) -> Option<Arc<Record>> {
        let decision = self.policy.decide(info, user);
        self.meters.levels.with_label_values(&[decision.level.as_str()]).inc();
        if decision.level == Level::None {
            return None;
        }
        let id = parts.headers.get(AUDIT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
        let event = Event::received(decision.level, id, parts, info, user);
        Some(Arc::new(Record {
            auditor: self.clone(),
            decision,
            long_running: info.long_running,
            is_resource: info.is_resource,
            event: Mutex::new(event),
        }))
    }

    /// Leaves an event to the backends without waiting for any.
    fn leave(&self, event: &Bytes) {
        self.meters.events.inc();
        for backend in &self.backends {
            match backend {
                Backend::Log { log, .. } => drop(self.write_now(log, event)),
                Backend::Batched(batcher) | Backend::Awaited { batcher, .. } => batcher.submit(event.clone()),
            }
        }
    }

    /// Gives an event to the backends and waits for those that want it; false where one that is strict could not write it.
    async fn give(&self, event: &Bytes) -> bool {
        self.meters.events.inc();
        let mut recorded = true;
        for backend in &self.backends {
            let (written, strict) = match backend {
                Backend::Log { log, strict } => (self.write_now(log, event), *strict),
                Backend::Batched(batcher) => {
                    batcher.submit(event.clone());
                    continue;
                }
                Backend::Awaited { batcher, strict } => {
                    (batcher.submit_and_tell(event.clone()).await.unwrap_or(false), *strict)
                }
            };
            recorded &= written || !strict;
        }
        recorded
    }

    fn write_now(&self, log: &Log, event: &Bytes) -> bool {
        let written = log.write(std::slice::from_ref(event));
        if let Err(error) = &written {
            self.meters.errors.with_label_values(&["log"]).inc();
            tracing::error!(%error, "an audit event is lost");
        }
        written.is_ok()
    }

    /// A request was turned away because it could not be recorded.
    pub(crate) fn rejected(&self) {
        self.meters.rejected.inc();
    }
}

/// What is known of one request so far.
pub struct Record {
    auditor: Arc<Auditor>,
    decision: Decision,
    pub long_running: bool,
    is_resource: bool,
    event: Mutex<Event>,
}

tokio::task_local! {
    static CURRENT: Arc<Record>;
}

/// Adds an annotation to the record of the request that is being served; nothing where it is not recorded. The first value stays.
pub fn annotate(key: &str, value: impl Into<String>) {
    let _ = CURRENT.try_with(|record| {
        let mut event = record.event.lock();
        event.annotations.entry(key.to_string()).or_insert_with(|| value.into());
    });
}

/// Notes whom the request that is being served acts as.
pub fn impersonated(user: &User) {
    let _ = CURRENT.try_with(|record| record.event.lock().impersonated_user = Some(UserInfo::from(user)));
}

/// Whether the request that is being served is recorded.
pub fn is_recording() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

impl Record {
    /// Serves a request with this as its record.
    pub async fn scope<F: Future>(self: Arc<Self>, serving: F) -> F::Output {
        CURRENT.scope(self, serving).await
    }

    /// Whether the request's object is wanted.
    pub fn wants_request(&self) -> bool {
        self.is_resource && self.decision.level >= Level::Request
    }

    /// Whether the answer's object is wanted.
    pub fn wants_response(&self) -> bool {
        self.is_resource && self.decision.level >= Level::RequestResponse && !self.long_running
    }

    /// Notes the body of the request, as JSON.
    pub fn request_object(&self, mut object: Object) {
        let mut event = self.event.lock();
        event.refer_to(&object);
        if self.decision.omit_managed_fields {
            omit_managed_fields(&mut object);
        }
        event.request_object = Some(object);
    }

    /// Notes the object of the answer, as JSON.
    pub fn response_object(&self, mut object: Object) {
        if self.decision.omit_managed_fields {
            omit_managed_fields(&mut object);
        }
        self.event.lock().response_object = Some(object);
    }

    /// Notes the answer's code.
    pub fn response_code(&self, code: u16) {
        self.event.lock().response_status = Some(json!({"metadata": {}, "code": code}));
    }

    /// Notes the `Status` that is the answer.
    pub fn response_status(&self, status: &Object) {
        let mut kept = json!({"metadata": {}});
        for field in ["status", "message", "reason", "details", "code"] {
            if let Some(value) = status.get(field) {
                kept[field] = value.clone();
            }
        }
        self.event.lock().response_status = Some(kept);
    }

    fn at(&self, stage: Stage) -> Option<Bytes> {
        if self.decision.omits(stage) {
            return None;
        }
        let mut event = self.event.lock();
        event.stage = stage;
        if stage != Stage::RequestReceived {
            event.stage_timestamp = event::now_text();
        }
        match serde_json::to_vec(&*event) {
            Ok(text) => Some(text.into()),
            Err(error) => {
                tracing::error!(%error, "an audit event cannot be written");
                None
            }
        }
    }

    /// Records a stage, and waits for backends that want it; false where the request must not go on without.
    pub async fn stage(&self, stage: Stage) -> bool {
        match self.at(stage) {
            Some(event) => self.auditor.give(&event).await,
            None => true,
        }
    }

    /// Records a stage from where nothing can be waited for.
    pub fn leave_stage(&self, stage: Stage) {
        if let Some(event) = self.at(stage) {
            self.auditor.leave(&event);
        }
    }

    /// Whether an answer is known.
    pub fn is_answered(&self) -> bool {
        self.event.lock().response_status.is_some()
    }
}

/// Of an object, of a list's items, of a table's rows.
fn omit_managed_fields(object: &mut Object) {
    let remove = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    remove(object);
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        remove(item);
    }
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        remove(&mut row["object"]);
    }
}
