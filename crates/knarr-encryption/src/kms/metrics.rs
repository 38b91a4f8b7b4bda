//! What is measured of key services, under upstream's names.
//!
//! The meters belong to the process: a changed configuration makes new services, and their counts go on.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use tonic::Code;

/// Keys that have series of their own; the services name them, and may name many.
const MOST_KEYS: usize = 100;

struct Meters {
    latency: HistogramVec,
    key_used: IntCounterVec,
    key_used_at: GaugeVec,
    key_told_at: GaugeVec,
    invalid_key: IntCounterVec,
    seeds: IntGaugeVec,
    used: Mutex<Known<3>>,
    told: Mutex<Known<2>>,
}

static METERS: LazyLock<Meters> = LazyLock::new(Meters::new);

/// All meters, to be registered where measurements are shown.
pub fn collectors() -> Vec<Box<dyn Collector>> {
    let meters = &*METERS;
    vec![
        Box::new(meters.latency.clone()),
        Box::new(meters.key_used.clone()),
        Box::new(meters.key_used_at.clone()),
        Box::new(meters.key_told_at.clone()),
        Box::new(meters.invalid_key.clone()),
        Box::new(meters.seeds.clone()),
    ]
}

impl Meters {
    fn new() -> Meters {
        let name = |name: &str| format!("apiserver_envelope_encryption_{name}");
        let made = "constant names are valid";
        let counters =
            |of: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name(of), help), labels).expect(made);
        let gauges =
            |of: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name(of), help), labels).expect(made);
        let latency = HistogramOpts::new(
            name("kms_operations_latency_seconds"),
            "[ALPHA] KMS operation duration with gRPC error code status total.",
        )
        .buckets(prometheus::exponential_buckets(0.0001, 2.0, 20).expect(made));
        let seeds = Opts::new(
            name("dek_source_cache_size"),
            "[ALPHA] Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.",
        );
        Meters {
            latency: HistogramVec::new(latency, &["provider_name", "method_name", "grpc_status_code"]).expect(made),
            key_used: counters(
                "key_id_hash_total",
                "[ALPHA] Number of times a keyID is used split by transformation type, provider, and apiserver identity.",
                USE,
            ),
            key_used_at: gauges(
                "key_id_hash_last_timestamp_seconds",
                "[ALPHA] The last time in seconds when a keyID was used.",
                USE,
            ),
            key_told_at: gauges(
                "key_id_hash_status_last_timestamp_seconds",
                "[ALPHA] The last time in seconds when a keyID was returned by the Status RPC call.",
                &USE[1..],
            ),
            invalid_key: counters(
                "invalid_key_id_from_status_total",
                "[ALPHA] Number of times an invalid keyID is returned by the Status RPC call split by error.",
                &["provider_name", "error"],
            ),
            seeds: IntGaugeVec::new(seeds, &["provider_name"]).expect(made),
            used: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

const USE: &[&str] = &["transformation_type", "provider_name", "key_id_hash", "apiserver_id_hash"];
/// Servers are not told apart.
const NO_SERVER: &str = "";

/// Labels that have series, the oldest first.
struct Known<const N: usize>(VecDeque<[String; N]>);

impl<const N: usize> Default for Known<N> {
    fn default() -> Self {
        Known(VecDeque::new())
    }
}

impl<const N: usize> Known<N> {
    /// Notes the labels; returns those that are to lose their series for it.
    fn note(&mut self, labels: [&str; N]) -> Option<[String; N]> {
        if self.0.iter().any(|known| known.iter().eq(labels.iter())) {
            return None;
        }
        self.0.push_back(labels.map(str::to_owned));
        if self.0.len() > MOST_KEYS { self.0.pop_front() } else { None }
    }
}

/// What is measured of one key service, by its name in the configuration.
pub(super) struct KmsMeter {
    provider: String,
}

/// Which way a value went.
#[derive(Clone, Copy)]
pub(super) enum Transformation {
    FromStorage,
    ToStorage,
}

impl Transformation {
    fn label(self) -> &'static str {
        match self {
            Transformation::FromStorage => "from_storage",
            Transformation::ToStorage => "to_storage",
        }
    }
}

impl KmsMeter {
    pub fn new(provider: &str) -> Self {
        KmsMeter { provider: provider.into() }
    }

    /// A call of the service has ended.
    pub fn called(&self, method: &str, started: Instant, code: Code) {
        let labels = [self.provider.as_str(), method, code_name(code)];
        METERS.latency.with_label_values(&labels).observe(started.elapsed().as_secs_f64());
    }

    /// A value was encrypted or decrypted with a key, of which this is the [`hash`].
    pub fn used(&self, transformation: Transformation, key_hash: &str) {
        let meters = &*METERS;
        let labels = [transformation.label(), self.provider.as_str(), key_hash];
        if let Some([transformation, provider, key]) = meters.used.lock().note(labels) {
            let gone = [transformation.as_str(), provider.as_str(), key.as_str(), NO_SERVER];
            let _ = (meters.key_used.remove_label_values(&gone), meters.key_used_at.remove_label_values(&gone));
        }
        let labels = [labels[0], labels[1], labels[2], NO_SERVER];
        meters.key_used.with_label_values(&labels).inc();
        meters.key_used_at.with_label_values(&labels).set(now());
    }

    /// The service has named its key.
    pub fn told(&self, key_hash: &str) {
        let meters = &*METERS;
        let labels = [self.provider.as_str(), key_hash];
        if let Some([provider, key]) = meters.told.lock().note(labels) {
            let _ = meters.key_told_at.remove_label_values(&[provider.as_str(), key.as_str(), NO_SERVER]);
        }
        meters.key_told_at.with_label_values(&[labels[0], labels[1], NO_SERVER]).set(now());
    }

    /// The service has named a key that is none.
    pub fn told_nonsense(&self, key_id: &str) {
        let why = if key_id.is_empty() { "empty" } else { "too_long" };
        METERS.invalid_key.with_label_values(&[self.provider.as_str(), why]).inc();
    }

    /// So many seeds are remembered.
    pub fn remembers(&self, seeds: usize) {
        METERS.seeds.with_label_values(&[self.provider.as_str()]).set(seeds as i64);
    }
}

/// How a key is told in labels.
pub(super) fn hash(key_id: &str) -> String {
    if key_id.is_empty() {
        return String::new();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, key_id.as_bytes());
    digest.as_ref().iter().fold(String::from("sha256:"), |text, byte| format!("{text}{byte:02x}"))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A code as Go's gRPC names it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
