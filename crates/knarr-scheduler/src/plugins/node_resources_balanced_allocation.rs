//! Prefers nodes whose CPU and memory would be used to like degrees.

use super::MOST;
use crate::{node::NodeInfo, pod::PodInfo};

pub fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let (asked, taken, room) = (&pod.requests.exact, &node.requested, &node.allocatable);
    // Upstream leaves pods that ask for neither out of it: they change no balance.
    if (asked.milli_cpu == 0 && asked.memory == 0) || room.milli_cpu <= 0 || room.memory <= 0 {
        return 0;
    }
    let fraction = |used: i64, room: i64| (used as f64 / room as f64).min(1.0);
    let cpu = fraction(taken.milli_cpu + asked.milli_cpu, room.milli_cpu);
    let memory = fraction(taken.memory + asked.memory, room.memory);
    let deviation = ((cpu - memory) / 2.0).abs();
    ((1.0 - deviation) * MOST as f64) as i64
}
