//! `process_*` as every Prometheus client has them, and which build this is.

use prometheus::{Gauge, IntGauge};

use super::Maker;

/// Clock ticks a second in `/proc`: fixed by Linux's interface.
const TICKS: f64 = 100.0;
const PAGE: i64 = 4096;

/// The meters of this process.
pub struct Process {
    cpu: Gauge,
    open_files: IntGauge,
    most_files: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start: Gauge,
}

impl Process {
    pub(crate) fn new(make: &Maker<'_>) -> Self {
        let float = |name: &str, help: &str| make.keep(Gauge::new(name, help));
        let build = make.gauges(
            "kubernetes_build_info",
            "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
            &["major", "minor", "git_version", "git_tree_state", "compiler", "platform"],
        );
        let version = crate::pages::git_version();
        let platform = format!("{}/{}", std::env::consts::OS, crate::pages::go_arch());
        build.with_label_values(&["1", "36", &version, "clean", "rustc", &platform]).set(1);
        Process {
            cpu: float("process_cpu_seconds_total", "Total user and system CPU time spent in seconds."),
            open_files: make.gauge("process_open_fds", "Number of open file descriptors."),
            most_files: make.gauge("process_max_fds", "Maximum number of open file descriptors."),
            virtual_memory: make.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            resident_memory: make.gauge("process_resident_memory_bytes", "Resident memory size in bytes."),
            start: float("process_start_time_seconds", "Start time of the process since unix epoch in seconds."),
        }
    }

    /// Reads `/proc`; what is not there stays as it was.
    pub fn measure(&self) {
        if let Some(stat) = Stat::read() {
            self.cpu.set(stat.cpu_ticks / TICKS);
            self.virtual_memory.set(stat.virtual_bytes);
            self.resident_memory.set(stat.resident_pages * PAGE);
            if let Some(boot) = boot_time() {
                self.start.set(boot + stat.start_ticks / TICKS);
            }
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(files.count() as i64);
        }
        if let Some(limit) = most_files() {
            self.most_files.set(limit);
        }
    }
}

struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl Stat {
    fn read() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field, the name, may hold anything, also spaces; the third begins behind its last bracket.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)? as i64,
            resident_pages: field(24)? as i64,
        })
    }
}

fn boot_time() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn most_files() -> Option<i64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}
