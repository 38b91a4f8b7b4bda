use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::quantity::Quantity;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::refusal::{all_of, forbidden, items, text};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, Quantity>;

/// A namespace's LimitRanges: defaults for containers, and bounds of containers, pods and claims.
pub struct LimitRanger {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !limits_apply(request) || request.resource.resource != "pods" || request.operation != Operation::Create {
            return Ok(());
        }
        let ranges = self.ranges(&request.namespace).await?;
        let Some(pod) = &mut request.object else { return Ok(()) };
        for range in ranges {
            apply_defaults(pod, &range);
        }
        Ok(())
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !limits_apply(request) {
            return Ok(());
        }
        let Some(object) = &request.object else { return Ok(()) };
        for range in self.ranges(&request.namespace).await? {
            let reasons = violations(&request.resource.resource, object, &range);
            if !reasons.is_empty() {
                return Err(forbidden(request, all_of(&reasons)));
            }
        }
        Ok(())
    }
}

fn limits_apply(request: &Request) -> bool {
    let resource = request.resource.resource.as_str();
    if !request.resource.group.is_empty() || request.object.as_ref().is_some_and(ObjectExt::is_deleting) {
        return false;
    }
    match resource {
        // A pod's resources change after its creation only by a resize.
        "pods" if request.operation == Operation::Update => request.subresource == "resize",
        "pods" | "persistentvolumeclaims" => request.subresource.is_empty(),
        _ => false,
    }
}

impl LimitRanger {
    async fn ranges(&self, namespace: &str) -> Result<Vec<Arc<Object>>, StatusError> {
        self.objects.list(&GroupResource::new("", "limitranges"), namespace).await
    }
}

fn amounts(value: Option<&Value>) -> Amounts {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, q)| Some((name.clone(), q.as_str()?.parse().ok()?))).collect()
}

fn limits_of<'a>(range: &'a Object, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    items(range, "/spec/limits").filter(move |l| text(l, "/type") == kind)
}

fn apply_defaults(pod: &mut Object, range: &Object) {
    let mut said: Vec<String> = Vec::new();
    for limit in limits_of(range, "Container") {
        for (list, kind) in [("containers", "container"), ("initContainers", "init container")] {
            let Some(containers) = pod["spec"].get_mut(list).and_then(Value::as_array_mut) else { continue };
            for container in containers {
                let name = text(container, "/name").to_string();
                for (field, defaults, word) in
                    [("limits", "default", "limit"), ("requests", "defaultRequest", "request")]
                {
                    let set = merge(container, field, limit.get(defaults));
                    if !set.is_empty() {
                        said.push(format!("{} {word} for {kind} {name}", set.join(", ")));
                    }
                }
            }
        }
    }
    if !said.is_empty() {
        // Requests before limits, as upstream writes them.
        said.sort_by_key(|s| s.contains(" limit for "));
        pod["metadata"]["annotations"][ANNOTATION] = format!("LimitRanger plugin set: {}", said.join("; ")).into();
    }
}

/// Fills in what is missing; the names of what was filled in, sorted.
fn merge(container: &mut Value, field: &str, defaults: Option<&Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults.and_then(Value::as_object).into_iter().flatten() {
        let held = &container["resources"][field][name];
        if held.is_null() {
            container["resources"][field][name] = value.clone();
            set.push(name.clone());
        }
    }
    // Looking a key up in a missing map makes nulls; none may stay.
    if container["resources"][field].is_null() {
        if let Some(resources) = container["resources"].as_object_mut() {
            resources.remove(field);
        } else {
            container["resources"] = json!({});
        }
    }
    set
}

/// A kind of limit and what something asks for.
struct Asked<'a> {
    kind: &'a str,
    requests: Amounts,
    limits: Amounts,
}

fn violations(resource: &str, object: &Object, range: &Object) -> Vec<String> {
    let mut out = Vec::new();
    if resource == "persistentvolumeclaims" {
        for limit in limits_of(range, "PersistentVolumeClaim") {
            check_claim(object, limit, &mut out);
        }
        return out;
    }
    for limit in limits_of(range, "Container") {
        for container in items(object, "/spec/containers").chain(items(object, "/spec/initContainers")) {
            check(&asked("Container", container), limit, &mut out);
        }
    }
    for limit in limits_of(range, "Pod") {
        check(&pod_total(object), limit, &mut out);
    }
    out
}

fn asked<'a>(kind: &'a str, container: &Value) -> Asked<'a> {
    Asked {
        kind,
        requests: amounts(container.pointer("/resources/requests")),
        limits: amounts(container.pointer("/resources/limits")),
    }
}

