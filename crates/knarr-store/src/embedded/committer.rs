//! The one writer: a thread that gathers what is asked of it while the disk is busy, decides it against the index, makes it
//! durable with one sync, shows it to reads and watches, and only then answers.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Limits, Shared,
    change::{Change, Operation, Previous, Version},
    index::Entry,
    leases::Leases,
    wal::Wal,
};
use crate::{Event, Expect, KeyValue, LeaseId, Result, Revision, StoreError};

/// Requests and bytes that one sync carries at most.
const MOST_REQUESTS: usize = 512;
const MOST_BYTES: usize = 4 << 20;
/// Keys of expired leases deleted with one sync.
const MOST_EXPIRED: usize = 256;
/// Versions forgotten between two syncs, so that writers do not wait for compaction.
const MOST_FORGOTTEN: usize = 1024;
/// How long a watch may lack a progress mark while other keys change.
const MARK_INTERVAL: Duration = Duration::from_millis(100);

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// What callers ask of the committer.
pub(super) enum Request {
    Put { key: String, value: Bytes, expect: Expect, lease: Option<LeaseId>, reply: Reply<Revision> },
    Delete { key: String, expect: Expect, reply: Reply<(Revision, KeyValue)> },
    Compact { revision: Revision, reply: Reply<()> },
    Grant { ttl: Duration, reply: Reply<LeaseId> },
}

