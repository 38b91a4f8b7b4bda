//! Real packets through the rules, in network namespaces made for the purpose and removed again. Skips without root or without the
//! programs it needs.
//!
//! One namespace is the node, with a bridge as the pod network; two more are pods; one is a machine outside of the cluster.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_network::proxy::iptables;
use knarr_network::proxy::model::{Frontend, Surroundings, frontends};
use knarr_network::proxy::nftables::{self, Ruleset};
use nix::sched::{CloneFlags, setns};
use serde_json::json;

/// Namespaces of one test, by short name; removed with everything in them at the end.
struct World {
    id: String,
    names: Vec<&'static str>,
}

impl World {
    fn new(test: &str) -> Option<World> {
        let tools = ["ip", "nft"].iter().all(|tool| Command::new(tool).arg("-V").output().is_ok());
        if !nix::unistd::geteuid().is_root() || !tools {
            eprintln!("skipped: needs root, ip and nft");
            return None;
        }
        let mut world = World { id: format!("knarr-{test}-{}", std::process::id()), names: Vec::new() };
        for name in ["node", "pod1", "pod2", "outside"] {
            if !Command::new("ip").args(["netns", "add", &world.namespace(name)]).status().unwrap().success() {
                eprintln!("skipped: network namespaces cannot be made here");
                return None;
            }
            world.names.push(name);
            world.ip(name, "link set lo up");
        }
        world.connect();
        Some(world)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    fn run(&self, name: &str, program: &str, arguments: &[&str]) {
        let namespace = self.namespace(name);
        let all = [&["netns", "exec", &namespace, program], arguments].concat();
        let output = Command::new("ip").args(all).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ip(&self, name: &str, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').collect();
        self.run(name, "ip", &words);
    }

    /// The bridge 10.244.1.0/24 in the node, the link 192.0.2.0/24 to the outside.
    fn connect(&self) {
        self.ip("node", "link add knarr0 type bridge");
        self.ip("node", "address add 10.244.1.1/24 dev knarr0");
        self.ip("node", "link set knarr0 up");
        self.sysctl("net/ipv4/ip_forward");
        self.sysctl("net/ipv4/conf/knarr0/route_localnet");
        for (pod, address) in [("pod1", "10.244.1.11/24"), ("pod2", "10.244.1.12/24")] {
            self.veth(pod, pod);
            self.ip("node", &format!("link set {pod} master knarr0"));
            // As the bridge plug-in is told to: a pod that asks its own Service is answered through the same port.
            self.run("node", "sh", &["-c", &format!("echo 1 > /sys/class/net/{pod}/brport/hairpin_mode")]);
            self.ip(pod, &format!("address add {address} dev eth0"));
            self.ip(pod, "route add default via 10.244.1.1");
        }
        self.veth("outside", "uplink");
        self.ip("node", "address add 192.0.2.1/24 dev uplink");
        self.ip("node", "route add default via 192.0.2.2");
        self.ip("outside", "address add 192.0.2.2/24 dev eth0");
    }

    fn veth(&self, peer: &str, in_node: &str) {
        let namespace = self.namespace(peer);
        self.ip("node", &format!("link add {in_node} type veth peer name eth0 netns {namespace}"));
        self.ip("node", &format!("link set {in_node} up"));
        self.ip(peer, "link set eth0 up");
    }

    fn sysctl(&self, name: &str) {
        self.run("node", "sh", &["-c", &format!("echo 1 > /proc/sys/{name}")]);
    }

    fn apply(&self, script: &str) {
        let directory = tempdir();
        let file = directory.join("rules");
        std::fs::write(&file, script).unwrap();
        self.run("node", "nft", &["-f", file.to_str().unwrap()]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// Runs `work` in a thread that is in the namespace; sockets made there stay there.
    fn within<T: Send + 'static>(&self, name: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/run/netns/{}", self.namespace(name))).unwrap();
        let thread = std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap()
    }

    /// A server in a pod that tells its name, and the address it sees the client have.
    fn serve(&self, name: &'static str, port: u16) {
        let listener = self.within(name, move || TcpListener::bind(("0.0.0.0", port)).unwrap());
        std::thread::spawn(move || {
            while let Ok((mut stream, client)) = listener.accept() {
                let _ = write!(stream, "{name} {}", client.ip());
            }
        });
    }

    fn ask(&self, from: &'static str, to: &str) -> Result<String, std::io::ErrorKind> {
        let to: SocketAddr = to.parse().unwrap();
        self.within(from, move || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).map_err(|error| error.kind())?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).map_err(|error| error.kind())?;
            Ok(text)
        })
    }