fn pod_total(pod: &Object) -> Asked<'static> {
    let total = |field: &str| {
        let of = |c: &Value| amounts(c.pointer(&format!("/resources/{field}")));
        let mut sum = Amounts::new();
        for container in items(pod, "/spec/containers") {
            for (name, quantity) in of(container) {
                let entry = sum.entry(name).or_insert(Quantity::from_i64(0));
                *entry = *entry + quantity;
            }
        }
        for container in items(pod, "/spec/initContainers") {
            let restarts = text(container, "/restartPolicy") == "Always";
            for (name, quantity) in of(container) {
                let entry = sum.entry(name).or_insert(Quantity::from_i64(0));
                *entry = if restarts { *entry + quantity } else { (*entry).max(quantity) };
            }
        }
        sum
    };
    Asked { kind: "Pod", requests: total("requests"), limits: total("limits") }
}

fn check(asked: &Asked<'_>, limit: &Value, out: &mut Vec<String>) {
    for (name, enforced) in amounts(limit.get("min")) {
        out.extend(below_minimum(asked, &name, enforced));
    }
    for (name, enforced) in amounts(limit.get("max")) {
        out.extend(above_maximum(asked, &name, enforced));
    }
    for (name, enforced) in amounts(limit.get("maxLimitRequestRatio")) {
        out.extend(above_ratio(asked, &name, enforced));
    }
}

fn below_minimum(asked: &Asked<'_>, name: &str, enforced: Quantity) -> Option<String> {
    let start = format!("minimum {name} usage per {} is {enforced}", asked.kind);
    let Some(request) = asked.requests.get(name) else { return Some(format!("{start}.  No request is specified")) };
    if *request < enforced {
        return Some(format!("{start}, but request is {request}"));
    }
    let limit = asked.limits.get(name).filter(|l| **l < enforced);
    limit.map(|limit| format!("{start}, but limit is {limit}"))
}

fn above_maximum(asked: &Asked<'_>, name: &str, enforced: Quantity) -> Option<String> {
    let start = format!("maximum {name} usage per {} is {enforced}", asked.kind);
    let Some(limit) = asked.limits.get(name) else { return Some(format!("{start}.  No limit is specified")) };
    if *limit > enforced {
        return Some(format!("{start}, but limit is {limit}"));
    }
    let request = asked.requests.get(name).filter(|r| **r > enforced);
    request.map(|request| format!("{start}, but request is {request}"))
}

fn above_ratio(asked: &Asked<'_>, name: &str, enforced: Quantity) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {} is {enforced}", asked.kind);
    let Some(request) = asked.requests.get(name).filter(|r| !r.is_zero()) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = asked.limits.get(name).filter(|l| !l.is_zero()) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.to_millis() as f64 / request.to_millis() as f64;
    (ratio * 1000.0 > enforced.to_millis() as f64).then(|| format!("{start}, but provided ratio is {ratio:.6}"))
}

fn check_claim(claim: &Object, limit: &Value, out: &mut Vec<String>) {
    let requests = amounts(claim.pointer("/spec/resources/requests"));
    for (bound, word) in [("min", "minimum"), ("max", "maximum")] {
        for (name, enforced) in amounts(limit.get(bound)) {
            let start = format!("{word} {name} usage per PersistentVolumeClaim is {enforced}");
            match requests.get(&name) {
                None => out.push(format!("{start}.  No request is specified")),
                Some(request) if (bound == "min" && *request < enforced) || (bound == "max" && *request > enforced) => {
                    out.push(format!("{start}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Object {
        json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {"limits": [limit]}})
    }

    #[test]
    fn defaults_fill_what_is_missing_and_are_told() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        let limit = json!({"type": "Container", "default": {"cpu": "2", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m", "memory": "1Gi"}});
        apply_defaults(&mut pod, &range(limit));
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c"
        );
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "2"}}}]}});
        for (limit, want) in [
            (json!({"type": "Container", "max": {"cpu": "1"}}), "maximum cpu usage per Container is 1, but limit is 2"),
            (json!({"type": "Pod", "min": {"cpu": "1"}}), "minimum cpu usage per Pod is 1, but request is 100m"),
            (
                json!({"type": "Container", "min": {"memory": "1Mi"}}),
                "minimum memory usage per Container is 1Mi.  No request is specified",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "10"}}),
                "cpu max limit to request ratio per Container is 10, but provided ratio is 20.000000",
            ),
        ] {
            assert_eq!(violations("pods", &pod, &range(limit)), [want]);
        }
    }
}
