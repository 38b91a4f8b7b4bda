//! What must have been done once before the API server is healthy, under upstream's names.

use knarr_apiserver::health::{HealthCheck, StartHook};

/// The hooks of this server.
pub struct StartHooks {
    /// The default objects are stored: upstream makes them in several hooks, here they are one step.
    objects: [StartHook; 5],
    pub flow_control: StartHook,
}

impl StartHooks {
    pub fn new() -> Self {
        StartHooks {
            objects: [
                "bootstrap-controller",
                "rbac/bootstrap-roles",
                "scheduling/bootstrap-system-priority-classes",
                "priority-and-fairness-config-producer",
                "start-system-namespaces-controller",
            ]
            .map(StartHook::new),
            flow_control: StartHook::new("priority-and-fairness-config-consumer"),
        }
    }

    /// The default objects are stored.
    pub fn objects_done(&self) {
        self.objects.iter().for_each(StartHook::done);
    }

    pub fn checks(&self) -> impl Iterator<Item = HealthCheck> {
        self.objects.iter().chain([&self.flow_control]).map(StartHook::check)
    }
}
