//! Real containers as a program meets them, through kube-rs: so that a machine without kubectl tests its node too.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Namespace, Node, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_tests::{Cluster, binary, free_port};
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, PostParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, wait::await_condition, wait::conditions};
use kube::{Api, Client, Resource};
use libtest_mimic::{Failed, Trial};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAMESPACE: &str = "through-kube";
const LIMIT: Duration = Duration::from_secs(90);

type Test = for<'a> fn(&'a Cluster, &'a Client) -> BoxFuture<'a, Result<()>>;

const TESTS: [(&str, Test); 7] = [
    ("kube_a_second_node_in_the_same_network_is_refused", |_, _| second_node().boxed()),
    ("kube_a_deployment_answers_from_all_replicas_and_by_name", |_, client| web(client).boxed()),
    ("kube_logs_exec_and_port_forward_work", |_, client| streams(client).boxed()),
    ("kube_what_fails_is_mended_and_told", |_, client| healing(client).boxed()),
    ("kube_jobs_complete_and_missing_images_back_off", |_, client| endings(client).boxed()),
    ("kube_a_pod_deleted_while_it_starts_tells_no_start_error", |_, client| deleted_at_start(client).boxed()),
    ("kube_kill_dash_nine_restarts_no_container_and_watches_go_on", |cluster, client| crash(cluster, client).boxed()),
];

/// The trials, in order; the last kills the cluster's process.
pub fn trials(cluster: Option<&Arc<Cluster>>, ignored: bool) -> Vec<Trial> {
    let trial = |(name, test): (&str, Test)| {
        let cluster = cluster.cloned();
        let run = move || {
            let cluster = cluster.ok_or("no cluster")?;
            run(&cluster, test).map_err(|error| Failed::from(cluster.explain(&error)))
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    };
    TESTS.into_iter().map(trial).collect()
}

fn run(cluster: &Cluster, test: Test) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let client = cluster.client().await?;
        test(cluster, &client).await
    })
}

async fn second_node() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ports = [format!("--bind=127.0.0.1:{}", free_port()), format!("--kubelet-port={}", free_port())];
    let mut up = std::process::Command::new(binary()?);
    let output = up.arg("up").arg("--data-dir").arg(directory.path()).args(ports).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    ensure!(!output.status.success() && said.lines().count() == 1 && said.contains("another knarr"), "{said:?}");
    Ok(())
}

async fn web(client: &Client) -> Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    create::<ConfigMap>(client, json!({"metadata": {"name": "web"}, "data": {"greeting": "hello"}})).await?;
    create::<Secret>(client, json!({"metadata": {"name": "web"}, "stringData": {"token": "sesame"}})).await?;
    create::<Deployment>(client, deployment()).await?;
    let ports = json!([{"port": 80, "targetPort": 8080}]);
    let service =
        json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": ports}});
    let service = create::<Service>(client, service).await?;
    create::<Pod>(client, pod("client", "exec sleep 3600")).await?;
    until(client, "web", conditions::is_deployment_completed()).await?;
    until(client, "client", conditions::is_pod_running()).await?;

    let pods = web_pods(client).await?;
    ensure!(pods.len() == 3, "{pods:?}");
    let port = service.spec.and_then(|spec| spec.ports?.first()?.node_port).context("a node port")?;
    let address = node_address(client).await?;
    all_answer(&pods, || async { super::http_get(&address, port as u16) }).await.context("the node port")?;
    all_answer(&pods, || output(client, "client", &["wget", "-qO-", "http://web"]))
        .await
        .context("the service's name")?;
    let secret = output(client, pods.first().context("a pod")?, &["cat", "/etc/web/token"]).await?;
    ensure!(secret == "sesame", "{secret:?}");
    Ok(())
}

