use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::quantity::Quantity;
use knarr_api::quota::{self, Counted, Quota, Usage};
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::refusal::forbidden;
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

/// No more is made in a namespace than its quotas allow. The check and the count are one compare-and-swap of the quota's status,
/// so that no two requests get the same last place.
pub struct ResourceQuota {
    pub objects: Arc<dyn Objects>,
}

/// What a write adds to one quota.
struct Charge {
    quota: Arc<Object>,
    delta: Usage,
    hard: Usage,
}

fn quotas() -> GroupResource {
    GroupResource::new("", "resourcequotas")
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let counted_subresource = request.resource.resource == "pods" && request.subresource == "resize";
        if request.namespace.is_empty() || !(request.subresource.is_empty() || counted_subresource) {
            return Ok(());
        }
        let Some(object) = &request.object else { return Ok(()) };
        let all = self.objects.list(&quotas(), &request.namespace).await?;
        if all.is_empty() {
            return Ok(());
        }
        // Every quota is asked before one is charged: a refusal must leave nothing counted.
        let charges = charges(request, &all, object)?;
        for charge in &charges {
            charge.add_to(&mut Object::clone(&charge.quota)).map_err(|why| forbidden(request, why))?;
        }
        if request.dry_run {
            return Ok(());
        }
        for charge in &charges {
            let mut change = |quota: &mut Object| charge.add_to(quota).map_err(|why| forbidden(request, why));
            self.objects.modify(&quotas(), &request.namespace, charge.quota.name(), &mut change).await?;
        }
        Ok(())
    }
}

fn charges(request: &Request, all: &[Arc<Object>], object: &Object) -> Result<Vec<Charge>, StatusError> {
    let resource = request.resource.group_resource();
    let now = Counted::of(&resource, object);
    let updated = request.old_object.as_deref().filter(|_| request.operation == Operation::Update);
    let before = updated.map(|old| Counted::of(&resource, old));
    let mut charges = Vec::new();
    for object_of_quota in all {
        let mut quota = Quota::of(object_of_quota);
        // What is enforced is what the quota controller has counted, and nothing before it has.
        quota.hard = quota::amounts(object_of_quota.pointer("/status/hard"));
        if !quota.selects(&now) {
            continue;
        }
        if request.operation == Operation::Create
            && let Some(missing) = quota::unspecified(&resource, object, &quota.hard)
        {
            let name = object_of_quota.name();
            return Err(forbidden(request, format!("failed quota: {name}: must specify {missing}")));
        }
        let delta = delta(&quota, &now, before.as_ref());
        if !delta.is_empty() {
            charges.push(Charge { quota: object_of_quota.clone(), delta, hard: quota.hard });
        }
    }
    Ok(charges)
}

/// What this write adds to the resources that the quota limits; what it gives back is the quota controller's to count.
fn delta(quota: &Quota, now: &Counted, before: Option<&Counted>) -> Usage {
    let mut delta = now.usage.clone();
    for (name, amount) in before.filter(|before| quota.selects(before)).iter().flat_map(|before| &before.usage) {
        if let Some(now) = delta.get_mut(name) {
            *now = *now - *amount;
        }
    }
    delta.retain(|name, quantity| quota.hard.contains_key(name) && *quantity > Quantity::from_i64(0));
    delta
}

impl Charge {
    fn add_to(&self, quota: &mut Object) -> Result<(), String> {
        let Charge { delta, hard, .. } = self;
        let name = quota.name().to_string();
        let used = quota::amounts(quota.pointer("/status/used"));
        let unknown: Vec<&str> = delta.keys().filter(|r| !used.contains_key(*r)).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
        }
        let after = |r: &String| used[r] + delta[r];
        let exceeded: Vec<&String> = delta.keys().filter(|r| after(r) > hard[*r]).collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Usage| {
                let list: Vec<String> = exceeded.iter().map(|r| format!("{r}={}", amounts[*r])).collect();
                list.join(",")
            };
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                shown(delta),
                shown(&used),
                shown(hard)
            ));
        }
        for resource in delta.keys() {
            quota["status"]["used"][resource] = Value::from(after(resource).to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::refusal::text;
    use super::*;
    use crate::testing::Memory;

    fn request(name: &str) -> Request {
        let pods = knarr_api::GroupVersionResource::new("", "v1", "pods");
        Request {
            operation: Operation::Create,
            resource: knarr_api::resource::built_in().by_gvr(&pods).unwrap().clone(),
            subresource: String::new(),
            namespace: "a".into(),
            name: name.into(),
            user: Arc::default(),
            object: Some(json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}})),
            says_empty: false,
            old_object: None,
            options: json!({}),
            dry_run: false,
            warnings: Vec::new(),
            audit_annotations: Vec::new(),
            reinvocation: Default::default(),
        }
    }

    #[tokio::test]
    async fn the_last_place_goes_to_one() {
        let objects = Memory::new();
        let hard = json!({"pods": "5", "requests.cpu": "1"});
        let used = json!({"pods": "0", "requests.cpu": "0"});
        objects.put(
            "",
            "resourcequotas",
            json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard},
            "status": {"hard": hard, "used": used}}),
        );
        let plugin = ResourceQuota { objects: objects.clone() };
        let mut requests: Vec<Request> = (0..4).map(|i| request(&format!("p{i}"))).collect();
        let outcomes = futures::future::join_all(requests.iter_mut().map(|r| plugin.validate(r))).await;
        let refused: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused.len(), 2);
        assert_eq!(
            refused[0].message,
            r#"pods "p2" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=1, limited: requests.cpu=1"#
        );
        let quota = objects.get(&quotas(), "a", "q").await.unwrap().unwrap();
        assert_eq!(text(&quota, "/status/used/pods"), "2");
    }

    #[tokio::test]
    async fn a_limited_resource_must_be_asked_for() {
        let objects = Memory::new();
        objects.put(
            "",
            "resourcequotas",
            json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": {"limits.memory": "1Gi"}},
            "status": {"hard": {"limits.memory": "1Gi"}, "used": {"limits.memory": "0"}}}),
        );
        let error = ResourceQuota { objects }.validate(&mut request("p")).await.unwrap_err();
        assert_eq!(error.message, r#"pods "p" is forbidden: failed quota: q: must specify limits.memory for: c"#);
    }
}
