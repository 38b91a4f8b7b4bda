//! The kubelet's HTTPS API: what the API server asks of a node (logs, exec, attach, port-forward) and what monitoring scrapes.
//!
//! The way of a request: the TLS handshake (client certificates verified by the cluster's client authority), [`access`] (who is it,
//! may they), then one of the handlers. Nothing but an authorized request reaches a handler; anonymous requests are refused.

pub mod access;
mod commands;
mod container_logs;
mod logs;
mod metrics;
mod node_logs;
mod pods;
mod respond;
mod stats;
mod system;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::view::NodeView;
use access::{Access, Credentials};
use respond::{Body, Failure, text};

/// A client that does not finish its TLS handshake or its request's head in this time is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The server: what it shows and whom it lets in.
#[derive(Clone)]
pub struct Server {
    view: Arc<dyn NodeView>,
    access: Arc<dyn Access>,
    /// Streaming sessions (exec, attach, port-forward) outlive the request they came by.
    sessions: TaskTracker,
}

impl Server {
    pub fn new(view: Arc<dyn NodeView>, access: Arc<dyn Access>) -> Server {
        Server { view, access, sessions: TaskTracker::new() }
    }

    /// Serves until `shutdown`; open sessions end with it.
    pub fn serve(
        self,
        listener: TcpListener,
        mut tls: rustls::ServerConfig,
        shutdown: CancellationToken,
    ) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            // Upgrades are a thing of HTTP/1.1.
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
            let connections = TaskTracker::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shutdown.cancelled() => break,
                };
                match accepted {
                    Ok((stream, _)) => {
                        let connection = self.clone().connection(stream, acceptor.clone());
                        let shutdown = shutdown.clone();
                        connections.spawn(async move { shutdown.run_until_cancelled(connection).await });
                    }
                    Err(error) => {
                        // Out of file descriptors, most likely: accepting again at once would spin.
                        tracing::warn!(%error, "kubelet API cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
            connections.close();
            connections.wait().await;
        })
    }

    async fn connection(self, stream: TcpStream, acceptor: tokio_rustls::TlsAcceptor) {
        let _ = stream.set_nodelay(true);
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%error, "kubelet API: TLS handshake failed"),
            Err(_) => return,
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|c| c.to_vec());
        let server = self.clone();
        let service = service_fn(move |request| {
            let (server, certificate) = (server.clone(), certificate.clone());
            async move { Ok::<_, std::convert::Infallible>(server.answer(request, certificate).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "kubelet API: connection ended");
        }
        let _ = self;
    }

    async fn answer(&self, request: Request<Incoming>, certificate: Option<Vec<u8>>) -> Response<Body> {
        match self.admit(&request, certificate).await {
            Ok(()) => self.route(request).await.unwrap_or_else(Failure::into_response),
            Err(failure) => failure.into_response(),
        }
    }

    async fn admit(&self, request: &Request<Incoming>, certificate: Option<Vec<u8>>) -> Result<(), Failure> {
        let credentials = Credentials::of(request.headers(), certificate);
        let user = match self.access.authenticate(&credentials).await {
            Ok(Some(user)) => user,
            Ok(None) => return Err(Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized")),
            Err(error) => {
                tracing::warn!(%error, "kubelet API: cannot authenticate");
                return Err(Failure::new(StatusCode::UNAUTHORIZED, "Unauthorized"));
            }
        };
        let verb = access::verb_of(request.method());
        let subresources = access::subresources_of(request.uri().path());
        for subresource in &subresources {
            match self.access.authorize(&user, self.view.node_name(), verb, subresource).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    let message =
                        format!("Authorization error (user={}, verb={verb}, resource=nodes)", user.username());
                    tracing::warn!(%error, "kubelet API: {message}");
                    return Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, message));
                }
            }
        }
        let tried = subresources.join(", ");
        let message =
            format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{tried}])\n", user.username());
        Err(Failure::new(StatusCode::FORBIDDEN, message))
    }

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        let reading = matches!(*request.method(), Method::GET | Method::HEAD);
        let streaming = matches!(*request.method(), Method::GET | Method::POST);
        match segments.as_slice() {
            ["healthz"] if reading => Ok(text(StatusCode::OK, "ok")),
            ["healthz", "ping" | "log" | "syncloop"] if reading => Ok(text(StatusCode::OK, "ok")),
            ["pods" | "pods/"] if reading => pods::list(&*self.view),
            ["runningpods"] | ["runningpods", ""] if reading => pods::running(&*self.view).await,
            ["configz"] if reading => pods::configuration(&*self.view),
            ["metrics"] if reading => metrics::process(&*self.view),
            ["metrics", "cadvisor"] if reading => metrics::containers(&*self.view).await,
            ["metrics", "resource"] if reading => metrics::resource(&*self.view).await,
            ["metrics", "probes"] if reading => Ok(metrics::none()),
            ["stats", "summary"] if reading => stats::summary(&*self.view).await,
            ["containerLogs", namespace, pod, container] if reading => {
                container_logs::serve(&self.view, namespace, pod, container, request.uri().query()).await
            }
            ["logs", ..] if reading => node_logs::serve(path.strip_prefix("/logs/").unwrap_or_default()).await,
            ["exec", target @ ..] if streaming => commands::exec(self, commands::Target::parse(target)?, request).await,
            ["attach", target @ ..] if streaming => {
                commands::attach(self, commands::Target::parse(target)?, request).await
            }
            ["run", target @ ..] if *request.method() == Method::POST => {
                commands::run(self, commands::Target::parse(target)?, request.uri().query()).await
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] if streaming => {
                commands::port_forward(self, namespace, pod, request).await
            }
            _ => Err(Failure::not_found("404 page not found\n")),
        }
    }
}
