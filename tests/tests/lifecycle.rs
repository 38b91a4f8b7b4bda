//! The real process: how it ends, logs, records and takes over new certificates.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use knarr_tests::{Cluster, Options, Raw, eventually};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn control_plane(flags: &[&str]) -> Result<Cluster> {
    Cluster::up(&Options { flags: flags.iter().map(|f| f.to_string()).collect(), ..Options::default() })
}

fn json_lines(path: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn the_audit_log_and_the_programs_own_are_json_lines() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (policy, log) = (directory.path().join("policy.yaml"), directory.path().join("audit.log"));
    std::fs::write(
        &policy,
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, users: [kubernetes-admin]}]\n",
    )?;
    let (policy_flag, log_flag) =
        (format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display()));
    let cluster = control_plane(&[&policy_flag, &log_flag, "--logging-format=json", "-v"])?;
    Raw::new(&cluster)?.get("/api/v1/namespaces/default/configmaps/none").await?;
    let events = json_lines(&log)?;
    let complete = events.iter().find(|e| e["stage"] == "ResponseComplete" && e["objectRef"]["name"] == "none");
    let complete = complete.context("the request is recorded before it is answered")?;
    ensure!(complete["responseStatus"]["code"] == 404, "{complete}");
    ensure!(complete["sourceIPs"].as_array().is_some_and(|ips| ips.len() == 1), "{complete}");
    ensure!(complete["user"]["groups"].as_array().is_some_and(|g| g.contains(&"system:masters".into())), "{complete}");
    cluster.down()?;
    let own = json_lines(&cluster.data_dir().join("knarr.log"))?;
    ensure!(own.iter().any(|line| line["message"] == "stopping" && line["level"] == "INFO"), "{own:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_ends_says_so_first_and_finishes_what_it_has_begun() -> Result<()> {
    let cluster = control_plane(&["--shutdown-delay-duration=3s"])?;
    let raw = Raw::new(&cluster)?;
    let watch = raw.stream("/api/v1/namespaces/default/configmaps?watch=1").await?;
    let pid = nix::unistd::Pid::from_raw(cluster.pid()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let (code, body) = raw.get("/readyz").await?;
        if code == 500 {
            ensure!(body.as_str().is_some_and(|b| b.contains("[-]shutdown failed")), "{body}");
            break;
        }
        ensure!(std::time::Instant::now() < deadline, "still ready");
    }
    let (code, _) = raw.get("/livez").await?;
    ensure!(code == 200, "it lives, and serves, until the delay is over: {code}");
    // A request that is on its way when the server stops is answered.
    let (body, sent) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(2);
    body.send(Ok(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#.to_vec())).await?;
    let stream = futures::stream::unfold(sent, |mut sent| async move { Some((sent.recv().await?, sent)) });
    let create = raw
        .http()
        .post(format!("{}/api/v1/namespaces/default/configmaps", cluster.server()))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(stream))
        .send();
    let create = tokio::spawn(create);
    let events: Vec<_> = tokio::time::timeout(LIMIT, watch.bytes_stream().collect()).await?;
    ensure!(events.iter().all(Result::is_ok), "the watch ends politely: {events:?}");
    body.send(Ok(br#""name":"late"}}"#.to_vec())).await?;
    drop(body);
    let created = tokio::time::timeout(LIMIT, create).await???;
    ensure!(created.status() == 201, "{}", created.status());
    eventually("the process ends", LIMIT, || {
        ensure!(nix::sys::signal::kill(pid, None).is_err(), "still there");
        Ok(())
    })?;
    cluster.start()?;
    let (code, _) = Raw::new(&cluster)?.get("/api/v1/namespaces/default/configmaps/late").await?;
    ensure!(code == 200, "and what was answered is there: {code}");
    Ok(())
}

/// The end of the serving certificate, as a new client sees it.
async fn serial(cluster: &Cluster) -> Result<String> {
    let response = reqwest::Client::builder()
        .use_rustls_tls()
        .danger_accept_invalid_certs(true)
        .tls_info(true)
        .build()?
        .get(format!("{}/version", cluster.server()))
        .send()
        .await?;
    let info = response.extensions().get::<reqwest::tls::TlsInfo>().context("TLS")?;
    Ok(format!("{:?}", info.peer_certificate().context("a certificate")?))
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_over_without_a_restart() -> Result<()> {
    let cluster = control_plane(&[])?;
    let other = control_plane(&[])?;
    let before = serial(&cluster).await?;
    let (ours, theirs) = (cluster.data_dir().join("pki"), other.data_dir().join("pki"));
    for name in ["apiserver.crt", "apiserver.key"] {
        std::fs::copy(theirs.join(name), ours.join(format!("{name}.new")))?;
        std::fs::rename(ours.join(format!("{name}.new")), ours.join(name))?;
    }
    let wanted = serial(&other).await?;
    let deadline = std::time::Instant::now() + LIMIT;
    loop {
        let now = serial(&cluster).await?;
        if now == wanted {
            break;
        }
        ensure!(now == before && std::time::Instant::now() < deadline, "neither the old nor the new certificate");
    }
    // The other cluster's authority becomes one of ours, too: its administrator gets in.
    let bundle = std::fs::read_to_string(ours.join("ca.crt"))? + &std::fs::read_to_string(theirs.join("ca.crt"))?;
    std::fs::write(ours.join("ca.crt"), bundle)?;
    let stranger = Raw::to(&other, &cluster.server())?;
    let deadline = std::time::Instant::now() + LIMIT;
    while !stranger.get("/api/v1/namespaces").await.is_ok_and(|(code, _)| code == 200) {
        ensure!(std::time::Instant::now() < deadline, "the new authority is not trusted");
    }
    Ok(())
}

#[tokio::test]
async fn large_headers_are_served_and_enormous_ones_answered() -> Result<()> {
    let cluster = control_plane(&[])?;
    for (client, name) in [(Raw::http1(&cluster)?, "HTTP/1.1"), (Raw::new(&cluster)?, "HTTP/2")] {
        let ask = async |size: usize| {
            let request = client.http().get(format!("{}/version", cluster.server()));
            request.header("x-large", "x".repeat(size)).send().await
        };
        let served = ask(120 << 10).await?;
        ensure!(served.status() == 200, "{name}: {}", served.status());
        let refused = ask(3 << 20).await;
        ensure!(refused.as_ref().map_or(true, |r| r.status() == 431), "{name}: {refused:?}");
        let query = client.get(&format!("/version?x={}", "y".repeat(40 << 10))).await?;
        ensure!(query.0 == 200, "{name}: a long query: {}", query.0);
    }
    Ok(())
}
