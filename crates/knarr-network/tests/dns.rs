//! The cluster's names, asked for over loopback as a pod asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_network::dns::{Forwarder, Resolver, Snapshot, serve_tcp, serve_udp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[derive(Default)]
struct Objects {
    services: HashMap<(String, String), Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Snapshot for Objects {
    fn synced(&self) -> bool {
        true
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        namespace == "shop" || namespace == "empty"
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |slice: &&Arc<EndpointSlice>| {
            slice.metadata.namespace.as_deref() == Some(namespace)
                && slice.metadata.labels.as_ref().unwrap()["kubernetes.io/service-name"] == service
        };
        self.slices.iter().filter(of).cloned().collect()
    }

    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        let at = |service: &&Arc<Service>| service.spec.as_ref().unwrap().cluster_ip.as_deref() == Some(address);
        self.services.values().filter(at).cloned().collect()
    }

    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        let at = |slice: &&Arc<EndpointSlice>| {
            slice.endpoints.iter().flatten().any(|endpoint| endpoint.addresses.iter().any(|known| known == address))
        };
        self.slices.iter().filter(at).cloned().collect()
    }
}

fn cluster() -> Objects {
    let mut objects = Objects::default();
    for service in [
        json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.20",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}),
        json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None",
            "ports": [{"name": "sql", "port": 5432}]}}),
        json!({"metadata": {"name": "many", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}),
        json!({"metadata": {"name": "alias", "namespace": "shop"}, "spec": {"type": "ExternalName",
            "externalName": "www.example.org"}}),
        json!({"metadata": {"name": "inner", "namespace": "shop"}, "spec": {"type": "ExternalName",
            "externalName": "web.shop.svc.cluster.local"}}),
        json!({"metadata": {"name": "circle", "namespace": "shop"}, "spec": {"type": "ExternalName",
            "externalName": "circle.shop.svc.cluster.local"}}),
    ] {
        let service: Service = serde_json::from_value(service).unwrap();
        let name = service.metadata.name.clone().unwrap();
        objects.services.insert(("shop".to_owned(), name), Arc::new(service));
    }
    let many: Vec<_> = (0..200).map(|n| json!({"addresses": [format!("10.244.9.{n}")]})).collect();
    for slice in [
        json!({"metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "ports": [{"name": "sql", "port": 15432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.244.1.5"], "hostname": "db-0"},
                {"addresses": ["10.244.1.6"], "conditions": {"ready": true}},
                {"addresses": ["10.244.1.7"], "conditions": {"ready": false}}]}),
        json!({"metadata": {"name": "many-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "many"}},
            "addressType": "IPv4", "ports": [{"port": 1}], "endpoints": many}),
    ] {
        objects.slices.push(Arc::new(serde_json::from_value(slice).unwrap()));
    }
    objects
}

/// A server on loopback; its forwarder asks `elsewhere`, if there is one.
async fn start() -> SocketAddr {
    let udp = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let resolver = Arc::new(Resolver {
        cluster: Arc::new(cluster()),
        domain: "cluster.local".to_owned(),
        forwarder: Forwarder::new(std::path::Path::new("/nonexistent"), address),
    });
    tokio::spawn(serve_udp(udp, resolver.clone()));
    tokio::spawn(serve_tcp(tcp, resolver));
    address
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn ask_udp(server: SocketAddr, message: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(message, server).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).await.unwrap();
    assert!(length <= 512, "a plain client takes no more than 512 bytes");
    Message::from_vec(&answer[..length]).unwrap()
}

