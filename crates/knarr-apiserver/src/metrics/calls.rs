//! What is measured of calls to others: admission webhooks, and every server that is called at all.

use std::time::Instant;

use prometheus::{HistogramVec, IntCounterVec};

use super::Maker;

const WEBHOOK_LATENCIES: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const CALL_LATENCIES: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// Codes beyond this are one.
const HIGHEST_CODE: u16 = 600;

/// How a webhook's call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allowed,
    /// The webhook said no, with this code.
    Denied(u16),
    /// It could not be asked; `ignored`: its policy is to go on.
    Unreachable {
        ignored: bool,
    },
    /// This server failed.
    Internal,
}

pub struct Calls {
    webhook_latency: HistogramVec,
    webhook_rejections: IntCounterVec,
    webhook_fail_open: IntCounterVec,
    webhook_requests: IntCounterVec,
    requests: IntCounterVec,
    latency: HistogramVec,
}

impl Calls {
    pub(super) fn new(make: &Maker<'_>) -> Self {
        Calls {
            webhook_latency: make.histograms(
                "apiserver_admission_webhook_admission_duration_seconds",
                "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
                WEBHOOK_LATENCIES,
                &["name", "type", "operation", "rejected"],
            ),
            webhook_rejections: make.counters(
                "apiserver_admission_webhook_rejection_count",
                "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation.",
                &["name", "type", "operation", "error_type", "rejection_code"],
            ),
            webhook_fail_open: make.counters(
                "apiserver_admission_webhook_fail_open_count",
                "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
                &["name", "type"],
            ),
            webhook_requests: make.counters(
                "apiserver_admission_webhook_request_total",
                "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation.",
                &["name", "type", "operation", "code", "rejected"],
            ),
            requests: make.counters(
                "rest_client_requests_total",
                "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.",
                &["code", "method", "host"],
            ),
            latency: make.histograms(
                "rest_client_request_duration_seconds",
                "[ALPHA] Request latency in seconds. Broken down by verb, and host.",
                CALL_LATENCIES,
                &["verb", "host"],
            ),
        }
    }

    /// A webhook has been asked; `kind` is `admit` or `validating`.
    pub fn webhook(&self, name: &str, kind: &str, operation: &str, started: Instant, outcome: Outcome) {
        let (code, error) = match outcome {
            Outcome::Allowed => (200, None),
            Outcome::Denied(code) => (code.min(HIGHEST_CODE), Some("no_error")),
            Outcome::Unreachable { ignored: true } => (503, None),
            Outcome::Unreachable { ignored: false } => (503, Some("calling_webhook_error")),
            Outcome::Internal => (0, Some("apiserver_internal_error")),
        };
        let rejected = if error.is_some() { "true" } else { "false" };
        let code = code.to_string();
        self.webhook_requests.with_label_values(&[name, kind, operation, &code, rejected]).inc();
        let seconds = started.elapsed().as_secs_f64();
        self.webhook_latency.with_label_values(&[name, kind, operation, rejected]).observe(seconds);
        if let Some(error) = error {
            self.webhook_rejections.with_label_values(&[name, kind, operation, error, &code]).inc();
        }
        if outcome == (Outcome::Unreachable { ignored: true }) {
            self.webhook_fail_open.with_label_values(&[name, kind]).inc();
        }
    }

    /// A server has been called; no code where it did not answer.
    pub fn called(&self, host: &str, method: &str, started: Instant, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_string(), |code| code.to_string());
        self.requests.with_label_values(&[&code, method, host]).inc();
        self.latency.with_label_values(&[method, host]).observe(started.elapsed().as_secs_f64());
    }
}
