//! API priority and fairness (KEP-1040): FlowSchemas say which priority level a request is of, PriorityLevelConfigurations how
//! many of the server's seats the level has and what becomes of requests that find none.
//!
//! The way of a request: [`Configuration::classify`] finds its [`schema::Schema`], [`work`] guesses its width, [`level::Level`]
//! gives it a [`level::Seat`], a place in a queue, or nothing. [`follow`] keeps the configuration as the stored objects have it
//! and lends the seats of idle levels to busy ones.
//!
//! Invariants: there is always an exempt level for `system:masters`, so that an administrator gets in whatever others do;
//! a request that finds a free seat takes two short locks and allocates nothing.

mod allocation;
mod configuration;
mod demand;
mod dump;
mod follow;
pub mod level;
mod metrics;
pub mod queue_set;
pub mod schema;
mod shuffle;
pub mod work;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use configuration::{Configuration, Stored};
pub use dump::Dumps;
use metrics::FlowMetrics;

use configuration::Reference;

/// The server's seats and who may have them.
pub struct FlowControl {
    configuration: ArcSwap<Configuration>,
    metrics: FlowMetrics,
    /// All seats of the server.
    total: u32,
}

impl FlowControl {
    /// With the configuration that every cluster begins with; [`FlowControl::run`] then follows what is stored.
    pub fn new(total: u32, registry: &prometheus::Registry) -> Arc<Self> {
        let metrics = FlowMetrics::new(registry);
        let flow_control = FlowControl { configuration: ArcSwap::default(), metrics, total };
        flow_control.configure(&Stored::defaults());
        Arc::new(flow_control)
    }

    /// Takes over these objects; returns which schemas refer to which levels.
    fn configure(&self, stored: &Stored) -> Vec<Reference> {
        let (next, references) = self.configuration.load().next(stored, self.total, &self.metrics);
        self.configuration.store(Arc::new(next));
        references
    }

    /// What requests are measured by now.
    pub fn configuration(&self) -> arc_swap::Guard<Arc<Configuration>> {
        self.configuration.load()
    }

    fn adjust(&self) {
        self.configuration.load().adjust(&self.metrics);
    }
}

#[cfg(test)]
mod tests;
