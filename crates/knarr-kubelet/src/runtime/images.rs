//! Images: whether a container's image is there, and pulling it when it is not, in the background and with back-off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use knarr_client::events::{EventType, Recorder};
use knarr_cri::Runtime;
use knarr_cri::v1::{AuthConfig, Image, PodSandboxConfig};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::security::ImageUser;
use crate::worker::status::Waiting;

const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long a failed pull is shown as that before it is shown as backing off, however often it is looked at meanwhile.
const SHOWN_AS_FAILED: Duration = Duration::from_secs(2);

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// The policy a container names; without one, an image that names no fixed version is always pulled.
    pub fn of(named: Option<&str>, image: &str) -> PullPolicy {
        match named {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if with_default_tag(image).is_ok_and(|name| name.ends_with(":latest")) => PullPolicy::Always,
            _ => PullPolicy::IfNotPresent,
        }
    }
}

/// A container's wish for an image.
pub struct Wish {
    /// What events are about: the pod, at the container's path.
    pub about: ObjectReference,
    pub pod_uid: String,
    pub image: String,
    pub policy: PullPolicy,
    pub auths: Vec<AuthConfig>,
    pub sandbox: PodSandboxConfig,
}

/// What became of a wish.
#[derive(Debug)]
pub enum Answer {
    /// The image is there; the runtime knows it by this reference.
    Ready { reference: String, user: ImageUser },
    /// It is being pulled; the wisher is woken at the end.
    Pulling,
    /// It cannot be had now; ask again after the time given, if it can help.
    Unavailable { waiting: Waiting, again_after: Option<Duration> },
}

/// Whose pull: a pod waits for its own pulls alone, since its secrets decide them.
type Key = (String, String);

enum Pull {
    Running { _task: AbortOnDropHandle<()> },
    Done { reference: String },
    Failed(Failure),
}

/// A pull that failed at `at`; the next is after `wait`.
#[derive(Clone)]
struct Failure {
    error: String,
    at: Instant,
    wait: Duration,
}

/// The images of a node.
pub struct Images {
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    pulls: Mutex<HashMap<Key, Pull>>,
}

impl Images {
    pub fn new(runtime: Arc<dyn Runtime>, recorder: Recorder) -> Arc<Images> {
        Arc::new(Images { runtime, recorder, pulls: Mutex::default() })
    }

    /// Answers a wish at once; a pull goes on in the background and wakes `wake` at its end.
    pub async fn ensure(self: &Arc<Self>, wish: Wish, wake: &Arc<Notify>) -> Answer {
        let name = match with_default_tag(&wish.image) {
            Ok(name) => name,
            Err(error) => return self.invalid_name(&wish, &error),
        };
        let present = match self.runtime.image_status(&name).await {
            Ok(present) => present,
            Err(error) => return self.inspect_failed(&wish, &error.to_string()),
        };
        // The runtime shows an image a moment before its pull returns.
        if self.is_being_pulled(&wish) {
            return Answer::Pulling;
        }
        match (wish.policy, present) {
            (PullPolicy::Never, None) => self.never_pulled(&wish),
            (PullPolicy::Never | PullPolicy::IfNotPresent, Some(image)) => {
                if !self.forget_done(&wish) {
                    let message = format!(
                        "Container image \"{}\" already present on machine and can be accessed by the pod",
                        wish.image
                    );
                    self.recorder.event(&wish.about, EventType::Normal, "Pulled", message);
                }
                Answer::Ready { reference: image.id.clone(), user: user_of(&image) }
            }
            (PullPolicy::Always | PullPolicy::IfNotPresent, present) => self.pull(wish, name, present, wake).await,
        }
    }

    /// Forgets the pulls of a pod that is gone, and stops those under way.
    pub fn forget_pod(&self, uid: &str) {
        self.pulls.lock().retain(|(pod, _), _| pod != uid);
    }

    fn is_being_pulled(&self, wish: &Wish) -> bool {
        let key = (wish.pod_uid.clone(), wish.image.clone());
        matches!(self.pulls.lock().get(&key), Some(Pull::Running { .. }))
    }

    /// Whether this pod's pull of the image just ended well; it counts once.
    fn forget_done(&self, wish: &Wish) -> bool {
        let key = (wish.pod_uid.clone(), wish.image.clone());
        let mut pulls = self.pulls.lock();
        let done = matches!(pulls.get(&key), Some(Pull::Done { .. }));
        if done {
            pulls.remove(&key);
        }
        done
    }

