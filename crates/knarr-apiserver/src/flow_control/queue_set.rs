//! One priority level's requests: who is served, who waits in which queue, and who is next.
//!
//! A state machine without time or tasks of its own: every step is told the present. Fair queuing of requests as in KEP-1040:
//! virtual time `r` advances as fast as each busy queue may be served; a queue's next request starts, in virtual time, when
//! the work dispatched from that queue before it would have ended; the request with the earliest virtual end goes next.
//!
//! Invariants: nobody waits while a seat that their request could take is free; a request of this set is in exactly one queue
//! or has exactly one slot.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::demand::Integrator;
use super::shuffle;
use super::work::Work;

/// Seats times seconds.
type SeatSeconds = f64;

/// The guess of how long a request is served, until it is known.
const GUESSED_DURATION: f64 = 0.003;
/// Validation lets a level have ten million queues; nothing is gained beyond these.
const MOST_QUEUES: usize = 16_384;

/// What becomes of a request that finds no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is always a seat.
    Exempt,
    Reject,
    Queue {
        queues: usize,
        hand: usize,
        length: usize,
    },
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
    Cancelled,
}

impl Refusal {
    /// Upstream's word in `apiserver_flowcontrol_rejected_requests_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::TimeOut => "time-out",
            Refusal::Cancelled => "cancelled",
        }
    }
}

/// Seats that are taken; goes back through [`QueueSet::finish`].
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    queue: usize,
    id: u64,
}

/// What comes of a request's arrival.
#[derive(Debug)]
pub enum Arrival {
    Seated(Slot),
    Queued { ticket: Ticket, seated: oneshot::Receiver<Slot>, length: usize },
    Refused(Refusal),
}

/// A request in a queue.
pub struct Waiting<R> {
    id: u64,
    pub request: R,
    pub work: Work,
    pub arrived: Instant,
    arrived_r: SeatSeconds,
    seat: oneshot::Sender<Slot>,
}

/// A request being served.
pub struct Running<R> {
    pub request: R,
    pub work: Work,
    pub arrived: Instant,
    pub started: Instant,
    pub queue: Option<usize>,
    /// Answered; its last seats are still taken.
    lingers: bool,
}

/// One queue; it may be empty and still have requests being served that came through it.
pub struct Queue<R> {
    pub waiting: VecDeque<Waiting<R>>,
    waiting_work: SeatSeconds,
    pub waiting_seats: u32,
    pub executing: usize,
    pub seats_in_use: u32,
    pub next_dispatch_r: SeatSeconds,
}

impl<R> Queue<R> {
    fn new() -> Self {
        Queue {
            waiting: VecDeque::new(),
            waiting_work: 0.0,
            waiting_seats: 0,
            executing: 0,
            seats_in_use: 0,
            next_dispatch_r: 0.0,
        }
    }

    fn is_active(&self) -> bool {
        self.executing > 0 || !self.waiting.is_empty()
    }

    pub fn waiting_initial_seats(&self) -> u32 {
        self.waiting.iter().map(|w| w.work.initial).sum()
    }

    pub fn waiting_work(&self) -> SeatSeconds {
        self.waiting_work
    }

    /// No request may start, in virtual time, before it arrived: a queue that was long idle must not catch up.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_dispatch_r = self.next_dispatch_r.max(oldest.arrived_r);
        }
    }
}

fn total(work: &Work) -> SeatSeconds {
    f64::from(work.initial) * GUESSED_DURATION + f64::from(work.last) * work.linger.as_secs_f64()
}

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    pub dispatched: u64,
    pub rejected: u64,
    pub timed_out: u64,
    pub cancelled: u64,
}

/// The requests of one priority level. `R` describes one.
pub struct QueueSet<R> {
    kind: Kind,
    limit: u32,
    queues: Vec<Queue<R>>,
    running: Vec<Option<Running<R>>>,
    free: Vec<u32>,
    r: SeatSeconds,
    synced: Instant,
    active_queues: usize,
    seats_in_use: u32,
    seats_waiting: u32,
    waiting: usize,
    executing: usize,
    /// The queue dispatched from last.
    robin: usize,
    arrivals: u64,
    demand: Integrator,
    pub counted: Counted,
}

impl<R> QueueSet<R> {
    pub fn new(now: Instant, kind: Kind, limit: u32) -> Self {
        let mut set = QueueSet {
            kind,
            limit,
            queues: Vec::new(),
            running: Vec::new(),
            free: Vec::new(),
            r: 0.0,
            synced: now,
            active_queues: 0,
            seats_in_use: 0,
            seats_waiting: 0,
            waiting: 0,
            executing: 0,
            robin: 0,
            arrivals: 0,
            demand: Integrator::new(now),
            counted: Counted::default(),
        };
        set.configure(now, kind, limit);
        set
    }

