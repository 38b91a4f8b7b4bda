//! `/metrics/slis`: what the health checks have said.

use prometheus::{IntCounterVec, IntGaugeVec, Registry};

use super::{Maker, encode};

/// The results of health checks.
pub struct Slis {
    registry: Registry,
    healthy: IntGaugeVec,
    checks: IntCounterVec,
}

impl Slis {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        Slis {
            healthy: make.gauges(
                "kubernetes_healthcheck",
                "[STABLE] This metric records the result of a single healthcheck.",
                &["name", "type"],
            ),
            checks: make.counters(
                "kubernetes_healthchecks_total",
                "[STABLE] This metric records the results of all healthcheck.",
                &["name", "status", "type"],
            ),
            registry,
        }
    }

    /// A check of one of the pages has been made.
    pub fn checked(&self, name: &str, page: &str, healthy: bool) {
        self.healthy.with_label_values(&[name, page]).set(i64::from(healthy));
        self.checks.with_label_values(&[name, if healthy { "success" } else { "error" }, page]).inc();
    }

    /// Prometheus' text.
    pub fn render(&self) -> String {
        encode(&self.registry)
    }
}
