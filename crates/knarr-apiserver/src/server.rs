//! The server: the chain put together, on connections and in memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregation::{self, Aggregator};
use crate::authentication::{self, PeerCertificates, TransportIdentity, User};
use crate::authorization;
use crate::chain::Handler;
use crate::chain::access::{Audit, Authenticate, Authorize, Impersonate};
use crate::chain::in_flight::InFlight;
use crate::chain::request_info::RequestInfo;
use crate::chain::watchdog::{PanicGuard, ReadRequest, Timeout};
use crate::http::Body;
use crate::http::coalesce::Coalesce;
use crate::http::{compress, respond};
use crate::metrics::Metrics;
use crate::pages::{HealthCheck, Page, Pages};
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
    pub audit: Option<Arc<dyn Audit>>,
    /// What this server shows aggregated API servers, whose authority they know as that of front proxies.
    pub front_proxy_client: Option<knarr_pki::KeyedCertificate>,
    /// Paths that are no resources.
    pub pages: Vec<Arc<dyn Page>>,
    /// Beyond `ping`, `etcd` and `shutdown`.
    pub checks: Vec<HealthCheck>,
    /// `address:port`, as clients in the cluster reach it.
    pub server_address: String,
}

/// Upstream's `--max-requests-inflight` and `--max-mutating-requests-inflight`.
const MAX_READING: usize = 400;
const MAX_WRITING: usize = 200;
const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may take once the server shuts down.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

type Chain = PanicGuard<ReadRequest<Authenticate<InFlight<Timeout<Impersonate<Authorize<Routes>>>>>>>;

/// The API server. Clones share everything.
#[derive(Clone)]
pub struct ApiServer {
    chain: Arc<Chain>,
    registry: Arc<Registry>,
    aggregator: Arc<Aggregator>,
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
            return aggregation::serve(&self.aggregator, &service, parts, body).await;
        }
        if info.is_resource {
            self.resources.serve(info, parts, body).await
        } else {
            self.pages.serve(&info, &parts).await
        }
    }
}

impl ApiServer {
    pub fn new(config: Config, registry: Arc<Registry>) -> Self {
        let connector =
            config.kubelet_client.map(|tls| Connector::new(registry.clone(), config.hooks.admission.clone(), tls));
        registry.set_hooks(config.hooks);
        let metrics = Arc::new(Metrics::new());
        let mut checks = own_checks(&registry);
        checks.extend(config.checks);
        let aggregator = Aggregator::new(registry.clone(), config.front_proxy_client);
        let routes = Routes {
            aggregator: aggregator.clone(),
            resources: Resources { registry: registry.clone(), handlers: config.handlers, connector },
            pages: Pages {
                registry: registry.clone(),
                aggregator: aggregator.clone(),
                metrics: metrics.clone(),
                checks,
                pages: config.pages,
                server_address: config.server_address,
                git_version: format!("v1.36.2+knarr-{}", env!("CARGO_PKG_VERSION")),
            },
        };
        let authorizers = config.authorization;
        let authorize = Authorize { inner: routes, authorizers: authorizers.clone() };
        let impersonate = Impersonate { inner: authorize, authorizers, audit: config.audit };
        let in_flight = InFlight::new(Timeout(impersonate), MAX_READING, MAX_WRITING);
        let authenticate = Authenticate { inner: in_flight, authenticators: config.authentication };
        let chain = PanicGuard(ReadRequest { inner: authenticate, metrics });
        ApiServer { chain: Arc::new(chain), registry, aggregator }
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
    pub async fn serve(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>, shutdown: CancellationToken) {
        let acceptor = TlsAcceptor::from(tls);
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = self.serve_connection(stream, acceptor.clone(), shutdown.clone());
                    connections.spawn(connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // Out of file descriptors, most likely: let others finish first.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        self.registry.close_watches();
        connections.close();
        if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    fn serve_connection(
        &self,
        stream: TcpStream,
        acceptor: TlsAcceptor,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let chain = self.chain.clone();
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY refused");
            }
            let handshake = tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let tls = match handshake.await {
                Ok(Ok(tls)) => tls,
                Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => return tracing::debug!("TLS handshake timed out"),
            };
            let service = ConnectionService { chain, peer: peer_certificates(&tls) };
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
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(32)).pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_send_buf_size(1 << 20)
        .max_frame_size(64 << 10)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15))
        .max_header_list_size(1 << 20);
    builder
}

fn peer_certificates(tls: &tokio_rustls::server::TlsStream<TcpStream>) -> Option<PeerCertificates> {
    let certificates = tls.get_ref().1.peer_certificates()?;
    (!certificates.is_empty()).then(|| PeerCertificates(Arc::new(certificates.iter().map(|c| c.to_vec()).collect())))
}

fn own_checks(registry: &Arc<Registry>) -> Vec<HealthCheck> {
    let check = |name: &str, live: bool, check: crate::pages::Check| HealthCheck { name: name.into(), live, check };
    let (stopping, store) = (registry.shutdown.clone(), registry.store().clone());
    vec![
        check("ping", true, Arc::new(|| Ok(()))),
        check("log", true, Arc::new(|| Ok(()))),
        check("etcd", true, Arc::new(move || store.check().map_err(|error| error.to_string()))),
        check(
            "shutdown",
            false,
            Arc::new(move || if stopping.is_cancelled() { Err("process is shutting down".into()) } else { Ok(()) }),
        ),
    ]
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
    peer: Option<PeerCertificates>,
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for ConnectionService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Answering {
        let mut request = request.map(Body::from);
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        let chain = self.chain.clone();
        Box::pin(async move { Ok(chain.handle(request).await) })
    }
}
