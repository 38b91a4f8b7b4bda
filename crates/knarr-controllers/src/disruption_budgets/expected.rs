//! How many pods a budget's owners want, and how many of them must be healthy.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudgetSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use knarr_client::Error;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::{discovery, meta};

/// What a budget asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub expected_pods: i32,
    pub desired_healthy: i32,
}

impl Demand {
    pub async fn of(spec: &PodDisruptionBudgetSpec, covered: &[Arc<Pod>], scales: &Scales) -> Result<Demand, Error> {
        let demand = match (&spec.max_unavailable, &spec.min_available) {
            (Some(most), _) => {
                let expected_pods = scales.total(covered).await?;
                let unavailable = rounded_up(most, expected_pods)?;
                Demand { expected_pods, desired_healthy: (expected_pods - unavailable).max(0) }
            }
            (None, Some(IntOrString::Int(least))) => {
                Demand { expected_pods: covered.len() as i32, desired_healthy: *least }
            }
            (None, Some(share)) => {
                let expected_pods = scales.total(covered).await?;
                Demand { expected_pods, desired_healthy: rounded_up(share, expected_pods)? }
            }
            (None, None) => Demand { expected_pods: 0, desired_healthy: 0 },
        };
        Ok(demand)
    }
}

fn rounded_up(value: &IntOrString, of: i32) -> Result<i32, Error> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
            let percent = percent.ok_or_else(|| {
                Error::other("invalid value for IntOrString: invalid type: string is not a percentage".to_string())
            })?;
            Ok((percent * i64::from(of) + 99).div_euclid(100) as i32)
        }
    }
}

/// What the controllers of pods want, by their scale.
pub(super) struct Scales {
    client: Client,
    /// The resources of the kinds asked for so far.
    resources: Mutex<HashMap<(String, String), ApiResource>>,
}

impl Scales {
    pub fn new(client: Client) -> Self {
        Scales { client, resources: Mutex::default() }
    }

    /// The sum over the pods' controllers. A pod without one is not expected; one with a controller without scale is an error.
    async fn total(&self, covered: &[Arc<Pod>]) -> Result<i32, Error> {
        let mut known: HashMap<String, i32> = HashMap::new();
        for pod in covered {
            let Some(owner) = meta::controller_of(&pod.metadata) else { continue };
            if !known.contains_key(&owner.uid) {
                let replicas = self.of_controller(meta::namespace_of(&**pod), owner).await?;
                known.insert(owner.uid.clone(), replicas);
            }
        }
        Ok(known.values().sum())
    }

    async fn of_controller(&self, namespace: &str, owner: &OwnerReference) -> Result<i32, Error> {
        if owner.kind != "ReplicaSet" || meta::group_of(&owner.api_version) != "apps" {
            return self.replicas(namespace, owner).await;
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), namespace);
        let Some(set) = api.get_opt(&owner.name).await?.filter(|set| meta::uid_of(set) == owner.uid) else {
            return Ok(0);
        };
        match meta::controller_of(&set.metadata) {
            // During a rollout a deployment's sets are more or fewer than it wants.
            Some(deployment) if deployment.kind == "Deployment" => self.replicas(namespace, deployment).await,
            _ => Ok(set.spec.and_then(|spec| spec.replicas).unwrap_or(1)),
        }
    }

    async fn replicas(&self, namespace: &str, owner: &OwnerReference) -> Result<i32, Error> {
        let resource = self.resource(owner).await?;
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get_subresource("scale", &owner.name).await {
            Ok(scale) => {
                let replicas = scale.data["spec"]["replicas"].as_i64().unwrap_or(0);
                i32::try_from(replicas).map_err(|error| Error::other(error.to_string()))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err(Error::other(format!("{} does not implement the scale subresource", owner.kind)))
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn resource(&self, owner: &OwnerReference) -> Result<ApiResource, Error> {
        let key = (owner.api_version.clone(), owner.kind.clone());
        if let Some(known) = self.resources.lock().get(&key) {
            return Ok(known.clone());
        }
        let (found, _) = discovery::preferred_resources(&self.client).await;
        let group = meta::group_of(&owner.api_version);
        let found = found.into_iter().find(|served| served.kind.group == group && served.kind.kind == owner.kind);
        let found =
            found.ok_or_else(|| Error::other(format!("no resource serves {} {}", owner.api_version, owner.kind)))?;
        self.resources.lock().insert(key, found.kind.clone());
        Ok(found.kind)
    }
}
