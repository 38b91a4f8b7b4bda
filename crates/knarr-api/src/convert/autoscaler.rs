//! HorizontalPodAutoscaler: v1 knows the average use of CPU; what else v2 says travels in annotations.

use serde_json::{Map, Value, json};

use crate::object::Object;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const ANNOTATIONS: [&str; 4] = [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR];

/// What v2 takes where no metric is given.
const DEFAULT_CPU_UTILIZATION: i64 = 80;

/// A field in v1 and its place in v2.
type Moves = &'static [(&'static str, &'static [&'static str])];

/// One kind of metric: its field, and how its source and its status move.
struct Metric {
    field: &'static str,
    source: Moves,
    status: Moves,
    /// Quantities that v1 always writes, zero where v2 has none.
    zero_source: &'static [&'static str],
    zero_status: &'static [&'static str],
}

const RESOURCE_SOURCE: Moves = &[
    ("name", &["name"]),
    ("container", &["container"]),
    ("targetAverageUtilization", &["target", "averageUtilization"]),
    ("targetAverageValue", &["target", "averageValue"]),
];
const RESOURCE_STATUS: Moves = &[
    ("name", &["name"]),
    ("container", &["container"]),
    ("currentAverageUtilization", &["current", "averageUtilization"]),
    ("currentAverageValue", &["current", "averageValue"]),
];

