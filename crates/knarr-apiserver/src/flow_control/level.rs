//! A priority level: its queue set behind a lock, and the seats that requests hold of it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::flowcontrol::v1 as api;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Demand;
use super::queue_set::{Arrival, Kind, QueueSet, Refusal, Slot, Ticket};
use super::schema::Schema;
use super::work::Work;
use crate::authentication::User;
use crate::chain::request_info::RequestInfo;

/// A request as the queues hold it.
#[derive(Clone)]
pub struct Request {
    pub schema: Arc<Schema>,
    pub info: Arc<RequestInfo>,
    pub user: Arc<User>,
}

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub kind: Kind,
    pub shares: u32,
    pub lendable_percent: u32,
    /// `None`: as much as there is.
    pub borrowing_percent: Option<u32>,
}

impl Settings {
    /// `None` for a specification that contradicts itself, which validation does not let in.
    pub fn read(name: &str, spec: &api::PriorityLevelConfigurationSpec) -> Option<Self> {
        let count = |n: Option<i32>, default: i32| u32::try_from(n.unwrap_or(default)).unwrap_or_default();
        match (spec.type_.as_str(), &spec.limited, &spec.exempt) {
            ("Exempt", None, Some(exempt)) if name == EXEMPT => Some(Settings {
                kind: Kind::Exempt,
                shares: count(exempt.nominal_concurrency_shares, 0),
                lendable_percent: count(exempt.lendable_percent, 0),
                borrowing_percent: None,
            }),
            ("Limited", Some(limited), None) if name != EXEMPT => Some(Settings {
                kind: limit_response(limited.limit_response.as_ref())?,
                shares: count(limited.nominal_concurrency_shares, 30),
                lendable_percent: count(limited.lendable_percent, 0),
                borrowing_percent: limited.borrowing_limit_percent.map(|p| count(Some(p), 0)),
            }),
            _ => None,
        }
    }
}

fn limit_response(response: Option<&api::LimitResponse>) -> Option<Kind> {
    let response = response?;
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => Some(Kind::Reject),
        ("Queue", Some(queuing)) => {
            let count = |n: Option<i32>, default: i32| usize::try_from(n.unwrap_or(default)).unwrap_or_default();
            Some(Kind::Queue {
                queues: count(queuing.queues, 64),
                hand: count(queuing.hand_size, 8),
                length: count(queuing.queue_length_limit, 50),
            })
        }
        _ => None,
    }
}

/// The name of the one exempt level.
pub const EXEMPT: &str = "exempt";
/// The name of the level and the schema for everything that no other schema matches.
pub const CATCH_ALL: &str = "catch-all";

/// Seats of a level: what it is entitled to, and what it has now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    pub nominal: u32,
    /// What it keeps however much it lends.
    pub low: u32,
    /// What it has at most however much it borrows.
    pub high: u32,
    pub current: u32,
    pub demand: Demand,
}

/// The part of the level's seats that one request may take at most, as upstream.
const MOST_OF_NOMINAL: f64 = 0.15;

/// A priority level.
pub struct Level {
    pub name: Arc<str>,
    pub settings: Mutex<Settings>,
    pub limits: Mutex<Limits>,
    pub set: Mutex<QueueSet<Request>>,
    /// It was deleted and waits until its last request is answered.
    pub quiescing: std::sync::atomic::AtomicBool,
    /// The most seats that a request may take; 0: no limit.
    pub most_seats: std::sync::atomic::AtomicU32,
}

impl Level {
    pub fn new(name: &str, settings: Settings) -> Arc<Self> {
        let set = QueueSet::new(Instant::now(), settings.kind, 0);
        Arc::new(Level {
            name: name.into(),
            settings: Mutex::new(settings),
            limits: Mutex::default(),
            set: Mutex::new(set),
            quiescing: false.into(),
            most_seats: 0.into(),
        })
    }

    pub fn is_exempt(&self) -> bool {
        &*self.name == EXEMPT
    }

    /// Takes over the limits; whoever now has a seat gets it.
    pub fn set_limits(&self, limits: Limits) {
        let kind = self.settings.lock().kind;
        let most = match kind {
            Kind::Queue { hand, .. } => {
                let part = (f64::from(limits.nominal) * MOST_OF_NOMINAL).ceil() as u32;
                part.min(limits.nominal / hand.max(1) as u32).max(1)
            }
            _ => 0,
        };
        self.most_seats.store(most, std::sync::atomic::Ordering::Relaxed);
        *self.limits.lock() = limits;
        self.set.lock().configure(Instant::now(), kind, limits.current);
    }

