//! The task that owns the cluster and the queue.

use std::{collections::HashSet, sync::Arc};

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use knarr_client::{Event, EventType, Informer, Informers, Recorder, events::reference_to};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config, binding,
    cluster::Cluster,
    cycle::Cycles,
    diagnosis::Diagnosis,
    plugins::Change,
    pod::PodInfo,
    queue::{Queue, Waiting},
    selecting::Selecting,
};

/// Cycles between two looks at other tasks.
const CYCLES_A_TURN: usize = 8;

/// Schedules until `shutdown`, then waits for the requests that are under way.
pub async fn run(client: kube::Client, config: Config, shutdown: CancellationToken) {
    let informers = Informers::new(client.clone(), shutdown.clone());
    let (pods, nodes) = (informers.all::<Pod>(), informers.all::<Node>());
    let namespaces = informers.all::<Namespace>();
    let selecting = Selecting::new(&informers);
    selecting.synced().await;
    namespaces.synced().await;
    nodes.synced().await;
    pods.synced().await;
    let (report, failures) = mpsc::unbounded_channel();
    let scheduler = Scheduler {
        recorder: Recorder::new(client.clone(), &config.scheduler_name, ""),
        cluster: Cluster::default(),
        queue: Queue::default(),
        cycles: Cycles::new(config.percentage_of_nodes_to_score),
        assumed: HashSet::new(),
        pods,
        requests: Requests {
            client,
            permits: Arc::new(Semaphore::new(config.bindings_in_flight)),
            tasks: TaskTracker::new(),
            failures: report,
        },
        config,
    };
    scheduler.work(nodes, namespaces, selecting, failures, shutdown).await;
}

struct Scheduler {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    cycles: Cycles,
    /// Pods on a node by our word alone, until the API says so.
    assumed: HashSet<Arc<str>>,
    pods: Informer<Pod>,
    recorder: Recorder,
    requests: Requests,
}

/// Requests to the API that are on their way.
struct Requests {
    client: kube::Client,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    failures: mpsc::UnboundedSender<Failure>,
}

/// A binding that the API refused or did not get.
struct Failure {
    waiting: Waiting,
    error: kube::Error,
}