async fn streams(client: &Client) -> Result<()> {
    create::<Pod>(client, pod("talker", "echo one; echo two; exec sleep 3600")).await?;
    until(client, "talker", conditions::is_pod_running()).await?;
    let pods: Api<Pod> = api(client);
    let follow = LogParams { follow: true, ..LogParams::default() };
    let lines = futures::AsyncBufReadExt::lines(pods.log_stream("talker", &follow).await?);
    let heard: Vec<String> = tokio::time::timeout(LIMIT, lines.take(2).try_collect()).await.context("the log")??;
    ensure!(heard == ["one", "two"], "{heard:?}");

    let mut cat = pods.exec("talker", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await?;
    let mut stdin = cat.stdin().context("standard input")?;
    stdin.write_all(b"through standard input\n").await?;
    let mut echoed = [0; 23];
    cat.stdout().context("standard output")?.read_exact(&mut echoed).await?;
    ensure!(echoed == *b"through standard input\n", "{echoed:?}");
    cat.abort();

    let mut failed = pods.exec("talker", ["sh", "-c", "exit 7"], &AttachParams::default()).await?;
    let status = failed.take_status().context("a status")?.await.context("a status")?;
    ensure!(status.message.as_ref().is_some_and(|message| message.contains("exit code 7")), "{status:?}");

    let web = web_pods(client).await?.pop_first().context("a pod")?;
    let mut forwarded = pods.portforward(&web, &[8080]).await?;
    let mut stream = forwarded.take_stream(8080).context("a stream")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.ends_with(&format!("hello from {web}\n")), "{answer:?}");
    Ok(())
}

