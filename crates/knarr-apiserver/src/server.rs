//! The server: the chain put together, on connections and in memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregation::{self, Aggregator};
use crate::audit::{AuditConfig, Auditor};
use crate::authentication::{self, PeerCertificates, TransportIdentity, User};
use crate::authorization;
use crate::chain::Handler;
use crate::chain::access::{Authenticate, Authorize, Impersonate};
use crate::chain::audit::Audit;
use crate::chain::cors::Cors;
use crate::chain::deadline::Timeout;
use crate::chain::farewell::{Farewell, Leaving};
use crate::chain::priority_and_fairness::{Protect, Protection};
use crate::chain::request_info::RequestInfo;
use crate::chain::watchdog::{PanicGuard, ReadRequest};
use crate::component_statuses::ComponentStatuses;
use crate::flow_control::{Dumps, FlowControl};
use crate::health::{self, HealthCheck};
use crate::http::coalesce::Coalesce;
use crate::http::{Body, PeerAddress, compress, pretty, respond};
use crate::metrics::Metrics;
use crate::pages::{self, Page, Pages};
use crate::proxy::Connector;
use crate::registry::{Hooks, Registry};
use crate::resources::Resources;
use crate::subresources::Handlers;

/// What a server is made of. The default lets in nobody but in-memory clients of `system:masters`.
#[derive(Default)]
pub struct Config {
    pub authentication: authentication::Chain,
    pub authorization: authorization::Chain,
    /// Admission plug-ins and allocators.
    pub hooks: Hooks,
    /// Endpoints that are not plain reads and writes.
    pub handlers: Handlers,
    /// How to talk to kubelets: trusts their certificates and presents the server's own. Without it there are no logs, no exec
    /// and no proxying.
    pub kubelet_client: Option<rustls::ClientConfig>,
    /// What this server shows aggregated API servers, whose authority they know as that of front proxies.
    pub front_proxy_client: Option<knarr_pki::KeyedCertificate>,
    /// Paths that are no resources.
    pub pages: Vec<Arc<dyn Page>>,
    /// Beyond those that every server has.
    pub checks: Vec<HealthCheck>,
    /// The components that `componentstatuses` shows beside the store.
    pub components: Vec<HealthCheck>,
    pub limits: Limits,
    /// `None`: nothing is recorded.
    pub audit: Option<AuditConfig>,
    /// The origins whose browsers may read answers (`--cors-allowed-origins`).
    pub cors_origins: Vec<regex::Regex>,
    /// `address:port`, as clients in the cluster reach it.
    pub server_address: String,
    /// What the server was started with, for `/flagz`.
    pub flags: BTreeMap<String, String>,
    /// What else is measured, and shown on `/metrics`.
    pub meters: Vec<Box<dyn prometheus::core::Collector>>,
    /// The end is near: `/readyz` says so, so that load balancers send nobody here any more, and everything else goes on.
    pub leaving: CancellationToken,
    /// Once this is cancelled, new requests are told to come again elsewhere (`--shutdown-send-retry-after`).
    pub retry_after_stop: Option<CancellationToken>,
}

/// How much work the server takes on, with upstream's defaults.
#[derive(Clone, Debug)]
pub struct Limits {
    /// `--enable-priority-and-fairness`
    pub priority_and_fairness: bool,
    /// `--max-requests-inflight`
    pub max_requests: usize,
    /// `--max-mutating-requests-inflight`
    pub max_mutating_requests: usize,
    /// `--request-timeout`
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            priority_and_fairness: true,
            max_requests: 400,
            max_mutating_requests: 200,
            request_timeout: Duration::from_secs(60),
        }
    }
}

const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// As upstream: more than a megabyte of headers is a 431.
const MAX_HEADER_BYTES: usize = 1 << 20;
const MAX_HEADERS: usize = 256;
const HEADER_TIMEOUT: Duration = Duration::from_secs(32);
/// How long open requests may take once the server shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

type Chain =
    PanicGuard<Farewell<ReadRequest<Cors<Timeout<Authenticate<Audit<Impersonate<Protect<Authorize<Routes>>>>>>>>>>;

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    chain: Arc<Chain>,
    registry: Arc<Registry>,
    aggregator: Arc<Aggregator>,
    flow_control: Option<Arc<FlowControl>>,
    auditor: Option<Arc<Auditor>>,
    metrics: Arc<Metrics>,
    leaving: Option<Leaving>,
}

/// The end of the chain.
struct Routes {
    aggregator: Arc<Aggregator>,
    resources: Resources,
    pages: Pages,
}

impl Handler for Routes {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let compresses = compress::wanted(request.headers());
        let response = self.route(request).await;
        if compresses { compress::compress(response) } else { response }
    }
}