impl Scheduler {
    async fn work(
        mut self,
        nodes: Informer<Node>,
        namespaces: Informer<Namespace>,
        selecting: Selecting,
        mut failures: mpsc::UnboundedReceiver<Failure>,
        shutdown: CancellationToken,
    ) {
        let (mut node_events, mut pod_events) = (nodes.subscribe(), self.pods.subscribe());
        let mut namespace_events = namespaces.subscribe();
        let mut selectors = selecting.subscribe();
        loop {
            // Before a cycle all that is known is taken in: placing pods on a stale cluster is work for nothing.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(event) = namespace_events.recv() => self.on_namespace(&event),
                Some(change) = selectors.recv() => change.apply(&mut self.cluster.selectors),
                Some(event) = node_events.recv() => self.on_node(&event),
                Some(event) = pod_events.recv() => self.on_pod(&event),
                Some(failure) = failures.recv() => self.on_failure(failure),
                () = std::future::ready(()), if self.queue.has_active() => self.place_some().await,
                () = next_tick(&self.queue) => self.queue.tick(),
            }
        }
        self.requests.tasks.close();
        self.requests.tasks.wait().await;
    }

    fn on_namespace(&mut self, event: &Event<Namespace>) {
        let meta = &event.object().metadata;
        let labels = match event {
            Event::Deleted(_) => None,
            _ => Some(meta.labels.clone().unwrap_or_default()),
        };
        self.cluster.set_namespace(meta.name.as_deref().unwrap_or_default(), labels);
    }

    fn on_node(&mut self, event: &Event<Node>) {
        match event {
            Event::Added(node) | Event::Updated { new: node, .. } => {
                let index = self.cluster.set_node(node);
                self.queue.changed(&Change::Node(self.cluster.node(index)));
            }
            Event::Deleted(node) => self.cluster.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
        }
    }

    fn on_pod(&mut self, event: &Event<Pod>) {
        let pod = Arc::new(PodInfo::new(event.object().clone()));
        match (event, pod.node_name()) {
            (Event::Deleted(_), _) => self.forget(&pod.uid),
            _ if pod.has_ended() => self.forget(&pod.uid),
            (_, Some(node)) => self.on_bound(pod.clone(), node),
            _ if pod.terminating => self.queue.remove(&pod.uid),
            _ if pod.scheduler_name() == self.config.scheduler_name => self.on_pending(pod),
            _ => {}
        }
        if let Event::Updated { old, new } = event
            && old.metadata.uid != new.metadata.uid
        {
            self.forget(old.metadata.uid.as_deref().unwrap_or_default());
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        if let Some(left) = self.cluster.remove_pod(uid) {
            self.queue.changed(&Change::PodLeft(&left));
        }
    }

    fn on_bound(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.queue.remove(&pod.uid);
        self.assumed.remove(&pod.uid);
        self.cluster.set_pod(pod.clone(), node);
        self.queue.changed(&Change::PodCame(&pod));
    }

    fn on_pending(&mut self, pod: Arc<PodInfo>) {
        if !self.assumed.contains(&pod.uid) {
            self.queue.add(pod);
        }
    }

    async fn place_some(&mut self) {
        for _ in 0..CYCLES_A_TURN {
            let Some(waiting) = self.queue.pop() else { break };
            self.place(waiting);
        }
        tokio::task::yield_now().await;
    }

    fn place(&mut self, waiting: Waiting) {
        match self.cycles.place(&waiting.pod, &mut self.cluster) {
            Ok(index) => {
                let node = self.cluster.node(index).name.clone();
                self.assume(&waiting.pod, &node);
                self.requests.bind(waiting, node, self.recorder.clone());
            }
            Err(diagnosis) => self.refuse(waiting, diagnosis),
        }
    }

    fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.assumed.insert(pod.uid.clone());
        self.cluster.set_pod(pod.clone(), node);
    }

    fn refuse(&mut self, waiting: Waiting, mut diagnosis: Diagnosis) {
        diagnosis.without_preemption(&waiting.pod);
        let message = diagnosis.message();
        self.tell(&waiting.pod, "Unschedulable", message);
        self.queue.unschedulable(waiting, diagnosis.plugins());
    }

    fn on_failure(&mut self, Failure { waiting, error }: Failure) {
        let pod = &waiting.pod;
        if !self.assumed.remove(&pod.uid) {
            return;
        }
        if let Some(left) = self.cluster.remove_pod(&pod.uid) {
            self.queue.changed(&Change::PodLeft(&left));
        }
        let current = self.pods.get(&pod.key.namespace, &pod.key.name);
        if current.is_none_or(|current| current.metadata.uid.as_deref() != Some(&pod.uid)) {
            return;
        }
        self.tell(pod, "SchedulerError", format!("binding rejected: {error}"));
        self.queue.failed(waiting);
    }

    /// The event and the condition of a pod that was not placed.
    fn tell(&self, pod: &Arc<PodInfo>, reason: &'static str, message: String) {
        self.recorder.event(&reference_to(&*pod.pod), EventType::Warning, "FailedScheduling", message.clone());
        self.requests.report(pod.clone(), reason, message);
    }
}

async fn next_tick(queue: &Queue) {
    match queue.next_tick() {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Requests {
    fn bind(&self, waiting: Waiting, node: Arc<str>, recorder: Recorder) {
        let (client, permits, failures) = (self.client.clone(), self.permits.clone(), self.failures.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let pod = &waiting.pod;
            match binding::bind(client, pod, &node).await {
                Ok(()) => {
                    let message = format!("Successfully assigned {} to {node}", pod.key);
                    recorder.event(&reference_to(&*pod.pod), EventType::Normal, "Scheduled", message);
                }
                // The owner of the other end is gone only at shutdown.
                Err(error) => drop(failures.send(Failure { waiting, error })),
            }
        });
    }

    fn report(&self, pod: Arc<PodInfo>, reason: &'static str, message: String) {
        let (client, permits) = (self.client.clone(), self.permits.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            if let Err(error) = binding::report(client, &pod, reason, &message).await {
                tracing::debug!(pod = %pod.key, %error, "the pod's condition was not written");
            }
        });
    }
}
