//! Pod disruption budgets, as preemption respects them.

use std::{collections::HashMap, sync::Arc};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use knarr_api::selector::LabelSelector;
use knarr_client::ObjectKey;

use crate::{pod::PodInfo, selector::label_selector};

struct Budget {
    selector: LabelSelector,
    allowed: i32,
    /// Pods that are being disrupted and counted already.
    disrupted: Vec<String>,
}

/// All budgets.
#[derive(Default)]
pub struct Budgets {
    budgets: HashMap<ObjectKey, Budget>,
}

impl Budgets {
    /// Takes note of a budget.
    pub fn set(&mut self, budget: &PodDisruptionBudget) {
        let selector = label_selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()));
        let status = budget.status.as_ref();
        let disrupted = status.and_then(|status| status.disrupted_pods.as_ref());
        let budget_of = Budget {
            selector,
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            disrupted: disrupted.into_iter().flat_map(|pods| pods.keys().cloned()).collect(),
        };
        self.budgets.insert(ObjectKey::of(budget), budget_of);
    }

    /// The budget is gone.
    pub fn remove(&mut self, budget: &PodDisruptionBudget) {
        self.budgets.remove(&ObjectKey::of(budget));
    }

    /// Which of the pods could not be taken away, in this order, without breaking a budget.
    pub fn violated_by(&self, pods: &[Arc<PodInfo>]) -> Vec<bool> {
        let mut left: HashMap<&ObjectKey, i32> =
            self.budgets.iter().map(|(key, budget)| (key, budget.allowed)).collect();
        pods.iter().map(|pod| self.take(pod, &mut left)).collect()
    }

    fn take<'a>(&'a self, pod: &PodInfo, left: &mut HashMap<&'a ObjectKey, i32>) -> bool {
        let mut violated = false;
        for (key, _) in self.budgets.iter().filter(|(key, budget)| budget.covers(key, pod)) {
            let left = left.entry(key).or_default();
            *left -= 1;
            violated |= *left < 0;
        }
        violated
    }
}

impl Budget {
    fn covers(&self, key: &ObjectKey, pod: &PodInfo) -> bool {
        // As upstream has it, a budget whose selector is empty covers nobody here, and neither is a pod without labels covered.
        key.namespace == pod.key.namespace
            && !pod.labels.is_empty()
            && !self.selector.is_everything()
            && self.selector.matches(&pod.labels)
            && !self.disrupted.iter().any(|name| **name == *pod.key.name)
    }
}
