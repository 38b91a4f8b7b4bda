//! The kubelet: joins the pieces, follows the pods bound to its node, and gives every pod a worker.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use knarr_client::events::Recorder;
use knarr_client::informer::{Event, Informer, Informers, Selection};
use knarr_cri::Runtime;
use knarr_cri::v1::{self, ContainerFilter};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cgroups::Cgroups;
use crate::config::KubeletConfig;
use crate::context::NodeContext;
use crate::pod::{DesiredPod, PodSource};
use crate::runtime::images::Images;
use crate::runtime::{events, labels};
use crate::view::{ContainerView, NodeView};
use crate::volumes::references::References;
use crate::volumes::token::Tokens;
use crate::worker::{PodWorker, Wanted, WorkerHandle};
use crate::{admission, logs, node, orphans};

const LOG_PERIOD: Duration = Duration::from_secs(10);
const IMAGE_PERIOD: Duration = Duration::from_secs(300);

type Workers = Mutex<HashMap<String, WorkerHandle>>;

/// A node agent. [`Kubelet::run`] works until its shutdown; pods go on running after it.
pub struct Kubelet {
    node: Arc<NodeContext>,
    pods: Informer<Pod>,
    /// This node alone: users label it too.
    own_node: Informer<Node>,
    workers: Arc<Workers>,
    stop: CancellationToken,
}

impl Kubelet {
    /// A kubelet over `runtime` that acts as whoever `client` is. Must be called inside a tokio runtime.
    pub fn new(config: KubeletConfig, client: kube::Client, runtime: Arc<dyn Runtime>) -> Kubelet {
        let stop = CancellationToken::new();
        let informers = Informers::new(client.clone(), stop.clone());
        let pods = informers.selected::<Pod>(Selection::fields(&format!("spec.nodeName={}", config.node_name)));
        let own_node = informers.selected::<Node>(Selection::fields(&format!("metadata.name={}", config.node_name)));
        let recorder = Recorder::new(client.clone(), "kubelet", &config.node_name);
        let node = NodeContext {
            images: Images::new(runtime.clone(), recorder.clone()),
            tokens: Tokens::new(client.clone()),
            references: References::new(client.clone()),
            services: informers.all::<Service>(),
            cgroups: Cgroups::new(&config.cgroup_root),
            allocatable: node::machine::capacity(&config),
            runtime_name: OnceLock::new(),
            recorder,
            client,
            runtime,
            config,
        };
        Kubelet { node: Arc::new(node), pods, own_node, workers: Arc::default(), stop }
    }

    /// What the kubelet's HTTPS API may see.
    pub fn view(&self) -> Arc<dyn NodeView> {
        Arc::new(View { node: self.node.clone(), pods: self.pods.clone(), workers: self.workers.clone() })
    }

