//! Events, of the core group and of `events.k8s.io`, which keeps the same objects to stricter rules.

use serde_json::Value;

use super::check::{Checker, equal, has, int, is_empty, text};
use crate::{internal, names};

/// What every event must be.
pub fn event(c: &mut Checker, object: &Value) {
    lenient(c, object, "reportingComponent");
}

fn lenient(c: &mut Checker, event: &Value, controller: &str) {
    let namespace = text(&event["metadata"], "namespace");
    let involved = text(&event["involvedObject"], "namespace");
    const WHY: &str = "does not match event.namespace";
    let known_time = has(event, "eventTime");
    let free =
        if known_time { matches!(namespace, "default" | "kube-system") } else { matches!(namespace, "" | "default") };
    if (involved.is_empty() && !free) || (!involved.is_empty() && !known_time && involved != namespace) {
        c.invalid_text("involvedObject.namespace", involved, WHY);
    }
    if !known_time {
        return;
    }
    let reporter = text(event, "reportingComponent");
    if reporter.is_empty() {
        c.required(controller, "");
    }
    c.rule(controller, reporter, names::qualified_name);
    for field in ["reportingInstance", "action", "reason"] {
        c.need(event, field);
        if text(event, field).len() > 128 {
            c.invalid_text(field, "", "can have at most 128 characters");
        }
    }
    if text(event, "message").len() > 1024 {
        c.invalid_text("message", "", "can have at most 1024 characters");
    }
}

/// An event of `events.k8s.io` by the names that the core group has for the same.
fn as_core(event: &Value) -> Value {
    const NAMES: &[(&str, &str)] = &[
        ("regarding", "involvedObject"),
        ("note", "message"),
        ("reportingController", "reportingComponent"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
    ];
    let mut core = event.clone();
    for (from, to) in NAMES {
        if let Some(value) = core.as_object_mut().and_then(|fields| fields.remove(*from)) {
            core[*to] = value;
        }
    }
    core
}

/// A new event of `events.k8s.io`.
pub fn strict(c: &mut Checker, object: &Value) {
    let event = &as_core(object);
    lenient(c, event, "reportingController");
    series(c, event);
    if !has(event, "eventTime") {
        c.required("eventTime", "");
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        c.invalid_text("type", "", format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let set = match field {
            "count" => int(event, field).unwrap_or(0) != 0,
            "source" => !is_empty(&event["source"], "component") || !is_empty(&event["source"], "host"),
            _ => has(event, field),
        };
        if set {
            c.invalid_text(field, "", "needs to be unset");
        }
    }
}

fn series(c: &mut Checker, event: &Value) {
    c.if_set(event, "series", |c, series| {
        if int(series, "count").unwrap_or(0) < 2 {
            c.invalid_text("count", "", "should be at least 2");
        }
        c.need(series, "lastObservedTime");
    });
}

/// A changed event of `events.k8s.io`: only its series goes on.
pub fn strict_update(c: &mut Checker, object: &Value, old: &Value) {
    let (event, before) = (&as_core(object), &as_core(old));
    lenient(c, event, "reportingController");
    if !equal(&event["series"], &before["series"]) {
        series(c, event);
    }
    for (field, ty) in [
        ("involvedObject", "core.ObjectReference"),
        ("reason", "string"),
        ("message", "string"),
        ("source", "core.EventSource"),
        ("firstTimestamp", "meta.Time"),
        ("lastTimestamp", "meta.Time"),
        ("count", "int32"),
        // Upstream looks at it twice.
        ("reason", "string"),
        ("type", "string"),
        ("eventTime", "meta.MicroTime"),
        ("action", "string"),
        ("related", "*core.ObjectReference"),
        ("reportingComponent", "string"),
        ("reportingInstance", "string"),
    ] {
        if !equal(&event[field], &before[field]) {
            let shown = if field == "reportingComponent" { "reportingController" } else { field };
            c.invalid_shown(shown, internal::show(ty, &event[field]), "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_stricter_group_fixes_all_but_the_series() {
        let event = json!({
            "metadata": {"namespace": "default"}, "eventTime": "2020-01-01T00:00:00.000000Z", "type": "Normal",
            "reportingController": "a.b/c", "reportingInstance": "i", "action": "A", "reason": "R", "note": "n"
        });
        let mut fine = Checker::new();
        strict(&mut fine, &event);
        assert_eq!(fine.error_count(), 0);
        let mut changed = event.clone();
        changed["note"] = "other".into();
        changed["series"] = json!({"count": 1, "lastObservedTime": "2020-01-01T00:00:00.000000Z"});
        let mut wrong = Checker::new();
        strict_update(&mut wrong, &changed, &event);
        let texts: Vec<String> = wrong.into_errors().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "message: Invalid value: \"other\": field is immutable"
            ]
        );
    }
}
