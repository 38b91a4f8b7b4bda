//! Real containers: one cluster with a node in a network of its own, driven through kubectl as a new user would and through kube-rs as a
//! program would. One test at a time, in this order, and the sessions of `transcripts/node` beside them; the cluster is purged at the end
//! and must leave nothing behind.

#[path = "node/sessions.rs"]
mod sessions;
#[path = "node/through_kube.rs"]
mod through_kube;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use knarr_tests::{Cluster, Kubectl, Options, eventually, free_port, is_root, kubectl_path, own_network};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use sessions::Sessions;

const LONG: Duration = Duration::from_secs(90);

type Test = fn(&Cluster, &Kubectl) -> Result<()>;

const TESTS: [(&str, Test); 14] = [
    ("a_new_cluster_has_one_ready_node_and_its_namespaces", fresh_cluster),
    ("a_web_deployment_answers_from_all_replicas_and_by_name", web),
    ("configuration_reaches_the_container", configuration),
    ("logs_exec_cp_and_port_forward_work", streams),
    ("a_rollout_moves_on_and_back", rollout),
    ("a_killed_container_restarts_and_a_deleted_pod_is_replaced", replacement),
    ("a_failing_readiness_probe_takes_a_pod_out_of_the_endpoints", readiness),
    ("a_job_completes_and_its_pods_finish", job),
    ("init_containers_run_first_and_hooks_run", init_and_hooks),
    ("a_missing_image_backs_off", missing_image),
    ("a_crashing_container_backs_off_and_keeps_its_previous_logs", crash_loop),
    ("an_unschedulable_pod_waits_until_something_changes", unschedulable),
    ("deleting_a_namespace_ends_its_pods", namespace),
    ("kill_dash_nine_loses_nothing_and_restarts_no_container", crash),
];

/// What the machine lets these tests do.
#[derive(Clone, Copy)]
struct Machine {
    containers: bool,
    kubectl: bool,
}

impl Machine {
    /// Moves the process into a network of its own, if containers can run here.
    fn prepare() -> Machine {
        let refused = match is_root() {
            true => own_network().err().map(|error| format!("{error:#}")),
            false => Some("they need root".to_string()),
        };
        let kubectl = kubectl_path().is_some();
        match &refused {
            Some(why) => eprintln!("the tests with containers are skipped: {why}"),
            None if !kubectl => eprintln!("no kubectl on the PATH: the tests that drive it are skipped"),
            None => {}
        }
        Machine { containers: refused.is_none(), kubectl: refused.is_none() && kubectl }
    }
}

fn main() {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let machine = Machine::prepare();
    let before = Traces::now();
    let wanted = machine.containers && !arguments.list;
    let cluster = wanted.then(|| Arc::new(start().unwrap_or_else(|error| panic!("starting the cluster: {error:#}"))));
    let conclusion = run(&arguments, cluster.as_ref(), machine);
    if let Some(cluster) = cluster
        && let Err(left) = purge(&cluster, &before)
    {
        eprintln!("purging left something behind: {left:#}");
        std::process::exit(101);
    }
    match conclusion {
        Ok(conclusion) => conclusion.exit(),
        Err(error) => panic!("{error:#}"),
    }
}

fn run(arguments: &Arguments, cluster: Option<&Arc<Cluster>>, machine: Machine) -> Result<Conclusion> {
    let sessions =
        cluster.filter(|_| machine.kubectl).map(|cluster| Sessions::begin(arguments, cluster)).transpose()?;
    let mut trials = through_kube::trials(cluster, !machine.containers);
    let mut by_kubectl: Vec<Trial> =
        TESTS.into_iter().map(|(name, test)| trial(name, test, cluster, !machine.kubectl)).collect();
    // The last tests of both kill the cluster's process: the sessions come before them.
    let last = [trials.pop(), by_kubectl.pop()];
    trials.extend(by_kubectl);
    trials.extend(sessions::trials(&sessions)?.into_iter().map(|trial| trial.with_ignored_flag(!machine.kubectl)));
    trials.extend(last.into_iter().flatten());
    let conclusion = libtest_mimic::run(arguments, trials);
    if let Some(sessions) = sessions {
        sessions.join();
    }
    Ok(conclusion)
}

