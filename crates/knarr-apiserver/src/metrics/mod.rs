//! What is measured, under upstream's names, in Prometheus' text form.
//!
//! Labels only ever hold what the server itself knows (resources it serves, verbs, its own pages): a stranger's paths must not
//! become series.

pub mod calls;
mod process;
pub mod slis;

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Method, Response};
use http_body::Body as _;
use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::chain::request_info::RequestInfo;
use crate::http::Body;

/// Upstream's latency buckets, in seconds.
const LATENCIES: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_LATENCIES: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const SIZES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const STORE_LATENCIES: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const COMPONENT: &str = "apiserver";

/// The server's meters.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    sli_latency: HistogramVec,
    sizes: HistogramVec,
    /// Reading, writing.
    in_flight: [IntGauge; 2],
    in_queue: [IntGauge; 2],
    long_running: IntGaugeVec,
    terminations: IntCounterVec,
    deprecated: IntGaugeVec,
    objects: IntGaugeVec,
    resource_objects: IntGaugeVec,
    watch_events: IntGaugeVec,
    store_latency: HistogramVec,
    pub tls_handshake_errors: IntCounter,
    pub calls: calls::Calls,
    process: process::Process,
    pub slis: slis::Slis,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes families and registers them.
pub(crate) struct Maker<'a>(pub &'a Registry);

impl Maker<'_> {
    fn keep<C: Collector + Clone + 'static>(&self, collector: Result<C, prometheus::Error>) -> C {
        let collector = collector.expect("constant names are valid");
        self.0.register(Box::new(collector.clone())).expect("every name is registered once");
        collector
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(IntCounterVec::new(Opts::new(name, help), labels))
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.keep(IntCounter::new(name, help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(IntGauge::new(name, help))
    }

    pub fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts { common_opts: Opts::new(name, help), buckets: buckets.to_vec() };
        self.keep(HistogramVec::new(opts, labels))
    }
}

const ALL_LABELS: &[&str] =
    &["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component", "code"];
const WITHOUT_DRY_RUN: &[&str] = &["verb", "group", "version", "resource", "subresource", "scope", "component"];

impl Metrics {
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        let by_kind = |name: &str, help: &str| {
            let family = make.gauges(name, help, &["request_kind"]);
            ["readOnly", "mutating"].map(|kind| family.with_label_values(&[kind]))
        };
        Metrics {
            requests: make.counters(
                "apiserver_request_total",
                "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                ALL_LABELS,
            ),
            latency: make.histograms(
                "apiserver_request_duration_seconds",
                "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                LATENCIES,
                &ALL_LABELS[..ALL_LABELS.len() - 1],
            ),
            sli_latency: make.histograms(
                "apiserver_request_sli_duration_seconds",
                "[ALPHA] Response latency distribution, not counting waits in queues, in seconds.",
                SLI_LATENCIES,
                WITHOUT_DRY_RUN,
            ),
            sizes: make.histograms(
                "apiserver_response_sizes",
                "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                SIZES,
                WITHOUT_DRY_RUN,
            ),
            in_flight: by_kind(
                "apiserver_current_inflight_requests",
                "[STABLE] Number of requests at work in this apiserver per request kind.",
            ),
            in_queue: by_kind(
                "apiserver_current_inqueue_requests",
                "[ALPHA] Number of queued requests in this apiserver per request kind.",
            ),
            long_running: make.gauges(
                "apiserver_longrunning_requests",
                "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
                WITHOUT_DRY_RUN,
            ),
            terminations: make.counters(
                "apiserver_request_terminations_total",
                "[ALPHA] Number of requests which apiserver terminated in self-defense.",
                &["verb", "group", "version", "resource", "subresource", "scope", "component", "code"],
            ),
            deprecated: make.gauges(
                "apiserver_requested_deprecated_apis",
                "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            objects: make.gauges(
                "apiserver_storage_objects",
                "[STABLE] Number of stored objects at the time of last check split by kind.",
                &["resource"],
            ),
            resource_objects: make.gauges(
                "apiserver_resource_objects",
                "[ALPHA] Number of stored objects at the time of last check split by kind.",
                &["group", "resource"],
            ),
            // A gauge in form only: it is set to what the caches have counted.
            watch_events: make.gauges(
                "apiserver_watch_events_total",
                "[ALPHA] Number of events sent in watch clients",
                &["group", "version", "resource"],
            ),
            store_latency: make.histograms(
                "etcd_request_duration_seconds",
                "[ALPHA] Store request latency in seconds for each operation and object type.",
                STORE_LATENCIES,
                &["operation", "group", "resource"],
            ),
            tls_handshake_errors: make.counter(
                "apiserver_tls_handshake_errors_total",
                "[ALPHA] Number of requests dropped with 'TLS handshake error from' error",
            ),
            calls: calls::Calls::new(&make),
            process: process::Process::new(&make),
            slis: slis::Slis::new(),
            registry,
        }
    }

    /// Where other rooms register what they measure.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request is at work until the guard is dropped.
    pub(crate) fn at_work(&self, info: &RequestInfo) -> Counted {
        Counted::new(self.in_flight[usize::from(!info.reads())].clone())
    }

    /// A request waits in a queue until the guard is dropped.
    pub(crate) fn waiting(&self, info: &RequestInfo) -> Counted {
        Counted::new(self.in_queue[usize::from(!info.reads())].clone())
    }

    /// A long-running request goes on until the guard is dropped.
    pub(crate) fn long_running(&self, series: &Series<'_>) -> Counted {
        Counted::new(self.long_running.with_label_values(&series.labels()))
    }

    /// A request has been answered.
    pub(crate) fn answered(&self, series: &Series<'_>, dry_run: &str, started: Instant, response: &Response<Body>) {
        let Series { verb, group, version, resource, subresource, scope } = *series;
        let mut code = itoa::Buffer::new();
        let code = code.format(response.status().as_u16());
        let all = [verb, dry_run, group, version, resource, subresource, scope, COMPONENT, code];
        self.requests.with_label_values(&all).inc();
        if verb == "WATCH" || verb == "CONNECT" {
            return;
        }
        let seconds = started.elapsed().as_secs_f64();
        self.latency.with_label_values(&all[..8]).observe(seconds);
        let labels = series.labels();
        if dry_run.is_empty() {
            self.sli_latency.with_label_values(&labels).observe(seconds);
        }
        if let ("GET" | "LIST", Some(size)) = (verb, response.body().size_hint().exact()) {
            self.sizes.with_label_values(&labels).observe(size as f64);
        }
    }

    /// A request was refused or cut off for the server's sake.
    pub(crate) fn terminated(&self, series: &Series<'_>, code: u16) {
        let Series { verb, group, version, resource, subresource, scope } = *series;
        let mut text = itoa::Buffer::new();
        let labels = [verb, group, version, resource, subresource, scope, COMPONENT, text.format(code)];
        self.terminations.with_label_values(&labels).inc();
    }

    /// Somebody asked for an API that is to go.
    pub(crate) fn deprecated(&self, info: &RequestInfo, removed: &str) {
        let RequestInfo { group, version, resource, subresource, .. } = info;
        let labels = [group.as_str(), version, resource, subresource, removed];
        self.deprecated.with_label_values(&labels).set(1);
    }

    /// A request to the store has been answered.
    pub(crate) fn stored(&self, operation: &str, group: &str, resource: &str, started: Instant) {
        self.store_latency.with_label_values(&[operation, group, resource]).observe(started.elapsed().as_secs_f64());
    }

    /// Prometheus' text.
    pub fn render(&self, resources: impl Iterator<Item = ResourceCount>) -> String {
        for count in resources {
            let ResourceCount { group, version, resource, objects, events } = count;
            let name = if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") };
            self.objects.with_label_values(&[&name]).set(objects as i64);
            self.resource_objects.with_label_values(&[&group, &resource]).set(objects as i64);
            if events > 0 {
                self.watch_events.with_label_values(&[&group, &version, &resource]).set(events as i64);
            }
        }
        self.process.measure();
        encode(&self.registry)
            .replace("# TYPE apiserver_watch_events_total gauge", "# TYPE apiserver_watch_events_total counter")
    }
}

