//! Rows of events, in both of their versions.

use serde_json::Value;

use super::cells::{number, row, text};
use super::duration::since;
use crate::object::{Object, ObjectExt};

pub fn cells(event: &Object, now: i64) -> Vec<Value> {
    let first = match one_of(event, &["firstTimestamp", "deprecatedFirstTimestamp"]) {
        Value::Null => since(&event["eventTime"], now),
        time => since(time, now),
    };
    let mut last = match one_of(event, &["lastTimestamp", "deprecatedLastTimestamp"]) {
        Value::Null => first.clone(),
        time => since(time, now),
    };
    let mut count = one_of(event, &["count", "deprecatedCount"]).as_i64().unwrap_or_default().max(1);
    if event["series"].is_object() {
        last = since(&event["series"]["lastObservedTime"], now);
        count = number(event, &["series", "count"]);
    }
    let about = one_of(event, &["involvedObject", "regarding"]);
    let kind = text(about, &["kind"]).to_lowercase();
    let target = match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    row([
        last.into(),
        text(event, &["type"]).into(),
        text(event, &["reason"]).into(),
        target.into(),
        text(about, &["fieldPath"]).into(),
        source(event).into(),
        one_of(event, &["message", "note"]).as_str().unwrap_or_default().trim().into(),
        first.into(),
        count.into(),
        event.name().into(),
    ])
}

/// The first of these fields that the event has.
fn one_of<'v>(event: &'v Object, fields: &[&str]) -> &'v Value {
    fields.iter().map(|field| &event[*field]).find(|v| !v.is_null()).unwrap_or(&Value::Null)
}

fn source(event: &Object) -> String {
    let source = one_of(event, &["source", "deprecatedSource"]);
    let either = |a: &'static str, fields: [&'static str; 2]| match text(source, &[a]) {
        "" => one_of(event, &fields).as_str().unwrap_or_default().to_string(),
        said => said.to_string(),
    };
    let component = either("component", ["reportingComponent", "reportingController"]);
    match either("host", ["reportingInstance", "reportingInstance"]) {
        instance if instance.is_empty() => component,
        instance => format!("{component}, {instance}"),
    }
}
