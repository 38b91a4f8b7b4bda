//! The scheduler: gives every pod that has no node the best node there is.
//!
//! One task owns everything: the [`cluster`] (nodes as dense numbers, kept by deltas from informers), the [`queue`] of pods that wait,
//! and the [`cycle`] that places one pod. A placed pod is *assumed* to be on its node at once, and bound to it by a request in the
//! background, many in flight; a binding that fails takes the assumption back. A pod that fits nowhere waits until something
//! changes that the plugins which refused it say may help.
//!
//! Invariants:
//!
//! * The cluster holds every pod that has a node and has not ended, and every assumed one, each exactly once.
//! * A pod is in the queue, assumed, or bound; never two of these.
//! * A cycle does no I/O.
//!
//! A pod that fits nowhere may have pods of lower priority [taken away](preemption); the node is promised to it until they are gone.
//!
//! Not here yet: the volume plugins.
//!
//! Names of plugins, reasons, messages, events and conditions are upstream's: users search for them.

mod binding;
mod census;
pub mod cluster;
pub mod cycle;
mod default_selector;
mod diagnosis;
mod disruption;
mod node;
mod nomination;
mod plugins;
mod pod;
mod preemption;
mod queue;
mod resources;
mod scheduler;
mod selecting;
mod selector;
#[cfg(test)]
mod testing;

pub use pod::PodInfo;
pub use scheduler::run;

/// What the scheduler is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods whose `schedulerName` this is are ours.
    pub scheduler_name: String,
    /// How many bindings may be on their way to the API at once.
    pub bindings_in_flight: usize,
    /// How many nodes in a hundred to find feasible before scoring; 0: fewer the larger the cluster.
    pub percentage_of_nodes_to_score: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: "default-scheduler".into(), bindings_in_flight: 128, percentage_of_nodes_to_score: 0 }
    }
}
