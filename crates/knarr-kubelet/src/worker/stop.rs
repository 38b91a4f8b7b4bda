//! Stopping one container: its `preStop` hook, then the runtime.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use knarr_client::events::EventType;
use tokio::time::Instant;

use crate::context::NodeContext;
use crate::hooks;
use crate::pod::DesiredPod;

/// The least a container gets between being asked and being killed, even when its hook used up all.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// A container to stop.
pub struct Stop {
    pub node: Arc<NodeContext>,
    pub pod: Arc<DesiredPod>,
    pub id: String,
    pub name: String,
    pub message: String,
    pub grace: Duration,
    pub pod_ip: String,
}

impl Stop {
    /// Asks the container to end and waits until it did.
    pub async fn run(self) -> knarr_cri::Result<()> {
        let container = self.pod.container(&self.name);
        let field_path = container.map(crate::pod::DesiredContainer::field_path);
        let about = ObjectReference { field_path, ..self.pod.reference() };
        self.node.recorder.event(&about, EventType::Normal, "Killing", self.message.clone());
        let began = Instant::now();
        let lifecycle = container.and_then(|container| container.spec.lifecycle.as_ref());
        if let Some((handler, container)) = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref()).zip(container)
            && !self.grace.is_zero()
        {
            let hook = hooks::run(&*self.node.runtime, handler, container, &self.id, &self.pod_ip);
            if let Ok(Err(error)) = tokio::time::timeout(self.grace, hook).await {
                tracing::info!(pod = %self.pod.described(), container = self.name, error, "a preStop hook failed");
                self.node.recorder.event(&about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
        }
        let left = self.grace.saturating_sub(began.elapsed());
        match self.node.runtime.stop_container(&self.id, left.max(MINIMUM_GRACE)).await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }
}
