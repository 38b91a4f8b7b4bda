//! The cluster's DNS: names of Services and pods, answered from the informers' caches; other names from the node's name servers.
//!
//! Every node answers for itself, on its own address: a Service `kube-system/kube-dns` without selector has the cluster address that
//! pods know, and an EndpointSlice for each node.

mod announce;
mod answer;
mod forward;
mod records;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use knarr_client::informer::{Informer, Informers};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use announce::announce;
pub use answer::{Question, answer};
pub use forward::Forwarder;
pub use records::{Cluster, Found, Records, Snapshot};

use crate::{Error, NetworkConfig};

/// Questions that are being forwarded at once; more are not answered, and asked again by their clients.
const MAX_FORWARDED: usize = 1024;
const TCP_IDLE: Duration = Duration::from_secs(10);
const MAX_TCP_CONNECTIONS: usize = 256;

/// The sockets, bound but not yet answering.
pub(crate) struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Binds the preferred port for UDP and TCP, or another one for both.
    pub(crate) async fn bind(config: &NetworkConfig) -> Result<Server, Error> {
        match Server::bind_port(config, config.dns_port).await {
            Ok(server) => Ok(server),
            Err(error) => {
                tracing::warn!(%error, "cluster DNS takes another port");
                Server::bind_port(config, 0).await
            }
        }
    }

    async fn bind_port(config: &NetworkConfig, port: u16) -> Result<Server, Error> {
        let wanted = SocketAddr::new(config.node_ip, port);
        let failed = |source| Error::Listen { address: wanted, source };
        let udp = UdpSocket::bind(wanted).await.map_err(failed)?;
        let address = udp.local_addr().map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Server { udp, tcp, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`.
    pub(crate) async fn serve(self, informers: &Informers, config: &NetworkConfig, shutdown: &CancellationToken) {
        let resolver = Resolver {
            cluster: Arc::new(Informed::new(informers)),
            domain: config.cluster_domain.clone(),
            forwarder: Forwarder::new(&config.resolv_conf, self.address),
        };
        let resolver = Arc::new(resolver);
        let udp = Arc::new(self.udp);
        tokio::select! {
            () = serve_udp(udp, resolver.clone()) => {}
            () = serve_tcp(self.tcp, resolver) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

/// The informers' caches as the DNS reads them.
struct Informed {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
}

const BY_SERVICE: &str = "dns-by-service";
const BY_ADDRESS: &str = "dns-by-address";

impl Informed {
    fn new(informers: &Informers) -> Informed {
        let informed = Informed { services: informers.all(), slices: informers.all(), namespaces: informers.all() };
        informed.slices.add_index(BY_SERVICE, |slice| records::service_of(slice).into_iter().collect());
        informed.slices.add_index(BY_ADDRESS, records::addresses_of_slice);
        informed.services.add_index(BY_ADDRESS, records::addresses_of_service);
        informed
    }
}

impl Snapshot for Informed {
    fn synced(&self) -> bool {
        self.services.has_synced() && self.slices.has_synced() && self.namespaces.has_synced()
    }

    fn namespace_exists(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.indexed(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        self.services.indexed(BY_ADDRESS, address)
    }

    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.indexed(BY_ADDRESS, address)
    }
}

/// Answers one message after another.
pub struct Resolver {
    pub cluster: Arc<dyn Snapshot>,
    pub domain: String,
    pub forwarder: Forwarder,
}

impl Resolver {
    /// The answer to a message; `None` where it deserves none.
    pub async fn resolve(&self, message: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let cluster = Cluster { snapshot: &*self.cluster, domain: &self.domain };
        match answer(message, &cluster, over_tcp) {
            Question::Answered(bytes) => Some(bytes),
            Question::Nonsense => None,
            further => self.resolve_further(further, message, over_tcp).await,
        }
    }

    /// The answer that other name servers have a part in.
    async fn resolve_further(&self, question: Question, message: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        match question {
            Question::Answered(bytes) => Some(bytes),
            Question::Nonsense => None,
            Question::Elsewhere => Some(self.forwarder.ask(message, over_tcp).await),
            Question::Behind(behind) => {
                let heard = self.forwarder.ask(&behind.question()?, over_tcp).await;
                match behind.finish(&heard) {
                    Question::Answered(bytes) => Some(bytes),
                    _ => None,
                }
            }
        }
    }

    /// Answers at once, without waiting, if the name is of the cluster.
    fn resolve_here(&self, message: &[u8]) -> Question {
        let cluster = Cluster { snapshot: &*self.cluster, domain: &self.domain };
        answer(message, &cluster, false)
    }
}

/// Answers datagrams. The socket's owner ends it by dropping the future; questions that are being forwarded end with it.
pub async fn serve_udp(socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let forwarded = Arc::new(Semaphore::new(MAX_FORWARDED));
    let mut tasks = tokio::task::JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error of an earlier answer is reported here; it concerns nobody else.
            Err(error) => {
                tracing::trace!(%error, "cluster DNS: receive");
                tokio::task::yield_now().await;
                continue;
            }
        };
        match resolver.resolve_here(&buffer[..length]) {
            Question::Answered(answer) => drop(socket.send_to(&answer, client).await),
            Question::Nonsense => {}
            further @ (Question::Elsewhere | Question::Behind(_)) => {
                let Ok(permit) = forwarded.clone().try_acquire_owned() else { continue };
                let (message, socket, resolver) = (buffer[..length].to_vec(), socket.clone(), resolver.clone());
                tasks.spawn(async move {
                    if let Some(answer) = resolver.resolve_further(further, &message, false).await {
                        // A client that left is not waited for.
                        let _ = socket.send_to(&answer, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

/// Answers over TCP, until the future is dropped.
pub async fn serve_tcp(listener: TcpListener, resolver: Arc<Resolver>) {
    let connections = Arc::new(Semaphore::new(MAX_TCP_CONNECTIONS));
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    let _stop_on_drop = stop.clone().drop_guard();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cluster DNS cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (resolver, stop) = (resolver.clone(), stop.clone());
        tasks.spawn(async move {
            let _ = stop.run_until_cancelled(serve_connection(stream, &resolver)).await;
            drop(permit);
        });
    }
}

async fn serve_connection(mut stream: TcpStream, resolver: &Resolver) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut message = vec![0; usize::from(length)];
        tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut message)).await??;
        let Some(answer) = resolver.resolve(&message, true).await else { return Ok(()) };
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat()).await?;
    }
}
