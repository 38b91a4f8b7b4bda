//! The control plane alone, from outside: what a client may send, and what survives.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use knarr_tests::{Cluster, Options, Raw, binary, free_port};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn control_plane() -> Result<Cluster> {
    Cluster::up(&Options::default())
}

#[tokio::test]
async fn a_control_plane_serves_its_whole_discovery() -> Result<()> {
    let cluster = control_plane()?;
    let raw = Raw::new(&cluster)?;
    for path in ["/healthz", "/livez", "/readyz"] {
        let (code, body) = raw.get(path).await?;
        ensure!((code, &body) == (200, &json!("ok")), "{path}: {code} {body}");
    }
    let (_, version) = raw.get("/version").await?;
    ensure!(version["gitVersion"].as_str().is_some_and(|v| v.starts_with("v1.36")), "{version}");
    let (_, groups) = raw.get("/apis").await?;
    ensure!(groups["groups"].as_array().is_some_and(|g| g.len() >= 20), "{groups}");
    let (code, metrics) = raw.get("/metrics").await?;
    ensure!(code == 200 && metrics.as_str().is_some_and(|m| m.contains("apiserver_request_total")), "{metrics}");
    let client = cluster.client().await?;
    let discovery = kube::discovery::Discovery::new(client.clone()).run().await?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.supports_operation(kube::discovery::verbs::LIST) {
                let api: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &resource);
                api.list(&ListParams::default()).await.with_context(|| resource.plural.clone())?;
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn objects_live_their_whole_life() -> Result<()> {
    let cluster = control_plane()?;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await?, "default");
    let made = maps.create(&PostParams::default(), &serde_json::from_value(config_map("life"))?).await?;
    let version = made.metadata.resource_version.clone().context("a resource version")?;

    let merged =
        maps.patch("life", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": null, "l": "w"}}))).await?;
    ensure!(merged.data.as_ref().is_some_and(|d| d.len() == 1 && d["l"] == "w"), "{merged:?}");
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"m": "x"}}));
    let applied = maps.patch("life", &PatchParams::apply("tester"), &apply).await?;
    ensure!(applied.data.as_ref().is_some_and(|d| d.len() == 2), "{applied:?}");
    let taken = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"m": "y"}}));
    let conflict = maps.patch("life", &PatchParams::apply("other"), &taken).await.expect_err("owned by tester");
    ensure!(matches!(&conflict, kube::Error::Api(status) if status.code == 409), "{conflict}");

    let mut stale = made.clone();
    stale.metadata.resource_version = Some(version.clone());
    let stale = maps.replace("life", &PostParams::default(), &stale).await.expect_err("the version is old");
    ensure!(
        stale
            .to_string()
            .contains("the object has been modified; please apply your changes to the latest version and try again"),
        "{stale}"
    );

    let watched = maps.watch(&WatchParams::default().fields("metadata.name=life"), &version).await?;
    maps.delete("life", &DeleteParams::default()).await?;
    let events: Vec<WatchEvent<ConfigMap>> = watched.take(3).try_collect().await?;
    ensure!(
        matches!(&events[..], [WatchEvent::Modified(_), WatchEvent::Modified(_), WatchEvent::Deleted(_)]),
        "{events:?}"
    );
    Ok(())
}

