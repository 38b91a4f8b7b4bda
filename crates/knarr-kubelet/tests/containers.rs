//! Pods in real containers: a kubelet over a private containerd, against a small API in memory. Skipped without root or containerd.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use knarr_cri::{RemoteRuntime, RuntimeService as _, v1};
use knarr_kubelet::eviction::thresholds::{self, Threshold};
use knarr_kubelet::{Kubelet, KubeletConfig};
use serde_json::{Value, json};
use support::api::FakeApi;
use support::containerd::Containerd;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const NODE: &str = "test-node";
const CONTROL_GROUP: &str = "knarr-kubelet-test";

/// The kubelet's own groups outlive it; at the test's end nobody needs them.
struct ControlGroups;

impl Drop for ControlGroups {
    fn drop(&mut self) {
        let mount = Path::new("/sys/fs/cgroup");
        let hierarchies = std::fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in hierarchies.chain([mount.to_owned()]) {
            for class in ["burstable", "besteffort", ""] {
                let class = hierarchy.join(CONTROL_GROUP).join(class);
                for pod in std::fs::read_dir(&class).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_dir(pod.path());
                }
                let _ = std::fs::remove_dir(class);
            }
        }
    }
}

struct RunningKubelet {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl RunningKubelet {
    fn start(api: &FakeApi, containerd: &Containerd, directory: &Path) -> RunningKubelet {
        // The machine that runs the tests may have as little left as it likes.
        RunningKubelet::start_with(api, containerd, directory, Vec::new())
    }

    fn start_with(
        api: &FakeApi,
        containerd: &Containerd,
        directory: &Path,
        eviction_hard: Vec<Threshold>,
    ) -> RunningKubelet {
        let mut config = KubeletConfig::new(NODE, directory.join("kubelet"));
        config.pod_logs_dir = directory.join("logs");
        config.node_ips = vec!["10.213.7.1".parse().expect("an address")];
        config.cgroup_root = format!("/{CONTROL_GROUP}");
        config.cluster_dns = vec!["10.96.0.10".parse().expect("an address")];
        config.relist_period = Duration::from_millis(200);
        config.eviction_hard = eviction_hard;
        config.eviction_period = Duration::from_millis(500);
        config.static_pod_dir = Some(directory.join("manifests"));
        // However full the disk of the machine that runs the tests is, their images cannot be pulled again.
        config.image_gc_high = 100;
        let runtime = RemoteRuntime::new(&containerd.endpoint()).expect("an endpoint");
        let shutdown = CancellationToken::new();
        let kubelet = Kubelet::new(config, api.client(), Arc::new(runtime));
        let task = tokio::spawn(kubelet.run(shutdown.clone()));
        RunningKubelet { task, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("the kubelet ends well");
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = NODE.into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec, "status": {"phase": "Pending"}})
}

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "image": "busybox:test", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
}

