//! Follows the stored objects, says in each FlowSchema whether its level exists, keeps the mandatory objects, and adjusts the
//! levels' seats to their demand.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{GroupResource, Object};
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::FlowControl;
use super::configuration::{Reference, Stored};
use crate::bootstrap;
use crate::objects::{Change, Objects};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// How often seats are lent anew, as upstream.
const ADJUSTMENT: Duration = Duration::from_secs(10);
/// How often missing default objects are made again, as upstream.
const MAINTENANCE: Duration = Duration::from_secs(60);
/// Who says whether a schema dangles, by upstream's name.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
/// Times a minute that the status of one schema is written: another server may be of another opinion.
const WRITES_A_MINUTE: usize = 6;

fn schemas() -> GroupResource {
    GroupResource::new(GROUP, "flowschemas")
}

fn levels() -> GroupResource {
    GroupResource::new(GROUP, "prioritylevelconfigurations")
}

type Changes = BoxStream<'static, (bool, Change)>;

/// What the loop knows.
#[derive(Default)]
struct Follower {
    stored: Stored,
    synced: usize,
    /// When the status of each schema was written lately.
    writes: HashMap<String, VecDeque<Instant>>,
}

impl FlowControl {
    /// Works until the objects' watch ends, at shutdown.
    pub async fn run(self: Arc<Self>, objects: Arc<dyn Objects>) {
        let of = |resource: GroupResource, is_schema: bool| -> Changes {
            objects.watch(&resource).map(move |change| (is_schema, change)).boxed()
        };
        let mut changes = stream::select(of(schemas(), true), of(levels(), false));
        let mut follower = Follower::default();
        let timer = |every: Duration| {
            let mut timer = interval_at(Instant::now() + every, every);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        };
        let (mut adjustment, mut maintenance) = (timer(ADJUSTMENT), timer(MAINTENANCE));
        loop {
            tokio::select! {
                change = changes.next() => {
                    let Some((is_schema, change)) = change else { return };
                    follower.note(is_schema, change);
                    // All that is known already is one change of the configuration.
                    while let Some(Some((is_schema, change))) = changes.next().now_or_never() {
                        follower.note(is_schema, change);
                    }
                    self.take_over(&mut follower, &objects).await;
                }
                _ = adjustment.tick() => self.adjust(),
                _ = maintenance.tick() => {
                    maintain(&objects).await;
                    self.take_over(&mut follower, &objects).await;
                }
            }
        }
    }

    async fn take_over(&self, follower: &mut Follower, objects: &Arc<dyn Objects>) {
        if follower.synced < 2 {
            return;
        }
        for reference in self.configure(&follower.stored) {
            let stale = follower.stored.schemas.get(&reference.schema).is_some_and(|o| !says(o, &reference));
            if stale && follower.may_write(&reference.schema) {
                write_status(objects, &reference).await;
            }
        }
    }
}

impl Follower {
    fn note(&mut self, is_schema: bool, change: Change) {
        let map = if is_schema { &mut self.stored.schemas } else { &mut self.stored.levels };
        match change {
            Change::Set { object, .. } => drop(map.insert(object.name().to_string(), object)),
            Change::Gone { object } => {
                map.remove(object.name());
                self.writes.remove(object.name());
            }
            Change::Synced => self.synced += 1,
        }
    }

    fn may_write(&mut self, schema: &str) -> bool {
        let now = Instant::now();
        let writes = self.writes.entry(schema.to_string()).or_default();
        while writes.front().is_some_and(|at| now.duration_since(*at) > Duration::from_secs(60)) {
            writes.pop_front();
        }
        if writes.len() >= WRITES_A_MINUTE {
            return false;
        }
        writes.push_back(now);
        true
    }
}

/// Makes the mandatory objects again, and those of the suggested ones that nobody wanted to keep as they were.
async fn maintain(objects: &Arc<dyn Objects>) {
    if let Err(error) = bootstrap::ensure_flow_control(objects).await {
        tracing::warn!(%error, "cannot maintain the default flow control objects");
    }
}

/// The condition that a schema must show, without its time.
fn condition(reference: &Reference) -> [(&'static str, String); 4] {
    let Reference { level, found, .. } = reference;
    let about = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = match found {
        true => ("False", "Found", format!("{about} and it exists")),
        false => ("True", "NotFound", format!("{about} but there is no such object")),
    };
    [("type", "Dangling".into()), ("status", status.into()), ("reason", reason.into()), ("message", message)]
}

fn says(schema: &Object, reference: &Reference) -> bool {
    let conditions = schema.pointer("/status/conditions").and_then(Value::as_array);
    let dangling = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Dangling"));
    dangling.is_some_and(|shown| condition(reference).iter().all(|(field, text)| shown[*field] == text.as_str()))
}

async fn write_status(objects: &Arc<dyn Objects>, reference: &Reference) {
    let mut dangling: Object = condition(reference).into_iter().map(|(k, v)| (k.to_string(), Value::from(v))).collect();
    dangling["lastTransitionTime"] = crate::registry::commit::now_text().into();
    let config = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "FlowSchema", "metadata": {"name": reference.schema},
        "status": {"conditions": [dangling]},
    });
    match objects.apply_status(&schemas(), config, MANAGER).await {
        Ok(()) => {}
        Err(error) if error.reason == Reason::NotFound => {}
        Err(error) => tracing::warn!(%error, schema = reference.schema, "cannot write the status of a FlowSchema"),
    }
}
