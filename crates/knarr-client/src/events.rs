//! The event recorder: tells users what happened to an object, without ever holding up whoever tells.
//!
//! Repeated events become one with a count, many alike become one that stands for all, and an object that spams is cut short, all as
//! client-go's correlator does ([`correlator`]).

mod correlator;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use tokio::sync::mpsc;

use correlator::{Correlator, Verdict};

/// Events that wait to be sent; beyond that they are dropped, as nobody may block on them.
const QUEUE_LENGTH: usize = 1000;
/// How often sending one event is tried while the API cannot be reached, and how long apart.
const TRIES: u32 = 12;
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Whether something went as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Records events of one component. Clones share the queue and the correlation.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<CoreEvent>,
    source: Arc<EventSource>,
}

impl Recorder {
    /// A recorder that sends through `client` from a task of its own, until the last clone is dropped. `host` may be empty.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (queue, events) = mpsc::channel(QUEUE_LENGTH);
        tokio::spawn(send_all(client, events));
        let host = (!host.is_empty()).then(|| host.to_string());
        Recorder { queue, source: Arc::new(EventSource { component: Some(component.into()), host }) }
    }

    /// Records that something happened to `object`. Never blocks; an event too many is dropped.
    pub fn event(&self, object: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let event = self.make(object, kind, reason, message.into());
        if let Err(error) = self.queue.try_send(event) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }

    fn make(&self, object: &ObjectReference, kind: EventType, reason: &str, message: String) -> CoreEvent {
        let now = Timestamp::now();
        let namespace = object.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".into());
        let name = format!("{}.{:x}", object.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        CoreEvent {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
            involved_object: object.clone(),
            type_: Some(kind.as_str().into()),
            reason: Some(reason.into()),
            message: Some(message),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            source: Some((*self.source).clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..CoreEvent::default()
        }
    }
}

/// The reference to an object that an event is about.
pub fn reference_to<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

async fn send_all(client: Client, mut events: mpsc::Receiver<CoreEvent>) {
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        let correlated = correlator.correlate(event, tokio::time::Instant::now());
        let sent = match correlated {
            Verdict::Drop => continue,
            Verdict::Create(event) => with_retries(|| create(&client, &event)).await,
            Verdict::Repeat(event) => with_retries(|| repeat(&client, &event)).await,
        };
        match sent {
            Ok(event) => correlator.sent(event),
            Err(error) => tracing::debug!(%error, "event not recorded"),
        }
    }
}

/// Tries again while the API cannot be reached; what the API refuses is refused.
async fn with_retries<F>(mut send: impl FnMut() -> F) -> kube::Result<CoreEvent>
where
    F: Future<Output = kube::Result<CoreEvent>>,
{
    for _ in 1..TRIES {
        match send().await {
            Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => tokio::time::sleep(RETRY_DELAY).await,
            answered => return answered,
        }
    }
    send().await
}

async fn create(client: &Client, event: &CoreEvent) -> kube::Result<CoreEvent> {
    events_of(client, event).create(&PostParams::default(), event).await
}

async fn repeat(client: &Client, event: &CoreEvent) -> kube::Result<CoreEvent> {
    let patch =
        serde_json::json!({ "count": event.count, "lastTimestamp": event.last_timestamp, "message": event.message });
    let name = event.metadata.name.as_deref().unwrap_or_default();
    match events_of(client, event).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        // It has expired meanwhile.
        Err(kube::Error::Api(status)) if status.is_not_found() => create(client, event).await,
        answered => answered,
    }
}

fn events_of(client: &Client, event: &CoreEvent) -> Api<CoreEvent> {
    Api::namespaced(client.clone(), event.metadata.namespace.as_deref().unwrap_or("default"))
}

#[cfg(test)]
mod tests;
