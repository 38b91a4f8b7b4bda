//! What must have been done once before the API server is healthy. Upstream does in many hooks what is one step here; whoever asks for one of
//! them by its name is answered by the step that does its work.

use knarr_apiserver::health::{HealthCheck, StartStage};

/// The stages of this server, in the order in which they end.
pub struct StartStages {
    /// The default objects are stored, and the numbers of services are known.
    pub objects: StartStage,
    pub flow_control: StartStage,
    /// The authorizers, and with them everything that follows the caches, have seen what was stored.
    pub following: StartStage,
    /// Every group and version that is served here has its APIService.
    pub aggregation: StartStage,
}

impl StartStages {
    pub fn new() -> Self {
        StartStages {
            objects: StartStage::new(&[
                "poststarthook/bootstrap-controller",
                "poststarthook/rbac/bootstrap-roles",
                "poststarthook/scheduling/bootstrap-system-priority-classes",
                "poststarthook/priority-and-fairness-config-producer",
                "poststarthook/start-system-namespaces-controller",
                "poststarthook/start-cluster-authentication-info-controller",
                "poststarthook/start-kubernetes-service-cidr-controller",
                "poststarthook/start-service-ip-repair-controllers",
            ]),
            flow_control: StartStage::new(&[
                "poststarthook/priority-and-fairness-config-consumer",
                "poststarthook/priority-and-fairness-filter",
            ]),
            following: StartStage::new(&[
                "poststarthook/start-apiserver-admission-initializer",
                "poststarthook/generic-apiserver-start-informers",
                "poststarthook/storage-readiness",
                "poststarthook/start-apiextensions-informers",
                "poststarthook/start-apiextensions-controllers",
                "poststarthook/crd-informer-synced",
                "poststarthook/start-kube-aggregator-informers",
            ]),
            aggregation: StartStage::new(&[
                "poststarthook/apiservice-registration-controller",
                "poststarthook/apiservice-discovery-controller",
                "poststarthook/apiservice-status-local-available-controller",
                "poststarthook/apiservice-status-remote-available-controller",
                "poststarthook/apiservice-openapi-controller",
                "poststarthook/apiservice-openapiv3-controller",
                "poststarthook/kube-apiserver-autoregistration",
                "autoregister-completion",
            ]),
        }
    }

    pub fn checks(&self) -> impl Iterator<Item = HealthCheck> {
        [&self.objects, &self.flow_control, &self.following, &self.aggregation].into_iter().flat_map(StartStage::checks)
    }
}