    async fn pull(self: &Arc<Self>, wish: Wish, name: String, present: Option<Image>, wake: &Arc<Notify>) -> Answer {
        let key = (wish.pod_uid.clone(), wish.image.clone());
        let done = {
            let mut pulls = self.pulls.lock();
            match pulls.remove(&key) {
                Some(running @ Pull::Running { .. }) => {
                    pulls.insert(key, running);
                    return Answer::Pulling;
                }
                Some(Pull::Done { reference }) => Some(reference),
                Some(Pull::Failed(failure)) if failure.at.elapsed() < failure.wait => {
                    pulls.insert(key, Pull::Failed(failure.clone()));
                    drop(pulls);
                    return self.not_yet(&wish, &failure);
                }
                last => {
                    let last_wait = match last {
                        Some(Pull::Failed(failure)) => Some(failure.wait),
                        _ => None,
                    };
                    let task = self.start(wish, name, key.clone(), last_wait, wake.clone());
                    pulls.insert(key, Pull::Running { _task: task });
                    return Answer::Pulling;
                }
            }
        };
        let reference = done.unwrap_or_default();
        // The status asked before the pull may have ended; ask again for what was pulled.
        let image = match self.runtime.image_status(&reference).await {
            Ok(Some(image)) => Some(image),
            _ => present,
        };
        let user = image.as_ref().map(user_of).unwrap_or_default();
        Answer::Ready { reference: image.map_or(reference, |image| image.id), user }
    }

