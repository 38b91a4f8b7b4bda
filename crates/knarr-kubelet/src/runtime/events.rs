//! Which pods changed in the runtime: its events where it sends any, a cheap list where not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use knarr_cri::Runtime;
use tokio_util::sync::CancellationToken;

use super::labels;

/// With events at hand, lists only mend what an event missed.
const MENDING_PERIOD: Duration = Duration::from_secs(300);

/// What a list shows of a pod: its sandboxes and containers with their states.
type Snapshot = HashMap<String, Vec<(String, i32)>>;

/// Calls `changed` with the uid of every pod that changed in the runtime, until `shutdown`.
pub async fn watch(runtime: Arc<dyn Runtime>, period: Duration, changed: impl Fn(&str), shutdown: CancellationToken) {
    let mut seen = Snapshot::new();
    while !shutdown.is_cancelled() {
        match runtime.container_events().await {
            Ok(mut events) => {
                let mut mend = tokio::time::interval(MENDING_PERIOD);
                loop {
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        _ = mend.tick() => relist(&*runtime, &mut seen, &changed).await,
                        event = events.next() => match event {
                            Some(Ok(event)) => {
                                let metadata = event.pod_sandbox_status.and_then(|status| status.metadata);
                                metadata.iter().for_each(|metadata| changed(&metadata.uid));
                            }
                            _ => break,
                        },
                    }
                }
            }
            Err(error) if error.is_unimplemented() => return poll(runtime, period, seen, changed, shutdown).await,
            Err(error) => tracing::debug!(%error, "no container events"),
        }
        relist(&*runtime, &mut seen, &changed).await;
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

async fn poll(
    runtime: Arc<dyn Runtime>,
    period: Duration,
    mut seen: Snapshot,
    changed: impl Fn(&str),
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => relist(&*runtime, &mut seen, &changed).await,
        }
    }
}

async fn relist(runtime: &dyn Runtime, seen: &mut Snapshot, changed: &impl Fn(&str)) {
    let (sandboxes, containers) =
        match futures::try_join!(runtime.list_pod_sandboxes(None), runtime.list_containers(None)) {
            Ok(lists) => lists,
            Err(error) => {
                tracing::warn!(%error, "the runtime cannot be listed");
                return;
            }
        };
    let mut now = Snapshot::new();
    for sandbox in sandboxes {
        let uid = sandbox.metadata.map(|metadata| metadata.uid).unwrap_or_default();
        now.entry(uid).or_default().push((sandbox.id, sandbox.state));
    }
    for mut container in containers {
        let uid = container.labels.remove(labels::POD_UID).unwrap_or_default();
        now.entry(uid).or_default().push((container.id, container.state));
    }
    now.values_mut().for_each(|states| states.sort_unstable());
    now.iter().filter(|(uid, states)| seen.get(*uid) != Some(states)).for_each(|(uid, _)| changed(uid));
    seen.keys().filter(|uid| !now.contains_key(*uid)).for_each(|uid| changed(uid));
    *seen = now;
}
