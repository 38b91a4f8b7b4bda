//! The kubelet: joins the pieces, follows the pods bound to its node, and gives every pod a worker.

use std::collections::{HashMap, HashSet};
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
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Demands;
use crate::cgroups::Cgroups;
use crate::config::KubeletConfig;
use crate::context::NodeContext;
use crate::eviction::{self, Candidate, Pressures};
use crate::pod::{DesiredPod, PodSource};
use crate::runtime::images::Images;
use crate::runtime::{events, labels};
use crate::static_pods::{self, StaticPods, mirrored, runtime_uid};
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
    statics: watch::Sender<StaticPods>,
    /// A worker ended: a static pod that waits for its name may start.
    ended: Arc<Notify>,
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
            pods: pods.clone(),
            cgroups: Cgroups::new(&config.cgroup_root),
            allocatable: node::machine::allocatable(&config),
            pressures: Pressures::default(),
            allocations: Mutex::default(),
            runtime_name: OnceLock::new(),
            recorder,
            client,
            runtime,
            config,
        };
        let (statics, ended) = (watch::Sender::default(), Arc::default());
        Kubelet { node: Arc::new(node), pods, own_node, statics, ended, workers: Arc::default(), stop }
    }

    /// What the kubelet's HTTPS API may see.
    pub fn view(&self) -> Arc<dyn NodeView> {
        let (node, pods, workers) = (self.node.clone(), self.pods.clone(), self.workers.clone());
        Arc::new(View { node, pods, statics: self.statics.subscribe(), workers })
    }

    /// Registers the node and runs its pods until `shutdown`; then stops looking after them and leaves them running.
    pub fn run(self, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let stop = self.stop.clone();
            let _stop_with_this = stop.clone().drop_guard();
            let tasks = TaskTracker::new();
            if self.wait_for_runtime(&shutdown).await {
                self.spawn_runtime_chores(&tasks, &stop);
                let of_api = async {
                    node::register(&self.node, &shutdown).await;
                    tasks.spawn(node::keep_lease(self.node.clone(), stop.clone()));
                    tasks.spawn(node::keep_status(self.node.clone(), stop.clone()));
                    self.follow_pods(&tasks).await;
                };
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    ((), ()) = async { tokio::join!(self.run_static_pods(&tasks), of_api) } => {}
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

    fn spawn_runtime_chores(&self, tasks: &TaskTracker, stop: &CancellationToken) {
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
        let workers = self.workers.clone();
        tasks.spawn(every(self.node.config.eviction_period, stop.clone(), self.node.clone(), move |node| {
            let candidates = workers.lock().values().filter_map(candidate).collect();
            async move { eviction::look(&node, candidates).await }
        }));
        tasks.spawn(every(IMAGE_PERIOD, stop.clone(), self.node.clone(), |node| async move {
            orphans::collect_images(&node).await;
        }));
    }

    async fn follow_pods(&self, tasks: &TaskTracker) {
        self.pods.synced().await;
        self.node.services.synced().await;
        // Found before any worker starts, so that no pod that comes meanwhile looks like an orphan.
        let (pods, statics, workers) = (self.pods.clone(), self.statics.subscribe(), self.workers.clone());
        let known = move || known_pods(&pods, &statics.borrow(), &workers);
        let orphans = orphans::find(&self.node, &known()).await;
        let (node, stop) = (self.node.clone(), self.stop.clone());
        tasks.spawn(async move {
            let care = async {
                orphans::remove(&node, orphans).await;
                orphans::keep_away(&node, &known).await;
            };
            stop.run_until_cancelled(care).await;
        });
        let mut changes = self.pods.subscribe();
        while let Some(change) = changes.recv().await {
            match change {
                Event::Added(pod) => self.take(pod, tasks).await,
                Event::Updated { old, new } => {
                    // Another pod took the name while nobody looked.
                    if old.metadata.uid != new.metadata.uid {
                        self.let_go(old);
                    }
                    self.take(new, tasks).await;
                }
                Event::Deleted(pod) => self.let_go(pod),
            }
        }
    }

    /// Runs the pods of this node's manifests, whether or not there is an API.
    async fn run_static_pods(&self, tasks: &TaskTracker) {
        let Some(directory) = self.node.config.static_pod_dir.clone() else { return };
        let workers = self.workers.clone();
        let ended = move |hash: &str| !workers.lock().contains_key(hash);
        let mirrors =
            static_pods::mirror::keep(self.node.clone(), self.own_node.clone(), self.statics.subscribe(), ended);
        let mut changes = self.statics.subscribe();
        let run = async {
            loop {
                let wanted = changes.borrow_and_update().clone();
                self.take_static(&wanted, tasks);
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = self.ended.notified() => {}
                }
            }
        };
        let follow = static_pods::follow(directory, self.node.config.node_name.clone(), self.statics.clone());
        tokio::join!(follow, run, mirrors);
    }

    /// Lets go of static pods that are not wanted any more, and starts those whose names are free.
    fn take_static(&self, wanted: &StaticPods, tasks: &TaskTracker) {
        let mut taken = HashSet::new();
        for worker in self.workers.lock().values() {
            let pod = worker.wanted.borrow().pod().clone();
            let key = (pod.namespace.clone(), pod.name.clone());
            if pod.source == PodSource::Static {
                if wanted.get(&key).is_none_or(|wanted| wanted.uid != pod.uid) {
                    worker.wanted.send_replace(Wanted::Gone(pod));
                }
                taken.insert(key);
            }
        }
        for (_, pod) in wanted.iter().filter(|(key, _)| !taken.contains(*key)) {
            self.spawn_worker(pod.clone(), &self.demands(self.own_node().as_deref()), tasks);
        }
    }

    async fn take(&self, object: Arc<Pod>, tasks: &TaskTracker) {
        if let Some(hash) = mirrored(&object) {
            return self.wake(hash);
        }
        let pod = Arc::new(DesiredPod::new(object, PodSource::Api));
        if let Some(worker) = self.workers.lock().get(&pod.uid) {
            worker.wanted.send_replace(Wanted::Pod(pod));
            return;
        }
        let demands = self.demands_on(&pod).await;
        self.spawn_worker(pod, &demands, tasks);
    }

    /// What the node demands: where that which is known here does not let the pod in, as the API has it now. The scheduler may have heard
    /// of a change before this node did.
    async fn demands_on(&self, pod: &DesiredPod) -> Demands {
        let known = self.demands(self.own_node().as_deref());
        if known.refuse(pod).is_none() {
            return known;
        }
        let now = node::now(&self.node.client, &self.node.config.node_name).await;
        now.map_or(known, |node| self.demands(Some(&node)))
    }

    fn own_node(&self) -> Option<Arc<Node>> {
        self.own_node.get("", &self.node.config.node_name)
    }

    /// The labels that the kubelet gives its node, and what everybody else did.
    fn demands(&self, own: Option<&Node>) -> Demands {
        let mut labels = node::labels(&self.node);
        labels.extend(own.and_then(|node| node.metadata.labels.clone()).into_iter().flatten());
        let taints = own.and_then(|node| node.spec.as_ref()?.taints.clone()).unwrap_or_default();
        Demands { node_name: self.node.config.node_name.clone(), labels, taints }
    }

    fn spawn_worker(&self, pod: Arc<DesiredPod>, demands: &Demands, tasks: &TaskTracker) {
        let verdict = self.refuse(&pod, demands);
        let uid = pod.uid.clone();
        let (worker, handle) = PodWorker::new(self.node.clone(), pod, verdict);
        self.workers.lock().insert(uid.clone(), handle);
        let (node, workers) = (self.node.clone(), self.workers.clone());
        let (ended, stop) = (self.ended.clone(), self.stop.clone());
        tasks.spawn(async move {
            worker.run(stop).await;
            node.allocations.lock().remove(&uid);
            workers.lock().remove(&uid);
            ended.notify_one();
        });
    }

    fn wake(&self, uid: &str) {
        if let Some(worker) = self.workers.lock().get(uid) {
            worker.wake.notify_one();
        }
    }

    /// A pod that this node did not take on yet must fit.
    fn refuse(&self, pod: &DesiredPod, demands: &Demands) -> Option<crate::worker::status::Verdict> {
        let taken_on = pod.status().is_some_and(|status| status.start_time.is_some());
        if taken_on || pod.is_deleted() || pod.is_terminal() {
            return None;
        }
        let held: Vec<DesiredPod> = {
            let workers = self.workers.lock();
            workers.values().filter_map(wanted_pod).collect()
        };
        let verdict = eviction::refuse(pod, &self.node.pressures)
            .or_else(|| admission::refuse(pod, held.iter(), &self.node.allocatable, demands))?;
        let (reason, message) = (verdict.reason.as_str(), verdict.message.clone());
        self.node.recorder.event(&pod.reference(), knarr_client::events::EventType::Warning, reason, message);
        Some(verdict)
    }

    fn let_go(&self, object: Arc<Pod>) {
        if let Some(hash) = mirrored(&object) {
            return self.wake(hash);
        }
        let pod = Arc::new(DesiredPod::new(object, PodSource::Api));
        if let Some(worker) = self.workers.lock().get(&pod.uid) {
            worker.wanted.send_replace(Wanted::Gone(pod));
        }
    }
}

