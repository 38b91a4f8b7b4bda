//! Controllers together against a small API in memory, with a stand-in for the kubelet.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_client::{Informer, Informers, Watched};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::fake::FakeApi;
use crate::{Config, meta, pods};

struct Cluster {
    fake: FakeApi,
    context: Arc<Context>,
}

impl Cluster {
    /// A cluster whose pods all get `pod_status` as soon as they exist.
    fn new(pod_status: Value) -> Cluster {
        let fake = FakeApi::new();
        let shutdown = CancellationToken::new();
        let informers = Informers::new(fake.client(), shutdown.clone());
        let client = fake.clone();
        let config = Config { cluster_cidr: "10.244.0.0/16".parse().ok(), ..Config::default() };
        let context = Arc::new(Context::new(informers, Box::new(move |_| client.client()), config, shutdown));
        tokio::spawn(kubelet(context.clone(), fake.client(), pod_status));
        Cluster { fake, context }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.fake.client(), "ns")
    }

    fn all<K: Watched>(&self) -> Informer<K> {
        self.context.informers.all()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.context.shutdown.cancel();
    }
}

async fn kubelet(context: Arc<Context>, client: kube::Client, status: Value) {
    let mut events = context.informers.all::<Pod>().subscribe();
    let mut address = 0;
    while let Some(event) = events.recv().await {
        let pod = event.object();
        if !matches!(event, knarr_client::Event::Deleted(_)) && pod.status.is_none() {
            address += 1;
            let mut status = status.clone();
            status["podIP"] = json!(format!("10.244.0.{address}"));
            let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace_of(&**pod));
            let patch = Patch::Merge(json!({ "status": status }));
            let _ = api.patch_status(meta::name_of(&**pod), &PatchParams::default(), &patch).await;
        }
    }
}

fn running() -> Value {
    json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] })
}

/// Waits until what the informer holds is as it should be.
async fn until<K: Watched>(informer: &Informer<K>, holds: impl Fn(&[Arc<K>]) -> bool) {
    let mut events = informer.subscribe();
    let wait = async {
        while !holds(&informer.list()) {
            events.recv().await.expect("the informer runs as long as the test");
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), wait).await;
    assert!(in_time.is_ok(), "never became so: {:#?}", informer.list());
}

fn deployment(replicas: i32) -> Deployment {
    serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "web", "image": "web:1", "ports": [{ "name": "http", "containerPort": 8080 }] }] },
            },
        },
    }))
    .expect("a valid deployment")
}

fn available(deployments: &[Arc<Deployment>], count: i32) -> bool {
    deployments.iter().all(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let complete =
            status.conditions.iter().flatten().any(|c| c.reason.as_deref() == Some("NewReplicaSetAvailable"));
        complete && status.available_replicas == Some(count) && status.replicas == Some(count)
    }) && !deployments.is_empty()
}

#[tokio::test]
async fn a_deployment_makes_its_pods_replaces_lost_ones_and_rolls_to_a_new_template() {
    let cluster = Cluster::new(running());
    tokio::spawn(crate::deployment::run(cluster.context.clone()));
    tokio::spawn(crate::replicas::run::<ReplicaSet>(cluster.context.clone()));
    let (deployments, pods, sets) = (cluster.all::<Deployment>(), cluster.all::<Pod>(), cluster.all::<ReplicaSet>());
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(3)).await.unwrap();
    until(&deployments, |all| available(all, 3)).await;
    assert_eq!(pods.len(), 3);

    let lost = pods.list().remove(0);
    cluster.api::<Pod>().delete(meta::name_of(&*lost), &DeleteParams::default()).await.unwrap();
    until(&pods, |all| all.len() == 3 && all.iter().all(|pod| pod.metadata.uid != lost.metadata.uid)).await;

    let mut updated = deployments.get("ns", "web").map(|known| (*known).clone()).unwrap();
    updated.metadata.resource_version = None;
    let container = &mut updated.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0];
    container.image = Some("web:2".into());
    cluster.api::<Deployment>().replace("web", &PostParams::default(), &updated).await.unwrap();
    let image = |pod: &Arc<Pod>| pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    until(&pods, |all| all.len() == 3 && all.iter().all(|pod| image(pod) == "web:2")).await;
    until(&deployments, |all| available(all, 3)).await;
    assert_eq!(sets.len(), 2);
    let revisions = sets
        .list()
        .iter()
        .map(|set| set.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"].clone())
        .max();
    assert_eq!(revisions.as_deref(), Some("2"));
}

#[tokio::test]
async fn a_service_finds_its_ready_pods() {
    let cluster = Cluster::new(running());
    tokio::spawn(crate::deployment::run(cluster.context.clone()));
    tokio::spawn(crate::replicas::run::<ReplicaSet>(cluster.context.clone()));
    tokio::spawn(crate::endpoint_slices::run(cluster.context.clone()));
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.96.0.9", "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": "http" }] },
    }))
    .unwrap();
    cluster.api::<Service>().create(&PostParams::default(), &service).await.unwrap();
    cluster.api::<Deployment>().create(&PostParams::default(), &deployment(120)).await.unwrap();
    let slices = cluster.all::<EndpointSlice>();
    until(&slices, |all| {
        let of_port = all.iter().filter(|slice| slice.ports.iter().flatten().any(|port| port.port == Some(8080)));
        let sizes: Vec<_> = of_port.map(|slice| slice.endpoints.iter().flatten().count()).collect();
        sizes.iter().sum::<usize>() == 120 && sizes.len() == 2 && sizes.iter().all(|size| *size <= 100)
    })
    .await;
}