    /// Registers the node and runs its pods until `shutdown`; then stops looking after them and leaves them running.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let stop = self.stop.clone();
            let _stop_with_this = stop.clone().drop_guard();
            let tasks = TaskTracker::new();
            if self.wait_for_runtime(&shutdown).await {
                node::register(&self.node, &shutdown).await;
                self.spawn_chores(&tasks, &stop);
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = self.follow_pods(&tasks) => {}
                }
            }
            stop.cancel();
            tasks.close();
            tasks.wait().await;
        })
    }

    /// True once the runtime answers; false if shutdown came first.
    async fn wait_for_runtime(&self, shutdown: &CancellationToken) -> bool {
        loop {
            match self.node.runtime.version().await {
                Ok(version) => {
                    let _ = self.node.runtime_name.set(version.runtime_name);
                    return true;
                }
                Err(error) => tracing::debug!(%error, "the container runtime does not answer yet"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    fn spawn_chores(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(node::keep_lease(self.node.clone(), stop.clone()));
        tasks.spawn(node::keep_status(self.node.clone(), stop.clone()));
        let workers = self.workers.clone();
        let wake = move |uid: &str| {
            if let Some(worker) = workers.lock().get(uid) {
                worker.wake.notify_one();
            }
        };
        let (runtime, period) = (self.node.runtime.clone(), self.node.config.relist_period);
        let watch_stop = stop.clone();
        tasks.spawn(async move { events::watch(runtime, period, wake, watch_stop).await });
        tasks.spawn(every(LOG_PERIOD, stop.clone(), self.node.clone(), |node| async move {
            logs::rotate(&*node.runtime, node.config.log_max_size, node.config.log_max_files).await;
        }));
        tasks.spawn(every(IMAGE_PERIOD, stop.clone(), self.node.clone(), |node| async move {
            orphans::collect_images(&node).await;
        }));
    }

    async fn follow_pods(&self, tasks: &TaskTracker) {
        self.pods.synced().await;
        self.node.services.synced().await;
        // Found before any worker starts, so that no pod that comes meanwhile looks like an orphan.
        let known = self.pods.list().iter().filter_map(|pod| pod.metadata.uid.clone()).collect();
        let orphans = orphans::find(&self.node, &known).await;
        let (node, stop) = (self.node.clone(), self.stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = orphans::remove(&node, orphans) => {}
            }
        });
        let mut changes = self.pods.subscribe();
        while let Some(change) = changes.recv().await {
            match change {
                Event::Added(pod) => self.take(pod, tasks),
                Event::Updated { old, new } => {
                    // Another pod took the name while nobody looked.
                    if old.metadata.uid != new.metadata.uid {
                        self.let_go(old);
                    }
                    self.take(new, tasks);
                }
                Event::Deleted(pod) => self.let_go(pod),
            }
        }
    }

    fn take(&self, object: Arc<Pod>, tasks: &TaskTracker) {
        let pod = Arc::new(DesiredPod::new(object, PodSource::Api));
        let workers = self.workers.lock();
        if let Some(worker) = workers.get(&pod.uid) {
            worker.wanted.send_replace(Wanted::Pod(pod));
            return;
        }
        drop(workers);
        self.spawn_worker(pod, tasks);
    }

    fn spawn_worker(&self, pod: Arc<DesiredPod>, tasks: &TaskTracker) {
        let verdict = self.refuse(&pod);
        let uid = pod.uid.clone();
        let (worker, handle) = PodWorker::new(self.node.clone(), pod, verdict);
        self.workers.lock().insert(uid.clone(), handle);
        let (workers, stop) = (self.workers.clone(), self.stop.clone());
        tasks.spawn(async move {
            worker.run(stop).await;
            workers.lock().remove(&uid);
        });
    }

    /// A pod that this node did not take on yet must fit.
    fn refuse(&self, pod: &DesiredPod) -> Option<crate::worker::status::Verdict> {
        let taken_on = pod.status().is_some_and(|status| status.start_time.is_some());
        if taken_on || pod.is_deleted() || pod.is_terminal() {
            return None;
        }
        let held: Vec<DesiredPod> = {
            let workers = self.workers.lock();
            workers.values().filter_map(wanted_pod).collect()
        };
        let verdict = admission::refuse(pod, held.iter(), &self.node.allocatable, &self.node_labels())?;
        let (reason, message) = (verdict.reason.as_str(), verdict.message.clone());
        self.node.recorder.event(&pod.reference(), knarr_client::events::EventType::Warning, reason, message);
        Some(verdict)
    }

    /// What the kubelet gives its node, and what everybody else did.
    fn node_labels(&self) -> BTreeMap<String, String> {
        let mut labels = node::labels(&self.node);
        let own = self.own_node.get("", &self.node.config.node_name);
        labels.extend(own.and_then(|node| node.metadata.labels.clone()).into_iter().flatten());
        labels
    }

    fn let_go(&self, object: Arc<Pod>) {
        let pod = Arc::new(DesiredPod::new(object, PodSource::Api));
        if let Some(worker) = self.workers.lock().get(&pod.uid) {
            worker.wanted.send_replace(Wanted::Gone(pod));
        }
    }
}

fn wanted_pod(worker: &WorkerHandle) -> Option<DesiredPod> {
    match &*worker.wanted.borrow() {
        Wanted::Pod(pod) => Some((**pod).clone()),
        Wanted::Gone(_) => None,
    }
}

async fn every<F>(
    period: Duration,
    stop: CancellationToken,
    node: Arc<NodeContext>,
    chore: impl Fn(Arc<NodeContext>) -> F,
) where
    F: Future<Output = ()>,
{
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => chore(node.clone()).await,
        }
    }
}

