//! Metrics in Prometheus' text format: of the containers (as metrics-server and cAdvisor's readers know them) and of this process.

use std::fmt::Write;

use http::{HeaderValue, Response, StatusCode};
use knarr_cri::v1::ContainerStats;

use super::respond::{Body, Failure, with_type};
use super::system::Machine;
use crate::view::NodeView;

/// Metric families being written.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64, at_milliseconds: Option<i64>) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{escaped}\"", if at == 0 { "{" } else { "," });
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
        if let Some(at) = at_milliseconds {
            let _ = write!(self.0, " {at}");
        }
        self.0.push('\n');
    }

    fn into_response(self) -> Response<Body> {
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        with_type(StatusCode::OK, content_type, self.0.into())
    }
}

/// One container's use, out of the runtime's statistics.
pub(super) struct Usage {
    pub container: String,
    pub pod: String,
    pub namespace: String,
    pub pod_uid: String,
    pub id: String,
    pub at_nanoseconds: i64,
    pub cpu_nanoseconds: Option<u64>,
    pub nano_cores: Option<u64>,
    pub working_set: Option<u64>,
    pub usage: Option<u64>,
    pub rss: Option<u64>,
    pub filesystem_used: Option<u64>,
}

impl Usage {
    fn of(stats: ContainerStats) -> Option<Usage> {
        let attributes = stats.attributes?;
        let label = |name: &str| attributes.labels.get(name).cloned().unwrap_or_default();
        let (cpu, memory) = (stats.cpu, stats.memory);
        Some(Usage {
            container: label("io.kubernetes.container.name"),
            pod: label("io.kubernetes.pod.name"),
            namespace: label("io.kubernetes.pod.namespace"),
            pod_uid: label("io.kubernetes.pod.uid"),
            at_nanoseconds: cpu.as_ref().map(|cpu| cpu.timestamp).or(memory.as_ref().map(|memory| memory.timestamp))?,
            cpu_nanoseconds: cpu.as_ref().and_then(|cpu| Some(cpu.usage_core_nano_seconds.as_ref()?.value)),
            nano_cores: cpu.as_ref().and_then(|cpu| Some(cpu.usage_nano_cores.as_ref()?.value)),
            working_set: memory.as_ref().and_then(|memory| Some(memory.working_set_bytes.as_ref()?.value)),
            usage: memory.as_ref().and_then(|memory| Some(memory.usage_bytes.as_ref()?.value)),
            rss: memory.as_ref().and_then(|memory| Some(memory.rss_bytes.as_ref()?.value)),
            filesystem_used: stats.writable_layer.and_then(|layer| Some(layer.used_bytes?.value)),
            id: attributes.id,
        })
    }