fn trial(name: &str, test: Test, cluster: Option<&Arc<Cluster>>, ignored: bool) -> Trial {
    let cluster = cluster.cloned();
    let run = move || {
        let cluster = cluster.as_ref().ok_or("no cluster")?;
        let kubectl = cluster.kubectl().ok_or("no kubectl")?;
        test(cluster, &kubectl).map_err(|error| Failed::from(cluster.explain(&error)))
    };
    Trial::test(name, run).with_ignored_flag(ignored)
}

fn start() -> Result<Cluster> {
    let cluster = Cluster::up(&Options {
        node: true,
        // The machine that runs the tests may have as little left as it likes.
        flags: vec!["--eviction-hard=".to_string()],
    })?;
    cluster.load_images()?;
    Ok(cluster)
}

/// What a node leaves on a machine if it is not purged, by kind and name.
struct Traces(BTreeSet<String>);

impl Traces {
    fn now() -> Traces {
        let mut found = BTreeSet::new();
        let listed = |directory: &str| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path().display().to_string()).collect::<Vec<_>>()
        };
        let networks = listed("/run/netns").into_iter();
        let groups = ["", "unified/", "memory/", "cpu/", "pids/", "systemd/"];
        let groups = groups.into_iter().flat_map(|h| listed(&format!("/sys/fs/cgroup/{h}")));
        let groups = groups.filter(|group| group.contains("/knarr-") || group.ends_with("/kubepods"));
        found.extend(networks.chain(groups));
        let print = |program: &str, arguments: &[&str]| {
            let output = std::process::Command::new(program).args(arguments).output();
            output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
        };
        found.extend(
            print("ip", &["-oneline", "link"]).lines().filter_map(|line| Some(line.split(": ").nth(1)?.to_owned())),
        );
        let rules = print("nft", &["list", "tables"]) + &print("iptables-save", &[]);
        found.extend(rules.lines().filter(|line| line.to_lowercase().contains("knarr")).map(str::to_owned));
        Traces(found)
    }
}

/// Purges the cluster and checks that no process, mount, network, control group or rule of it is left.
fn purge(cluster: &Cluster, before: &Traces) -> Result<()> {
    let data = cluster.data_dir().display().to_string();
    cluster.knarr(&["down", "--purge"])?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&data), "a mount below {data}");
    for process in std::fs::read_dir("/proc")?.flatten() {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        ensure!(!String::from_utf8_lossy(&command).contains(&data), "process {}", process.path().display());
    }
    ensure!(!std::path::Path::new(&data).exists(), "{data}");
    let after = Traces::now();
    let left: Vec<_> = after.0.difference(&before.0).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// `kubectl … -o jsonpath=PATH`
fn field(kubectl: &Kubectl, object: &[&str], path: &str) -> Result<String> {
    let output = format!("-ojsonpath={path}");
    let arguments: Vec<&str> = ["get"].iter().chain(object).copied().chain([output.as_str()]).collect();
    kubectl.run(&arguments)
}

fn is(kubectl: &Kubectl, object: &[&str], path: &str, wanted: &str) -> Result<()> {
    let found = field(kubectl, object, path)?;
    ensure!(found == wanted, "{object:?} {path}: {found:?}, not {wanted:?}");
    Ok(())
}

fn becomes(kubectl: &Kubectl, object: &[&str], path: &str, wanted: &str) -> Result<()> {
    eventually(&format!("{object:?} {path} = {wanted}"), LONG, || is(kubectl, object, path, wanted))
}