fn with(mut container: Value, more: Value) -> Value {
    container.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    container
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == Some("True")
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = pod["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)?["status"].as_str()
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

const PODS: &str = "/api/v1/namespaces/default/pods";

/// One test for one containerd: its parts run side by side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_live_and_die_in_real_containers() {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_default())
        .with_test_writer()
        .try_init();
    let directory = tempfile::Builder::new().prefix("knarr-kubelet-").tempdir().expect("a directory");
    let containerd = match Containerd::start(directory.path()) {
        Ok(containerd) => containerd,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let _control_groups = ControlGroups;
    let api = FakeApi::new();
    let kubelet = RunningKubelet::start(&api, &containerd, directory.path());
    let node = api.until(&format!("/api/v1/nodes/{NODE}"), "ready", is_ready).await;
    assert_eq!(node["status"]["nodeInfo"]["kubeletVersion"], "v1.36.2");
    api.until(
        &format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"),
        "held",
        Value::is_object,
    )
    .await;

    tokio::join!(
        a_pod_finds_its_world_around_it(&api),
        a_job_completes(&api),
        a_failing_container_backs_off(&api),
        init_containers_come_first(&api),
        probes_decide_readiness_and_life(&api),
        a_missing_image_is_told(&api),
        volumes_follow_their_sources(&api, directory.path()),
        a_pod_that_fills_its_volume_is_evicted(&api),
        a_manifest_is_a_pod(&api, directory.path()),
        a_pod_deleted_by_force_ends(&api, &containerd),
        a_pod_that_comes_deleted_never_starts(&api, &containerd),
    );
    a_restarted_kubelet_restarts_nothing(&api, &containerd, directory.path(), kubelet).await;
}

async fn a_pod_finds_its_world_around_it(api: &FakeApi) {
    let script = "test \"$GREETING\" = hello && test \"$POD\" = world && test \"$LIMIT\" = 1 && grep -q world /etc/hosts \
        && grep -q 10.96.0.10 /etc/resolv.conf && test \"$(hostname)\" = world && test \"$(cat /var/run/secrets/token)\" = a-token \
        && echo fine > /dev/termination-log; exec sleep 1000";
    let script = script.replace("grep -q", "busybox grep -q");
    let container = with(
        shell("c", &script),
        json!({
        "env": [
            {"name": "GREETING", "value": "hello"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}],
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets"}],
        "lifecycle": {"preStop": {"exec": {"command": ["touch", "/tmp/stopped"]}}}}),
    );
    let token = json!({"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
    let path = api.create(
        PODS,
        pod("world", json!({"containers": [container], "volumes": [token], "terminationGracePeriodSeconds": 1})),
    );
    let running = api.until(&path, "ready", is_ready).await;
    assert_eq!(phase(&running), "Running");
    assert_eq!(running["status"]["qosClass"], "Guaranteed");
    assert!(running["status"]["podIP"].as_str().is_some_and(|ip| ip.starts_with("10.213.7.")));
    api.delete(&path, 1);
    api.until(&path, "terminated", |pod| container_message(pod) == Some("fine\n")).await;
    api.until_gone(&path).await;
}

fn container_message(pod: &Value) -> Option<&str> {
    container(pod)["state"]["terminated"]["message"].as_str()
}

async fn a_job_completes(api: &FakeApi) {
    let spec = json!({"restartPolicy": "Never", "containers": [shell("c", "exit 0")]});
    let done = api.until(&api.create(PODS, pod("done", spec)), "succeeded", |pod| phase(pod) == "Succeeded").await;
    assert_eq!(container(&done)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&done, "Ready"), Some("False"));
    let spec = json!({"restartPolicy": "Never", "containers": [shell("c", "exit 3")]});
    let failed = api.until(&api.create(PODS, pod("failed", spec)), "failed", |pod| phase(pod) == "Failed").await;
    assert_eq!(container(&failed)["state"]["terminated"]["exitCode"], 3);
}

async fn a_failing_container_backs_off(api: &FakeApi) {
    let path = api.create(PODS, pod("crash", json!({"containers": [shell("c", "exit 1")]})));
    let crashed =
        api.until(&path, "backing off", |pod| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff").await;
    assert_eq!(phase(&crashed), "Running");
    let message = container(&crashed)["state"]["waiting"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.starts_with("back-off 10s restarting failed container=c pod=crash_default("), "{message}");
    assert_eq!(container(&crashed)["lastState"]["terminated"]["exitCode"], 1);
    api.delete(&path, 0);
    api.until_gone(&path).await;
}

async fn init_containers_come_first(api: &FakeApi) {
    let mount = json!({"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]});
    let sidecar = with(shell("side", "exec sleep 1000"), json!({"restartPolicy": "Always"}));
    let path = api.create(
        PODS,
        pod(
            "init",
            json!({
        "initContainers": [with(shell("first", "echo 1 > /shared/one"), mount.clone()), sidecar],
        "containers": [with(shell("c", "test -f /shared/one && exec sleep 1000"), mount)],
        "volumes": [{"name": "shared", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 1}),
        ),
    );
    let ready = api.until(&path, "ready", is_ready).await;
    assert_eq!(ready["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    assert_eq!(ready["status"]["initContainerStatuses"][1]["ready"], true);
    assert_eq!(container(&ready)["restartCount"], 0);
    api.delete(&path, 1);
    api.until_gone(&path).await;
}

async fn probes_decide_readiness_and_life(api: &FakeApi) {
    let probe = |command: &str| json!({"exec": {"command": ["sh", "-c", command]}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1, "successThreshold": 1});
    let path = api.create(PODS, pod("probed", json!({
        "containers": [with(shell("c", "sleep 1; touch /tmp/started; sleep 1; touch /tmp/ready; sleep 1000"), json!({
            "startupProbe": {"exec": {"command": ["test", "-f", "/tmp/started"]}, "periodSeconds": 1, "failureThreshold": 30, "timeoutSeconds": 5},
            "readinessProbe": probe("test -f /tmp/ready"),
            "livenessProbe": probe("test ! -f /tmp/dead")}))],
        "terminationGracePeriodSeconds": 1})));
    api.until(&path, "running unready", |pod| phase(pod) == "Running" && !is_ready(pod)).await;
    api.until(&path, "ready", is_ready).await;
    api.delete(&path, 1);
    api.until_gone(&path).await;

    let path = api.create(
        PODS,
        pod(
            "doomed",
            json!({
        "containers": [with(shell("c", "exec sleep 1000"), json!({"livenessProbe": probe("false")}))],
        "terminationGracePeriodSeconds": 1}),
        ),
    );
    api.until(&path, "restarted", |pod| container(pod)["restartCount"].as_i64() >= Some(1)).await;
    api.delete(&path, 0);
    api.until_gone(&path).await;
}

async fn a_missing_image_is_told(api: &FakeApi) {
    let never = with(shell("c", "true"), json!({"image": "nowhere.invalid/none:1", "imagePullPolicy": "Never"}));
    let path = api.create(PODS, pod("never", json!({"containers": [never]})));
    api.until(&path, "refused", |pod| container(pod)["state"]["waiting"]["reason"] == "ErrImageNeverPull").await;
    api.delete(&path, 0);
    api.until_gone(&path).await;

    let bad = with(shell("c", "true"), json!({"image": "Not//Valid"}));
    let path = api.create(PODS, pod("bad", json!({"containers": [bad]})));
    api.until(&path, "refused", |pod| container(pod)["state"]["waiting"]["reason"] == "InvalidImageName").await;
    api.delete(&path, 0);
    api.until_gone(&path).await;
}

async fn volumes_follow_their_sources(api: &FakeApi, directory: &Path) {
    let config = json!({"metadata": {"name": "settings"}, "data": {"key": "one"}});
    let container =
        with(shell("c", "exec sleep 1000"), json!({"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}));
    let volumes = json!([{"name": "settings", "configMap": {"name": "settings", "defaultMode": 420}}]);
    let path = api.create(
        PODS,
        pod("config", json!({"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 1})),
    );
    // The pod waits for the ConfigMap, and takes it up when it comes.
    let settings = api.create("/api/v1/namespaces/default/configmaps", config);
    let ready = api.until(&path, "ready", is_ready).await;
    let uid = ready["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let file = directory.join("kubelet/pods").join(&uid).join("volumes/kubernetes.io~configmap/settings/key");
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "one");
    api.patch(&settings, &json!({"data": {"key": "two"}}));
    let changed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while std::fs::read_to_string(&file).ok().as_deref() != Some("two") {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the volume follows");
    api.delete(&path, 1);
    api.until_gone(&path).await;
    assert!(!directory.join("kubelet/pods").join(&uid).exists());
}

async fn a_pod_that_fills_its_volume_is_evicted(api: &FakeApi) {
    let script = "busybox dd if=/dev/zero of=/v/big bs=1M count=4; exec sleep 1000";
    let container = with(shell("c", script), json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}));
    let volumes = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]);
    let path = api.create(PODS, pod("greedy", json!({"containers": [container], "volumes": volumes})));
    let evicted = api.until(&path, "evicted", |pod| phase(pod) == "Failed").await;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    assert_eq!(evicted["status"]["message"], "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ");
    assert_eq!(condition(&evicted, "DisruptionTarget"), Some("True"));
    api.delete(&path, 1);
    api.until_gone(&path).await;
}

/// A static pod runs, its mirror shows it, deleting the mirror changes nothing, and it goes with its manifest.
async fn a_manifest_is_a_pod(api: &FakeApi, directory: &Path) {
    let manifests = directory.join("manifests");
    std::fs::create_dir_all(&manifests).expect("a directory");
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "static"}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [shell("c", "exec sleep 1000")]}});
    let file = manifests.join("static.yaml");
    std::fs::write(&file, manifest.to_string()).expect("written");
    let path = format!("{PODS}/static-{NODE}");
    let mirror = api.until(&path, "ready", is_ready).await;
    let id = |mirror: &Value| container(mirror)["containerID"].as_str().unwrap_or_default().to_owned();
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.source"], "file");
    api.delete(&path, 30);
    let again = |pod: &Value| pod["metadata"]["uid"] != mirror["metadata"]["uid"] && is_ready(pod);
    let again = api.until(&path, "made again", again).await;
    assert_eq!(id(&again), id(&mirror));
    std::fs::remove_file(&file).expect("removed");
    api.until_gone(&path).await;
}

/// How many containers and sandboxes of a pod the runtime has.
async fn remains(containerd: &Containerd, uid: &str) -> usize {
    let runtime = RemoteRuntime::new(&containerd.endpoint()).expect("an endpoint");
    let label_selector = HashMap::from([("io.kubernetes.pod.uid".to_owned(), uid.to_owned())]);
    let sandboxes = v1::PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
    let containers = v1::ContainerFilter { label_selector, ..Default::default() };
    let sandboxes = runtime.list_pod_sandboxes(Some(sandboxes)).await.expect("sandboxes");
    sandboxes.len() + runtime.list_containers(Some(containers)).await.expect("containers").len()
}

/// Its object is gone at once; what runs of it follows, without its grace.
async fn a_pod_deleted_by_force_ends(api: &FakeApi, containerd: &Containerd) {
    let stubborn = shell("c", "trap '' TERM; while :; do sleep 1; done");
    let path =
        api.create(PODS, pod("forced", json!({"containers": [stubborn], "terminationGracePeriodSeconds": 1000})));
    let ready = api.until(&path, "ready", is_ready).await;
    let uid = ready["metadata"]["uid"].as_str().expect("a uid").to_owned();
    assert_eq!(remains(containerd, &uid).await, 2);
    api.delete(&path, 0);
    api.remove(&path);
    let gone = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while remains(containerd, &uid).await > 0 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("nothing of it is left");
    assert!(api.get(&path).is_none(), "a pod that is gone stays gone");
}

async fn a_pod_that_comes_deleted_never_starts(api: &FakeApi, containerd: &Containerd) {
    let mut late = pod("late", json!({"containers": [shell("c", "exec sleep 1000")]}));
    late["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    late["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    let path = api.create(PODS, late);
    let uid = api.get(&path).expect("just made")["metadata"]["uid"].as_str().expect("a uid").to_owned();
    api.until_gone(&path).await;
    assert_eq!(remains(containerd, &uid).await, 0);
}

async fn a_restarted_kubelet_restarts_nothing(
    api: &FakeApi,
    containerd: &Containerd,
    directory: &Path,
    kubelet: RunningKubelet,
) {
    let container_of = |pod: &Value| container(pod)["containerID"].as_str().unwrap_or_default().to_owned();
    let path = api.create(
        PODS,
        pod("stays", json!({"containers": [shell("c", "exec sleep 1000")], "terminationGracePeriodSeconds": 1})),
    );
    let before = api.until(&path, "ready", is_ready).await;
    kubelet.stop().await;

    // A pod deleted while nobody looked, and one that came meanwhile.
    let meanwhile = api.create(
        PODS,
        pod("meanwhile", json!({"containers": [shell("c", "exec sleep 1000")], "terminationGracePeriodSeconds": 1})),
    );
    let kubelet = RunningKubelet::start(api, containerd, directory);
    api.until(&meanwhile, "ready", is_ready).await;
    let after = api.get(&path).expect("still there");
    assert_eq!(container_of(&before), container_of(&after));
    assert_eq!(container(&after)["restartCount"], 0);
    assert!(is_ready(&after));
    kubelet.stop().await;
    let no_room = thresholds::parse("nodefs.available<100%").expect("a threshold");
    let kubelet = RunningKubelet::start_with(api, containerd, directory, no_room);
    let evicted = api.until(&meanwhile, "evicted", |pod| phase(pod) == "Failed").await;
    assert_eq!(evicted["status"]["reason"], "Evicted");
    let message = evicted["status"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "), "{message}");
    let node_path = format!("/api/v1/nodes/{NODE}");
    api.until(&node_path, "under pressure", |node| condition(node, "DiskPressure") == Some("True")).await;
    let unwelcome = api.create(PODS, pod("unwelcome", json!({"containers": [shell("c", "exec sleep 1000")]})));
    let refused = api.until(&unwelcome, "refused", |pod| phase(pod) == "Failed").await;
    assert_eq!(refused["status"]["message"], "The node had condition: [DiskPressure]. ");
    for path in
        api.list("/pods/").iter().map(|pod| format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap_or_default()))
    {
        api.delete(&path, 1);
        api.until_gone(&path).await;
    }
    kubelet.stop().await;
}