#[tokio::test]
async fn bad_requests_get_kubernetes_answers() -> Result<()> {
    let cluster = control_plane()?;
    let raw = Raw::new(&cluster)?;
    let refused = |code: u16, answer: &Value, wanted: u16, reason: &str, text: &str| {
        ensure!(code == wanted && answer["reason"] == reason, "wanted {wanted} {reason}, got {code} {answer}");
        ensure!(answer["message"].as_str().is_some_and(|m| m.contains(text)), "no {text:?} in {answer}");
        Ok(())
    };
    let (code, answer) = raw.send("POST", CONFIG_MAPS, "application/json", "{\"apiVersion\":").await?;
    refused(code, &answer, 400, "BadRequest", "unexpected end of JSON input")?;
    let (code, answer) = raw.send("POST", CONFIG_MAPS, "application/yaml", "a: [1, 2\nb: }").await?;
    refused(code, &answer, 400, "BadRequest", "yaml")?;
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let body =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"s"},"data":{"a":"1"},"data":{"a":"2"},"dta":{}}"#;
    let (code, answer) = raw.send("POST", &strict, "application/json", body).await?;
    refused(code, &answer, 400, "BadRequest", "strict decoding error")?;
    refused(code, &answer, 400, "BadRequest", "unknown field \"dta\"")?;
    refused(code, &answer, 400, "BadRequest", "duplicate field \"data\"")?;
    let mut wrong = config_map("typed");
    wrong["data"]["k"] = json!(7);
    let (code, answer) = raw.post(CONFIG_MAPS, &wrong).await?;
    refused(
        code,
        &answer,
        400,
        "BadRequest",
        "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
    )?;
    let (code, answer) = raw.post(CONFIG_MAPS, &config_map("Not A Name")).await?;
    refused(code, &answer, 422, "Invalid", "metadata.name: Invalid value: \"Not A Name\"")?;
    ensure!(answer["details"]["causes"][0]["field"] == "metadata.name", "{answer}");
    let mut large = config_map("large");
    large["data"]["k"] = "x".repeat(4 << 20).into();
    let (code, answer) = raw.post(CONFIG_MAPS, &large).await?;
    refused(code, &answer, 413, "RequestEntityTooLarge", "limit is 3145728")?;
    let deep = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"deep\"}},\"x\":{}{}}}",
        "[".repeat(10_001),
        "]".repeat(10_001)
    );
    let (code, answer) = raw.send("POST", CONFIG_MAPS, "application/json", deep).await?;
    refused(code, &answer, 400, "BadRequest", "exceeded max depth")?;
    let (code, answer) = raw.get(&format!("{CONFIG_MAPS}/absent")).await?;
    refused(code, &answer, 404, "NotFound", "configmaps \"absent\" not found")?;
    let (code, answer) = raw.send("PUT", CONFIG_MAPS, "application/json", "{}").await?;
    ensure!(code == 405, "{code} {answer}");
    let (code, _) = raw.send("POST", CONFIG_MAPS, "text/plain", "x").await?;
    ensure!(code == 415, "{code}");
    let (code, answer) = raw.post("/api/v1/namespaces/nowhere/configmaps", &config_map("a")).await?;
    refused(code, &answer, 404, "NotFound", "namespaces \"nowhere\" not found")?;
    let (code, _) = raw.post(CONFIG_MAPS, &config_map("fine")).await?;
    ensure!(code == 201, "the server still serves: {code}");
    Ok(())
}

#[tokio::test]
async fn an_expired_watch_says_so() -> Result<()> {
    let cluster = control_plane()?;
    let raw = Raw::new(&cluster)?;
    let (code, answer) = raw.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=99999999&timeoutSeconds=1")).await?;
    ensure!(code == 504 || code == 200, "a version of the future: {code} {answer}");
    let (code, answer) = raw.get(&format!("{CONFIG_MAPS}?limit=1&continue=nonsense")).await?;
    ensure!(code == 400 && answer["reason"] == "BadRequest", "{code} {answer}");
    // Upstream, too, calls this its own failure: what reads the version of a watch knows of no answers.
    let (code, answer) = raw.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=abc")).await?;
    ensure!(code == 500 && answer["message"].as_str().is_some_and(|m| m.contains("\"abc\"")), "{code} {answer}");
    Ok(())
}

#[tokio::test]
async fn an_acknowledged_write_survives_kill_dash_nine() -> Result<()> {
    let cluster = control_plane()?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await?, "default");
    let secret = |i: usize| -> Result<Secret> {
        Ok(serde_json::from_value(json!({"metadata": {"name": format!("s-{i}")}, "stringData": {"i": i.to_string()}}))?)
    };
    for i in 0..50 {
        secrets.create(&PostParams::default(), &secret(i)?).await?;
    }
    let before = secrets.get("s-49").await?;
    cluster.kill()?;
    cluster.start()?;
    let secrets: Api<Secret> = Api::namespaced(cluster.client().await?, "default");
    let listed = secrets.list(&ListParams::default()).await?;
    ensure!((0..50).all(|i| listed.items.iter().any(|s| s.metadata.name.as_deref() == Some(&format!("s-{i}")))));
    ensure!(secrets.get("s-49").await? == before, "the object is the same to the letter");
    Ok(())
}

#[tokio::test]
async fn a_user_without_rights_is_refused_as_upstream_refuses() -> Result<()> {
    let cluster = control_plane()?;
    let raw = Raw::new(&cluster)?;
    let request = raw
        .http()
        .get(format!("{}/api/v1/namespaces/default/secrets", cluster.server()))
        .header("impersonate-user", "jane");
    let answer: Value = request.send().await?.json().await?;
    let text = "secrets is forbidden: User \"jane\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\"";
    ensure!(answer["code"] == 403 && answer["message"] == text, "{answer}");
    let anonymous = reqwest::Client::builder().danger_accept_invalid_certs(true).build()?;
    let answer: Value = anonymous.get(format!("{}/api/v1/nodes", cluster.server())).send().await?.json().await?;
    ensure!(
        answer["code"] == 403 && answer["message"].as_str().is_some_and(|m| m.contains("system:anonymous")),
        "{answer}"
    );
    let answer = anonymous.get(format!("{}/api/v1/nodes", cluster.server())).bearer_auth("e30.e30.e30").send().await?;
    ensure!(answer.status() == 401, "{}", answer.status());

    let Some(kubectl) = cluster.kubectl() else { return Ok(()) };
    kubectl.run(&["create", "rolebinding", "jane", "--clusterrole=view", "--user=jane"])?;
    ensure!(kubectl.run(&["auth", "can-i", "list", "pods", "--as=jane"])?.trim() == "yes");
    kubectl.refused(&["auth", "can-i", "delete", "pods", "--as=jane"], None)?;
    let list = kubectl.run(&["auth", "can-i", "--list", "--as=jane"])?;
    ensure!(list.lines().any(|l| l.starts_with("configmaps ") && l.contains("[get list watch]")), "{list}");
    Ok(())
}