fn encode(registry: &Registry) -> String {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut out) {
        tracing::error!(%error, "metrics cannot be written");
    }
    String::from_utf8(out).unwrap_or_default()
}

/// What a resource's cache knows.
pub struct ResourceCount {
    pub group: String,
    pub version: String,
    pub resource: String,
    pub objects: usize,
    /// Sent to watchers since the start.
    pub events: u64,
}

/// Counts one thing for as long as it lives.
pub(crate) struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The labels of a request that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Series<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
}

/// Pages that have a series of their own.
const PAGES: &[&str] =
    &["/healthz", "/livez", "/readyz", "/metrics", "/version", "/api", "/apis", "/openapi/v2", "/openapi/v3"];

impl<'a> Series<'a> {
    /// `known`: the server serves this resource. What it does not know is all one series.
    pub fn of(info: &'a RequestInfo, method: &Method, headers: &HeaderMap, known: bool) -> Self {
        let verb = verb(info, method, headers);
        if info.is_resource && known {
            return Series {
                verb,
                group: &info.group,
                version: &info.version,
                resource: &info.resource,
                subresource: &info.subresource,
                scope: scope(info),
            };
        }
        let page = PAGES.iter().find(|page| **page == info.path.trim_end_matches('/')).copied().unwrap_or_default();
        Series { verb, group: "", version: "", resource: "", subresource: page, scope: "" }
    }

    fn labels(&self) -> [&'a str; 7] {
        [self.verb, self.group, self.version, self.resource, self.subresource, self.scope, COMPONENT]
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match (info.name.is_empty() && info.verb != "create", info.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    }
}

fn verb(info: &RequestInfo, method: &Method, headers: &HeaderMap) -> &'static str {
    if info.is_resource && matches!(info.subresource.as_str(), "log" | "exec" | "portforward" | "attach" | "proxy") {
        return "CONNECT";
    }
    match (info.verb.as_str(), method.as_str()) {
        ("watch", _) => "WATCH",
        ("list", _) => "LIST",
        (_, "GET" | "HEAD") => "GET",
        (_, "POST") => "POST",
        (_, "PUT") => "PUT",
        (_, "DELETE") => "DELETE",
        (_, "PATCH") => {
            let content = headers.get(http::header::CONTENT_TYPE).map(|v| v.as_bytes());
            if content == Some(b"application/apply-patch+yaml") { "APPLY" } else { "PATCH" }
        }
        _ => "other",
    }
}

/// `All` for a dry run, `invalid` for nonsense, as upstream.
pub(crate) fn dry_run(query: &str) -> &'static str {
    if !query.contains("dryRun") {
        return "";
    }
    let query = crate::registry::options::Query::parse(query);
    let mut values = query.all("dryRun").peekable();
    if values.peek().is_none() {
        return "";
    }
    if values.all(|v| v == "All") { "All" } else { "invalid" }
}

/// Shared by the chain and the `/metrics` page.
pub type SharedMetrics = Arc<Metrics>;
