//! Rows of workloads.

use serde_json::Value;

use super::cells::{
    age, at, containers, has_condition, labels, list, number, ratio, row, selector, shown, text, text_or,
};
use super::duration::{human_duration, seconds, since};
use crate::object::{Object, ObjectExt};
use crate::selector::LabelSelector;

fn replicas(object: &Object) -> [Value; 3] {
    [
        number(object, &["spec", "replicas"]).into(),
        number(object, &["status", "replicas"]).into(),
        number(object, &["status", "readyReplicas"]).into(),
    ]
}

pub fn replication_controller(object: &Object, now: i64) -> Vec<Value> {
    let [desired, current, ready] = replicas(object);
    let (names, images) = containers(&object["spec"]["template"]);
    let selected = labels(&object["spec"]["selector"]);
    row([object.name().into(), desired, current, ready, age(object, now), names, images, selected.into()])
}

pub fn replica_set(object: &Object, now: i64) -> Vec<Value> {
    let [desired, current, ready] = replicas(object);
    let (names, images) = containers(&object["spec"]["template"]);
    let selected = selector(&object["spec"]["selector"]);
    row([object.name().into(), desired, current, ready, age(object, now), names, images, selected.into()])
}

pub fn deployment(object: &Object, now: i64) -> Vec<Value> {
    let (names, images) = containers(&object["spec"]["template"]);
    let selected = LabelSelector::of_object(Some(&object["spec"]["selector"]))
        .map_or_else(|_| "<invalid>".to_string(), |s| s.to_string());
    row([
        object.name().into(),
        ratio(number(object, &["status", "readyReplicas"]), number(object, &["spec", "replicas"])),
        number(object, &["status", "updatedReplicas"]).into(),
        number(object, &["status", "availableReplicas"]).into(),
        age(object, now),
        names,
        images,
        selected.into(),
    ])
}

pub fn daemon_set(object: &Object, now: i64) -> Vec<Value> {
    let (names, images) = containers(&object["spec"]["template"]);
    let count = |field: &str| Value::from(number(object, &["status", field]));
    row([
        object.name().into(),
        count("desiredNumberScheduled"),
        count("currentNumberScheduled"),
        count("numberReady"),
        count("updatedNumberScheduled"),
        count("numberAvailable"),
        labels(at(object, &["spec", "template", "spec", "nodeSelector"])).into(),
        age(object, now),
        names,
        images,
        selector(&object["spec"]["selector"]).into(),
    ])
}

pub fn stateful_set(object: &Object, now: i64) -> Vec<Value> {
    let (names, images) = containers(&object["spec"]["template"]);
    let ready = ratio(number(object, &["status", "readyReplicas"]), number(object, &["spec", "replicas"]));
    row([object.name().into(), ready, age(object, now), names, images])
}

pub fn controller_revision(object: &Object, now: i64) -> Vec<Value> {
    let owners = list(object, &["metadata", "ownerReferences"]);
    let owner = owners.iter().find(|o| o["controller"] == true).map_or("<none>".to_string(), |owner| {
        let group = text(owner, &["apiVersion"]).split_once('/').map_or(String::new(), |(g, _)| format!(".{g}"));
        format!("{}{group}/{}", text(owner, &["kind"]).to_lowercase(), text(owner, &["name"]))
    });
    row([object.name().into(), owner.into(), number(object, &["revision"]).into(), age(object, now)])
}

/// Conditions in the order in which they decide a job's status.
const JOB_STATUS: [(&str, &str); 5] = [
    ("Complete", "Complete"),
    ("Failed", "Failed"),
    ("Suspended", "Suspended"),
    ("FailureTarget", "FailureTarget"),
    ("SuccessCriteriaMet", "SuccessCriteriaMet"),
];

fn job_status(job: &Object) -> &'static str {
    let finished = JOB_STATUS[..2].iter().find(|(kind, _)| has_condition(job, kind));
    let unfinished = || JOB_STATUS[2..].iter().find(|(kind, _)| has_condition(job, kind));
    match finished {
        Some((_, status)) => status,
        None if job.is_deleting() => "Terminating",
        None => unfinished().map_or("Running", |(_, status)| status),
    }
}

