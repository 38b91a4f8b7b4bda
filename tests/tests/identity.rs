//! Who may and what is kept secret, through the real binary: certificates for the asking, encryption at rest.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_tests::{Cluster, Options, Raw};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const WORD: &str = "the-needle-in-the-haystack";

/// Asks until the answer is right; the last wrong one otherwise.
async fn eventually<F: Future<Output = Result<Value>>>(
    ask: impl Fn() -> F,
    right: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let started = std::time::Instant::now();
    loop {
        let answer = ask().await?;
        if right(&answer) {
            return Ok(answer);
        }
        ensure!(started.elapsed() < Duration::from_secs(30), "still {answer}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A key and a request for a certificate of this subject.
fn signing_request(name: &str, organizations: &[&str]) -> Result<(KeyPair, String)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.serialize_request(&key)?.pem()?;
    Ok((key, STANDARD.encode(pem)))
}

fn csr(name: &str, request: &str, signer: &str, usages: &[&str]) -> Value {
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": request, "signerName": signer, "usages": usages, "expirationSeconds": 3600}})
}

/// A client that trusts the cluster and shows what `identity` adds.
fn client(
    cluster: &Cluster,
    add: impl FnOnce(reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder>,
) -> Result<reqwest::Client> {
    let config: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
    let authority = config["clusters"][0]["cluster"]["certificate-authority-data"].as_str().context("an authority")?;
    let authority = reqwest::Certificate::from_pem(&STANDARD.decode(authority)?)?;
    Ok(add(reqwest::Client::builder().use_rustls_tls().add_root_certificate(authority))?.build()?)
}

async fn certificate_of(admin: &Raw, name: &str) -> Result<Vec<u8>> {
    let path = format!("{CSRS}/{name}");
    let issued = eventually(|| async { Ok(admin.get(&path).await?.1) }, |csr| csr["status"]["certificate"].is_string());
    Ok(STANDARD.decode(issued.await?["status"]["certificate"].as_str().unwrap_or_default())?)
}

async fn whoami(cluster: &Cluster, key: &KeyPair, certificate: &[u8]) -> Result<Value> {
    let identity = [key.serialize_pem().as_bytes(), certificate].concat();
    let client = client(cluster, |builder| Ok(builder.identity(reqwest::Identity::from_pem(&identity)?)))?;
    let target = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", cluster.server());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = client.post(target).header("content-type", "application/json").body(review.to_string()).send().await?;
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    Ok(answer["status"]["userInfo"].clone())
}

#[tokio::test]
async fn a_new_node_gets_its_certificate_by_a_bootstrap_token() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let admin = Raw::new(&cluster)?;
    let encode = |text: &str| STANDARD.encode(text);
    let token = json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"}, "data": {
            "token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"),
            "usage-bootstrap-authentication": encode("true"), "usage-bootstrap-signing": encode("true")}});
    ensure!(admin.post("/api/v1/namespaces/kube-system/secrets", &token).await?.0 == 201);
    for (name, role) in
        [("a", "system:node-bootstrapper"), ("b", "system:certificates.k8s.io:certificatesigningrequests:nodeclient")]
    {
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}]});
        let (code, answer) = admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await?;
        ensure!(code == 201, "{answer}");
    }

    // Before it trusts the cluster, it compares the signature of what anybody may read.
    let stranger = client(&cluster, Ok)?;
    let target = format!("{}/api/v1/namespaces/kube-public/configmaps/cluster-info", cluster.server());
    let read = || async { Ok(serde_json::from_slice::<Value>(&stranger.get(&target).send().await?.bytes().await?)?) };
    let info = eventually(read, |map| map["data"]["jws-kubeconfig-abcdef"].is_string()).await?;
    ensure!(info["data"]["kubeconfig"].is_string(), "{info}");

    let (key, request) = signing_request("system:node:n1", &["system:nodes"])?;
    let usages = ["digital signature", "client auth"];
    let asked = csr("n1", &request, "kubernetes.io/kube-apiserver-client-kubelet", &usages);
    let answer = stranger.post(format!("{}{CSRS}", cluster.server())).bearer_auth("abcdef.0123456789abcdef");
    let answer = answer.header("content-type", "application/json").body(asked.to_string()).send().await?;
    ensure!(answer.status().as_u16() == 201, "{}", answer.text().await?);
    let certificate = certificate_of(&admin, "n1").await?;
    let user = whoami(&cluster, &key, &certificate).await?;
    ensure!(
        user["username"] == "system:node:n1" && user["groups"] == json!(["system:nodes", "system:authenticated"]),
        "{user}"
    );

    // A token whose time is over leaves no trace.
    let over = json!({"data": {"expiration": encode("2001-01-01T00:00:00Z")}});
    let path = "/api/v1/namespaces/kube-system/secrets/bootstrap-token-abcdef";
    admin.send("PATCH", path, "application/merge-patch+json", over.to_string()).await?;
    eventually(|| async { Ok(json!(admin.get(path).await?.0)) }, |code| *code == 404).await?;
    eventually(read, |map| map["data"]["jws-kubeconfig-abcdef"].is_null()).await?;
    Ok(())
}

