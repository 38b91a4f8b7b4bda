//! The labels and annotations by which a kubelet finds its sandboxes and containers again. Names are upstream's, so that tools which
//! look into the runtime (`crictl`, log collectors) work.

use std::collections::HashMap;

use crate::pod::{DesiredContainer, DesiredPod};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const POD_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The file on the node that the container writes its termination message to.
pub const TERMINATION_MESSAGE_FILE: &str = "knarr.dev/termination-message-file";

type Map = HashMap<String, String>;

fn identity(pod: &DesiredPod) -> Map {
    HashMap::from([
        (POD_NAME.to_owned(), pod.name.clone()),
        (POD_NAMESPACE.to_owned(), pod.namespace.clone()),
        (POD_UID.to_owned(), pod.uid.clone()),
    ])
}

/// The pod's own labels and its identity.
pub fn of_sandbox(pod: &DesiredPod) -> Map {
    let mut labels: Map = pod.object.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(identity(pod));
    labels
}

pub fn of_container(pod: &DesiredPod, container: &DesiredContainer) -> Map {
    let mut labels = identity(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name().to_owned());
    labels
}

/// What must survive a restart of the kubelet and is nowhere else in the runtime.
pub fn container_annotations(pod: &DesiredPod, container: &DesiredContainer, attempt: u32, message_file: &str) -> Map {
    let spec = &container.spec;
    let path = spec.termination_message_path.clone().unwrap_or_default();
    let policy = spec.termination_message_policy.clone().unwrap_or_default();
    HashMap::from([
        (CONTAINER_HASH.to_owned(), container.hash.clone()),
        (CONTAINER_RESTART_COUNT.to_owned(), attempt.to_string()),
        (TERMINATION_MESSAGE_PATH.to_owned(), path),
        (TERMINATION_MESSAGE_POLICY.to_owned(), policy),
        (TERMINATION_MESSAGE_FILE.to_owned(), message_file.to_owned()),
        (POD_GRACE_PERIOD.to_owned(), pod.grace_seconds().to_string()),
    ])
}