pub fn job(object: &Object, now: i64) -> Vec<Value> {
    let succeeded = number(object, &["status", "succeeded"]);
    let completions = match (object["spec"]["completions"].as_i64(), number(object, &["spec", "parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let started = seconds(&object["status"]["startTime"]);
    let ended = seconds(&object["status"]["completionTime"]).unwrap_or(now);
    let duration = started.map(|started| human_duration(ended - started)).unwrap_or_default();
    let (names, images) = containers(&object["spec"]["template"]);
    row([
        object.name().into(),
        job_status(object).into(),
        completions.into(),
        duration.into(),
        age(object, now),
        names,
        images,
        selector(&object["spec"]["selector"]).into(),
    ])
}

pub fn cron_job(object: &Object, now: i64) -> Vec<Value> {
    let last = &object["status"]["lastScheduleTime"];
    let last = if last.is_null() { "<none>".to_string() } else { since(last, now) };
    let suspend = match object["spec"]["suspend"].as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let job = at(object, &["spec", "jobTemplate", "spec"]);
    let (names, images) = containers(&job["template"]);
    row([
        object.name().into(),
        text(object, &["spec", "schedule"]).into(),
        text_or(object, &["spec", "timeZone"], "<none>").into(),
        suspend.into(),
        list(object, &["status", "active"]).len().into(),
        last.into(),
        age(object, now),
        names,
        images,
        selector(&job["selector"]).into(),
    ])
}

pub fn pod_disruption_budget(object: &Object, now: i64) -> Vec<Value> {
    let bound = |field: &str| match &object["spec"][field] {
        Value::Null => "N/A".to_string(),
        value => shown(value),
    };
    row([
        object.name().into(),
        bound("minAvailable").into(),
        bound("maxUnavailable").into(),
        number(object, &["status", "disruptionsAllowed"]).into(),
        age(object, now),
    ])
}

pub fn horizontal_pod_autoscaler(object: &Object, now: i64) -> Vec<Value> {
    let target = &object["spec"]["scaleTargetRef"];
    let min = object["spec"]["minReplicas"].as_i64().map_or("<unset>".to_string(), |n| n.to_string());
    row([
        object.name().into(),
        format!("{}/{}", text(target, &["kind"]), text(target, &["name"])).into(),
        metrics(object).into(),
        min.into(),
        number(object, &["spec", "maxReplicas"]).into(),
        number(object, &["status", "currentReplicas"]).into(),
        age(object, now),
    ])
}

fn metrics(object: &Object) -> String {
    const MAX: usize = 2;
    let specs = list(object, &["spec", "metrics"]);
    let current = list(object, &["status", "currentMetrics"]);
    let all: Vec<String> = match &object["spec"]["targetCPUUtilizationPercentage"] {
        Value::Null => {
            specs.iter().enumerate().map(|(i, spec)| metric(spec, current.get(i).unwrap_or(&Value::Null))).collect()
        }
        // autoscaling/v1 knows this one metric.
        target => {
            let current = &object["status"]["currentCPUUtilizationPercentage"];
            vec![format!("cpu: {}/{}", percent(current, "<unknown>"), percent(target, "<auto>"))]
        }
    };
    match all.len() {
        0 => "<none>".into(),
        n if n > MAX => format!("{} + {} more...", all[..MAX].join(", "), n - MAX),
        _ => all.join(", "),
    }
}

fn percent(value: &Value, none: &str) -> String {
    value.as_i64().map_or(none.to_string(), |n| format!("{n}%"))
}

fn metric(spec: &Value, status: &Value) -> String {
    let field = match text(spec, &["type"]) {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (target, current) = (&spec[field]["target"], at(status, &[field, "current"]));
    let value = |of: &Value, key: &str| match &of[key] {
        Value::Null => "<unknown>".to_string(),
        value => shown(value),
    };
    let averaged = !target["averageValue"].is_null();
    match field {
        "external" | "object" if averaged => {
            format!("{}/{} (avg)", value(current, "averageValue"), value(target, "averageValue"))
        }
        "external" | "object" => format!("{}/{}", value(current, "value"), value(target, "value")),
        "pods" => format!("{}/{}", value(current, "averageValue"), value(target, "averageValue")),
        _ => {
            let name = text(spec, &[field, "name"]);
            if averaged {
                return format!("{name}: {}/{}", value(current, "averageValue"), value(target, "averageValue"));
            }
            let used = percent(&current["averageUtilization"], "<unknown>");
            format!("{name}: {used}/{}", percent(&target["averageUtilization"], "<auto>"))
        }
    }
}