#[tokio::test]
async fn other_certificates_need_an_approval_and_the_right_usages() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let admin = Raw::new(&cluster)?;
    let approve = async |name: &str| -> Result<()> {
        let (_, mut csr) = admin.get(&format!("{CSRS}/{name}")).await?;
        csr["status"]["conditions"] =
            json!([{"type": "Approved", "status": "True", "reason": "Test", "message": "yes"}]);
        let path = format!("{CSRS}/{name}/approval");
        let (code, answer) = admin.send("PUT", &path, "application/json", csr.to_string()).await?;
        ensure!(code == 200, "{answer}");
        Ok(())
    };
    let (key, request) = signing_request("jane", &["dev", "ops"])?;
    let signer = "kubernetes.io/kube-apiserver-client";
    for (name, usages) in [("good", ["digital signature", "client auth"]), ("bad", ["client auth", "server auth"])] {
        let (code, answer) = admin.post(CSRS, &csr(name, &request, signer, &usages)).await?;
        ensure!(code == 201, "{answer}");
        approve(name).await?;
    }
    let user = whoami(&cluster, &key, &certificate_of(&admin, "good").await?).await?;
    ensure!(user["username"] == "jane", "{user}");
    let path = format!("{CSRS}/bad");
    let failed = |csr: &Value| {
        csr["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|c| c["type"] == "Failed"))
    };
    let bad = eventually(|| async { Ok(admin.get(&path).await?.1) }, failed).await?;
    let failure =
        bad["status"]["conditions"].as_array().and_then(|all| all.iter().find(|c| c["type"] == "Failed")).cloned();
    let failure = failure.unwrap_or_default();
    ensure!(
        failure["reason"] == "SignerValidationFailure"
            && failure["message"] == "invalid usage for client certificate: server auth",
        "{failure}"
    );
    let (_, masters) = signing_request("eve", &["system:masters"])?;
    let (code, _) = admin.post(CSRS, &csr("eve", &masters, signer, &["client auth"])).await?;
    ensure!(code == 403, "nobody becomes a master by a signing request");
    Ok(())
}

async fn whoami_by_token(cluster: &Cluster, token: &str) -> Result<(u16, Value)> {
    let target = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", cluster.server());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let asked = client(cluster, Ok)?.post(target).bearer_auth(token).header("content-type", "application/json");
    let answer = asked.body(review.to_string()).send().await?;
    let code = answer.status().as_u16();
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    Ok((code, answer["status"]["userInfo"].clone()))
}

#[tokio::test]
async fn tokens_of_service_accounts_live_as_long_as_what_they_are_bound_to() -> Result<()> {
    let cluster = Cluster::up(&Options::default())?;
    let admin = Raw::new(&cluster)?;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    ensure!(admin.post(accounts, &account).await?.0 == 201);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "robot-token", "annotations": {"kubernetes.io/service-account.name": "robot"}}});
    ensure!(admin.post(SECRETS, &secret).await?.0 == 201);
    let path = format!("{SECRETS}/robot-token");
    let filled = eventually(|| async { Ok(admin.get(&path).await?.1) }, |s| s["data"]["token"].is_string()).await?;
    ensure!(
        filled["data"]["ca.crt"].is_string() && filled["data"]["namespace"] == STANDARD.encode("default"),
        "{filled}"
    );
    let legacy = String::from_utf8(STANDARD.decode(filled["data"]["token"].as_str().unwrap_or_default())?)?;
    let (code, user) = whoami_by_token(&cluster, &legacy).await?;
    ensure!((code, user["username"].as_str()) == (201, Some("system:serviceaccount:default:robot")), "{code} {user}");

    let bound = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "robot-token"}}});
    let (code, answer) = admin.post(&format!("{accounts}/robot/token"), &bound).await?;
    ensure!(code == 201, "{answer}");
    let bound = answer["status"]["token"].as_str().unwrap_or_default().to_string();
    ensure!(whoami_by_token(&cluster, &bound).await?.0 == 201);

    let refused = [
        (json!({"metadata": {"name": "other"}}), 422),
        (json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}), 409),
        (json!({"spec": {"expirationSeconds": 599}}), 422),
        (json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "none"}}}), 404),
        (json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "none"}}}), 400),
        (
            json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": "robot-token", "uid": "x"}}}),
            409,
        ),
    ];
    for (changes, want) in refused {
        let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"});
        request.as_object_mut().context("an object")?.extend(changes.as_object().cloned().unwrap_or_default());
        let (code, answer) = admin.post(&format!("{accounts}/robot/token"), &request).await?;
        ensure!(code == want, "{request}: {code} {answer}");
    }

    ensure!(admin.send("DELETE", &format!("{accounts}/robot"), "", "").await?.0 == 200);
    eventually(|| async { Ok(json!(admin.get(&path).await?.0)) }, |code| *code == 404).await?;
    for token in [legacy, bound] {
        // A server believes a token for two seconds more.
        eventually(|| async { Ok(json!(whoami_by_token(&cluster, &token).await?.0)) }, |code| *code == 401).await?;
    }
    Ok(())
}