    fn start(
        self: &Arc<Self>,
        wish: Wish,
        name: String,
        key: Key,
        last_wait: Option<Duration>,
        wake: Arc<Notify>,
    ) -> AbortOnDropHandle<()> {
        let images = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            images.recorder.event(
                &wish.about,
                EventType::Normal,
                "Pulling",
                format!("Pulling image \"{}\"", wish.image),
            );
            let began = Instant::now();
            let outcome = match images.pull_with_each(&name, &wish).await {
                Ok(reference) => {
                    images.report_pulled(&wish, &reference, began.elapsed()).await;
                    Pull::Done { reference }
                }
                Err(error) => {
                    images.report_failed(&wish, &error);
                    let wait = last_wait.map_or(FIRST_WAIT, |wait| (wait * 2).min(LONGEST_WAIT));
                    Pull::Failed(Failure { error, at: Instant::now(), wait })
                }
            };
            // Replacing the entry drops this very task's handle, which aborts at the next await: there is none.
            images.pulls.lock().insert(key, outcome);
            wake.notify_one();
        }))
    }

    /// Tries the pod's credentials in turn, or none if there are none.
    async fn pull_with_each(&self, name: &str, wish: &Wish) -> Result<String, String> {
        let attempts = if wish.auths.is_empty() { vec![None] } else { wish.auths.iter().cloned().map(Some).collect() };
        let mut last = String::new();
        for auth in attempts {
            match self.runtime.pull_image(name, auth, Some(wish.sandbox.clone())).await {
                Ok(reference) => return Ok(reference),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn report_pulled(&self, wish: &Wish, reference: &str, took: Duration) {
        let size = self.runtime.image_status(reference).await.ok().flatten().map_or(0, |image| image.size);
        let took = in_words(took);
        let message = format!(
            "Successfully pulled image \"{}\" in {took} ({took} including waiting). Image size: {size} bytes.",
            wish.image
        );
        self.recorder.event(&wish.about, EventType::Normal, "Pulled", message);
    }

    fn report_failed(&self, wish: &Wish, error: &str) {
        let message = format!("Failed to pull image \"{}\": {error}", wish.image);
        self.recorder.event(&wish.about, EventType::Warning, "Failed", message);
        self.recorder.event(&wish.about, EventType::Warning, "Failed", "Error: ErrImagePull");
    }

    fn not_yet(&self, wish: &Wish, Failure { error, at, wait }: &Failure) -> Answer {
        let since = at.elapsed();
        if since < SHOWN_AS_FAILED {
            let waiting = Waiting::new("ErrImagePull", error);
            return Answer::Unavailable { waiting, again_after: Some(SHOWN_AS_FAILED - since) };
        }
        let left = wait.saturating_sub(since);
        let back_off = format!("Back-off pulling image \"{}\"", wish.image);
        self.recorder.event(&wish.about, EventType::Normal, "BackOff", back_off.clone());
        self.recorder.event(&wish.about, EventType::Warning, "Failed", "Error: ImagePullBackOff");
        let waiting = Waiting::new("ImagePullBackOff", format!("{back_off}: ErrImagePull: {error}"));
        Answer::Unavailable { waiting, again_after: Some(left) }
    }

    fn invalid_name(&self, wish: &Wish, error: &str) -> Answer {
        let message = format!("Failed to apply default image tag \"{}\": {error}", wish.image);
        self.recorder.event(&wish.about, EventType::Warning, "InspectFailed", message.clone());
        self.recorder.event(&wish.about, EventType::Warning, "Failed", "Error: InvalidImageName");
        Answer::Unavailable { waiting: Waiting::new("InvalidImageName", message), again_after: None }
    }

    fn inspect_failed(&self, wish: &Wish, error: &str) -> Answer {
        let message = format!("Failed to inspect image \"{}\": {error}", wish.image);
        self.recorder.event(&wish.about, EventType::Warning, "InspectFailed", message.clone());
        Answer::Unavailable { waiting: Waiting::new("ImageInspectError", message), again_after: Some(FIRST_WAIT) }
    }

    fn never_pulled(&self, wish: &Wish) -> Answer {
        let message = format!("Container image \"{}\" is not present with pull policy of Never", wish.image);
        self.recorder.event(&wish.about, EventType::Warning, "ErrImageNeverPull", message.clone());
        self.recorder.event(&wish.about, EventType::Warning, "Failed", "Error: ErrImageNeverPull");
        Answer::Unavailable { waiting: Waiting::new("ErrImageNeverPull", message), again_after: Some(FIRST_WAIT) }
    }
}

fn user_of(image: &Image) -> ImageUser {
    // The protocol leaves both empty where the image names nobody: that is root.
    let unnamed = image.username.is_empty();
    let uid = image.uid.as_ref().map(|uid| uid.value).or(unnamed.then_some(0));
    ImageUser { uid, name: image.username.clone() }
}

/// The image's name with `:latest` where it names neither tag nor digest.
pub fn with_default_tag(image: &str) -> Result<String, String> {
    let invalid = |why: &str| format!("couldn't parse image name \"{image}\": invalid reference format{why}");
    let repository = repository(image);
    if repository.chars().any(char::is_uppercase) {
        return Err(invalid(&format!(": repository name ({repository}) must be lowercase")));
    }
    if !is_reference(image) {
        return Err(invalid(""));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    let fixed = last.contains(':') || image.contains('@');
    Ok(if fixed { image.to_owned() } else { format!("{image}:latest") })
}

/// The path of an image in its registry, with what an image of the default registry leaves out.
fn repository(image: &str) -> String {
    let has_host =
        |first: &str| first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase);
    let path = image.split_once('/').filter(|(first, _)| has_host(first)).map(|(_, path)| path);
    let name = |path: &str| path.split(':').next().unwrap_or_default().to_owned();
    match path {
        Some(path) => name(path),
        None if image.contains('/') => name(image),
        None => format!("library/{}", name(image)),
    }
}

/// The grammar of image references: `[host[:port]/]path[:tag][@digest]`.
fn is_reference(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return false;
    }
    let (directory, last) = name.rsplit_once('/').map_or(("", name), |(directory, last)| (directory, last));
    let (last, tag) = last.split_once(':').map_or((last, None), |(last, tag)| (last, Some(tag)));
    if !tag.is_none_or(is_tag) || !is_path_component(last) {
        return false;
    }
    let mut components = directory.split('/').filter(|_| !directory.is_empty());
    let Some(first) = components.next() else { return true };
    (is_path_component(first) || is_host(first)) && components.all(is_path_component)
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    bytes.len() <= 128
        && bytes.first().is_some_and(|first| word(*first))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_path_component(component: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = bytes.first().is_some_and(|b| lower(*b)) && bytes.last().is_some_and(|b| lower(*b));
    ends_well && bytes.iter().all(|b| lower(*b) || matches!(b, b'.' | b'_' | b'-')) && !component.contains("..")
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let labels =
        name.split('.').all(|label| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    (bracketed || labels) && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// A duration to the millisecond, as Go prints it.
fn in_words(took: Duration) -> String {
    let milliseconds = took.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let seconds = format!("{}.{:03}", (milliseconds / 1000) % 60, milliseconds % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    let minutes = milliseconds / 60_000;
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_version_means_the_latest_and_a_bad_name_is_refused() {
        for (image, name) in [
            ("busybox", Some("busybox:latest")),
            ("localhost:5000/a/b", Some("localhost:5000/a/b:latest")),
            ("reg.example/a:1.2", Some("reg.example/a:1.2")),
            ("a@sha256:0123456789abcdef0123456789abcdef", Some("a@sha256:0123456789abcdef0123456789abcdef")),
            ("Bad_Name", None),
            ("a b", None),
            ("", None),
            ("busybox:", None),
            ("a//b", None),
        ] {
            assert_eq!(with_default_tag(image).ok().as_deref(), name, "{image}");
        }
        assert_eq!(PullPolicy::of(None, "busybox"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "busybox:1"), PullPolicy::IfNotPresent);
    }

    #[test]
    fn durations_read_as_upstreams() {
        assert_eq!(in_words(Duration::from_millis(350)), "350ms");
        assert_eq!(in_words(Duration::from_millis(1200)), "1.2s");
        assert_eq!(in_words(Duration::from_millis(61_005)), "1m1.005s");
    }
}