/// Creates a pod of the busybox image that runs `script`; `more` is put beside its containers, `inside` into its container.
fn run_pod(kubectl: &Kubectl, name: &str, script: &str, more: &str, inside: &str) -> Result<()> {
    let script = serde_json::to_string(script)?;
    let manifest = format!(
        r#"{{"apiVersion": "v1", "kind": "Pod", "metadata": {{"name": "{name}"}}, "spec": {{"terminationGracePeriodSeconds": 1, {more}
        "containers": [{{"name": "main", "image": "busybox", "imagePullPolicy": "Never", {inside} "command": ["sh", "-c", {script}]}}]}}}}"#
    );
    kubectl.run_with(&["create", "-f", "-"], &manifest).map(drop)
}

fn fresh_cluster(cluster: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let nodes = kubectl.run(&["get", "nodes"])?;
    ensure!(nodes.lines().count() == 2 && nodes.contains(" Ready "), "{nodes}");
    let namespaces = kubectl.run(&["get", "namespaces", "-oname"])?;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure!(namespaces.contains(&format!("namespace/{name}\n")), "{namespaces}");
    }
    let node = field(kubectl, &["nodes"], "{.items[0].metadata.name}")?;
    let logs = kubectl.run(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/logs/")])?;
    ensure!(logs.starts_with("<pre>\n"), "{logs}");
    let images = cluster.knarr(&["images"])?;
    ensure!(images.contains("docker.io/library/busybox:latest"), "{images}");
    Ok(())
}

