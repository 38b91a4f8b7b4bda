//! Lifecycle hooks: what a container asks to be done after its start and before its end.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use knarr_cri::Runtime;

use crate::pod::DesiredContainer;
use crate::probes::check;

/// A hook that asks over HTTP gets an answer within this time or failed.
const HTTP_LIMIT: Duration = Duration::from_secs(30);

/// Runs a hook to its end; the error says how it failed, in upstream's words.
pub async fn run(
    runtime: &dyn Runtime,
    handler: &LifecycleHandler,
    container: &DesiredContainer,
    id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let answer = runtime.exec_sync(id, command, Duration::ZERO).await.map_err(|error| error.to_string())?;
        return match answer.exit_code {
            0 => Ok(()),
            code => Err(format!("command '{shown}' exited with {code}: {}", String::from_utf8_lossy(&answer.stderr))),
        };
    }
    if let Some(action) = &handler.http_get {
        // Any answer will do: upstream only asks that there is one.
        return check::http_get(action, container, pod_ip, HTTP_LIMIT).await.map(drop);
    }
    if let Some(action) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(action.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    if let Some(action) = &handler.tcp_socket {
        return match check::tcp(action, container, pod_ip, HTTP_LIMIT).await {
            check::Outcome::Success => Ok(()),
            check::Outcome::Failure(error) | check::Outcome::Error(error) => Err(error),
        };
    }
    Err("invalid handler".to_owned())
}
