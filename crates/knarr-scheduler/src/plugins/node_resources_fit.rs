//! Refuses nodes without room for what the pod asks, and prefers those with the most room left (`LeastAllocated`).

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{MOST, Plugin};
use crate::{diagnosis::Rejection, node::NodeInfo, pod::PodInfo};

pub fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    let asked = &pod.requests.exact;
    let mut reasons: SmallVec<[Cow<'static, str>; 1]> = SmallVec::new();
    if node.pods.len() as i64 + 1 > node.most_pods {
        reasons.push("Too many pods".into());
    }
    let mut demand = |asked: i64, taken: i64, room: i64, reason: &'static str| {
        if asked > 0 && asked > room - taken {
            reasons.push(reason.into());
        }
    };
    demand(asked.milli_cpu, node.requested.milli_cpu, node.allocatable.milli_cpu, "Insufficient cpu");
    demand(asked.memory, node.requested.memory, node.allocatable.memory, "Insufficient memory");
    demand(
        asked.ephemeral_storage,
        node.requested.ephemeral_storage,
        node.allocatable.ephemeral_storage,
        "Insufficient ephemeral-storage",
    );
    for (name, asked) in &asked.scalars {
        if *asked > 0 && *asked > node.allocatable.scalar(name) - node.requested.scalar(name) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons, resolvable: could_fit(pod, node) })
}

/// Whether the pod would fit if nothing else were there.
pub fn could_fit(pod: &PodInfo, node: &NodeInfo) -> bool {
    let (asked, room) = (&pod.requests.exact, &node.allocatable);
    node.most_pods > 0
        && asked.milli_cpu <= room.milli_cpu
        && asked.memory <= room.memory
        && asked.ephemeral_storage <= room.ephemeral_storage
        && asked.scalars.iter().all(|(name, asked)| *asked <= room.scalar(name))
}

pub fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let (asked, taken, room) = (&pod.requests.for_scores, &node.requested_for_scores, &node.allocatable);
    let parts = [(taken.milli_cpu + asked.milli_cpu, room.milli_cpu), (taken.memory + asked.memory, room.memory)];
    let counted = parts.iter().filter(|(_, room)| *room > 0);
    let (sum, count) = counted.fold((0, 0), |(sum, count), (used, room)| (sum + free(*used, *room), count + 1));
    if count == 0 { 0 } else { sum / count }
}

fn free(used: i64, room: i64) -> i64 {
    if used > room { 0 } else { (room - used) * MOST / room }
}
