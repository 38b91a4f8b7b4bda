//! Pod disruption budgets: how many of a budget's pods are healthy, how many must be, and so how many may be evicted now.

mod expected;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use knarr_client::events::reference_to;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, ObjectKey, Reconciler, Recorder};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::context::Context;
use crate::{meta, pods};
use expected::{Demand, Scales};

const CONTROLLER: &str = "disruption-controller";
/// How long an evicted pod may take to be seen to go before it counts again.
const DISRUPTION_TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) async fn run(context: Arc<Context>) {
    let budgets = context.informers.all::<PodDisruptionBudget>();
    let pods = context.informers.all::<Pod>();
    let client = context.client(CONTROLLER);
    let loop_ = Budgets {
        budgets: budgets.clone(),
        pods: pods.clone(),
        scales: Scales::new(client.clone()),
        recorder: context.recorder(&client, "controllermanager"),
        client,
    };
    let covering = budgets.clone();
    Controller::new(loop_)
        .watch(&budgets, |event| vec![ObjectKey::of(&**event.object())])
        .watch(&pods, move |event| keys_of_pod(&covering, event))
        .run(context.shutdown.clone())
        .await;
}

fn keys_of_pod(budgets: &Informer<PodDisruptionBudget>, event: &Event<Pod>) -> Vec<ObjectKey> {
    if budgets.is_empty() {
        return Vec::new();
    }
    let all = budgets.in_namespace(meta::namespace_of(&**event.object()));
    let covers = |budget: &&Arc<PodDisruptionBudget>| event.objects().any(|pod| covers(budget, pod));
    all.iter().filter(covers).map(|budget| ObjectKey::of(&**budget)).collect()
}

fn covers(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.and_then(|s| meta::selector_of(s).ok()).is_some_and(|selector| meta::selects(&selector, &pod.metadata))
}

struct Budgets {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    scales: Scales,
    client: Client,
    recorder: Recorder,
}

#[async_trait::async_trait]
impl Reconciler for Budgets {
    type Key = ObjectKey;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Action, Error> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let covered: Vec<_> =
            self.pods.in_namespace(&key.namespace).into_iter().filter(|pod| covers(&budget, pod)).collect();
        if covered.is_empty() {
            self.recorder.event(&reference_to(&*budget), EventType::Normal, "NoPods", "No matching pods found");
        }
        let spec = budget.spec.clone().unwrap_or_default();
        match Demand::of(&spec, &covered, &self.scales).await {
            Ok(demand) => self.write(&budget, self.status(&budget, &covered, &demand)).await,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                let about = reference_to(&*budget);
                self.recorder.event(&about, EventType::Warning, "CalculateExpectedPodCountFailed", message);
                self.write(&budget, fail_safe(&budget, &error)).await?;
                Err(error)
            }
        }
    }
}

impl Budgets {
    fn status(&self, budget: &PodDisruptionBudget, covered: &[Arc<Pod>], demand: &Demand) -> PodDisruptionBudgetStatus {
        let disrupted = still_expected_to_go(budget, covered);
        let healthy = covered.iter().filter(|pod| {
            !meta::is_deleted(&***pod) && !disrupted.contains_key(meta::name_of(&***pod)) && pods::is_ready(pod)
        });
        let current_healthy = healthy.count() as i32;
        let spare = current_healthy - demand.desired_healthy;
        let allowed = if demand.expected_pods <= 0 { 0 } else { spare.max(0) };
        let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        PodDisruptionBudgetStatus {
            conditions: Some(conditions(budget, status, reason, String::new())),
            current_healthy: Some(current_healthy),
            desired_healthy: Some(demand.desired_healthy),
            disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
            disruptions_allowed: Some(allowed),
            expected_pods: Some(demand.expected_pods),
            observed_generation: budget.metadata.generation,
        }
    }

    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<Action, Error> {
        // An entry that overstays must be looked at again, whatever else happens.
        let waits = status.disrupted_pods.iter().flatten().map(|(_, since)| remaining(since)).min();
        let next = waits.map_or(Action::Done, |wait| Action::RequeueAfter(wait.max(Duration::from_secs(1))));
        if budget.status.as_ref() == Some(&status) {
            return Ok(next);
        }
        let updated = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), meta::namespace_of(budget));
        let written = api.replace_status(meta::name_of(budget), &PostParams::default(), &updated).await;
        knarr_client::error::found(written)?;
        Ok(next)
    }
}

/// Nothing may be evicted from a budget that cannot be computed.
fn fail_safe(budget: &PodDisruptionBudget, error: &Error) -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        disruptions_allowed: Some(0),
        conditions: Some(conditions(budget, "False", "SyncFailed", error.to_string())),
        observed_generation: budget.metadata.generation,
        ..budget.status.clone().unwrap_or_default()
    }
}

fn conditions(budget: &PodDisruptionBudget, status: &str, reason: &str, message: String) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let known = all.iter().position(|condition| condition.type_ == "DisruptionAllowed");
    let since = known.map(|at| &all[at]).filter(|known| known.status == status);
    let condition = Condition {
        type_: "DisruptionAllowed".into(),
        status: status.into(),
        reason: reason.into(),
        message,
        last_transition_time: since.map_or_else(meta::now, |known| known.last_transition_time.clone()),
        observed_generation: budget.metadata.generation,
    };
    match known {
        Some(at) => all[at] = condition,
        None => all.push(condition),
    }
    all
}

/// Pods that were evicted and are not seen to go yet.
fn still_expected_to_go(budget: &PodDisruptionBudget, covered: &[Arc<Pod>]) -> BTreeMap<String, Time> {
    let listed = budget.status.as_ref().and_then(|status| status.disrupted_pods.clone()).unwrap_or_default();
    let stays = |name: &str| covered.iter().any(|pod| meta::name_of(&**pod) == name && !meta::is_deleted(&**pod));
    listed.into_iter().filter(|(name, since)| stays(name) && !remaining(since).is_zero()).collect()
}

fn remaining(since: &Time) -> Duration {
    DISRUPTION_TIMEOUT.saturating_sub(meta::since(since))
}
