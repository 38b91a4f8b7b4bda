//! The pods that wait for a node.
//!
//! Active pods are next, the highest priority first, then the longest waiting. A pod that fitted nowhere is *unschedulable* until a
//! change that may help it, and then *backs off* if its last try was too recent and others have something to do. A pod with scheduling gates does not take part.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    plugins::{self, Change, Plugin},
    pod::PodInfo,
};

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// After this long an unschedulable pod is tried again whatever happened: hints may be wrong.
const LONGEST_UNSCHEDULABLE: Duration = Duration::from_secs(5 * 60);

/// A pod and what befell it so far.
#[derive(Debug)]
pub struct Waiting {
    pub pod: Arc<PodInfo>,
    attempts: u32,
    last_try: Option<Instant>,
    /// In the order of arrival.
    ticket: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Gated,
    Active,
    BackingOff,
    Failing,
    Unschedulable { refused_by: Vec<Plugin> },
}

#[derive(PartialEq, Eq)]
struct Turn {
    priority: i32,
    ticket: u64,
    uid: Arc<str>,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.cmp(&other.priority).then(other.ticket.cmp(&self.ticket))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The heaps may name pods that have moved on since; who is where is said by the pods' own states.
#[derive(Default)]
pub struct Queue {
    pods: HashMap<Arc<str>, Waiting>,
    active: BinaryHeap<Turn>,
    backing_off: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    /// Like it, for those whose placing failed: these wait in any case, as the API may be in trouble.
    failing: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    /// When unschedulable pods were last tried, in that order.
    refused: VecDeque<(Instant, Arc<str>)>,
    tickets: u64,
}

impl Waiting {
    fn backoff_ends(&self) -> Option<Instant> {
        let doublings = self.attempts.saturating_sub(1).min(8);
        let backoff = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
        self.last_try.map(|last_try| last_try + backoff)
    }
}

impl Queue {
    /// A pod that has no node: new, or not as it was.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        let Some(waiting) = self.pods.get_mut(&pod.uid) else { return self.insert(pod) };
        let changed = waiting.pod.spec() != pod.spec() || waiting.pod.labels != pod.labels;
        waiting.pod = pod.clone();
        if changed {
            self.activate(&pod.uid);
        }
    }

    fn insert(&mut self, pod: Arc<PodInfo>) {
        self.tickets += 1;
        let uid = pod.uid.clone();
        let state = State::Gated;
        self.pods.insert(uid.clone(), Waiting { pod, attempts: 0, last_try: None, ticket: self.tickets, state });
        self.activate(&uid);
    }

    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
    }

    /// The next pod to place; it is out of the queue until it is handed back.
    pub fn pop(&mut self) -> Option<Waiting> {
        let mut waiting = self.pop_active().or_else(|| self.pop_backing_off())?;
        waiting.attempts += 1;
        waiting.last_try = Some(Instant::now());
        Some(waiting)
    }

    fn pop_active(&mut self) -> Option<Waiting> {
        while let Some(turn) = self.active.pop() {
            if let Some(waiting) = self.take_if(&turn.uid, |state| *state == State::Active) {
                return Some(waiting);
            }
        }
        None
    }

    /// With nothing else to do, there is no point in making a pod wait that a change may have helped.
    fn pop_backing_off(&mut self) -> Option<Waiting> {
        while let Some(Reverse((_, uid))) = self.backing_off.pop() {
            if let Some(waiting) = self.take_if(&uid, |state| *state == State::BackingOff) {
                return Some(waiting);
            }
        }
        None
    }

    fn take_if(&mut self, uid: &str, wanted: impl Fn(&State) -> bool) -> Option<Waiting> {
        if !wanted(&self.pods.get(uid)?.state) {
            return None;
        }
        self.pods.remove(uid)
    }

    /// Hands back a pod that fits nowhere.
    pub fn unschedulable(&mut self, waiting: Waiting, refused_by: &[Plugin]) {
        self.refused.extend(waiting.last_try.map(|last_try| (last_try, waiting.pod.uid.clone())));
        let state = State::Unschedulable { refused_by: refused_by.to_vec() };
        self.pods.entry(waiting.pod.uid.clone()).or_insert(Waiting { state, ..waiting });
    }

    /// Hands back a pod whose placing failed for no fault of its own.
    pub fn failed(&mut self, waiting: Waiting) {
        let uid = waiting.pod.uid.clone();
        let ends = waiting.backoff_ends().unwrap_or_else(Instant::now);
        self.failing.push(Reverse((ends, uid.clone())));
        self.pods.entry(uid).or_insert(Waiting { state: State::Failing, ..waiting });
    }

    /// Moves on those pods that the change may help.
    pub fn changed(&mut self, change: &Change<'_>) {
        let helped = self.pods.values().filter(|waiting| match &waiting.state {
            // A pod that nobody refused was refused by there being no nodes at all.
            State::Unschedulable { refused_by } => {
                refused_by.is_empty()
                    || refused_by.iter().any(|plugin| plugins::may_help(*plugin, &waiting.pod, change))
            }
            _ => false,
        });
        let helped: Vec<_> = helped.map(|waiting| waiting.pod.uid.clone()).collect();
        helped.iter().for_each(|uid| self.activate(uid));
    }

    /// Moves on those whose time has come.
    pub fn tick(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((ends, _))) = self.failing.peek()
            && *ends <= now
        {
            let Some(Reverse((_, uid))) = self.failing.pop() else { break };
            if self.pods.get(&uid).is_some_and(|waiting| waiting.state == State::Failing) {
                self.activate(&uid);
            }
        }
        while let Some((tried, _)) = self.refused.front()
            && *tried + LONGEST_UNSCHEDULABLE <= now
        {
            let Some((tried, uid)) = self.refused.pop_front() else { break };
            let waits_since = |waiting: &Waiting| {
                matches!(waiting.state, State::Unschedulable { .. }) && waiting.last_try == Some(tried)
            };
            if self.pods.get(&uid).is_some_and(waits_since) {
                self.activate(&uid);
            }
        }
    }

    /// When [`Queue::tick`] next has something to do.
    pub fn next_tick(&self) -> Option<Instant> {
        let backoff = self.failing.peek().map(|Reverse((ends, _))| *ends);
        let longest = self.refused.front().map(|(tried, _)| *tried + LONGEST_UNSCHEDULABLE);
        backoff.into_iter().chain(longest).min()
    }

    pub fn has_active(&self) -> bool {
        !self.active.is_empty() || !self.backing_off.is_empty()
    }

    /// To the active pods, unless it is gated or its last try was too recent.
    fn activate(&mut self, uid: &Arc<str>) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.state = match waiting.backoff_ends() {
            _ if waiting.pod.is_gated() => State::Gated,
            Some(ends) if ends > Instant::now() => {
                self.backing_off.push(Reverse((ends, uid.clone())));
                State::BackingOff
            }
            _ => {
                let priority = waiting.pod.priority;
                self.active.push(Turn { priority, ticket: waiting.ticket, uid: uid.clone() });
                State::Active
            }
        };
    }
}

#[cfg(test)]
mod tests;