impl Request {
    fn size(&self) -> usize {
        match self {
            Request::Put { key, value, .. } => key.len() + value.len(),
            _ => 0,
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            Request::Put { reply, .. } => drop(reply.send(Err(error))),
            Request::Delete { reply, .. } => drop(reply.send(Err(error))),
            Request::Compact { reply, .. } => drop(reply.send(Err(error))),
            Request::Grant { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// An answer held back until what it says is durable.
type Answer = Box<dyn FnOnce(Option<StoreError>) + Send>;

fn answer<T: Send + 'static>(reply: Reply<T>, result: Result<T>) -> Answer {
    Box::new(move |failure| drop(reply.send(failure.map_or(result, Err))))
}

pub(super) struct Committer {
    shared: Arc<Shared>,
    wal: Wal,
    requests: mpsc::Receiver<Request>,
    leases: Leases,
    limits: Limits,
    next_lease: i64,
    compaction: Compaction,
    /// When watches are next due a progress mark, if anything has changed since the last.
    marks_due: Option<Instant>,
    last_marks: Instant,
}

/// The clock of automatic compaction: at every tick, forget what was already past at the tick before.
struct Compaction {
    next: Instant,
    revision: u64,
}

/// What a batch has decided and not yet made durable.
#[derive(Default)]
struct Batch {
    head: u64,
    operations: Vec<Operation>,
    events: Vec<Event>,
    /// Keys that this batch changes: what the next request of the batch finds.
    staged: HashMap<Arc<str>, Staged>,
    answers: Vec<Answer>,
}

struct Staged {
    entry: Entry,
    value: Bytes,
}

impl Committer {
    pub fn new(
        shared: Arc<Shared>,
        wal: Wal,
        requests: mpsc::Receiver<Request>,
        leases: Leases,
        limits: Limits,
    ) -> Committer {
        let now = Instant::now();
        let compaction = Compaction { next: now + limits.compaction_interval, revision: shared.index.read().head() };
        let next_lease = leases.highest() + 1;
        Committer { shared, wal, requests, leases, limits, next_lease, compaction, marks_due: None, last_marks: now }
    }

    /// Works until every sender is gone or the log fails.
    pub fn run(mut self) {
        let outcome = self.work();
        if let Err(error) = &outcome {
            tracing::error!(%error, "the store cannot write any more");
        }
        self.shared.window.close();
        while outcome.is_err() {
            let Ok(request) = self.requests.recv() else { break };
            request.fail(StoreError::Closed);
        }
        let generation = self.wal.close();
        if outcome.is_ok()
            && let Err(error) = self.shared.engine.checkpoint(generation)
        {
            tracing::warn!(%error, "the store's last checkpoint failed; the log is replayed at the next start");
        }
    }

    fn work(&mut self) -> Result<()> {
        loop {
            let forgetting = self.forget_some()?;
            let first = match self.receive(forgetting) {
                Ok(request) => Some(request),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            };
            if let Some(first) = first {
                self.commit_requests(first)?;
            }
            self.expire_leases()?;
            self.compact_by_clock()?;
            self.mark_progress();
        }
    }

    fn receive(&self, busy: bool) -> Result<Request, mpsc::RecvTimeoutError> {
        if busy {
            return self.requests.try_recv().map_err(|error| match error {
                mpsc::TryRecvError::Empty => mpsc::RecvTimeoutError::Timeout,
                mpsc::TryRecvError::Disconnected => mpsc::RecvTimeoutError::Disconnected,
            });
        }
        let lease_expiry = self.leases.next_expiry().map(|expires| Instant::now() + until(expires));
        let deadlines = [Some(self.compaction.next), self.marks_due, lease_expiry];
        let deadline = deadlines.into_iter().flatten().min().expect("the compaction clock always ticks");
        self.requests.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    fn commit_requests(&mut self, first: Request) -> Result<()> {
        let mut batch = self.begin();
        let (mut count, mut bytes) = (0, 0);
        let mut next = Some(first);
        while let Some(request) = next.take() {
            count += 1;
            bytes += request.size();
            self.decide(&mut batch, request);
            if count < MOST_REQUESTS && bytes < MOST_BYTES {
                next = self.requests.try_recv().ok();
            }
        }
        self.commit(batch)
    }

    fn begin(&self) -> Batch {
        Batch { head: self.shared.index.read().head(), ..Batch::default() }
    }

    fn decide(&mut self, batch: &mut Batch, request: Request) {
        match request {
            Request::Put { key, value, expect, lease, reply } => {
                let result = self.put(batch, &key, value, expect, lease);
                batch.answers.push(answer(reply, result));
            }
            Request::Delete { key, expect, reply } => {
                let result = self.delete(batch, &key, expect);
                batch.answers.push(answer(reply, result));
            }
            Request::Compact { revision, reply } => {
                let result = self.compact(batch, revision.0);
                batch.answers.push(answer(reply, result));
            }
            Request::Grant { ttl, reply } => {
                let lease = self.grant(batch, ttl);
                batch.answers.push(answer(reply, Ok(lease)));
            }
        }
    }

    fn put(
        &self,
        batch: &mut Batch,
        key: &str,
        value: Bytes,
        expect: Expect,
        lease: Option<LeaseId>,
    ) -> Result<Revision> {
        if let Some(lease) = lease.filter(|lease| !self.leases.contains(*lease)) {
            return Err(StoreError::LeaseNotFound(lease));
        }
        let (key, current) = self.find(batch, key)?;
        let expected = match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.as_ref().is_some_and(|current| current.mod_revision == revision),
        };
        if !expected {
            return Err(StoreError::Conflict { key, current: current.map(Box::new) });
        }
        Ok(batch.change(key, value, lease, current, false))
    }

    fn delete(&self, batch: &mut Batch, key: &str, expect: Expect) -> Result<(Revision, KeyValue)> {
        let (key, current) = self.find(batch, key)?;
        match (current, expect) {
            (Some(current), Expect::Any) => Ok(batch.delete(key, current)),
            (Some(current), Expect::Revision(revision)) if current.mod_revision == revision => {
                Ok(batch.delete(key, current))
            }
            (current, _) => Err(StoreError::Conflict { key, current: current.map(Box::new) }),
        }
    }

    /// The key and what is there, as the batch has left it.
    fn find(&self, batch: &Batch, key: &str) -> Result<(Arc<str>, Option<KeyValue>)> {
        if let Some((key, staged)) = batch.staged.get_key_value(key) {
            let current = (!staged.entry.is_deletion()).then(|| key_value(key, staged.entry, staged.value.clone()));
            return Ok((key.clone(), current));
        }
        let (shared_key, entry) = {
            let index = self.shared.index.read();
            (index.shared_key(key), index.current(key))
        };
        let key = shared_key.unwrap_or_else(|| key.into());
        let current = entry.map(|entry| self.shared.read(&self.shared.engine.view(), &key, entry)).transpose()?;
        Ok((key, current))
    }

    fn grant(&mut self, batch: &mut Batch, ttl: Duration) -> LeaseId {
        let lease = LeaseId(self.next_lease);
        self.next_lease += 1;
        let expires = now() + ttl.as_millis() as u64;
        self.leases.grant(lease, expires);
        batch.operations.push(Operation::Grant { lease, expires });
        lease
    }

    fn compact(&self, batch: &mut Batch, revision: u64) -> Result<()> {
        let oldest = self.shared.compacted();
        if revision > batch.head {
            return Err(StoreError::Future { requested: Revision(revision), current: Revision(batch.head) });
        }
        if revision < oldest {
            return Err(StoreError::Compacted { requested: Revision(revision), oldest: Revision(oldest) });
        }
        batch.operations.push(Operation::Compact(revision));
        Ok(())
    }

    /// One sync, then everybody sees it, then everybody hears of it.
    fn commit(&mut self, batch: Batch) -> Result<()> {
        if let Err(error) = self.persist(&batch.operations) {
            batch.answers.into_iter().for_each(|answer| answer(Some(error.clone())));
            return Err(error);
        }
        self.show(&batch.operations);
        if !batch.events.is_empty() {
            self.shared.window.publish(batch.events);
            self.marks_due.get_or_insert(self.last_marks + MARK_INTERVAL);
        }
        batch.answers.into_iter().for_each(|answer| answer(None));
        Ok(())
    }

    fn persist(&mut self, operations: &[Operation]) -> Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        self.wal.append(operations.iter()).map_err(|error| StoreError::Backend(format!("the log: {error}")))?;
        self.shared.engine.apply(operations.iter())
    }

    fn show(&mut self, operations: &[Operation]) {
        let mut index = self.shared.index.write();
        for operation in operations {
            match operation {
                Operation::Change(change) => {
                    index.apply(&change.version);
                    self.leases.attach(&change.version.key, change.version.lease);
                }
                Operation::Compact(revision) => self.shared.set_compacted(*revision),
                Operation::Grant { .. } | Operation::Revoke(_) => {}
            }
        }
    }

    fn expire_leases(&mut self) -> Result<()> {
        while let Some((lease, keys)) = self.leases.expired(now(), MOST_EXPIRED) {
            let mut batch = self.begin();
            let last = keys.len() < MOST_EXPIRED;
            for key in keys {
                let (key, current) = self.find(&batch, &key)?;
                if let Some(current) = current {
                    batch.delete(key, current);
                }
            }
            if last {
                batch.operations.push(Operation::Revoke(lease));
                self.leases.revoke(lease);
            }
            self.commit(batch)?;
        }
        Ok(())
    }

    fn compact_by_clock(&mut self) -> Result<()> {
        let (head, overflow) = {
            let index = self.shared.index.read();
            (index.head(), index.overflow(self.limits.history_versions, self.limits.history_bytes))
        };
        let mut target = overflow.unwrap_or(0);
        if Instant::now() >= self.compaction.next {
            target = target.max(self.compaction.revision);
            self.compaction = Compaction { next: Instant::now() + self.limits.compaction_interval, revision: head };
        }
        if target <= self.shared.compacted() {
            return Ok(());
        }
        let mut batch = self.begin();
        self.compact(&mut batch, target)?;
        self.commit(batch)
    }

    /// Forgets a few of the versions before the compacted revision; says whether there may be more.
    fn forget_some(&mut self) -> Result<bool> {
        let forgotten = self.shared.index.write().forget(self.shared.compacted(), MOST_FORGOTTEN);
        self.shared.engine.forget(&forgotten)?;
        Ok(forgotten.len() == MOST_FORGOTTEN)
    }

    fn mark_progress(&mut self) {
        if self.marks_due.is_some_and(|due| due <= Instant::now()) {
            self.marks_due = None;
            self.last_marks = Instant::now();
            self.shared.window.mark_progress();
        }
    }
}

impl Batch {
    fn delete(&mut self, key: Arc<str>, current: KeyValue) -> (Revision, KeyValue) {
        (self.change(key, Bytes::new(), None, Some(current.clone()), true), current)
    }

    fn change(
        &mut self,
        key: Arc<str>,
        value: Bytes,
        lease: Option<LeaseId>,
        current: Option<KeyValue>,
        delete: bool,
    ) -> Revision {
        self.head += 1;
        let previous = current
            .as_ref()
            .map(|current| Previous { revision: current.mod_revision.0, create_revision: current.create_revision.0 });
        let create_revision = match &previous {
            _ if delete => 0,
            Some(previous) => previous.create_revision,
            None => self.head,
        };
        let value_length = value.len() as u32;
        let version = Version { revision: self.head, key: key.clone(), create_revision, previous, lease, value_length };
        self.staged.insert(key, Staged { entry: Entry::from(&version), value: value.clone() });
        self.events.push(version.clone().into_event(value.clone(), current.map(|current| current.value)));
        self.operations.push(Operation::Change(Change { version, value }));
        Revision(self.head)
    }
}

pub(super) fn key_value(key: &Arc<str>, entry: Entry, value: Bytes) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value,
        create_revision: Revision(entry.create_revision),
        mod_revision: Revision(entry.revision),
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}

fn until(expires: u64) -> Duration {
    Duration::from_millis(expires.saturating_sub(now()))
}