    /// Asks for a seat.
    pub fn arrive(self: &Arc<Self>, request: Request, work: Work) -> Asked {
        let meters = request.schema.meters.clone();
        let now = Instant::now();
        let flow = match self.is_exempt() {
            true => 0,
            false => request.schema.flow(&request.info, &request.user),
        };
        let claim = Claim { schema: request.schema.clone(), work, watch: request.info.verb == "watch" };
        meters.work.observe(f64::from(work.seats()));
        let arrival = self.set.lock().arrive(now, flow, work, request);
        match arrival {
            Arrival::Seated(slot) => {
                if !self.is_exempt() {
                    meters.waited.observe(0.0);
                }
                Asked::Seated(Seat::take(claim, now, slot))
            }
            Arrival::Queued { ticket, seated, length } => {
                meters.queue_length.observe(length as f64);
                Asked::Queued(Place::take(claim, now, ticket, seated))
            }
            Arrival::Refused(why) => {
                meters.refused(why);
                Asked::Refused(why)
            }
        }
    }
}

/// What came of asking for a seat.
pub enum Asked {
    Seated(Seat),
    Queued(Place),
    Refused(Refusal),
}

/// Whose seat, and how wide.
struct Claim {
    schema: Arc<Schema>,
    work: Work,
    watch: bool,
}

/// A place in a queue; dropping it leaves the queue.
pub struct Place {
    claim: Option<Claim>,
    ticket: Ticket,
    seated: oneshot::Receiver<Slot>,
    since: Instant,
}

impl Place {
    fn take(claim: Claim, since: Instant, ticket: Ticket, seated: oneshot::Receiver<Slot>) -> Self {
        claim.schema.meters.waiting.inc();
        claim.schema.meters.waiting_seats.add(i64::from(claim.work.seats()));
        Place { claim: Some(claim), ticket, seated, since }
    }

    /// Waits for the seat, but not longer than `limit`.
    pub async fn wait(mut self, limit: Duration) -> Result<Seat, Refusal> {
        let answered = tokio::time::timeout_at(self.since + limit, &mut self.seated).await;
        match answered {
            Ok(Ok(slot)) => self.seat(slot).ok_or(Refusal::Cancelled),
            Ok(Err(_)) | Err(_) => self.leave(Refusal::TimeOut).ok_or(Refusal::TimeOut),
        }
    }

    fn waited(&mut self) -> Option<Claim> {
        let claim = self.claim.take()?;
        claim.schema.meters.waiting.dec();
        claim.schema.meters.waiting_seats.sub(i64::from(claim.work.seats()));
        Some(claim)
    }

    fn seat(&mut self, slot: Slot) -> Option<Seat> {
        let claim = self.waited()?;
        claim.schema.meters.waited.observe(self.since.elapsed().as_secs_f64());
        Some(Seat::take(claim, Instant::now(), slot))
    }

    /// Leaves the queue, unless a seat came at the last moment.
    fn leave(&mut self, why: Refusal) -> Option<Seat> {
        let claim = self.claim.as_ref()?;
        let waited = claim.schema.level.set.lock().leave(Instant::now(), self.ticket, why);
        if !waited && let Ok(slot) = self.seated.try_recv() {
            return self.seat(slot);
        }
        let claim = self.waited()?;
        claim.schema.meters.refused(why);
        claim.schema.meters.waited_in_vain.observe(self.since.elapsed().as_secs_f64());
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A seat that came at the last moment is given back at once.
        drop(self.leave(Refusal::Cancelled));
    }
}

/// Seats of a level; dropping it gives them back.
pub struct Seat {
    claim: Claim,
    slot: Option<Slot>,
    since: Instant,
}

impl Seat {
    fn take(claim: Claim, since: Instant, slot: Slot) -> Self {
        let (meters, seats) = (&claim.schema.meters, i64::from(claim.work.seats()));
        meters.dispatched.inc();
        meters.executing.inc();
        meters.executing_seats.add(seats);
        meters.seats_in_use.add(seats);
        Seat { claim, slot: Some(slot), since }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let now = Instant::now();
        let meters = &self.claim.schema.meters;
        let seats = i64::from(self.claim.work.seats());
        meters.executing.dec();
        meters.executing_seats.sub(seats);
        meters.seats_in_use.sub(seats);
        let kind = if self.claim.watch { &meters.watch } else { &meters.regular };
        kind.observe(now.saturating_duration_since(self.since).as_secs_f64());
        let lingering = self.claim.schema.level.set.lock().finish(now, slot);
        if let Some((slot, time)) = lingering {
            linger(self.claim.schema.level.clone(), slot, time);
        }
    }
}

/// The seats stay taken for some milliseconds more; the task ends with them.
fn linger(level: Arc<Level>, slot: Slot, time: Duration) {
    let release = move |level: &Level, slot| level.set.lock().release(Instant::now(), slot);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn(async move {
            tokio::time::sleep(time).await;
            release(&level, slot);
        })),
        Err(_) => release(&level, slot),
    }
}