    /// Who answers these many requests.
    fn answerers(&self, from: &'static str, to: &str, requests: usize) -> Vec<String> {
        let mut names: Vec<String> =
            (0..requests).map(|_| self.ask(from, to).unwrap().split(' ').next().unwrap().to_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(name)]).status();
        }
    }
}

fn tempdir() -> std::path::PathBuf {
    let directory = std::env::temp_dir().join(format!("knarr-packets-{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn surroundings() -> Surroundings {
    Surroundings {
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        // The namespaces of a test may not have the bridge filter.
        masquerade_bridged: true,
    }
}

fn service(spec: serde_json::Value, addresses: &[&str]) -> Vec<Frontend> {
    let service: Service =
        serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec})).unwrap();
    let endpoints: Vec<_> =
        addresses.iter().map(|address| json!({"addresses": [address], "nodeName": "node"})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": spec["ports"][0]["protocol"]}], "endpoints": endpoints,
    }))
    .unwrap();
    frontends(&[Arc::new(service)], &[Arc::new(slice)], "node")
}

fn node_port(extra: serde_json::Value) -> serde_json::Value {
    let mut spec = json!({"type": "NodePort", "clusterIP": "10.96.0.20",
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    spec
}

fn rules(frontends: &[Frontend]) -> Ruleset {
    nftables::render(frontends, &surroundings())
}

const BOTH: [&str; 2] = ["10.244.1.11", "10.244.1.12"];

#[test]
fn services_reach_their_endpoints_by_turns_from_everywhere() {
    let Some(world) = World::new("turns") else { return };
    world.serve("pod1", 8080);
    world.serve("pod2", 8080);
    world.apply(&rules(&service(node_port(json!({})), &BOTH)).whole());
    for (from, to) in [
        ("node", "10.96.0.20:80"),
        ("pod1", "10.96.0.20:80"),
        ("pod2", "10.96.0.20:80"),
        ("node", "192.0.2.1:30080"),
        ("node", "127.0.0.1:30080"),
        ("pod1", "192.0.2.1:30080"),
        ("outside", "192.0.2.1:30080"),
    ] {
        assert_eq!(world.answerers(from, to, 4), ["pod1", "pod1", "pod2", "pod2"], "{from} to {to}");
    }
}

#[test]
fn changes_are_applied_by_difference_and_nobody_left_means_refused() {
    let Some(world) = World::new("change") else { return };
    world.serve("pod1", 8080);
    world.serve("pod2", 8080);
    let both = rules(&service(node_port(json!({})), &BOTH));
    world.apply(&both.whole());
    let one = rules(&service(node_port(json!({})), &BOTH[1..]));
    world.apply(&one.difference(&both));
    assert_eq!(world.answerers("node", "10.96.0.20:80", 3), ["pod2", "pod2", "pod2"]);
    let none = rules(&service(node_port(json!({})), &[]));
    world.apply(&none.difference(&one));
    for (from, to) in [("node", "10.96.0.20:80"), ("pod1", "10.96.0.20:80"), ("outside", "192.0.2.1:30080")] {
        assert_eq!(world.ask(from, to), Err(std::io::ErrorKind::ConnectionRefused), "{from} to {to}");
    }
    world.apply(&both.difference(&none));
    assert_eq!(world.answerers("outside", "192.0.2.1:30080", 2), ["pod1", "pod2"]);
    world.apply(&rules(&[]).difference(&both));
    assert!(world.ask("outside", "192.0.2.1:30080").is_err());
}

#[test]
fn clients_keep_their_address_where_the_policy_is_local_and_their_endpoint_where_they_are_sticky() {
    let Some(world) = World::new("policy") else { return };
    world.serve("pod1", 8080);
    world.serve("pod2", 8080);
    let local = rules(&service(node_port(json!({"externalTrafficPolicy": "Local"})), &BOTH[..1]));
    world.apply(&local.whole());
    assert_eq!(world.ask("outside", "192.0.2.1:30080").unwrap(), "pod1 192.0.2.2");
    let cluster = rules(&service(node_port(json!({})), &BOTH[..1]));
    world.apply(&cluster.difference(&local));
    assert_eq!(world.ask("outside", "192.0.2.1:30080").unwrap(), "pod1 10.244.1.1");
    let sticky = rules(&service(node_port(json!({"sessionAffinity": "ClientIP"})), &BOTH));
    world.apply(&sticky.difference(&cluster));
    let mut answerers = world.answerers("outside", "192.0.2.1:30080", 5);
    answerers.dedup();
    assert_eq!(answerers.len(), 1);
}

#[test]
fn pods_reach_the_outside_by_the_nodes_address_and_the_loopback_network_is_guarded() {
    let Some(world) = World::new("outside") else { return };
    world.apply(&rules(&[]).whole());
    world.serve("outside", 7000);
    world.serve("node", 7001);
    assert_eq!(world.ask("pod1", "192.0.2.2:7000").unwrap(), "outside 192.0.2.1");
    assert_eq!(world.ask("pod1", "10.244.1.1:7001").unwrap(), "node 10.244.1.11");
    // What route_localnet would let in.
    world.ip("pod1", "route add 127.0.0.2/32 via 10.244.1.1 table 100");
    world.ip("pod1", "rule add to 127.0.0.2/32 lookup 100 priority 0");
    world.run("pod1", "sh", &["-c", "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet"]);
    assert!(world.ask("pod1", "127.0.0.2:7001").is_err());
}

#[test]
fn iptables_does_the_same() {
    let Some(world) = World::new("iptables") else { return };
    if Command::new("iptables-restore").arg("--version").output().is_err() {
        eprintln!("skipped: needs iptables");
        return;
    }
    world.serve("pod1", 8080);
    world.serve("pod2", 8080);
    let apply = |frontends: Vec<Frontend>| {
        world.within("node", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(iptables::apply(&frontends, &surroundings())).unwrap();
        });
    };
    apply(service(node_port(json!({})), &BOTH));
    for (from, to) in [
        ("node", "10.96.0.20:80"),
        ("pod1", "10.96.0.20:80"),
        ("node", "127.0.0.1:30080"),
        ("outside", "192.0.2.1:30080"),
    ] {
        assert_eq!(world.answerers(from, to, 4), ["pod1", "pod1", "pod2", "pod2"], "{from} to {to}");
    }
    apply(service(node_port(json!({"sessionAffinity": "ClientIP"})), &BOTH));
    let mut answerers = world.answerers("outside", "192.0.2.1:30080", 5);
    answerers.dedup();
    assert_eq!(answerers.len(), 1);
    apply(service(node_port(json!({})), &[]));
    assert_eq!(world.ask("outside", "192.0.2.1:30080"), Err(std::io::ErrorKind::ConnectionRefused));
    world.within("node", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(iptables::purge());
        let left = Command::new("iptables-save").output().unwrap();
        assert!(!String::from_utf8_lossy(&left.stdout).contains("KNARR"));
    });
}

#[test]
fn datagrams_are_balanced_too() {
    let Some(world) = World::new("udp") else { return };
    let spec = json!({"clusterIP": "10.96.0.10", "ports": [{"port": 53, "protocol": "UDP"}]});
    world.apply(&rules(&service(spec, &BOTH[..1])).whole());
    let server = world.within("pod1", || UdpSocket::bind("0.0.0.0:8080").unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, client)) = server.recv_from(&mut buffer) {
            let _ = server.send_to(&buffer[..length], client);
        }
    });
    for from in ["pod2", "node", "pod1"] {
        let echoed = world.within(from, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.connect("10.96.0.10:53").unwrap();
            socket.send(b"name?").unwrap();
            let mut buffer = [0; 64];
            socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).map_err(|error| error.kind())
        });
        assert_eq!(echoed.as_deref(), Ok(&b"name?"[..]), "{from}");
    }
}