#[tokio::test]
async fn a_namespace_goes_with_everything_in_it() -> Result<()> {
    let cluster = control_plane()?;
    let client = cluster.client().await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": "brief"}}))?).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "brief");
    maps.create(&PostParams::default(), &serde_json::from_value(config_map("inside"))?).await?;
    let uid = namespaces.get("brief").await?.metadata.uid.context("uid")?;
    namespaces.delete("brief", &DeleteParams::default()).await?;
    let gone = kube::runtime::wait::await_condition(namespaces, "brief", kube::runtime::conditions::is_deleted(&uid));
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await??;
    Ok(())
}

#[tokio::test]
async fn kubectl_works_against_the_control_plane() -> Result<()> {
    let cluster = control_plane()?;
    let Some(kubectl) = cluster.kubectl() else { return Ok(()) };
    let manifest = "../examples/web.yaml";
    kubectl.run(&["apply", "-f", manifest])?;
    let again = kubectl.run(&["apply", "-f", manifest])?;
    // A Secret's stringData is never shown again, so that kubectl always sees something to patch there.
    ensure!(
        again.lines().filter(|line| !line.starts_with("secret/")).all(|line| line.ends_with("unchanged")),
        "{again}"
    );
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", manifest])?;
    kubectl.run(&["diff", "-f", manifest])?;
    ensure!(kubectl.run(&["get", "deployment", "web", "-owide"])?.contains("knarr.local/web:1"));
    ensure!(kubectl.run(&["get", "deployment", "web", "-oyaml"])?.contains("kind: Deployment"));
    let explained = kubectl.run(&["explain", "deployment.spec.strategy.rollingUpdate"])?;
    ensure!(explained.contains("maxSurge"), "{explained}");
    let strict = kubectl.refused(
        &["apply", "--validate=strict", "-f", "-"],
        Some("{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, dta: {}}"),
    )?;
    ensure!(strict.contains("unknown field \"dta\""), "{strict}");
    kubectl.run(&["label", "deployment", "web", "tier=front"])?;
    kubectl.run(&["annotate", "deployment", "web", "note=hello"])?;
    ensure!(kubectl.run(&["get", "deployments", "-ltier=front", "-oname"])? == "deployment.apps/web\n");
    kubectl.run(&["scale", "deployment/web", "--replicas=5"])?;
    kubectl.run(&["wait", "--for=jsonpath={.status.replicas}=5", "deployment/web", "--timeout=30s"])?;
    ensure!(kubectl.run(&["describe", "deployment", "web"])?.contains("5 desired"));
    kubectl.run(&["edit", "deployment", "web"])?;
    kubectl.run(&["create", "token", "default"])?;
    let all = kubectl.run(&["get", "all"])?;
    ensure!(all.contains("service/kubernetes") && all.contains("replicaset.apps/web-"), "{all}");
    kubectl.run(&["delete", "-f", manifest, "--timeout=30s"])?;
    kubectl.run(&["wait", "--for=delete", "pods", "-lapp=web", "--timeout=30s"]).map(drop)
}

#[test]
fn a_stage_that_fails_says_what_and_what_to_do() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("0.0.0.0:0")?;
    let run = |arguments: &[&str]| -> Result<(bool, String)> {
        let output =
            Command::new(binary()?).arg("up").arg("--data-dir").arg(directory.path()).args(arguments).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stderr).trim().to_string()))
    };
    let bind = format!("--bind=127.0.0.1:{}", taken.local_addr()?.port());
    let (ok, said) = run(&["--no-node", &bind])?;
    ensure!(!ok && said.lines().count() == 1 && said.contains("--bind"), "{said:?}");
    let (ok, said) = run(&["--no-node", "--cluster-cidr=10.96.0.0/12"])?;
    ensure!(!ok && said.contains("overlap"), "{said:?}");
    let bind = format!("--bind=127.0.0.1:{}", free_port());
    let (ok, said) = run(&["--no-node", &bind, "--disable-admission-plugins=Nonsense"])?;
    ensure!(!ok && said.contains("disable-admission-plugins plugin \"Nonsense\" is unknown"), "{said:?}");
    let (ok, said) = run(&["--runtime-endpoint=/nonexistent.sock", &bind])?;
    ensure!(!ok && said.lines().count() == 1, "{said:?}");
    Ok(())
}
