//! Cluster roles with an aggregation rule hold the rules of all cluster roles that it selects.

use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "clusterrole-aggregation-controller";

pub(crate) async fn run(context: Arc<Context>) {
    let roles = context.informers.all::<ClusterRole>();
    let loop_ = Aggregation { roles: roles.clone(), client: context.client(CONTROLLER) };
    let all = roles.clone();
    Controller::new(loop_)
        .watch(&roles, move |_: &Event<ClusterRole>| {
            let aggregating = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
            aggregating.map(|role| meta::name_of(&*role).to_string()).collect()
        })
        .run(context.shutdown.clone())
        .await;
}

struct Aggregation {
    roles: Informer<ClusterRole>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for Aggregation {
    type Key = String;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(role) = self.roles.get("", name) else { return Ok(Action::Done) };
        let Some(rules) = self.aggregate(&role)? else { return Ok(Action::Done) };
        if role.rules.as_deref().unwrap_or_default() == rules {
            return Ok(Action::Done);
        }
        let patch = serde_json::json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules,
        });
        let api: Api<ClusterRole> = Api::all(self.client.clone());
        api.patch(name, &PatchParams::apply(CONTROLLER).force(), &Patch::Apply(patch)).await?;
        Ok(Action::Done)
    }
}

impl Aggregation {
    /// The rules of the selected roles in the order of their names, each once; `None` for a role that aggregates nothing.
    fn aggregate(&self, role: &ClusterRole) -> Result<Option<Vec<PolicyRule>>, Error> {
        let Some(rule) = &role.aggregation_rule else { return Ok(None) };
        let mut all = self.roles.list();
        all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let mut rules: Vec<PolicyRule> = Vec::new();
        for selector in rule.cluster_role_selectors.iter().flatten() {
            let selector = meta::selector_of(selector)?;
            let selected = all.iter().filter(|other| other.metadata.name != role.metadata.name);
            for other in selected.filter(|other| meta::selects(&selector, &other.metadata)) {
                for rule in other.rules.iter().flatten() {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        Ok(Some(rules))
    }
}