fn web(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let manifest = "../examples/web.yaml";
    kubectl.run(&["apply", "-f", manifest])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    let pods = kubectl.run(&["get", "pods", "-lapp=web", "-oname"])?;
    let pods: BTreeSet<String> = pods.lines().map(|line| line.trim_start_matches("pod/").to_string()).collect();
    ensure!(pods.len() == 3, "{pods:?}");

    let node = field(kubectl, &["nodes"], "{.items[0].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    all_answer("the node port", &pods, || http_get(&node, 30080))?;

    run_pod(kubectl, "client", "sleep 3600", "", "")?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/client", "--timeout=90s"])?;
    let inside = |url: &str| kubectl.run(&["exec", "client", "--", "wget", "-qO-", url]);
    all_answer("the service's name", &pods, || inside("http://web"))?;
    let address = field(kubectl, &["service", "web"], "{.spec.clusterIP}")?;
    all_answer("the service's address", &pods, || inside(&format!("http://{address}")))?;
    let answer = kubectl.run(&["exec", "client", "--", "nslookup", "web.default.svc.cluster.local"])?;
    ensure!(answer.contains(&address), "{answer}");
    let answer = kubectl.run(&["exec", "client", "--", "nslookup", "kubernetes.default.svc.cluster.local"])?;
    ensure!(answer.contains("10.96.0.1"), "{answer}");
    Ok(())
}

/// Asks until every pod has answered.
fn all_answer(what: &str, pods: &BTreeSet<String>, ask: impl Fn() -> Result<String>) -> Result<()> {
    let mut heard = BTreeSet::new();
    eventually(&format!("all replicas answer at {what}"), LONG, || {
        let answer = ask()?;
        let name = answer.trim().rsplit(' ').next().unwrap_or_default().to_string();
        ensure!(answer.starts_with("hello from "), "{answer:?}");
        heard.insert(name);
        ensure!(heard == *pods, "heard {heard:?} of {pods:?}");
        Ok(())
    })
}

fn http_get(host: &str, port: u16) -> Result<String> {
    let mut stream = TcpStream::connect((host, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).with_context(|| answer.clone())
}

fn configuration(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let secret = kubectl.run(&["exec", "deployment/web", "--", "cat", "/etc/web/token"])?;
    ensure!(secret == "sesame", "{secret:?}");
    let token = kubectl.run(&["exec", "client", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"])?;
    ensure!(token.split('.').count() == 3, "a service-account token: {token:?}");
    let volumes = r#""volumes": [{"name": "info", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"name": "scratch", "emptyDir": {"medium": "Memory"}}],"#;
    let inside = r#""env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "BOTH", "value": "$(POD_IP)-$(CPU)"}], "resources": {"limits": {"cpu": "1", "memory": "16Mi"}},
        "volumeMounts": [{"name": "info", "mountPath": "/info"}, {"name": "scratch", "mountPath": "/scratch"}],"#;
    run_pod(
        kubectl,
        "facts",
        "echo $BOTH $(cat /info/name); grep -c ' /scratch tmpfs ' /proc/mounts; sleep 3600",
        volumes,
        inside,
    )?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/facts", "--timeout=90s"])?;
    let address = field(kubectl, &["pod", "facts"], "{.status.podIP}")?;
    eventually("the pod's facts", LONG, || {
        let said = kubectl.run(&["logs", "facts"])?;
        ensure!(said == format!("{address}-1 facts\n1\n"), "{said:?}");
        Ok(())
    })
}

fn streams(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    run_pod(kubectl, "talker", "echo one; echo two; echo three; exec sleep 3600", "", "")?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=90s"])?;
    eventually("logs", LONG, || {
        let logs = kubectl.run(&["logs", "talker"])?;
        ensure!(logs == "one\ntwo\nthree\n", "{logs:?}");
        Ok(())
    })?;
    ensure!(kubectl.run(&["logs", "talker", "--tail=1"])? == "three\n");
    let mut follow = kubectl.command(&["logs", "-f", "talker"]).stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    BufReader::new(follow.stdout.take().context("piped")?).read_line(&mut first)?;
    follow.kill()?;
    follow.wait()?;
    ensure!(first == "one\n", "{first:?}");

    let echoed = kubectl.run_with(&["exec", "-i", "talker", "--", "cat"], "through standard input\n")?;
    ensure!(echoed == "through standard input\n", "{echoed:?}");
    let failed = kubectl.refused(&["exec", "talker", "--", "sh", "-c", "exit 7"], None)?;
    ensure!(failed.contains("exit code 7"), "{failed:?}");

    let directory = tempfile::tempdir()?;
    let (there, back) = (directory.path().join("there"), directory.path().join("back"));
    let payload: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(&there, &payload)?;
    kubectl.run(&["cp", &there.display().to_string(), "talker:/tmp/file"])?;
    kubectl.run(&["cp", "talker:/tmp/file", &back.display().to_string()])?;
    ensure!(std::fs::read(&back)? == payload, "kubectl cp changed the file");
    port_forward(kubectl)
}

fn port_forward(kubectl: &Kubectl) -> Result<()> {
    let port = free_port();
    let mut child =
        kubectl.command(&["port-forward", "deployment/web", &format!("{port}:8080")]).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    // Kept to the end: kubectl writes a line for each connection, and a closed pipe would kill it.
    let mut output = BufReader::new(child.stdout.take().context("piped")?);
    output.read_line(&mut line)?;
    let answers: Result<Vec<String>> = (0..3).map(|_| http_get("127.0.0.1", port)).collect();
    child.kill()?;
    child.wait()?;
    ensure!(answers?.iter().all(|a| a.starts_with("hello from web-")), "{line}");
    Ok(())
}

fn rollout(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["set", "image", "deployment/web", "web=knarr.local/web:2"])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    let history = kubectl.run(&["rollout", "history", "deployment/web"])?;
    ensure!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    kubectl.run(&["rollout", "undo", "deployment/web"])?;
    kubectl.run(&["rollout", "status", "deployment/web", "--timeout=90s"])?;
    is(kubectl, &["deployment", "web"], "{.spec.template.spec.containers[0].image}", "knarr.local/web:1")?;
    kubectl.run(&["scale", "deployment/web", "--replicas=2"])?;
    becomes(kubectl, &["deployment", "web"], "{.status.readyReplicas}", "2")?;
    let described = kubectl.run(&["describe", "deployment", "web"])?;
    ensure!(described.contains("ScalingReplicaSet"), "{described}");
    Ok(())
}

fn replacement(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    run_pod(kubectl, "mortal", "trap 'exit 3' TERM; while :; do sleep 1; done", "", "")?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/mortal", "--timeout=90s"])?;
    kubectl.run(&["exec", "mortal", "--", "kill", "-TERM", "1"])?;
    becomes(kubectl, &["pod", "mortal"], "{.status.containerStatuses[0].restartCount}", "1")?;
    becomes(kubectl, &["pod", "mortal"], "{.status.phase}", "Running")?;
    is(kubectl, &["pod", "mortal"], "{.status.containerStatuses[0].lastState.terminated.exitCode}", "3")?;
    let victim = field(kubectl, &["pods", "-lapp=web"], "{.items[0].metadata.name}")?;
    kubectl.run(&["delete", "pod", &victim, "--wait=false"])?;
    eventually("the pod is replaced", LONG, || {
        let names = field(kubectl, &["pods", "-lapp=web"], "{.items[*].metadata.name}")?;
        ensure!(names.split(' ').count() == 2 && !names.contains(&victim), "{names}");
        Ok(())
    })?;
    becomes(kubectl, &["deployment", "web"], "{.status.readyReplicas}", "2")
}

fn readiness(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let inside = r#""readinessProbe": {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "failureThreshold": 1},"#;
    run_pod(kubectl, "moody", "touch /tmp/ready; sleep 3600", "", inside)?;
    kubectl.run(&["label", "pod", "moody", "app=moody"])?;
    kubectl.run(&["expose", "pod", "moody", "--port=80"])?;
    let ready = "{.items[0].endpoints[0].conditions.ready}";
    let slices = ["endpointslices", "-lkubernetes.io/service-name=moody"];
    becomes(kubectl, &slices, ready, "true")?;
    kubectl.run(&["exec", "moody", "--", "rm", "/tmp/ready"])?;
    becomes(kubectl, &slices, ready, "false")?;
    becomes(kubectl, &["endpoints", "moody"], "{.subsets[0].notReadyAddresses[0].targetRef.name}", "moody")?;
    kubectl.run(&["exec", "moody", "--", "touch", "/tmp/ready"])?;
    becomes(kubectl, &slices, ready, "true")
}

fn job(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    kubectl.run_with(
        &["create", "-f", "-"],
        r#"{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "sums"}, "spec": {"completions": 3, "parallelism": 2, "template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "sum", "image": "busybox", "imagePullPolicy": "Never", "command": ["sh", "-c", "echo $((6*7))"]}]}}}}"#,
    )?;
    kubectl.run(&["wait", "--for=condition=Complete", "job/sums", "--timeout=90s"])?;
    is(kubectl, &["job", "sums"], "{.status.succeeded}", "3")?;
    ensure!(kubectl.run(&["logs", "job/sums"])?.contains("42"));
    let table = kubectl.run(&["get", "pods", "-ljob-name=sums", "--no-headers"])?;
    ensure!(table.lines().count() == 3 && table.lines().all(|line| line.contains("Completed")), "{table}");
    Ok(())
}

fn init_and_hooks(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    let more = r#""volumes": [{"name": "shared", "emptyDir": {}}], "initContainers": [{"name": "first", "image": "busybox", "imagePullPolicy": "Never",
        "command": ["sh", "-c", "echo prepared > /shared/note"], "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],"#;
    let inside = r#""volumeMounts": [{"name": "shared", "mountPath": "/shared"}], "lifecycle": {"postStart": {"exec": {"command": ["touch", "/shared/hooked"]}}},"#;
    run_pod(
        kubectl,
        "staged",
        "cat /shared/note; while [ ! -e /shared/hooked ]; do sleep 0.1; done; echo hooked; sleep 3600",
        more,
        inside,
    )?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/staged", "--timeout=90s"])?;
    eventually("both stages", LONG, || {
        let logs = kubectl.run(&["logs", "staged"])?;
        ensure!(logs == "prepared\nhooked\n", "{logs:?}");
        Ok(())
    })?;
    is(kubectl, &["pod", "staged"], "{.status.initContainerStatuses[0].state.terminated.reason}", "Completed")
}

fn missing_image(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["run", "nowhere", "--image=127.0.0.1:1/no/such:image"])?;
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    eventually("ErrImagePull, then ImagePullBackOff", LONG, || {
        let events = kubectl.run(&[
            "get",
            "events",
            "--field-selector=involvedObject.name=nowhere",
            "-ojsonpath={.items[*].message}",
        ])?;
        ensure!(events.contains("ErrImagePull") || events.contains("Failed to pull image"), "{events}");
        is(kubectl, &["pod", "nowhere"], reason, "ImagePullBackOff")
    })?;
    kubectl.run(&["delete", "pod", "nowhere"]).map(drop)
}

fn crash_loop(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    run_pod(kubectl, "crasher", "echo I was here; exit 9", "", "")?;
    becomes(kubectl, &["pod", "crasher"], "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff")?;
    ensure!(kubectl.run(&["logs", "crasher", "--previous"])?.contains("I was here"));
    kubectl.run(&["delete", "pod", "crasher"]).map(drop)
}

fn unschedulable(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    run_pod(kubectl, "picky", "sleep 3600", r#""nodeSelector": {"shape": "round"},"#, "")?;
    becomes(kubectl, &["pod", "picky"], "{.status.conditions[?(@.type==\"PodScheduled\")].reason}", "Unschedulable")?;
    let message = field(kubectl, &["pod", "picky"], "{.status.conditions[?(@.type==\"PodScheduled\")].message}")?;
    ensure!(
        message.starts_with("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        "{message}"
    );
    is(kubectl, &["pod", "picky"], "{.status.conditions[?(@.type==\"PodScheduled\")].observedGeneration}", "1")?;
    kubectl.run(&["label", "nodes", "--all", "shape=round"])?;
    let ready = kubectl.run(&["wait", "--for=condition=Ready", "pod/picky", "--timeout=60s"]);
    ready.map(drop).with_context(|| {
        let pod = kubectl.run(&["describe", "pod", "picky"]).unwrap_or_default();
        let nodes = kubectl.run(&["describe", "nodes"]).unwrap_or_default();
        format!("{pod}\n{nodes}")
    })
}

fn namespace(_: &Cluster, kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["create", "namespace", "brief"])?;
    kubectl.run(&["-n", "brief", "create", "deployment", "app", "--image=busybox", "--", "sleep", "3600"])?;
    kubectl.run(&["delete", "namespace", "brief", "--timeout=90s"])?;
    let gone = kubectl.refused(&["get", "namespace", "brief"], None)?;
    ensure!(gone.contains("NotFound"), "{gone}");
    Ok(())
}

fn crash(cluster: &Cluster, kubectl: &Kubectl) -> Result<()> {
    run_pod(kubectl, "survivor", "echo started; sleep 3600", "", "")?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/survivor", "--timeout=90s"])?;
    let started = "{.status.containerStatuses[0].state.running.startedAt}{.status.containerStatuses[0].containerID}";
    let before = field(kubectl, &["pod", "survivor"], started)?;
    kubectl.run(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    cluster.kill()?;
    cluster.start()?;
    is(kubectl, &["configmap", "kept"], "{.data.a}", "b")?;
    kubectl.run(&["wait", "--for=condition=Ready", "pod/survivor", "--timeout=90s"])?;
    is(kubectl, &["pod", "survivor"], started, &before)?;
    is(kubectl, &["pod", "survivor"], "{.status.containerStatuses[0].restartCount}", "0")?;
    let answer = kubectl.run(&["exec", "survivor", "--", "echo", "still here"])?;
    if answer != "still here\n" {
        bail!("{answer:?}");
    }
    Ok(())
}
