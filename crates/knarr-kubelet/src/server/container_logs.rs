//! `/containerLogs/NAMESPACE/POD/CONTAINER`.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use knarr_cri::v1::ContainerState;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::logs::{self, Liveness, LogOptions, LogSource, Output};
use super::respond::{Body, BoxError, Failure, parameters};
use crate::view::{ContainerView, NodeView};

pub(super) async fn serve(
    view: &Arc<dyn NodeView>,
    namespace: &str,
    pod_name: &str,
    container: &str,
    query: Option<&str>,
) -> Result<Response<Body>, Failure> {
    let options = parse(query, Timestamp::now())?;
    let pod =
        view.pod(namespace, pod_name).ok_or_else(|| Failure::not_found(format!("pod \"{pod_name}\" not found\n")))?;
    if !has_container(&pod, container) {
        let message = format!("container \"{container}\" not found in pod \"{pod_name}\"\n");
        return Err(Failure::not_found(message));
    }
    let containers = view.containers(namespace, pod_name, container).await.map_err(Failure::internal)?;
    let chosen = choose(&pod, pod_name, container, options.previous, containers)?;
    let writer = Box::new(ContainerLiveness { view: view.clone(), id: chosen.id.clone() });
    let source = LogSource { path: chosen.log_path, writer };
    if let Err(error) = tokio::fs::metadata(&source.path).await {
        let message = format!("failed to try resolving symlinks in path \"{}\": {error}", source.path.display());
        return Err(Failure::internal(message));
    }
    Ok(stream(source, options))
}

fn stream(source: LogSource, options: LogOptions) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    // The task ends with the log or when the response, and the receiver with it, is dropped.
    tokio::spawn(logs::read(source, options, sender));
    let frames = ReceiverStream::new(receiver).map(|piece| piece.map(Frame::data).map_err(BoxError::from));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

struct ContainerLiveness {
    view: Arc<dyn NodeView>,
    id: String,
}

#[async_trait]
impl Liveness for ContainerLiveness {
    async fn is_running(&self) -> bool {
        let status = self.view.runtime().container_status(&self.id).await;
        status.is_ok_and(|status| status.state == ContainerState::ContainerRunning as i32)
    }
}

fn parse(query: Option<&str>, now: Timestamp) -> Result<LogOptions, Failure> {
    let mut options = LogOptions::default();
    for (name, value) in parameters(query) {
        let invalid = |_| Failure::bad_request(format!("{{\"message\": \"invalid value for {name}\"}}"));
        let set = matches!(value.as_str(), "1" | "true" | "");
        match name.as_str() {
            "follow" => options.follow = set,
            "previous" => options.previous = set,
            "timestamps" => options.timestamps = set,
            // "all" asks for the whole log, as upstream's kubelet has it.
            "tailLines" if value != "all" => options.tail_lines = Some(value.parse().map_err(|_| ()).map_err(invalid)?),
            "limitBytes" => options.limit_bytes = Some(value.parse().map_err(|_| ()).map_err(invalid)?),
            "sinceSeconds" => {
                let seconds: i64 = value.parse().map_err(|_| ()).map_err(invalid)?;
                options.since = now.checked_sub(SignedDuration::from_secs(seconds)).ok();
            }
            "sinceTime" => options.since = Some(value.parse().map_err(|_| ()).map_err(invalid)?),
            "stream" => {
                options.only = match value.as_str() {
                    "Stdout" => Some(Output::Stdout),
                    "Stderr" => Some(Output::Stderr),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    Ok(options)
}

fn has_container(pod: &Pod, name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let plain = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.name);
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| &c.name);
    plain.chain(ephemeral).any(|known| known == name)
}

/// The container whose log is asked for, of those the runtime still has (newest first); or upstream's word on why there is none.
fn choose(
    pod: &Pod,
    pod_name: &str,
    container: &str,
    previous: bool,
    containers: Vec<ContainerView>,
) -> Result<ContainerView, Failure> {
    let mut started = containers.into_iter().filter(|c| c.state != ContainerState::ContainerCreated);
    if previous {
        let gone = || format!("previous terminated container \"{container}\" in pod \"{pod_name}\" not found");
        // As the status tells it: while a container waits for its next start, the newest that ended is already the previous one.
        let ended = status_of(pod, container).and_then(|status| status.last_state.as_ref()?.terminated.as_ref());
        let id = ended.and_then(|ended| ended.container_id.as_deref()).unwrap_or_default();
        return started.find(|c| id.ends_with(&c.id)).ok_or_else(|| Failure::bad_request(gone()));
    }
    started.next().ok_or_else(|| Failure::bad_request(why_not_started(pod, pod_name, container)))
}

fn why_not_started(pod: &Pod, pod_name: &str, container: &str) -> String {
    let waiting = status_of(pod, container).and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let why = match waiting.as_deref() {
        None => return format!("container \"{container}\" in pod \"{pod_name}\" is not available"),
        Some("ErrImagePull") => "image can't be pulled",
        Some("ImagePullBackOff") => "trying and failing to pull image",
        Some(reason) => reason,
    };
    format!("container \"{container}\" in pod \"{pod_name}\" is waiting to start: {why}")
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_those_of_the_api() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let options = parse(Some("follow=true&tailLines=5&sinceSeconds=60&timestamps=1&limitBytes=9"), now).unwrap();
        assert_eq!(options.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!((options.follow, options.timestamps), (true, true));
        assert_eq!((options.tail_lines, options.limit_bytes), (Some(5), Some(9)));
        assert!(parse(Some("tailLines=-1"), now).is_err());
        assert!(parse(Some("sinceSeconds=9223372036854775807"), now).is_ok());
    }

    #[test]
    fn a_waiting_container_has_no_log_and_says_why() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]},
            "status": {"containerStatuses": [{"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
        }))
        .unwrap();
        let refused = choose(&pod, "p", "c", false, Vec::new()).unwrap_err();
        assert_eq!(refused.code, 400);
        assert_eq!(
            refused.message,
            "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image"
        );
        assert!(choose(&pod, "p", "c", true, Vec::new()).unwrap_err().message.starts_with("previous terminated"));
    }
}