impl Routes {
    async fn route(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let Some(info) = parts.extensions.get::<Arc<RequestInfo>>().cloned() else {
            return respond::page_not_found();
        };
        if let Some(service) = self.aggregator.remote(&info.path) {
            return Box::pin(aggregation::serve(&self.aggregator, &service, parts, body)).await;
        }
        // What somebody else wrote is passed on as it is.
        let indents = info.indented && !info.long_running && !pages::is_document(&info.path);
        let response = if info.is_resource {
            self.resources.serve(info, parts, body).await
        } else {
            Box::pin(self.pages.serve(&info, &parts)).await
        };
        if indents { pretty::indent(response) } else { response }
    }
}

impl ApiServer {
    pub fn new(config: Config, registry: Arc<Registry>) -> Self {
        let connector =
            config.kubelet_client.map(|tls| Connector::new(registry.clone(), config.hooks.admission.clone(), tls));
        registry.set_hooks(Hooks { creators: Some(config.authorization.clone()), ..config.hooks });
        let metrics = Arc::new(Metrics::new());
        registry.set_meter(metrics.clone());
        for meter in config.meters {
            if let Err(error) = metrics.registry().register(meter) {
                tracing::error!(%error, "something will not be measured");
            }
        }
        let mut checks = health::own_checks(&registry, &config.leaving);
        checks.extend(config.checks);
        let mut components = config.components;
        components.push(health::store_check(&registry, "etcd-0", false));
        let aggregator = Aggregator::new(registry.clone(), config.front_proxy_client);
        let limits = config.limits;
        let total = (limits.max_requests + limits.max_mutating_requests) as u32;
        let flow_control = limits.priority_and_fairness.then(|| FlowControl::new(total, metrics.registry()));
        let mut pages = config.pages;
        pages.extend(flow_control.clone().map(|flow_control| Arc::new(Dumps(flow_control)) as Arc<dyn Page>));
        let routes = Routes {
            aggregator: aggregator.clone(),
            resources: Resources {
                registry: registry.clone(),
                handlers: config.handlers,
                connector,
                components: ComponentStatuses(components),
            },
            pages: Pages {
                registry: registry.clone(),
                aggregator: aggregator.clone(),
                metrics: metrics.clone(),
                checks,
                pages,
                server_address: config.server_address,
                flags: config.flags,
                started: Timestamp::now(),
            },
        };
        let authorizers = config.authorization;
        let authorize = Authorize { inner: routes, authorizers: authorizers.clone() };
        let protect = Protect {
            inner: authorize,
            protection: match &flow_control {
                Some(flow_control) => Protection::Fair(flow_control.clone()),
                None => Protection::max_in_flight(limits.max_requests, limits.max_mutating_requests),
            },
            registry: registry.clone(),
            metrics: metrics.clone(),
            request_timeout: limits.request_timeout,
        };
        let impersonate = Impersonate { inner: protect, authorizers };
        let auditor = config.audit.map(|audit| Auditor::new(audit, metrics.registry()));
        let audit = Audit { inner: impersonate, auditor: auditor.clone() };
        let authenticate =
            Authenticate { inner: audit, authenticators: config.authentication, auditor: auditor.clone() };
        let timeout = Timeout { inner: authenticate, limit: limits.request_timeout };
        let cors = Cors { inner: timeout, origins: config.cors_origins };
        let read = ReadRequest { inner: cors, registry: registry.clone(), metrics: metrics.clone() };
        let leaving = config.retry_after_stop.map(Leaving::new);
        let chain = PanicGuard(Farewell { inner: read, leaving: leaving.clone() });
        ApiServer { chain: Arc::new(chain), registry, aggregator, flow_control, auditor, metrics, leaving }
    }

