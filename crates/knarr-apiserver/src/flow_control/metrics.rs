//! `apiserver_flowcontrol_*`, under upstream's names.

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::queue_set::Refusal;

const LENGTHS: &[f64] = &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const DURATIONS: &[f64] = &[0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];

const LEVEL: &str = "priority_level";
const BOTH: &[&str] = &["priority_level", "flow_schema"];

/// The families; a schema's and a level's own meters are taken out of them once, when the configuration is read.
pub struct FlowMetrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    waiting: IntGaugeVec,
    waiting_seats: IntGaugeVec,
    executing: IntGaugeVec,
    executing_seats: IntGaugeVec,
    seats_in_use: IntGaugeVec,
    queue_length: HistogramVec,
    wait: HistogramVec,
    execution: HistogramVec,
    work: HistogramVec,
    levels: Vec<(LevelGauge, GaugeVec)>,
    fair_fraction: Gauge,
}

/// What is known of a level at every look at its demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LevelGauge {
    RequestConcurrencyLimit,
    Nominal,
    Lower,
    Upper,
    Current,
    High,
    Average,
    Deviation,
    Smoothed,
    Target,
    CurrentR,
}

const LEVEL_GAUGES: [(LevelGauge, &str, &str); 11] = [
    (
        LevelGauge::RequestConcurrencyLimit,
        "request_concurrency_limit",
        "Nominal number of execution seats configured for each priority level",
    ),
    (
        LevelGauge::Nominal,
        "nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
    ),
    (
        LevelGauge::Lower,
        "lower_limit_seats",
        "[ALPHA] Lower bound on the execution seats available to each priority level",
    ),
    (
        LevelGauge::Upper,
        "upper_limit_seats",
        "[ALPHA] Upper bound on the execution seats available to each priority level",
    ),
    (LevelGauge::Current, "current_limit_seats", "[ALPHA] Execution seats available to each priority level now"),
    (LevelGauge::High, "demand_seats_high_watermark", "[ALPHA] Highest demand of the last adjustment period"),
    (LevelGauge::Average, "demand_seats_average", "[ALPHA] Average demand of the last adjustment period"),
    (LevelGauge::Deviation, "demand_seats_stdev", "[ALPHA] Standard deviation of the last period's demand"),
    (LevelGauge::Smoothed, "demand_seats_smoothed", "[ALPHA] Smoothed seat demands"),
    (LevelGauge::Target, "target_seats", "[ALPHA] Seat allocation targets"),
    (LevelGauge::CurrentR, "current_r", "[ALPHA] Virtual time of the last change"),
];

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("apiserver_flowcontrol_{name}"), help)
}

fn histogram(name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
    let opts = HistogramOpts { common_opts: opts(name, help), buckets: buckets.to_vec() };
    HistogramVec::new(opts, labels).expect("constant names are valid")
}

fn counter(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(opts(name, help), labels).expect("constant names are valid")
}

fn gauge(name: &str, help: &str) -> IntGaugeVec {
    IntGaugeVec::new(opts(name, help), BOTH).expect("constant names are valid")
}