/// The uids of all pods that the API or a manifest wants on this node, and of those that still have a worker.
fn known_pods(pods: &Informer<Pod>, statics: &StaticPods, workers: &Workers) -> HashSet<String> {
    let of_api = pods.list().into_iter().filter_map(|pod| pod.metadata.uid.clone());
    let of_manifests = statics.values().map(|pod| pod.uid.clone());
    of_api.chain(of_manifests).chain(workers.lock().keys().cloned()).collect()
}

/// A pod that runs here, as eviction sees it.
fn candidate(worker: &WorkerHandle) -> Option<Candidate> {
    let status = worker.status.lock();
    let phase = status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Pending" | "Running")) {
        return None;
    }
    let pod = match &*worker.wanted.borrow() {
        Wanted::Pod(pod) if !pod.is_deleted() => pod.clone(),
        _ => return None,
    };
    let (evicted, wake) = (worker.evicted.clone(), worker.wake.clone());
    let evict = Box::new(move |verdict| {
        *evicted.lock() = Some(verdict);
        wake.notify_one();
    });
    Some(Candidate { pod, evict })
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
    statics: watch::Receiver<StaticPods>,
    workers: Arc<Workers>,
}

impl View {
    fn with_newest_status(&self, pod: Arc<Pod>) -> Arc<Pod> {
        let uid = runtime_uid(&pod).unwrap_or_default();
        let status = self.workers.lock().get(uid).and_then(|worker| worker.status.lock().clone());
        match status {
            Some(status) => Arc::new(Pod { status: Some(status), ..(*pod).clone() }),
            None => pod,
        }
    }

    fn uid_of(&self, namespace: &str, name: &str) -> Option<String> {
        runtime_uid(&*self.pods.get(namespace, name).or_else(|| self.static_pod(namespace, name))?).map(str::to_owned)
    }

    fn static_pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.statics.borrow().get(&(namespace.to_owned(), name.to_owned())).map(|pod| pod.object.clone())
    }
}

#[async_trait]
impl NodeView for View {
    fn node_name(&self) -> &str {
        &self.node.config.node_name
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        // A static pod is shown as its manifest says, not as its mirror.
        let statics: Vec<_> = self.statics.borrow().values().map(|pod| pod.object.clone()).collect();
        let of_api = self.pods.list().into_iter().filter(|pod| mirrored(pod).is_none());
        of_api.chain(statics).map(|pod| self.with_newest_status(pod)).collect()
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let found = self.pods.get(namespace, name).or_else(|| self.static_pod(namespace, name));
        found.map(|pod| self.with_newest_status(pod))
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
        serde_json::json!({
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
        })
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