async fn healing(client: &Client) -> Result<()> {
    let mut pods = web_pods(client).await?;
    let [killed, deleted, unready] = std::array::from_fn(|_| pods.pop_first().expect("three replicas"));
    output(client, &killed, &["killall", "httpd"]).await?;
    until::<Pod>(client, &killed, |pod: Option<&Pod>| {
        container(pod).is_some_and(|c| c["restartCount"] == 1 && c["ready"] == true)
    })
    .await?;

    let made = Api::<Pod>::get(&api(client), &deleted).await?.metadata.uid.context("a uid")?;
    Api::<Pod>::delete(&api(client), &deleted, &DeleteParams::default()).await?;
    until(client, &deleted, conditions::is_deleted::<Pod>(&made)).await?;
    until(client, "web", conditions::is_deployment_completed()).await?;

    output(client, &unready, &["rm", "/www/index.html"]).await?;
    let slices: Api<EndpointSlice> = api(client);
    let selector = watcher::Config::default().labels("kubernetes.io/service-name=web");
    let mut seen = watcher::watcher(slices, selector).applied_objects().boxed();
    let left = async {
        while let Some(slice) = seen.try_next().await? {
            let endpoints = serde_json::to_value(&slice.endpoints)?;
            let of_pod = |endpoint: &&Value| endpoint["targetRef"]["name"] == unready;
            if endpoints
                .as_array()
                .into_iter()
                .flatten()
                .find(of_pod)
                .is_some_and(|e| e["conditions"]["ready"] == false)
            {
                return Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(LIMIT, left).await.context("the unready pod leaves the endpoints")?
}

async fn endings(client: &Client) -> Result<()> {
    let template = json!({"spec": {"restartPolicy": "Never", "containers": containers("echo done")}});
    create::<Job>(client, json!({"metadata": {"name": "brief"}, "spec": {"template": template}})).await?;
    until(client, "brief", conditions::is_job_completed()).await?;

    let mut missing = pod("missing", "true");
    missing["spec"]["containers"][0]["image"] = json!("127.0.0.1:1/no/such:image");
    missing["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    let selector = watcher::Config::default().fields("metadata.name=missing");
    let mut seen = watcher::watcher(api::<Pod>(client), selector).boxed();
    while !matches!(seen.try_next().await?, Some(Event::InitDone)) {}
    create::<Pod>(client, missing).await?;
    let reasons = waiting_reasons(seen.applied_objects().boxed(), "ImagePullBackOff");
    let reasons = tokio::time::timeout(LIMIT, reasons).await.context("the image backs off")??;
    ensure!(reasons.contains("ErrImagePull"), "{reasons:?}");
    Ok(())
}

/// Pods deleted while their containers are being started: whatever these say at the end, it is not that the runtime failed.
async fn deleted_at_start(client: &Client) -> Result<()> {
    const PODS: usize = 12;
    let pods: Api<Pod> = api(client);
    let selector = watcher::Config::default().labels("app=short");
    let mut seen = watcher::watcher(pods.clone(), selector).boxed();
    while !matches!(seen.try_next().await?, Some(Event::InitDone)) {}
    for number in 0..PODS {
        let mut short = pod(&format!("short-{number}"), "exit 1");
        short["metadata"]["labels"] = json!({"app": "short"});
        create::<Pod>(client, short).await?;
    }
    let created = watcher::Config::default().fields("reason=Created");
    let mut created = watcher::watcher(api::<CoreEvent>(client), created).applied_objects().boxed();
    let delete_all = async {
        let mut deleted = BTreeSet::new();
        while deleted.len() < PODS {
            // What is told between the runtime's making of a container and its starting.
            let Some(event) = created.try_next().await? else { anyhow::bail!("the watch ended") };
            let name = event.involved_object.name.unwrap_or_default();
            if name.starts_with("short-") && deleted.insert(name.clone()) {
                pods.delete(&name, &DeleteParams::default()).await?;
            }
        }
        Ok(())
    };
    let all_gone = async {
        let mut gone = 0;
        while gone < PODS {
            let Some(event) = seen.try_next().await? else { anyhow::bail!("the watch ended") };
            gone += usize::from(matches!(event, Event::Delete(_)));
            let (Event::Apply(pod) | Event::InitApply(pod) | Event::Delete(pod)) = event else { continue };
            let state = container(Some(&pod)).map(|c| c["state"]["terminated"].clone()).unwrap_or_default();
            ensure!(state["reason"] != "StartError", "{:?}: {state}", pod.metadata.name);
        }
        Ok(())
    };
    let both = async { futures::try_join!(delete_all, all_gone) };
    tokio::time::timeout(LIMIT, both).await.context("all pods are gone")?.map(drop)
}

/// Every reason why the pod's container waits that is seen up to `last`.
async fn waiting_reasons(
    mut seen: impl futures::Stream<Item = watcher::Result<Pod>> + Unpin,
    last: &str,
) -> Result<BTreeSet<String>> {
    let mut reasons = BTreeSet::new();
    while let Some(pod) = seen.try_next().await? {
        let waiting = container(Some(&pod)).and_then(|c| Some(c["state"]["waiting"]["reason"].as_str()?.to_string()));
        let is_last = waiting.as_deref() == Some(last);
        reasons.extend(waiting);
        if is_last {
            break;
        }
    }
    Ok(reasons)
}

async fn crash(cluster: &Cluster, client: &Client) -> Result<()> {
    create::<Pod>(client, pod("survivor", "exec sleep 3600")).await?;
    until(client, "survivor", conditions::is_pod_running()).await?;
    let before = container(Some(&Api::<Pod>::get(&api(client), "survivor").await?)).context("a container")?;
    let mut watched = watcher::watcher(api::<ConfigMap>(client), watcher::Config::default()).default_backoff().boxed();
    while !matches!(watched.try_next().await?, Some(Event::InitDone)) {}
    create::<ConfigMap>(client, json!({"metadata": {"name": "kept"}, "data": {"a": "b"}})).await?;
    cluster.kill()?;
    cluster.start()?;

    let kept: ConfigMap = api(client).get("kept").await?;
    ensure!(kept.data.is_some_and(|data| data["a"] == "b"), "what was acknowledged is lost");
    create::<ConfigMap>(client, json!({"metadata": {"name": "afterwards"}})).await?;
    let heard = async {
        loop {
            // What fails while the server is away, the watcher tries again.
            if let Some(Ok(Event::Apply(map) | Event::InitApply(map))) = watched.next().await
                && map.metadata.name.as_deref() == Some("afterwards")
            {
                break;
            }
        }
    };
    tokio::time::timeout(LIMIT, heard).await.context("the watch goes on")?;
    ensure!(output(client, "survivor", &["echo", "still here"]).await? == "still here\n");
    let after = container(Some(&Api::<Pod>::get(&api(client), "survivor").await?)).context("a container")?;
    ensure!(after == before, "{before}\n{after}");
    Ok(())
}

fn deployment() -> Value {
    let container = json!({
        "name": "web", "image": "knarr.local/web:1", "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "web", "key": "greeting"}}}],
        "volumeMounts": [{"name": "token", "mountPath": "/etc/web", "readOnly": true}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": {"cpu": "200m", "memory": "32Mi"}},
    });
    let spec = json!({"containers": [container], "volumes": [{"name": "token", "secret": {"secretName": "web"}}]});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template}})
}

fn pod(name: &str, script: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": containers(script)}})
}

fn containers(script: &str) -> Value {
    json!([{"name": "main", "image": "busybox", "imagePullPolicy": "Never", "command": ["sh", "-c", script]}])
}

fn api<K>(client: &Client) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn create<K>(client: &Client, object: Value) -> Result<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let object = serde_json::from_value(object)?;
    Ok(api::<K>(client).create(&PostParams::default(), &object).await?)
}

/// Waits until the object of that name is as `condition` wants it.
async fn until<K>(client: &Client, name: &str, condition: impl kube::runtime::wait::Condition<K>) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Send
        + DeserializeOwned
        + 'static,
{
    let waited = tokio::time::timeout(LIMIT, await_condition(api::<K>(client), name, condition)).await;
    waited.with_context(|| format!("{} {name}: not as wanted within {LIMIT:?}", K::kind(&())))??;
    Ok(())
}

/// What a command in a pod prints.
async fn output(client: &Client, pod: &str, command: &[&str]) -> Result<String> {
    let mut process = api::<Pod>(client).exec(pod, command.iter().copied(), &AttachParams::default()).await?;
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().context("stdout")?, process.stderr().context("stderr")?);
    let status = process.take_status().context("a status")?;
    tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err))?;
    let status = status.await.context("a status")?;
    ensure!(status.status.as_deref() == Some("Success"), "{command:?} in {pod}: {:?} {err}", status.message);
    Ok(out)
}