    /// Keeps priority and fairness as the stored objects want it, until the registry shuts down.
    pub fn follow_flow_control(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(flow_control) = self.flow_control.clone() {
                flow_control.run(self.registry.clone()).await;
            }
        })
    }

    /// Writes buffered audit events until `shutdown`, and then what is left.
    pub fn write_audit(&self, shutdown: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Some(auditor) = &self.auditor {
                auditor.run(shutdown).await;
            }
        })
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// APIServices: run it beside the server, or nothing is registered and no remote API becomes available.
    pub fn aggregator(&self) -> &Arc<Aggregator> {
        &self.aggregator
    }

    /// The whole chain as a tower service.
    pub fn service(&self) -> ApiService {
        ApiService { chain: self.chain.clone(), identity: None }
    }

    /// A client in this process, through the same chain, as `user`.
    pub fn client(&self, user: User) -> kube::Client {
        let service = ApiService { chain: self.chain.clone(), identity: Some(TransportIdentity(Arc::new(user))) };
        kube::Client::new(service, "default")
    }

    /// Serves HTTPS until `shutdown`, then ends watches politely and waits a little for what is still open.
    ///
    /// New connections are made with what `tls` holds at that moment: certificates may be replaced while it serves.
    pub fn serve(&self, listener: TcpListener, tls: Arc<ServerTls>, shutdown: CancellationToken) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let connections = TaskTracker::new();
            let closing = CancellationToken::new();
            let accepting = Accepting { listener, tls: &tls, connections: &connections, closing: &closing };
            self.accept(&accepting, shutdown.cancelled()).await;
            self.registry.close_watches();
            if let Some(Leaving { in_flight, .. }) = &self.leaving {
                // Whoever comes now is told to come again elsewhere.
                in_flight.close();
                let served = tokio::time::timeout(DRAIN_TIMEOUT, in_flight.wait());
                self.accept(&accepting, async move { drop(served.await) }).await;
            }
            drop(accepting.listener);
            closing.cancel();
            connections.close();
            if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
                tracing::warn!("some connections did not end in time");
            }
        })
    }

    async fn accept(&self, accepting: &Accepting<'_>, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        loop {
            let accepted = tokio::select! {
                accepted = accepting.listener.accept() => accepted,
                () = &mut until => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let acceptor = TlsAcceptor::from(accepting.tls.load_full());
                    let closing = accepting.closing.clone();
                    accepting.connections.spawn(self.serve_connection(stream, PeerAddress(peer), acceptor, closing));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: let others finish first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn serve_connection(
        &self,
        stream: TcpStream,
        address: PeerAddress,
        acceptor: TlsAcceptor,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (chain, metrics) = (self.chain.clone(), self.metrics.clone());
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY refused");
            }
            let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let tls = match handshake.await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => {
                    metrics.tls_handshake_errors.inc();
                    return tracing::debug!(%error, "TLS handshake failed");
                }
                Err(_) => {
                    metrics.tls_handshake_errors.inc();
                    return tracing::debug!("TLS handshake timed out");
                }
            };
            let service = ConnectionService { chain, address, peer: peer_certificates(&tls) };
            let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let builder = connection_builder();
            let io = TokioIo::new(Coalesce::new(tls, http2));
            let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
        }
    }
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        // A front proxy sends a header for every group of its user.
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_send_buf_size(1 << 20)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15))
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    builder
}

fn peer_certificates(tls: &tokio_rustls::server::TlsStream<TcpStream>) -> Option<PeerCertificates> {
    let certificates = tls.get_ref().1.peer_certificates()?;
    (!certificates.is_empty()).then(|| PeerCertificates(Arc::new(certificates.iter().map(|c| c.to_vec()).collect())))
}

/// The server's certificate and the authorities of its clients; may be replaced.
pub type ServerTls = ArcSwap<rustls::ServerConfig>;

/// What new connections are made with.
struct Accepting<'a> {
    listener: TcpListener,
    tls: &'a ServerTls,
    connections: &'a TaskTracker,
    /// Cancelled when connections are to end politely.
    closing: &'a CancellationToken,
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The chain as a tower service, of any body.
#[derive(Clone)]
pub struct ApiService {
    chain: Arc<Chain>,
    identity: Option<TransportIdentity>,
}

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<crate::http::body::BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let mut request = request.map(Body::boxed);
        if let Some(identity) = &self.identity {
            request.extensions_mut().insert(identity.clone());
        }
        let chain = self.chain.clone();
        Box::pin(async move { Ok(chain.handle(request).await) })
    }
}

/// One connection's requests.
struct ConnectionService {
    chain: Arc<Chain>,
    address: PeerAddress,
    peer: Option<PeerCertificates>,
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for ConnectionService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Answering {
        if request.version() == Version::HTTP_11
            && let Err(why) = check_framing(request.headers())
        {
            return Box::pin(async move { Ok(respond::refuse_connection(why)) });
        }
        let mut request = request.map(Body::from);
        request.extensions_mut().insert(self.address);
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let chain = self.chain.clone();
        Box::pin(async move { Ok(chain.handle(request).await) })
    }
}

/// Refuses what a proxy on the way may have read as something else: whom a request is for, and where it ends, must be said once.
fn check_framing(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => {}
        (None, _) => return Err("missing required Host header"),
        (Some(_), Some(_)) => return Err("too many Host headers"),
    }
    match headers.get_all(TRANSFER_ENCODING).iter().nth(1) {
        Some(_) => Err("too many transfer encodings"),
        None => Ok(()),
    }
}