const METRIC_KINDS: [Metric; 5] = [
    Metric {
        field: "external",
        source: &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
        status: &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
        zero_source: &[],
        zero_status: &["currentValue"],
    },
    Metric {
        field: "object",
        source: &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetValue", &["target", "value"]),
            ("averageValue", &["target", "averageValue"]),
        ],
        status: &[
            ("target", &["describedObject"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentValue", &["current", "value"]),
            ("averageValue", &["current", "averageValue"]),
        ],
        zero_source: &["targetValue"],
        zero_status: &["currentValue"],
    },
    Metric {
        field: "pods",
        source: &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
        status: &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("currentAverageValue", &["current", "averageValue"]),
        ],
        zero_source: &["targetAverageValue"],
        zero_status: &["currentAverageValue"],
    },
    Metric {
        field: "resource",
        source: RESOURCE_SOURCE,
        status: RESOURCE_STATUS,
        zero_source: &[],
        zero_status: &["currentAverageValue"],
    },
    Metric {
        field: "containerResource",
        source: RESOURCE_SOURCE,
        status: RESOURCE_STATUS,
        zero_source: &[],
        zero_status: &["currentAverageValue"],
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Source,
    Status,
}

impl Metric {
    fn moves(&self, part: Part) -> Moves {
        if part == Part::Source { self.source } else { self.status }
    }

    fn v1(&self, part: Part, metric: &Value) -> Value {
        let mut out = Map::new();
        for (field, path) in self.moves(part) {
            let value = path.iter().try_fold(metric, |at, step| at.get(*step));
            out.extend(value.map(|v| (field.to_string(), v.clone())));
        }
        let zero = if part == Part::Source { self.zero_source } else { self.zero_status };
        for field in zero {
            out.entry(*field).or_insert_with(|| "0".into());
        }
        Value::Object(out)
    }

    fn v2(&self, part: Part, metric: &Value) -> Value {
        let mut out = json!({});
        for (field, path) in self.moves(part) {
            let Some(value) = metric.get(*field) else { continue };
            let unsaid = *field == "targetValue" && *value == "0" && metric.get("averageValue").is_some();
            if !unsaid {
                put(&mut out, path, value.clone());
            }
        }
        if part == Part::Source {
            let has = |field: &str| out["target"].get(field).is_some();
            let kind = match self.field {
                "resource" | "containerResource" if has("averageUtilization") => "Utilization",
                "external" if has("value") => "Value",
                "object" if !has("averageValue") => "Value",
                _ => "AverageValue",
            };
            put(&mut out, &["target", "type"], kind.into());
        }
        out
    }
}

fn put(at: &mut Value, path: &[&str], value: Value) {
    match path {
        [] => *at = value,
        [first, rest @ ..] => {
            if !at[*first].is_object() && !rest.is_empty() {
                at[*first] = json!({});
            }
            put(&mut at[*first], rest, value);
        }
    }
}

fn metric(part: Part, metric: &Value, convert: fn(&Metric, Part, &Value) -> Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for kind in &METRIC_KINDS {
        if let Some(value) = metric.get(kind.field).filter(|v| v.is_object()) {
            out[kind.field] = convert(kind, part, value);
        }
    }
    out
}

fn take(object: &mut Object, part: &str, field: &str) -> Option<Value> {
    object.get_mut(part)?.as_object_mut()?.remove(field)
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

fn is_cpu(metric: &Value) -> bool {
    metric["type"] == "Resource" && metric["resource"]["name"] == "cpu"
}

pub fn to_v1(mut object: Object) -> Object {
    let metrics = list(take(&mut object, "spec", "metrics"));
    let current = list(take(&mut object, "status", "currentMetrics"));
    let conditions = list(take(&mut object, "status", "conditions"));
    let behavior = take(&mut object, "spec", "behavior");

    let target = |m: &Value| m["resource"]["target"].get("averageUtilization").filter(|_| is_cpu(m)).cloned();
    if let Some(utilization) = metrics.iter().find_map(target) {
        object["spec"]["targetCPUUtilizationPercentage"] = utilization;
    }
    let used = |m: &Value| m["resource"]["current"].get("averageUtilization").filter(|_| is_cpu(m)).cloned();
    if let Some(utilization) = current.iter().rev().find_map(used) {
        object["status"]["currentCPUUtilizationPercentage"] = utilization;
    }
    let others: Vec<Value> =
        metrics.iter().filter(|m| target(m).is_none()).map(|m| metric(Part::Source, m, Metric::v1)).collect();
    let current: Vec<Value> = current.iter().map(|m| metric(Part::Status, m, Metric::v1)).collect();
    for key in ANNOTATIONS {
        drop_annotation(&mut object, key);
    }
    for (key, value) in [(METRICS, others), (CURRENT_METRICS, current), (CONDITIONS, conditions)] {
        if !value.is_empty() {
            put(&mut object, &["metadata", "annotations", key], in_order(&Value::Array(value)).into());
        }
    }
    if let Some(behavior) = behavior {
        put(&mut object, &["metadata", "annotations", BEHAVIOR], in_order(&behavior).into());
    }
    object
}

/// JSON with the fields of the annotations' types in their own order, which the texts have upstream.
fn in_order(value: &Value) -> String {
    const ORDER: [&str; 36] = [
        "type",
        "status",
        "lastTransitionTime",
        "reason",
        "message",
        "kind",
        "name",
        "apiVersion",
        "object",
        "pods",
        "resource",
        "containerResource",
        "external",
        "target",
        "metricName",
        "metricSelector",
        "targetValue",
        "currentValue",
        "targetAverageUtilization",
        "currentAverageUtilization",
        "targetAverageValue",
        "currentAverageValue",
        "container",
        "selector",
        "averageValue",
        "scaleUp",
        "scaleDown",
        "stabilizationWindowSeconds",
        "selectPolicy",
        "policies",
        "tolerance",
        "value",
        "periodSeconds",
        "key",
        "operator",
        "values",
    ];
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(in_order).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
            fields.sort_by_key(|(name, _)| (place(name), name.as_str()));
            let entry =
                |(name, value): &(&String, &Value)| format!("{}:{}", Value::from(name.as_str()), in_order(value));
            format!("{{{}}}", fields.iter().map(entry).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// Takes an annotation out and reads the JSON in it.
fn drop_annotation(object: &mut Object, key: &str) -> Option<Value> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(key);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    serde_json::from_str(text?.as_str()?).ok()
}

pub fn to_v2(mut object: Object) -> Object {
    let [metrics, current, conditions, behavior] = ANNOTATIONS.map(|key| drop_annotation(&mut object, key));
    let mut all: Vec<Value> = list(metrics).iter().map(|m| metric(Part::Source, m, Metric::v2)).collect();
    let cpu = |field: &str, value: Value| json!({"type": "Resource", "resource": {"name": "cpu", field: value}});
    let utilization = |percent: Value| json!({"type": "Utilization", "averageUtilization": percent});
    if let Some(percent) = take(&mut object, "spec", "targetCPUUtilizationPercentage").filter(|v| !v.is_null()) {
        all.push(cpu("target", utilization(percent)));
    }
    if all.is_empty() {
        all.push(cpu("target", utilization(DEFAULT_CPU_UTILIZATION.into())));
    }
    put(&mut object, &["spec", "metrics"], all.into());
    if let Some(behavior) = behavior.filter(|b| b.as_object().is_some_and(|b| !b.is_empty())) {
        object["spec"]["behavior"] = behavior;
    }
    let used = take(&mut object, "status", "currentCPUUtilizationPercentage").filter(|v| !v.is_null());
    let current = match (current, used) {
        (Some(Value::Array(list)), _) => list.iter().map(|m| metric(Part::Status, m, Metric::v2)).collect(),
        (_, Some(percent)) => vec![cpu("current", json!({"averageUtilization": percent}))],
        (_, None) => Vec::new(),
    };
    for (field, value) in [("currentMetrics", current), ("conditions", list(conditions))] {
        if !value.is_empty() {
            put(&mut object, &["status", field], value.into());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_travels_in_annotations() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "h"}, "spec": {"maxReplicas": 3,
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 5}},
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                    "metric": {"name": "r"}, "target": {"type": "Value", "value": "7"}}},
                {"type": "Resource", "resource": {"name": "cpu",
                    "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "status": {"conditions": [{"type": "AbleToScale", "status": "True"}],
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": 40, "averageValue": "1"}}}]}});
        let v1 = to_v1(v2.clone());
        assert_eq!(v1["spec"]["targetCPUUtilizationPercentage"], 50);
        assert_eq!(v1["status"]["currentCPUUtilizationPercentage"], 40);
        let metrics = v1["metadata"]["annotations"][METRICS].as_str().expect("an annotation");
        assert_eq!(
            serde_json::from_str::<Value>(metrics).expect("JSON"),
            json!([{"type": "Pods", "pods": {"metricName": "q", "targetAverageValue": "5"}},
                {"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "r",
                    "targetValue": "7"}}])
        );
        assert_eq!(to_v2(v1), v2);
    }

    #[test]
    fn v1_without_a_target_means_eighty_percent() {
        let v2 = to_v2(json!({"spec": {"maxReplicas": 1}}));
        assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    }
}
