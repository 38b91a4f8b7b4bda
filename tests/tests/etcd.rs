//! Two servers on one etcd: each sees what the other writes, one of them runs the loops, and either may die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use knarr_tests::{Cluster, EtcdServer, Options, Raw};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
/// A lease runs out after 15 seconds; a slow machine takes longer to notice.
const PATIENCE: Duration = Duration::from_secs(90);

fn server(etcd: &EtcdServer, name: &str) -> Result<Cluster> {
    Cluster::prepare(&Options {
        node: false,
        flags: vec![format!("--store=etcd://{}", etcd.address()), format!("--node-name={name}")],
    })
}

/// A second server of the same cluster has the same keys, as on any Kubernetes.
fn share_keys(from: &Cluster, to: &Cluster) -> Result<()> {
    std::fs::create_dir_all(to.data_dir().join("pki"))?;
    for name in ["ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key"] {
        std::fs::copy(from.data_dir().join("pki").join(name), to.data_dir().join("pki").join(name)).context(name)?;
    }
    Ok(())
}

/// Asks until the answer is as wished.
async fn until(client: &Raw, path: &str, what: &str, wished: impl Fn(&Value) -> bool) -> Result<Value> {
    let started = Instant::now();
    loop {
        let (code, answer) = client.get(path).await?;
        if code == 200 && wished(&answer) {
            return Ok(answer);
        }
        ensure!(started.elapsed() < PATIENCE, "{what}: {code} {answer}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn holder(lease: &Value) -> &str {
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default()
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": name}}, "template": {"metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "c"}]}}}})
}

async fn runs_loops(client: &Raw, name: &str) -> Result<()> {
    let (code, answer) = client.post("/apis/apps/v1/namespaces/default/deployments", &deployment(name)).await?;
    ensure!(code == 201, "{answer}");
    let path = format!("/api/v1/namespaces/default/pods?labelSelector=app%3D{name}");
    let two = |pods: &Value| pods["items"].as_array().is_some_and(|items| items.len() == 2);
    until(client, &path, "a deployment's pods", two).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_an_etcd_and_one_may_die() -> Result<()> {
    let Some(etcd) = EtcdServer::start() else { return Ok(()) };
    let (one, two) = (server(&etcd, "one")?, server(&etcd, "two")?);
    one.start()?;
    share_keys(&one, &two)?;
    two.start()?;
    let (first, second) = (Raw::new(&one)?, Raw::new(&two)?);

    sees_each_write(&first, &second).await?;
    sees_each_write(&second, &first).await?;

    let lease = format!("{LEASES}/kube-controller-manager");
    let held = until(&first, &lease, "a leader", |lease| !holder(lease).is_empty()).await?;
    runs_loops(&second, "before").await?;
    let (leads, follows, survivor) =
        if holder(&held).starts_with("one_") { (&one, "two_", &second) } else { (&two, "one_", &first) };
    leads.kill()?;
    let (code, _) = survivor.post(MAPS, &json!({"metadata": {"name": "after-the-crash"}})).await?;
    ensure!(code == 201, "the survivor serves without its peer");
    until(survivor, &lease, "the survivor leads", |lease| holder(lease).starts_with(follows)).await?;
    runs_loops(survivor, "after").await?;

    leads.start()?;
    let back = Raw::new(leads)?;
    let (code, _) = back.get(&format!("{MAPS}/after-the-crash")).await?;
    ensure!(code == 200, "a server that comes back knows what happened meanwhile");
    Ok(())
}

/// What one server acknowledged, the other shows at once: in a read, in a list, and in the answer to a write that is based on it.
async fn sees_each_write(writer: &Raw, reader: &Raw) -> Result<()> {
    let name = format!("map-{}", std::ptr::from_ref(writer).addr());
    let (code, made) = writer.post(MAPS, &json!({"metadata": {"name": name}, "data": {"n": "0"}})).await?;
    ensure!(code == 201, "{made}");
    for n in (1..=20).map(|n: u32| n.to_string()) {
        let patch = json!({"data": {"n": n}}).to_string();
        let path = format!("{MAPS}/{name}");
        let (code, patched) = writer.send("PATCH", &path, "application/merge-patch+json", patch).await?;
        ensure!(code == 200, "{patched}");
        let (_, read) = reader.get(&path).await?;
        ensure!(read["data"]["n"] == n && read["metadata"] == patched["metadata"], "{read}");
        let (_, list) = reader.get(MAPS).await?;
        let items = list["items"].as_array().context("a list")?;
        let found = items.iter().find(|item| item["metadata"]["name"] == name.as_str()).context("the map")?;
        ensure!(found["data"]["n"] == n, "{found}");
        let (code, answer) = reader.send("PUT", &path, "application/json", made.to_string()).await?;
        ensure!(code == 409, "an update of what has changed since: {code} {answer}");
    }
    Ok(())
}