async fn ask_tcp(server: SocketAddr, message: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(message.len() as u16).await.unwrap();
    stream.write_all(message).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

fn shown(message: &Message) -> Vec<String> {
    let mut shown: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn names_have_the_records_of_the_specification() {
    let server = start().await;
    for (name, kind, expected) in [
        ("web.shop.svc.cluster.local.", RecordType::A, vec!["10.96.0.20"]),
        ("WEB.Shop.svc.Cluster.Local.", RecordType::A, vec!["10.96.0.20"]),
        ("web.shop.svc.cluster.local.", RecordType::AAAA, vec![]),
        ("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV, vec!["0 100 80 web.shop.svc.cluster.local."]),
        ("db.shop.svc.cluster.local.", RecordType::A, vec!["10.244.1.5", "10.244.1.6"]),
        ("db-0.db.shop.svc.cluster.local.", RecordType::A, vec!["10.244.1.5"]),
        ("10-244-1-6.db.shop.svc.cluster.local.", RecordType::A, vec!["10.244.1.6"]),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            RecordType::SRV,
            vec!["0 50 15432 10-244-1-6.db.shop.svc.cluster.local.", "0 50 15432 db-0.db.shop.svc.cluster.local."],
        ),
        ("alias.shop.svc.cluster.local.", RecordType::A, vec!["www.example.org."]),
        // A client's resolver takes what is behind an alias from the same answer.
        ("inner.shop.svc.cluster.local.", RecordType::A, vec!["10.96.0.20", "web.shop.svc.cluster.local."]),
        ("inner.shop.svc.cluster.local.", RecordType::CNAME, vec!["web.shop.svc.cluster.local."]),
        ("10-244-3-4.shop.pod.cluster.local.", RecordType::A, vec!["10.244.3.4"]),
        ("20.0.96.10.in-addr.arpa.", RecordType::PTR, vec!["web.shop.svc.cluster.local."]),
        ("5.1.244.10.in-addr.arpa.", RecordType::PTR, vec!["db-0.db.shop.svc.cluster.local."]),
        ("dns-version.cluster.local.", RecordType::TXT, vec!["1.1.0"]),
        ("shop.svc.cluster.local.", RecordType::A, vec![]),
        ("_tcp.web.shop.svc.cluster.local.", RecordType::A, vec![]),
    ] {
        let answer = ask_udp(server, &question(name, kind)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{name}");
        assert_eq!(shown(&answer), expected, "{name} {kind}");
        assert!(answer.metadata.authoritative && answer.answers.iter().all(|record| record.ttl == 5), "{name}");
        assert_eq!(answer.authorities.is_empty(), !expected.is_empty(), "{name}: an SOA says how long nothing lasts");
    }
}

#[tokio::test]
async fn names_that_do_not_exist_are_told_from_names_without_records() {
    let server = start().await;
    for name in [
        "none.shop.svc.cluster.local.",
        "web.other.svc.cluster.local.",
        "x.web.shop.svc.cluster.local.",
        "_http._udp.web.shop.svc.cluster.local.",
        "web.shop.cluster.local.",
        "10-244-3-4.nowhere.pod.cluster.local.",
        "not-an-address.shop.pod.cluster.local.",
        "db-9.db.shop.svc.cluster.local.",
    ] {
        let answer = ask_udp(server, &question(name, RecordType::A)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name}");
        assert_eq!(answer.authorities.len(), 1, "{name}");
    }
}

#[tokio::test]
async fn a_circle_of_aliases_ends() {
    let server = start().await;
    let answer = ask_udp(server, &question("circle.shop.svc.cluster.local.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert!(answer.answers.len() < 20);
}

#[tokio::test]
async fn long_answers_are_cut_and_come_whole_over_tcp() {
    let server = start().await;
    let message = question("many.shop.svc.cluster.local.", RecordType::A);
    let cut = ask_udp(server, &message).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());
    assert_eq!(ask_tcp(server, &message).await.answers.len(), 200);
}

#[tokio::test]
async fn what_nobody_knows_fails_and_nonsense_is_refused() {
    let server = start().await;
    let answer = ask_udp(server, &question("www.example.org.", RecordType::A)).await;
    assert_eq!((answer.metadata.response_code, answer.metadata.id), (ResponseCode::ServFail, 4711));
    let answer = ask_udp(server, &[0x12, 0x34, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xff]).await;
    assert_eq!((answer.metadata.response_code, answer.metadata.id), (ResponseCode::FormErr, 0x1234));
}
