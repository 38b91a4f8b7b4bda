//! Eviction: when the node runs out of memory, disk, inodes or processes, pods are ended until it does not; and pods that use more of
//! the disk than they may are ended at any time.
//!
//! [`thresholds`]: how little may be left; [`usage`]: what is left and who uses how much; [`rank`]: who goes.

pub mod rank;
pub mod thresholds;
pub mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::orphans;
use crate::pod::{DesiredPod, PodSource, QosClass};
use crate::worker::status::Verdict;
use rank::Used;
use thresholds::Threshold;
use usage::Room;

/// The reason of pods that were evicted.
pub const EVICTED: &str = "Evicted";
/// A pressure is told until it did not hold for so long, so that pods do not come and go.
const TRANSITION: Duration = Duration::from_secs(300);
const CRITICAL: i32 = 2_000_000_000;

/// What may run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    Memory,
    NodeDisk,
    NodeInodes,
    ImageDisk,
    ImageInodes,
    Pids,
}

/// A condition of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pressure {
    Memory,
    Disk,
    Pids,
}

/// The pressures the node is under.
#[derive(Debug, Default)]
pub struct Pressures {
    met: Mutex<HashMap<Pressure, Instant>>,
}

impl Pressures {
    /// Whether a threshold is met, or was a moment ago.
    pub fn hold(&self, pressure: Pressure) -> bool {
        self.met.lock().get(&pressure).is_some_and(|at| at.elapsed() < TRANSITION)
    }

    fn note(&self, pressure: Pressure) {
        self.met.lock().insert(pressure, Instant::now());
    }
}

/// A pod that may be evicted, and how it is told.
pub struct Candidate {
    pub pod: Arc<DesiredPod>,
    pub evict: Box<dyn FnOnce(Verdict) + Send>,
}

/// Why a node under pressure does not take `pod` on, if so.
pub fn refuse(pod: &DesiredPod, pressures: &Pressures) -> Option<Verdict> {
    let names =
        [(Pressure::Memory, "MemoryPressure"), (Pressure::Disk, "DiskPressure"), (Pressure::Pids, "PIDPressure")];
    let held: Vec<_> = names.into_iter().filter(|(pressure, _)| pressures.hold(*pressure)).collect();
    let only_memory = held.iter().all(|(pressure, _)| *pressure == Pressure::Memory);
    if held.is_empty() || is_critical(pod) || (only_memory && pod.qos != QosClass::BestEffort) {
        return None;
    }
    let names: Vec<_> = held.iter().map(|(_, name)| *name).collect();
    let message = format!("The node had condition: [{}]. ", names.join(" "));
    Some(Verdict { reason: EVICTED.to_owned(), message })
}

fn is_critical(pod: &DesiredPod) -> bool {
    pod.source == PodSource::Static || pod.spec().priority.is_some_and(|priority| priority >= CRITICAL)
}

/// Looks once: evicts those who use more than they may, and of the others at most one, if the node runs out of something.
pub async fn look(node: &Arc<NodeContext>, candidates: Vec<Candidate>) {
    let candidates = evict_over_limits(node, candidates).await;
    let Some((threshold, room)) = lowest(node, &usage::rooms(node).await) else { return };
    if threshold.signal.pressure() == Pressure::Disk {
        // Images that nobody uses go before any pod does.
        orphans::remove_unused_images(node).await;
        if !is_met(&threshold, &usage::rooms(node).await) {
            return;
        }
    }
    evict_one(node, candidates, threshold, room).await;
}

/// Notes every pressure there is; memory comes before the others.
fn lowest(node: &NodeContext, rooms: &HashMap<Signal, Room>) -> Option<(Threshold, Room)> {
    let met: Vec<_> = node.config.eviction_hard.iter().filter(|threshold| is_met(threshold, rooms)).collect();
    met.iter().for_each(|threshold| node.pressures.note(threshold.signal.pressure()));
    let first = met.iter().find(|threshold| threshold.signal == Signal::Memory).or(met.first())?;
    Some((**first, rooms[&first.signal]))
}

fn is_met(threshold: &Threshold, rooms: &HashMap<Signal, Room>) -> bool {
    rooms.get(&threshold.signal).is_some_and(|room| room.available < threshold.amount(room.capacity))
}

async fn evict_over_limits(node: &Arc<NodeContext>, candidates: Vec<Candidate>) -> Vec<Candidate> {
    let (limited, mut others): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| usage::is_limited(&candidate.pod));
    if limited.is_empty() {
        return others;
    }
    let statistics = usage::statistics(node).await;
    for candidate in limited {
        let (on_node, pod, statistics) = (node.clone(), candidate.pod.clone(), statistics.clone());
        let usage = tokio::task::spawn_blocking(move || usage::of_pod(&on_node, &pod, &statistics)).await;
        match usage.ok().and_then(|usage| rank::over_its_limits(&candidate.pod, &usage)) {
            Some(verdict) => evict(node, candidate, verdict),
            None => others.push(candidate),
        }
    }
    others
}

async fn evict_one(node: &Arc<NodeContext>, mut candidates: Vec<Candidate>, threshold: Threshold, room: Room) {
    candidates.retain(|candidate| !is_critical(&candidate.pod));
    let pods: Vec<_> = candidates.iter().map(|candidate| candidate.pod.clone()).collect();
    let (on_node, statistics) = (node.clone(), usage::statistics(node).await);
    let of_all = move || pods.iter().map(|pod| usage::of_pod(&on_node, pod, &statistics)).collect::<Vec<_>>();
    let Ok(usages) = tokio::task::spawn_blocking(of_all).await else { return };
    let chosen = {
        let used: Vec<_> =
            candidates.iter().zip(usages).map(|(candidate, usage)| Used { pod: &candidate.pod, usage }).collect();
        let first = rank::first(&used, threshold.signal);
        first.map(|first| {
            (first.pod.uid.clone(), rank::verdict(first, threshold.signal, threshold.amount(room.capacity), room))
        })
    };
    let Some((uid, verdict)) = chosen else {
        return tracing::warn!(resource = threshold.signal.resource(), "the node runs out and no pod can be evicted");
    };
    if let Some(candidate) = candidates.into_iter().find(|candidate| candidate.pod.uid == uid) {
        evict(node, candidate, verdict);
    }
}

fn evict(node: &NodeContext, candidate: Candidate, verdict: Verdict) {
    tracing::warn!(pod = %candidate.pod.described(), reason = verdict.message, "a pod is evicted");
    let (about, warning) = (candidate.pod.reference(), knarr_client::events::EventType::Warning);
    node.recorder.event(&about, warning, EVICTED, verdict.message.clone());
    (candidate.evict)(verdict);
}