/// The first container's status, as a tree.
fn container(pod: Option<&Pod>) -> Option<Value> {
    let statuses = pod?.status.as_ref()?.container_statuses.as_ref()?;
    serde_json::to_value(statuses.first()?).ok()
}

/// The web server's pods that are not on their way out.
async fn web_pods(client: &Client) -> Result<BTreeSet<String>> {
    let pods = api::<Pod>(client).list(&ListParams::default().labels("app=web")).await?;
    let staying = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(staying.filter_map(|pod| pod.metadata.name).collect())
}

async fn node_address(client: &Client) -> Result<String> {
    let node = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items.pop().context("a node")?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    addresses.into_iter().find(|address| address.type_ == "InternalIP").map(|a| a.address).context("an address")
}

/// Asks until every pod has answered: a service goes from one to the next, but the first answer may come before the last rule.
async fn all_answer<F>(pods: &BTreeSet<String>, ask: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<String>>,
{
    let mut heard = BTreeSet::new();
    let everyone = async {
        while heard != *pods {
            if let Ok(answer) = ask().await {
                heard.extend(answer.trim().strip_prefix("hello from ").map(str::to_string));
            }
        }
    };
    let answered = tokio::time::timeout(LIMIT, everyone).await;
    answered.with_context(|| format!("heard {heard:?} of {pods:?}"))
}