impl FlowMetrics {
    pub fn new(registry: &Registry) -> Self {
        let levels = LEVEL_GAUGES.map(|(which, name, help)| {
            (which, GaugeVec::new(opts(name, help), &[LEVEL]).expect("constant names are valid"))
        });
        let metrics = FlowMetrics {
            rejected: counter(
                "rejected_requests_total",
                "[BETA] Number of requests rejected by API Priority and Fairness subsystem",
                &[LEVEL, "flow_schema", "reason"],
            ),
            dispatched: counter(
                "dispatched_requests_total",
                "[BETA] Number of requests executed by API Priority and Fairness subsystem",
                BOTH,
            ),
            waiting: gauge("current_inqueue_requests", "[BETA] Number of requests now waiting in queues"),
            waiting_seats: gauge("current_inqueue_seats", "[ALPHA] Number of seats now waited for in queues"),
            executing: gauge("current_executing_requests", "[BETA] Number of requests now executing"),
            executing_seats: gauge("current_executing_seats", "[BETA] Seats taken by the requests now executing"),
            seats_in_use: gauge("request_concurrency_in_use", "Seats taken by the requests now executing"),
            queue_length: histogram(
                "request_queue_length_after_enqueue",
                "[ALPHA] Length of its queue as seen by each request after it is enqueued",
                LENGTHS,
                BOTH,
            ),
            wait: histogram(
                "request_wait_duration_seconds",
                "[BETA] Length of time a request spent waiting in its queue",
                DURATIONS,
                &[LEVEL, "flow_schema", "execute"],
            ),
            execution: histogram(
                "request_execution_seconds",
                "[ALPHA] Duration of request execution, of a WATCH its initial stage",
                DURATIONS,
                &[LEVEL, "flow_schema", "type"],
            ),
            work: histogram("work_estimated_seats", "[ALPHA] Number of estimated seats of each request", SEATS, BOTH),
            levels: levels.into(),
            fair_fraction: Gauge::with_opts(opts(
                "seat_fair_frac",
                "[ALPHA] Fair fraction of its target that each priority level can have",
            ))
            .expect("constant names are valid"),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &Registry) {
        let mut all: Vec<Box<dyn prometheus::core::Collector>> = vec![
            Box::new(self.rejected.clone()),
            Box::new(self.dispatched.clone()),
            Box::new(self.fair_fraction.clone()),
        ];
        for family in [&self.waiting, &self.waiting_seats, &self.executing, &self.executing_seats, &self.seats_in_use] {
            all.push(Box::new(family.clone()));
        }
        for family in [&self.queue_length, &self.wait, &self.execution, &self.work] {
            all.push(Box::new(family.clone()));
        }
        for (_, family) in &self.levels {
            all.push(Box::new(family.clone()));
        }
        for collector in all {
            registry.register(collector).expect("every name is registered once");
        }
    }

    pub fn set_level(&self, level: &str, which: LevelGauge, value: f64) {
        if let Some((_, family)) = self.levels.iter().find(|(w, _)| *w == which) {
            family.with_label_values(&[level]).set(value);
        }
    }

    /// Forgets a level that is gone.
    pub fn forget_level(&self, level: &str) {
        for (_, family) in &self.levels {
            // There is nothing to forget where the level was never measured.
            let _ = family.remove_label_values(&[level]);
        }
    }

    pub fn set_fair_fraction(&self, fraction: f64) {
        self.fair_fraction.set(fraction);
    }

    pub fn schema(&self, level: &str, schema: &str) -> SchemaMeters {
        let both = [level, schema];
        let reason = |refusal: Refusal| self.rejected.with_label_values(&[level, schema, refusal.as_str()]);
        SchemaMeters {
            dispatched: self.dispatched.with_label_values(&both),
            waiting: self.waiting.with_label_values(&both),
            waiting_seats: self.waiting_seats.with_label_values(&both),
            executing: self.executing.with_label_values(&both),
            executing_seats: self.executing_seats.with_label_values(&both),
            seats_in_use: self.seats_in_use.with_label_values(&both),
            queue_length: self.queue_length.with_label_values(&both),
            waited: self.wait.with_label_values(&[level, schema, "true"]),
            waited_in_vain: self.wait.with_label_values(&[level, schema, "false"]),
            regular: self.execution.with_label_values(&[level, schema, "regular"]),
            watch: self.execution.with_label_values(&[level, schema, "watch"]),
            work: self.work.with_label_values(&both),
            rejected: [
                reason(Refusal::QueueFull),
                reason(Refusal::ConcurrencyLimit),
                reason(Refusal::TimeOut),
                reason(Refusal::Cancelled),
            ],
        }
    }
}

/// One schema's meters at one level: no look-up is needed to use them.
pub struct SchemaMeters {
    pub dispatched: IntCounter,
    pub waiting: IntGauge,
    pub waiting_seats: IntGauge,
    pub executing: IntGauge,
    pub executing_seats: IntGauge,
    pub seats_in_use: IntGauge,
    pub queue_length: Histogram,
    pub waited: Histogram,
    pub waited_in_vain: Histogram,
    pub regular: Histogram,
    pub watch: Histogram,
    pub work: Histogram,
    rejected: [IntCounter; 4],
}

impl SchemaMeters {
    pub fn refused(&self, why: Refusal) {
        let at = match why {
            Refusal::QueueFull => 0,
            Refusal::ConcurrencyLimit => 1,
            Refusal::TimeOut => 2,
            Refusal::Cancelled => 3,
        };
        self.rejected[at].inc();
    }
}
