//! `/stats/summary`: the node's and its pods' use, as the Summary API (`stats/v1alpha1`) has it.

use http::Response;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::metrics::{Usage, usages};
use super::respond::{Body, Failure, json as respond};
use super::system::{FileSystem, Machine};
use crate::view::NodeView;

pub(super) async fn summary(view: &dyn NodeView) -> Result<Response<Body>, Failure> {
    let usages = usages(view).await?;
    let pods = view.pods();
    let now = Timestamp::now();
    let items: Vec<Value> =
        usages.chunk_by(|a, b| a.pod_uid == b.pod_uid).map(|containers| pod(containers, &pods, now)).collect();
    respond(&json!({"node": node(view, now), "pods": items}))
}

fn node(view: &dyn NodeView, now: Timestamp) -> Value {
    let machine = Machine::read();
    let mut node = json!({
        "nodeName": view.node_name(),
        "startTime": machine.booted().to_string(),
        "cpu": {"time": now.to_string(), "usageCoreNanoSeconds": machine.cpu_nanoseconds},
        "memory": {
            "time": now.to_string(),
            "availableBytes": machine.memory_available,
            "usageBytes": machine.memory_total.saturating_sub(machine.memory_free),
            "workingSetBytes": machine.memory_working_set(),
        },
    });
    if let Some(fs) = FileSystem::of(view.pod_logs_dir()) {
        node["fs"] = json!({
            "time": now.to_string(),
            "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": fs.used,
            "inodes": fs.inodes, "inodesFree": fs.inodes_free, "inodesUsed": fs.inodes.saturating_sub(fs.inodes_free),
        });
    }
    node
}

fn pod(containers: &[Usage], pods: &[std::sync::Arc<Pod>], now: Timestamp) -> Value {
    let first = &containers[0];
    let known = pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(&first.pod_uid));
    let started = known.and_then(|pod| pod.status.as_ref()?.start_time.as_ref()).map_or(now, |time| time.0);
    let sum = |value: fn(&Usage) -> Option<u64>| containers.iter().filter_map(value).sum::<u64>();
    json!({
        "podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.pod_uid},
        "startTime": started.to_string(),
        "containers": containers.iter().map(container).collect::<Vec<_>>(),
        "cpu": {
            "time": now.to_string(),
            "usageNanoCores": sum(|usage| usage.nano_cores),
            "usageCoreNanoSeconds": sum(|usage| usage.cpu_nanoseconds),
        },
        "memory": {
            "time": now.to_string(),
            "usageBytes": sum(|usage| usage.usage),
            "workingSetBytes": sum(|usage| usage.working_set),
            "rssBytes": sum(|usage| usage.rss),
        },
    })
}

fn container(usage: &Usage) -> Value {
    let at = Timestamp::from_nanosecond(i128::from(usage.at_nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH).to_string();
    let mut container = json!({"name": usage.container, "startTime": at});
    container["cpu"] =
        present(&at, &[("usageNanoCores", usage.nano_cores), ("usageCoreNanoSeconds", usage.cpu_nanoseconds)]);
    container["memory"] =
        present(&at, &[("usageBytes", usage.usage), ("workingSetBytes", usage.working_set), ("rssBytes", usage.rss)]);
    container["rootfs"] = present(&at, &[("usedBytes", usage.filesystem_used)]);
    container
}

/// What the runtime does not know is left out rather than shown as zero.
fn present(at: &str, values: &[(&str, Option<u64>)]) -> Value {
    let mut object = json!({"time": at});
    for (name, value) in values {
        if let Some(value) = value {
            object[*name] = (*value).into();
        }
    }
    object
}
