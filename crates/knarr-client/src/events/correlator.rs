//! What becomes of an event: a new object, one more of the same, or nothing (after client-go's event correlator).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use tokio::time::Instant;

/// From this many different messages of one kind about one object, they are told as one.
const AGGREGATE_FROM: usize = 10;
const AGGREGATE_WITHIN: Duration = Duration::from_secs(600);
const AGGREGATE_PREFIX: &str = "(combined from similar events): ";
/// Events one source may send at once about one object, and how soon it may send another after that.
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL: Duration = Duration::from_secs(300);
const CACHE_SIZE: usize = 4096;

/// What to do with an event.
#[derive(Debug)]
pub(super) enum Verdict {
    Drop,
    Create(Event),
    /// The event was sent before: its name, first time and raised count are filled in.
    Repeat(Event),
}

/// Who says it about which object.
#[derive(Clone, PartialEq, Eq, Hash)]
struct SourceKey([Option<String>; 7]);

/// Events alike but for their messages.
#[derive(Clone, PartialEq, Eq, Hash)]
struct AggregateKey(SourceKey, Option<String>, Option<String>);

/// Events that are the same: with a message, or all of an aggregate without.
type SameKey = (AggregateKey, Option<String>);

struct Aggregate {
    messages: HashSet<String>,
    last: Instant,
}

struct Sent {
    name: Option<String>,
    first: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    count: i32,
}

struct Bucket {
    tokens: f64,
    last: Instant,
}

#[derive(Default)]
pub(super) struct Correlator {
    aggregates: Recent<AggregateKey, Aggregate>,
    sent: Recent<SameKey, Sent>,
    buckets: Recent<SourceKey, Bucket>,
}

impl Correlator {
    pub fn correlate(&mut self, mut event: Event, now: Instant) -> Verdict {
        let same = self.aggregate(&mut event, now);
        if !self.may_send(&same.0.0, now) {
            return Verdict::Drop;
        }
        match self.sent.get(&same) {
            Some(sent) => {
                event.metadata.name = sent.name.clone();
                event.first_timestamp = sent.first.clone();
                event.count = Some(sent.count.saturating_add(1));
                Verdict::Repeat(event)
            }
            None => Verdict::Create(event),
        }
    }

    /// Remembers the event as the API now has it.
    pub fn sent(&mut self, event: Event) {
        let key = AggregateKey::of(&event);
        let message = event.message.filter(|message| !message.starts_with(AGGREGATE_PREFIX));
        let sent = Sent { name: event.metadata.name, first: event.first_timestamp, count: event.count.unwrap_or(1) };
        self.sent.insert((key, message), sent);
    }

    /// Rewords the event where it is one of many alike, and says which earlier ones it equals.
    fn aggregate(&mut self, event: &mut Event, now: Instant) -> SameKey {
        let key = AggregateKey::of(event);
        let message = event.message.clone().unwrap_or_default();
        let aggregate = self.aggregates.get_or_insert(&key, || Aggregate { messages: HashSet::new(), last: now });
        if now.duration_since(aggregate.last) > AGGREGATE_WITHIN {
            aggregate.messages.clear();
        }
        aggregate.last = now;
        if aggregate.messages.len() < AGGREGATE_FROM {
            aggregate.messages.insert(message.clone());
        }
        if aggregate.messages.len() < AGGREGATE_FROM {
            return (key, Some(message));
        }
        event.message = Some(format!("{AGGREGATE_PREFIX}{message}"));
        (key, None)
    }

    fn may_send(&mut self, source: &SourceKey, now: Instant) -> bool {
        let bucket = self.buckets.get_or_insert(source, || Bucket { tokens: SPAM_BURST, last: now });
        let refilled = now.duration_since(bucket.last).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refilled).min(SPAM_BURST);
        bucket.last = now;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

impl AggregateKey {
    fn of(event: &Event) -> Self {
        let source = event.source.clone().unwrap_or_default();
        let object = event.involved_object.clone();
        let source = SourceKey([
            source.component,
            source.host,
            object.kind,
            object.namespace,
            object.name,
            object.uid,
            object.api_version,
        ]);
        AggregateKey(source, event.type_.clone(), event.reason.clone())
    }
}

/// A map that forgets what was longest not used.
struct Recent<Q, V> {
    entries: HashMap<Q, (u64, V)>,
    used: BTreeMap<u64, Q>,
    clock: u64,
}

impl<Q, V> Default for Recent<Q, V> {
    fn default() -> Self {
        Recent { entries: HashMap::new(), used: BTreeMap::new(), clock: 0 }
    }
}

impl<Q: Clone + Eq + Hash, V> Recent<Q, V> {
    fn get(&mut self, key: &Q) -> Option<&mut V> {
        self.clock += 1;
        let (used, value) = self.entries.get_mut(key)?;
        self.used.remove(used);
        *used = self.clock;
        self.used.insert(self.clock, key.clone());
        Some(value)
    }

    fn insert(&mut self, key: Q, value: V) {
        self.clock += 1;
        self.used.insert(self.clock, key.clone());
        if let Some((used, _)) = self.entries.insert(key, (self.clock, value)) {
            self.used.remove(&used);
        }
        if self.entries.len() > CACHE_SIZE
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }

    fn get_or_insert(&mut self, key: &Q, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(key) {
            self.insert(key.clone(), make());
        }
        self.get(key).expect("inserted just above")
    }
}