struct View {
    node: Arc<NodeContext>,
    pods: Informer<Pod>,
    workers: Arc<Workers>,
}

impl View {
    fn with_newest_status(&self, pod: Arc<Pod>) -> Arc<Pod> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let status = self.workers.lock().get(uid).and_then(|worker| worker.status.lock().clone());
        match status {
            Some(status) => Arc::new(Pod { status: Some(status), ..(*pod).clone() }),
            None => pod,
        }
    }

    fn uid_of(&self, namespace: &str, name: &str) -> Option<String> {
        self.pods.get(namespace, name)?.metadata.uid.clone()
    }
}

#[async_trait]
impl NodeView for View {
    fn node_name(&self) -> &str {
        &self.node.config.node_name
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.list().into_iter().map(|pod| self.with_newest_status(pod)).collect()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(namespace, name).map(|pod| self.with_newest_status(pod))
    }

    async fn containers(&self, namespace: &str, pod: &str, container: &str) -> knarr_cri::Result<Vec<ContainerView>> {
        let Some(uid) = self.uid_of(namespace, pod) else { return Ok(Vec::new()) };
        let label_selector = HashMap::from([
            (labels::POD_UID.to_owned(), uid),
            (labels::CONTAINER_NAME.to_owned(), container.to_owned()),
        ]);
        let filter = ContainerFilter { label_selector, ..ContainerFilter::default() };
        let mut listed = self.node.runtime.list_containers(Some(filter)).await?;
        listed.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let mut views = Vec::with_capacity(listed.len());
        for one in listed {
            match self.node.runtime.container_status(&one.id).await {
                Ok(status) => views.push(container_view(status)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(views)
    }

    async fn sandbox(&self, namespace: &str, pod: &str) -> knarr_cri::Result<Option<String>> {
        let Some(uid) = self.uid_of(namespace, pod) else { return Ok(None) };
        let label_selector = HashMap::from([(labels::POD_UID.to_owned(), uid)]);
        let state = Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 });
        let filter = v1::PodSandboxFilter { label_selector, state, ..Default::default() };
        let listed = self.node.runtime.list_pod_sandboxes(Some(filter)).await?;
        Ok(listed.into_iter().max_by_key(|sandbox| sandbox.created_at).map(|sandbox| sandbox.id))
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        self.node.runtime.clone()
    }

    fn pod_logs_dir(&self) -> &Path {
        &self.node.config.pod_logs_dir
    }

    fn configuration(&self) -> serde_json::Value {
        let config = &self.node.config;
        serde_json::json!({"kubeletconfig": {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "port": config.port,
            "clusterDomain": config.cluster_domain,
            "clusterDNS": config.cluster_dns,
            "maxPods": config.max_pods,
            "cgroupRoot": config.cgroup_root,
            "cgroupDriver": "cgroupfs",
            "staticPodPath": config.static_pod_dir,
            "containerLogMaxSize": config.log_max_size.to_string(),
            "containerLogMaxFiles": config.log_max_files,
            "imageGCHighThresholdPercent": config.image_gc_high,
            "imageGCLowThresholdPercent": config.image_gc_low,
            "nodeStatusUpdateFrequency": format!("{}s", config.node_status_frequency.as_secs()),
            "resolvConf": config.resolv_conf,
        }})
    }
}

fn container_view(status: v1::ContainerStatus) -> ContainerView {
    let metadata = status.metadata.unwrap_or_default();
    ContainerView {
        state: v1::ContainerState::try_from(status.state).unwrap_or(v1::ContainerState::ContainerUnknown),
        log_path: status.log_path.into(),
        name: metadata.name,
        attempt: metadata.attempt,
        id: status.id,
    }
}
