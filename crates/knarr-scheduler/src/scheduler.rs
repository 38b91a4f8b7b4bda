//! The task that owns the cluster and the queue.

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;
use k8s_openapi::api::{
    core::v1::{Namespace, Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use knarr_client::{Event, EventType, Informer, Informers, Recorder, events::reference_to};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Config,
    binding::{self, Nominate},
    cluster::{Cluster, NodeIndex},
    cycle::Cycles,
    diagnosis::Diagnosis,
    disruption::Budgets,
    nomination::Nominations,
    plugins::Change,
    pod::PodInfo,
    preemption::{self, Candidate},
    queue::{Queue, Waiting},
    selecting::Selecting,
};

/// Cycles between two looks at other tasks.
const CYCLES_A_TURN: usize = 8;

/// Schedules until `shutdown`, then waits for the requests that are under way.
pub fn run(client: kube::Client, config: Config, shutdown: CancellationToken) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let informers = Informers::new(client.clone(), shutdown.clone());
        let (pods, nodes) = (informers.all::<Pod>(), informers.all::<Node>());
        let namespaces = informers.all::<Namespace>();
        let budgets = informers.all::<PodDisruptionBudget>();
        let selecting = Selecting::new(&informers);
        selecting.synced().await;
        budgets.synced().await;
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
            budgets: Budgets::default(),
            nominations: Nominations::default(),
            pods,
            requests: Requests {
                client,
                permits: Arc::new(Semaphore::new(config.bindings_in_flight)),
                tasks: TaskTracker::new(),
                failures: report,
            },
            config,
        };
        scheduler.work(Sources { nodes, namespaces, budgets, selecting }, failures, shutdown).await;
    })
}

/// What else than pods it hears of.
struct Sources {
    nodes: Informer<Node>,
    namespaces: Informer<Namespace>,
    budgets: Informer<PodDisruptionBudget>,
    selecting: Selecting,
}