#[tokio::test]
async fn admission_plugins_that_are_disabled_do_not_run() -> Result<()> {
    let flags = vec!["--disable-admission-plugins=ServiceAccount,DefaultTolerationSeconds".to_string()];
    let cluster = Cluster::up(&Options { flags, ..Options::default() })?;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, pod) = Raw::new(&cluster)?.post("/api/v1/namespaces/default/pods?dryRun=All", &pod).await?;
    ensure!(code == 201 && pod["spec"]["priority"] == 0, "{pod}");
    ensure!(pod["spec"].get("serviceAccountName").is_none() && pod["spec"].get("tolerations").is_none(), "{pod}");
    Ok(())
}

fn rules(providers: &[&str]) -> String {
    let list: String = providers.iter().map(|p| format!("  - {p}\n")).collect();
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n{list}"
    )
}

/// Whether any file of the store has these bytes.
fn stored(directory: &Path, needle: &[u8]) -> Result<bool> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => stored(&path, needle)?,
            false => std::fs::read(&path)?.windows(needle.len()).any(|window| window == needle),
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[tokio::test]
async fn secrets_are_encrypted_in_the_store_and_survive_restarts_and_new_keys() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("encryption.yaml");
    let old = format!("aescbc: {{keys: [{{name: old, secret: {}}}]}}", STANDARD.encode([1; 32]));
    let new = format!("secretbox: {{keys: [{{name: new, secret: {}}}]}}", STANDARD.encode([2; 32]));
    std::fs::write(&file, rules(&[&old, "identity: {}"]))?;
    let flags = vec![
        format!("--encryption-provider-config={}", file.display()),
        "--encryption-provider-config-automatic-reload".to_string(),
    ];
    let cluster = Cluster::up(&Options { flags, ..Options::default() })?;
    // A connection of its own for every request: the server is not always the same.
    let get = async |path: &str| Raw::new(&cluster)?.get(path).await;
    let admin = Raw::new(&cluster)?;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"word": WORD}});
    ensure!(admin.post(SECRETS, &secret).await?.0 == 201);
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"word": "in-plain-sight"}});
    ensure!(admin.post("/api/v1/namespaces/default/configmaps", &map).await?.0 == 201);
    let path = format!("{SECRETS}/s");
    let reads = async || -> Result<bool> { Ok(get(&path).await?.1["data"]["word"] == STANDARD.encode(WORD)) };
    ensure!(reads().await?);
    let store = cluster.data_dir().join("store");
    ensure!(!stored(&store, STANDARD.encode(WORD).as_bytes())?, "the secret is in the store");
    ensure!(stored(&store, b"k8s:enc:aescbc:v1:old:")? && stored(&store, b"in-plain-sight")?);

    cluster.kill()?;
    cluster.start()?;
    ensure!(reads().await?, "it survives a crash");

    // The new key comes first, without a restart; an update that changes nothing writes with it.
    std::fs::write(&file, rules(&[&new, &old, "identity: {}"]))?;
    let rewritten = || async {
        let (_, same) = get(&path).await?;
        Raw::new(&cluster)?.send("PUT", &path, "application/json", same.to_string()).await?;
        Ok(json!(stored(&store, b"k8s:enc:secretbox:v1:new:")?))
    };
    eventually(rewritten, |found| *found == true).await?;
    ensure!(reads().await?);
    cluster.down()?;
    std::fs::write(&file, rules(&[&new]))?;
    cluster.start()?;
    ensure!(reads().await?, "the old key is no longer needed");

    // Without any key it is an error, and not an absence.
    cluster.down()?;
    std::fs::write(&file, rules(&["identity: {}"]))?;
    cluster.start()?;
    let (code, answer) = get(&path).await?;
    ensure!(code == 500 && answer["reason"] == "InternalError", "{answer}");
    ensure!(answer["message"] == "Internal error occurred: no matching prefix found", "{answer}");
    let (code, answer) = get(SECRETS).await?;
    let unreadable = "unable to transform key \"/registry/secrets/default/s\"";
    ensure!(code == 500 && answer["message"].as_str().is_some_and(|m| m.contains(unreadable)), "{answer}");
    ensure!(Raw::new(&cluster)?.send("DELETE", &path, "", "").await?.0 == 500);
    ensure!(get("/api/v1/namespaces/default/configmaps/m").await?.0 == 200);
    std::fs::write(&file, rules(&["identity: {}", &new]))?;
    eventually(|| async { Ok(json!(get(&path).await?.0)) }, |code| *code == 200).await?;
    Ok(())
}