    fn labels(&self) -> [(&'static str, &str); 3] {
        [("container", &self.container), ("namespace", &self.namespace), ("pod", &self.pod)]
    }
}

/// The use of every container that belongs to a pod, sorted by pod.
pub(super) async fn usages(view: &dyn NodeView) -> Result<Vec<Usage>, Failure> {
    let stats = view.runtime().list_container_stats(None).await.map_err(Failure::internal)?;
    let mut usages: Vec<Usage> =
        stats.into_iter().filter_map(Usage::of).filter(|usage| !usage.container.is_empty()).collect();
    usages.sort_by(|a, b| (&a.namespace, &a.pod, &a.container).cmp(&(&b.namespace, &b.pod, &b.container)));
    Ok(usages)
}

/// `/metrics/resource`: what metrics-server reads.
pub(super) async fn resource(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let usages = usages(view).await;
    let mut out = Exposition::default();
    write_node(&mut out, &Machine::read());
    out.family("scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    out.sample("scrape_error", &[], f64::from(u8::from(usages.is_err())), None);
    write_containers(&mut out, &usages.unwrap_or_default());
    Ok(out.into_response())
}

fn write_node(out: &mut Exposition, machine: &Machine) {
    let now = Some(jiff::Timestamp::now().as_millisecond());
    out.family("node_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed by the node in core-seconds");
    out.sample("node_cpu_usage_seconds_total", &[], machine.cpu_nanoseconds as f64 / 1e9, now);
    out.family("node_memory_working_set_bytes", "gauge", "Current working set of the node in bytes");
    out.sample("node_memory_working_set_bytes", &[], machine.memory_working_set() as f64, now);
}

fn write_containers(out: &mut Exposition, usages: &[Usage]) {
    let cpu = |usage: &Usage| usage.cpu_nanoseconds.map(|nanoseconds| nanoseconds as f64 / 1e9);
    let memory = |usage: &Usage| usage.working_set.map(|bytes| bytes as f64);
    let name = "container_cpu_usage_seconds_total";
    out.family(name, "counter", "Cumulative cpu time consumed by the container in core-seconds");
    write_each(out, name, usages, cpu);
    let name = "container_memory_working_set_bytes";
    out.family(name, "gauge", "Current working set of the container in bytes");
    write_each(out, name, usages, memory);
    let name = "pod_cpu_usage_seconds_total";
    out.family(name, "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    write_pods(out, name, usages, cpu);
    let name = "pod_memory_working_set_bytes";
    out.family(name, "gauge", "Current working set of the pod in bytes");
    write_pods(out, name, usages, memory);
}

fn write_each(out: &mut Exposition, name: &str, usages: &[Usage], value: impl Fn(&Usage) -> Option<f64>) {
    for usage in usages {
        if let Some(value) = value(usage) {
            out.sample(name, &usage.labels(), value, Some(usage.at_nanoseconds / 1_000_000));
        }
    }
}

fn write_pods(out: &mut Exposition, name: &str, usages: &[Usage], value: impl Fn(&Usage) -> Option<f64>) {
    for pod in usages.chunk_by(|a, b| a.pod_uid == b.pod_uid) {
        let sum: f64 = pod.iter().filter_map(&value).sum();
        let at = pod.iter().map(|usage| usage.at_nanoseconds).max().unwrap_or(0) / 1_000_000;
        out.sample(name, &[("namespace", &pod[0].namespace), ("pod", &pod[0].pod)], sum, Some(at));
    }
}

/// `/metrics/cadvisor`: the families that dashboards read most.
pub(super) async fn containers(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    type Value = fn(&Usage) -> Option<u64>;
    const FAMILIES: [(&str, &str, &str, Value, f64); 5] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |u| u.cpu_nanoseconds,
            1e-9,
        ),
        (
            "container_fs_usage_bytes",
            "gauge",
            "Bytes that the container's writable layer holds.",
            |u| u.filesystem_used,
            1.0,
        ),
        ("container_memory_rss", "gauge", "Size of resident memory in bytes.", |u| u.rss, 1.0),
        ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, caches too.", |u| u.usage, 1.0),
        ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |u| u.working_set, 1.0),
    ];
    let usages = usages(view).await?;
    let mut out = Exposition::default();
    for (name, kind, help, value, factor) in FAMILIES {
        out.family(name, kind, help);
        for usage in &usages {
            let Some(value) = value(usage) else { continue };
            let labels = [
                ("container", usage.container.as_str()),
                ("id", &usage.id),
                ("namespace", &usage.namespace),
                ("pod", &usage.pod),
            ];
            out.sample(name, &labels, value as f64 * factor, Some(usage.at_nanoseconds / 1_000_000));
        }
    }
    Ok(out.into_response())
}

/// `/metrics`: of the kubelet itself.
pub(super) fn process(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let pods = view.pods();
    let running =
        pods.iter().filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"));
    let mut out = Exposition::default();
    out.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    out.sample("kubelet_node_name", &[("node", view.node_name())], 1.0, None);
    out.family("kubelet_desired_pods", "gauge", "The number of pods bound to this node.");
    out.sample("kubelet_desired_pods", &[], pods.len() as f64, None);
    out.family("kubelet_running_pods", "gauge", "The number of pods that run.");
    out.sample("kubelet_running_pods", &[], running.count() as f64, None);
    Ok(out.into_response())
}

/// No metrics.
pub(super) fn none() -> Response<Body> {
    Exposition::default().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_in_the_text_format() {
        let mut out = Exposition::default();
        out.family("m", "gauge", "Help.");
        out.sample("m", &[("a", "x\"y\\"), ("b", "z")], 1.5, Some(7));
        out.sample("m", &[], 2.0, None);
        assert_eq!(out.0, "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"y\\\\\",b=\"z\"} 1.5 7\nm 2\n");
    }
}