    /// Changes the rules; those who wait or are served stay.
    pub fn configure(&mut self, now: Instant, kind: Kind, limit: u32) {
        self.sync(now);
        self.kind = match kind {
            Kind::Queue { queues, hand, length } => {
                let queues = queues.clamp(1, MOST_QUEUES);
                Kind::Queue { queues, hand: hand.clamp(1, queues), length }
            }
            other => other,
        };
        self.limit = limit;
        let wanted = self.wanted_queues();
        while self.queues.len() < wanted {
            self.queues.push(Queue::new());
        }
        self.drop_surplus_queues();
        self.dispatch(now);
    }

    fn wanted_queues(&self) -> usize {
        match self.kind {
            Kind::Queue { queues, .. } => queues,
            _ => 0,
        }
    }

    /// Queues beyond those wanted get no new requests and go, from the last on, once they are empty.
    fn drop_surplus_queues(&mut self) {
        let wanted = self.wanted_queues();
        while self.queues.len() > wanted && self.queues.last().is_some_and(|q| !q.is_active() && q.seats_in_use == 0) {
            self.queues.pop();
        }
    }

    /// Brings virtual time to the present. Before any change.
    fn sync(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.synced).as_secs_f64();
        self.synced = now;
        if self.active_queues > 0 {
            let usable = (self.seats_in_use + self.seats_waiting).min(self.limit);
            self.r += f64::from(usable) / self.active_queues as f64 * elapsed;
        }
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(now, f64::from(self.seats_in_use + self.seats_waiting));
    }

    /// The demand since the last call.
    pub fn take_demand(&mut self, now: Instant) -> super::demand::Observed {
        self.demand.take(now)
    }

    /// A request comes. `flow` decides which queues it may wait in.
    pub fn arrive(&mut self, now: Instant, flow: u64, work: Work, request: R) -> Arrival {
        self.sync(now);
        let Kind::Queue { queues, hand, length } = self.kind else {
            if self.kind == Kind::Exempt || self.fits(work.seats()) {
                return Arrival::Seated(self.start(now, now, None, work, request));
            }
            self.counted.rejected += 1;
            return Arrival::Refused(Refusal::ConcurrencyLimit);
        };
        let queue = self.shortest(flow, queues, hand);
        if self.seats_in_use >= self.limit && self.queues[queue].waiting.len() >= length {
            self.counted.rejected += 1;
            return Arrival::Refused(Refusal::QueueFull);
        }
        if !self.queues[queue].is_active() {
            self.queues[queue].next_dispatch_r = self.r;
        }
        if self.waiting == 0 && self.fits(work.seats()) {
            let r = self.r;
            let at = &mut self.queues[queue];
            at.next_dispatch_r = at.next_dispatch_r.max(r) + total(&work);
            return Arrival::Seated(self.start(now, now, Some(queue), work, request));
        }
        let (ticket, seated, length) = self.enqueue(now, queue, work, request);
        self.dispatch(now);
        Arrival::Queued { ticket, seated, length }
    }

    /// Of the flow's hand the queue with the least waiting work; ties go round.
    fn shortest(&mut self, flow: u64, queues: usize, hand: usize) -> usize {
        let hand = shuffle::deal(flow, queues, hand);
        let offset = (self.arrivals % hand.len() as u64) as usize;
        self.arrivals += 1;
        let (before, after) = hand.split_at(offset);
        let work = |queue: &usize| self.queues[*queue].waiting_work;
        let mut best = hand[offset];
        for queue in after.iter().chain(before) {
            if work(queue) < work(&best) {
                best = *queue;
            }
        }
        best
    }

    fn enqueue(
        &mut self,
        now: Instant,
        queue: usize,
        work: Work,
        request: R,
    ) -> (Ticket, oneshot::Receiver<Slot>, usize) {
        let (seat, seated) = oneshot::channel();
        let id = self.arrivals;
        let at = &mut self.queues[queue];
        self.active_queues += usize::from(!at.is_active());
        at.waiting.push_back(Waiting { id, request, work, arrived: now, arrived_r: self.r, seat });
        at.waiting_work += total(&work);
        at.waiting_seats += work.seats();
        at.bound();
        let length = at.waiting.len();
        self.waiting += 1;
        self.seats_waiting += work.seats();
        self.note_demand(now);
        (Ticket { queue, id }, seated, length)
    }

    /// Whether so many seats may be taken now. A request wider than the limit is served when it is alone.
    fn fits(&self, seats: u32) -> bool {
        if seats > self.limit {
            return self.executing == 0 && self.limit > 0;
        }
        self.seats_in_use + seats <= self.limit
    }

    /// Takes the seats.
    fn start(&mut self, now: Instant, arrived: Instant, queue: Option<usize>, work: Work, request: R) -> Slot {
        if let Some(queue) = queue {
            let at = &mut self.queues[queue];
            self.active_queues += usize::from(!at.is_active());
            at.executing += 1;
            at.seats_in_use += work.seats();
        }
        self.executing += 1;
        self.seats_in_use += work.seats();
        self.counted.dispatched += 1;
        self.note_demand(now);
        let running = Some(Running { request, work, arrived, started: now, queue, lingers: false });
        match self.free.pop() {
            Some(at) => {
                self.running[at as usize] = running;
                Slot(at)
            }
            None => {
                self.running.push(running);
                Slot(self.running.len() as u32 - 1)
            }
        }
    }

    /// Serves whom it can.
    fn dispatch(&mut self, now: Instant) {
        while self.waiting > 0 && self.seats_in_use < self.limit {
            let Some(queue) = self.next_queue() else { return };
            let Some(seats) = self.queues[queue].waiting.front().map(|w| w.work.seats()) else { return };
            // The next one in line waits for its seats; nobody overtakes it.
            if !self.fits(seats) {
                return;
            }
            self.robin = queue;
            let Some(next) = self.take(queue, 0) else { return };
            self.queues[queue].next_dispatch_r += total(&next.work);
            let slot = self.start(now, next.arrived, Some(queue), next.work, next.request);
            // `take` may have found the queue inactive for this moment; `start` has counted it again.
            self.queues[queue].bound();
            if let Err(slot) = next.seat.send(slot) {
                self.finish(now, slot);
            }
        }
    }

    /// The queue whose oldest request would end first in virtual time; ties go round.
    fn next_queue(&self) -> Option<usize> {
        let count = self.queues.len();
        let mut best: Option<(SeatSeconds, usize)> = None;
        for step in 1..=count {
            let at = (self.robin + step) % count;
            let queue = &self.queues[at];
            let Some(oldest) = queue.waiting.front() else { continue };
            let end = queue.next_dispatch_r + total(&oldest.work);
            if best.is_none_or(|(earliest, _)| end < earliest) {
                best = Some((end, at));
            }
        }
        best.map(|(_, queue)| queue)
    }

    /// Takes a request out of its queue.
    fn take(&mut self, queue: usize, index: usize) -> Option<Waiting<R>> {
        let at = &mut self.queues[queue];
        let waiting = at.waiting.remove(index)?;
        at.waiting_work = if at.waiting.is_empty() { 0.0 } else { at.waiting_work - total(&waiting.work) };
        at.waiting_seats -= waiting.work.seats();
        self.active_queues -= usize::from(!at.is_active());
        self.waiting -= 1;
        self.seats_waiting -= waiting.work.seats();
        Some(waiting)
    }

    /// Gives up waiting; false where the request has been seated meanwhile, and its slot lies in the channel.
    pub fn leave(&mut self, now: Instant, ticket: Ticket, why: Refusal) -> bool {
        self.sync(now);
        let Some(queue) = self.queues.get(ticket.queue) else { return false };
        let Some(index) = queue.waiting.iter().position(|w| w.id == ticket.id) else { return false };
        self.take(ticket.queue, index);
        self.queues[ticket.queue].bound();
        self.counted.rejected += 1;
        match why {
            Refusal::TimeOut => self.counted.timed_out += 1,
            _ => self.counted.cancelled += 1,
        }
        self.note_demand(now);
        // It may have been the wide one that held up the others.
        self.dispatch(now);
        self.drop_surplus_queues();
        true
    }

    /// The request is answered. Where its last seats stay taken, returns for how long; [`QueueSet::release`] ends that.
    pub fn finish(&mut self, now: Instant, slot: Slot) -> Option<(Slot, Duration)> {
        self.sync(now);
        let running = self.running.get_mut(slot.0 as usize)?.as_mut()?;
        running.lingers = true;
        let (work, queue) = (running.work, running.queue);
        let served = now.saturating_duration_since(running.started).as_secs_f64();
        self.executing -= 1;
        if let Some(queue) = queue {
            let at = &mut self.queues[queue];
            at.executing -= 1;
            at.next_dispatch_r -= f64::from(work.initial) * (GUESSED_DURATION - served);
            at.bound();
            self.active_queues -= usize::from(!at.is_active());
        }
        if work.linger > Duration::ZERO {
            self.dispatch(now);
            return Some((slot, work.linger));
        }
        self.release(now, slot);
        None
    }

    /// Gives the seats back.
    pub fn release(&mut self, now: Instant, slot: Slot) {
        self.sync(now);
        let Some(running) = self.running.get_mut(slot.0 as usize).and_then(Option::take) else { return };
        self.free.push(slot.0);
        let seats = running.work.seats();
        self.seats_in_use -= seats;
        if let Some(queue) = running.queue {
            self.queues[queue].seats_in_use -= seats;
        }
        self.note_demand(now);
        if self.waiting > 0 {
            self.dispatch(now);
        }
        self.drop_surplus_queues();
    }

    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn executing(&self) -> usize {
        self.executing
    }

    pub fn seats_in_use(&self) -> u32 {
        self.seats_in_use
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    pub fn virtual_time(&self) -> SeatSeconds {
        self.r
    }

    pub fn queues(&self) -> &[Queue<R>] {
        &self.queues
    }

    /// Everything being served.
    pub fn running(&self) -> impl Iterator<Item = &Running<R>> {
        self.running.iter().flatten().filter(|r| !r.lingers)
    }
}