#[tokio::test]
async fn a_job_counts_its_successes_and_completes() {
    let cluster = Cluster::new(json!({ "phase": "Succeeded" }));
    tokio::spawn(crate::job::run(cluster.context.clone()));
    let job: Job = serde_json::from_value(json!({
        "metadata": { "name": "sum" },
        "spec": {
            "parallelism": 2, "completions": 5, "backoffLimit": 6, "completionMode": "Indexed",
            "selector": { "matchLabels": { "job": "sum" } },
            "template": {
                "metadata": { "labels": { "job": "sum" } },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "sum", "image": "sum:1" }] },
            },
        },
    }))
    .unwrap();
    cluster.api::<Job>().create(&PostParams::default(), &job).await.unwrap();
    let jobs = cluster.all::<Job>();
    until(&jobs, |all| {
        all.iter().any(|job| {
            let status = job.status.clone().unwrap_or_default();
            let complete = status.conditions.iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
            complete && status.succeeded == Some(5) && status.completed_indexes.as_deref() == Some("0-4")
        })
    })
    .await;
    let all = cluster.all::<Pod>();
    until(&all, |all| all.iter().all(|pod| pod.metadata.finalizers.iter().flatten().count() == 0)).await;
    assert_eq!(all.list().iter().filter(|pod| pods::is_finished(pod)).count(), 5);
}

#[tokio::test]
async fn namespaces_get_accounts_and_nodes_get_networks() {
    let cluster = Cluster::new(running());
    tokio::spawn(crate::service_accounts::run(cluster.context.clone()));
    tokio::spawn(crate::node_ipam::run(cluster.context.clone()));
    let namespaces: Api<Namespace> = Api::all(cluster.fake.client());
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": "ns" } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    until(&cluster.all::<ServiceAccount>(), |all| all.iter().any(|account| meta::name_of(&**account) == "default"))
        .await;
    let nodes: Api<Node> = Api::all(cluster.fake.client());
    for name in ["a", "b"] {
        let node: Node = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    until(&cluster.all::<Node>(), |all| {
        let mut networks: Vec<_> = all.iter().filter_map(|node| node.spec.as_ref()?.pod_cidr.clone()).collect();
        networks.sort();
        networks == ["10.244.0.0/24", "10.244.1.0/24"]
    })
    .await;
}

#[tokio::test]
async fn endpoints_of_a_service_without_a_selector_are_mirrored_while_they_stand_for_themselves() {
    let cluster = Cluster::new(running());
    tokio::spawn(crate::endpoint_slice_mirroring::run(cluster.context.clone()));
    let slices = cluster.all::<EndpointSlice>();
    let service = json!({ "metadata": { "name": "far" }, "spec": { "ports": [{ "port": 80 }] } });
    cluster.api::<Service>().create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let endpoints = json!({
        "metadata": {
            "name": "far", "labels": { "of": "afar" },
            "annotations": { "kept": "yes", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
        },
        "subsets": [{
            "addresses": [{ "ip": "192.0.2.7" }, { "ip": "2001:db8::7" }], "notReadyAddresses": [{ "ip": "192.0.2.8" }],
            "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        }],
    });
    let api = cluster.api::<Endpoints>();
    api.create(&PostParams::default(), &serde_json::from_value(endpoints).unwrap()).await.unwrap();
    until(&slices, |all| all.len() == 2).await;
    let found = slices.list().into_iter().find(|slice| slice.address_type == "IPv4").unwrap();
    let shown = serde_json::to_value(&*found).unwrap();
    assert_eq!(shown["metadata"]["labels"]["kubernetes.io/service-name"], "far");
    assert_eq!(shown["metadata"]["labels"]["of"], "afar");
    assert_eq!(shown["metadata"]["annotations"], json!({ "kept": "yes" }));
    assert_eq!(shown["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    assert_eq!(shown["ports"], json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    let told = |address: &str, ready: bool| json!({ "addresses": [address], "conditions": { "ready": ready } });
    assert_eq!(shown["endpoints"], json!([told("192.0.2.7", true), told("192.0.2.8", false)]));

    let change = json!({ "subsets": [{ "addresses": [{ "ip": "192.0.2.9" }], "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] }] });
    api.patch("far", &PatchParams::default(), &Patch::Merge(change)).await.unwrap();
    let moved = |slice: &EndpointSlice| slice.endpoints.iter().flatten().any(|e| e.addresses == ["192.0.2.9"]);
    until(&slices, |all| all.len() == 1 && moved(&all[0]) && all[0].metadata.name == found.metadata.name).await;

    let skip = json!({ "metadata": { "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } } });
    api.patch("far", &PatchParams::default(), &Patch::Merge(skip)).await.unwrap();
    until(&slices, <[_]>::is_empty).await;
}