struct Scheduler {
    config: Config,
    cluster: Cluster,
    queue: Queue,
    cycles: Cycles,
    /// Pods on a node by our word alone, until the API says so.
    assumed: HashSet<Arc<str>>,
    budgets: Budgets,
    nominations: Nominations,
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

/// Something that the API refused or did not get.
enum Failure {
    Binding {
        waiting: Waiting,
        error: kube::Error,
    },
    /// Not all pods that were to leave for this one could be told.
    Preemption {
        uid: Arc<str>,
    },
}

/// Why there is no node for a pod, and where room can be made.
struct NoNode {
    diagnosis: Diagnosis,
    room: Option<Candidate>,
}

impl Scheduler {
    async fn work(
        mut self,
        sources: Sources,
        mut failures: mpsc::UnboundedReceiver<Failure>,
        shutdown: CancellationToken,
    ) {
        let (mut node_events, mut pod_events) = (sources.nodes.subscribe(), self.pods.subscribe());
        let mut namespace_events = sources.namespaces.subscribe();
        let (mut selectors, mut budget_events) = (sources.selecting.subscribe(), sources.budgets.subscribe());
        loop {
            // Before a cycle all that is known is taken in: placing pods on a stale cluster is work for nothing.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(event) = namespace_events.recv() => self.on_namespace(&event),
                Some(change) = selectors.recv() => change.apply(&mut self.cluster.selectors),
                Some(event) = budget_events.recv() => self.on_budget(&event),
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

    fn on_budget(&mut self, event: &Event<PodDisruptionBudget>) {
        match event {
            Event::Deleted(budget) => self.budgets.remove(budget),
            event => self.budgets.set(event.object()),
        }
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
        self.nominations.forget(uid);
        if let Some(left) = self.cluster.remove_pod(uid) {
            self.queue.changed(&Change::PodLeft(&left));
        }
    }

    fn on_bound(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.queue.remove(&pod.uid);
        self.assumed.remove(&pod.uid);
        self.nominations.forget(&pod.uid);
        let before = self.cluster.set_pod(pod.clone(), node);
        self.queue.changed(&Change::PodCame(&pod));
        // One that asks for less than before leaves room, as one that goes does.
        if let Some(before) = before.filter(|before| before.requests.exact != pod.requests.exact) {
            self.queue.changed(&Change::PodLeft(&before));
        }
    }

    fn on_pending(&mut self, pod: Arc<PodInfo>) {
        if !self.assumed.contains(&pod.uid) {
            self.nominations.learn(&pod);
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
        let reserved = self.nominations.reserve(&waiting.pod, &mut self.cluster);
        let found = self.find(&waiting.pod);
        reserved.iter().for_each(|uid| drop(self.cluster.remove_pod(uid)));
        match found {
            Ok(index) => {
                let node = self.cluster.node(index).name.clone();
                self.assume(&waiting.pod, &node);
                self.requests.bind(waiting, node, self.recorder.clone());
            }
            Err(no_node) => self.refuse(waiting, *no_node),
        }
    }

    /// A node; or why there is none, and where room can be made.
    fn find(&mut self, pod: &Arc<PodInfo>) -> Result<NodeIndex, Box<NoNode>> {
        let nominated = self.nominations.node_of(&pod.uid).and_then(|name| self.cluster.named(name));
        if let Some(node) = nominated.filter(|node| Cycles::fits(pod, *node, &mut self.cluster)) {
            return Ok(node);
        }
        self.cycles.place(pod, &mut self.cluster).map_err(|mut diagnosis| {
            if diagnosis.nodes == 0 {
                return Box::new(NoNode { diagnosis, room: None });
            }
            if self.nominations.awaits_victims(&pod.uid, &self.cluster) {
                diagnosis.preemption_refused(preemption::AWAITS_VICTIMS);
                return Box::new(NoNode { diagnosis, room: None });
            }
            let room = preemption::preempt(pod, &mut self.cluster, &self.budgets, &mut diagnosis);
            Box::new(NoNode { diagnosis, room })
        })
    }

    fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.nominations.forget(&pod.uid);
        self.assumed.insert(pod.uid.clone());
        self.cluster.set_pod(pod.clone(), node);
    }

    fn refuse(&mut self, waiting: Waiting, NoNode { diagnosis, room }: NoNode) {
        let nominate = match room {
            Some(room) => self.make_room(&waiting.pod, room),
            None if diagnosis.awaits_victims() => Nominate::Keep,
            None if self.nominations.forget(&waiting.pod.uid) => Nominate::Clear,
            None => Nominate::Keep,
        };
        self.tell(&waiting.pod, "Unschedulable", diagnosis.message(), nominate);
        self.queue.unschedulable(waiting, diagnosis.plugins());
    }

    fn make_room(&mut self, pod: &Arc<PodInfo>, room: Candidate) -> Nominate {
        let node = self.cluster.node(room.node).name.clone();
        for lower in self.nominations.withdraw_below(pod.priority, &node) {
            self.requests.clear_nomination(lower);
        }
        let victims = room.victims.iter().map(|victim| victim.uid.clone()).collect();
        self.nominations.promise(pod, &node, victims);
        self.requests.preempt(pod.clone(), node.clone(), room.victims, self.recorder.clone());
        Nominate::Set(node)
    }

    fn on_failure(&mut self, failure: Failure) {
        match failure {
            Failure::Binding { waiting, error } => self.on_refused_binding(waiting, &error),
            Failure::Preemption { uid } => self.nominations.release_victims(&uid),
        }
    }

    fn on_refused_binding(&mut self, waiting: Waiting, error: &kube::Error) {
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
        self.tell(pod, "SchedulerError", format!("binding rejected: {error}"), Nominate::Keep);
        self.queue.failed(waiting);
    }

    /// The event and the condition of a pod that was not placed.
    fn tell(&self, pod: &Arc<PodInfo>, reason: &'static str, message: String, nominate: Nominate) {
        self.recorder.event(&reference_to(&*pod.pod), EventType::Warning, "FailedScheduling", message.clone());
        self.requests.report(pod.clone(), reason, message, nominate);
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
                Err(error) => drop(failures.send(Failure::Binding { waiting, error })),
            }
        });
    }

    /// Takes the victims away, and says so on each.
    fn preempt(&self, pod: Arc<PodInfo>, node: Arc<str>, victims: Vec<Arc<PodInfo>>, recorder: Recorder) {
        let (client, permits, failures) = (self.client.clone(), self.permits.clone(), self.failures.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            for victim in victims {
                if let Err(error) = binding::preempt(client.clone(), &victim, pod.scheduler_name()).await {
                    tracing::warn!(pod = %victim.key, %error, "the pod was not preempted");
                    // The owner of the other end is gone only at shutdown.
                    drop(failures.send(Failure::Preemption { uid: pod.uid.clone() }));
                    return;
                }
                let message = format!("Preempted by pod {} on node {node}", pod.uid);
                recorder.event(&reference_to(&*victim.pod), EventType::Normal, "Preempted", message);
            }
        });
    }

    fn clear_nomination(&self, pod: Arc<PodInfo>) {
        let client = self.client.clone();
        self.tasks.spawn(async move {
            if let Err(error) = binding::clear_nomination(client, &pod).await {
                tracing::debug!(pod = %pod.key, %error, "the pod's nomination was not withdrawn");
            }
        });
    }

    fn report(&self, pod: Arc<PodInfo>, reason: &'static str, message: String, nominate: Nominate) {
        let (client, permits) = (self.client.clone(), self.permits.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            if let Err(error) = binding::report(client, &pod, reason, &message, nominate).await {
                tracing::debug!(pod = %pod.key, %error, "the pod's condition was not written");
            }
        });
    }
}
