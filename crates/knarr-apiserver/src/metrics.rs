//! What is measured, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::chain::request_info::RequestInfo;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: String,
}

/// The server's meters.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter<u64, AtomicU64>>,
    latency: Family<LatencyLabels, Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    long_running: Family<KindLabels, Gauge>,
    objects: Family<ResourceLabels, Gauge>,
}

/// Upstream's latency buckets, in seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 5.0, 15.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            latency: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Family::default(),
            long_running: Family::default(),
            objects: Family::default(),
        };
        let registry = &mut metrics.registry;
        // The client library adds `_total` to the names of counters.
        registry.register("apiserver_request", "Counter of apiserver requests", metrics.requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds",
            metrics.latency.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests being served now, per request kind",
            metrics.in_flight.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Long-running requests being served now",
            metrics.long_running.clone(),
        );
        registry.register("apiserver_storage_objects", "Stored objects by resource", metrics.objects.clone());
        metrics
    }

    fn gauge(&self, info: &RequestInfo) -> Gauge {
        let family = if info.long_running { &self.long_running } else { &self.in_flight };
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        family.get_or_create_owned(&KindLabels { request_kind: if reads { "readOnly" } else { "mutating" } })
    }

    pub(crate) fn request_started(&self, info: &RequestInfo) -> Instant {
        self.gauge(info).inc();
        Instant::now()
    }

    pub(crate) fn request_ended(&self, info: &RequestInfo, started: Instant, code: u16) {
        self.gauge(info).dec();
        let key = labels(info);
        if !info.long_running {
            self.latency.get_or_create(&key).observe(started.elapsed().as_secs_f64());
        }
        let LatencyLabels { verb, group, version, resource, subresource, scope } = key;
        let key = RequestLabels { verb, group, version, resource, subresource, scope, code };
        self.requests.get_or_create(&key).inc();
    }

    /// Prometheus' text.
    pub fn render(&self, objects: impl Iterator<Item = (String, usize)>) -> String {
        for (resource, count) in objects {
            self.objects.get_or_create(&ResourceLabels { resource }).set(count as i64);
        }
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        out
    }
}

fn labels(info: &RequestInfo) -> LatencyLabels {
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    };
    LatencyLabels {
        verb: info.verb.to_ascii_uppercase(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        scope,
    }
}

/// Shared by the chain and the `/metrics` page.
pub type SharedMetrics = Arc<Metrics>;
