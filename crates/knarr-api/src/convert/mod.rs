//! Kinds that are served in more than one version: their storage version, and the way between versions.
//!
//! Each pair of versions has one table of field moves, read in both directions.

mod autoscaler;

use serde_json::{Map, Value};

use crate::object::Object;
use crate::resource::GroupVersionKind;

/// The version a kind is stored in: itself, unless it is served in two.
pub fn storage_version(gvk: &GroupVersionKind) -> GroupVersionKind {
    match (&*gvk.group, &*gvk.kind) {
        ("autoscaling", "HorizontalPodAutoscaler") => GroupVersionKind::new("autoscaling", "v2", gvk.kind.clone()),
        ("events.k8s.io", "Event") => GroupVersionKind::new("", "v1", gvk.kind.clone()),
        _ => gvk.clone(),
    }
}

/// The object in another version of its kind; as it is where that is its own version, or no other version of its kind.
pub fn convert(object: Object, to: &GroupVersionKind) -> Object {
    let from = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let target = to.api_version();
    let mut out = match (from, target.as_str(), &*to.kind) {
        ("v1", "events.k8s.io/v1", "Event") => renamed(object, &EVENT_FIELDS, Direction::Forward),
        ("events.k8s.io/v1", "v1", "Event") => renamed(object, &EVENT_FIELDS, Direction::Back),
        ("autoscaling/v1", "autoscaling/v2", "HorizontalPodAutoscaler") => autoscaler::to_v2(object),
        ("autoscaling/v2", "autoscaling/v1", "HorizontalPodAutoscaler") => autoscaler::to_v1(object),
        _ => return object,
    };
    out["apiVersion"] = target.into();
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

/// core/v1 and events.k8s.io/v1
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn renamed(object: Object, fields: &[(&str, &str)], direction: Direction) -> Object {
    let Value::Object(map) = object else { return object };
    let name = |key: String| {
        let found = fields.iter().find_map(|(a, b)| match direction {
            Direction::Forward if *a == key => Some(*b),
            Direction::Back if *b == key => Some(*a),
            _ => None,
        });
        found.map_or(key, str::to_string)
    };
    Value::Object(map.into_iter().map(|(key, value)| (name(key), value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_change_names_and_come_back() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "m", "count": 2,
            "involvedObject": {"kind": "Pod"}, "reportingComponent": "kubelet", "reason": "R"});
        let new = convert(core.clone(), &GroupVersionKind::new("events.k8s.io", "v1", "Event"));
        assert_eq!(new["note"], "m");
        assert_eq!(new["regarding"]["kind"], "Pod");
        assert_eq!(new["reportingController"], "kubelet");
        assert_eq!(new["apiVersion"], "events.k8s.io/v1");
        assert_eq!(convert(new, &GroupVersionKind::new("", "v1", "Event")), core);
    }

    #[test]
    fn other_kinds_stay_as_they_are() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod"});
        let gvk = GroupVersionKind::new("", "v1", "Pod");
        assert_eq!(convert(pod.clone(), &gvk), pod);
        assert_eq!(storage_version(&gvk), gvk);
    }
}
