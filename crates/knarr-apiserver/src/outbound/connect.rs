//! New connections, as the HTTP client asks for them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Route, Unreachable, resolve};
use crate::objects::Objects;

/// Opens connections to one target.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    route: Route,
    objects: Option<Arc<dyn Objects>>,
    tls: Option<TlsConnector>,
    server_name: String,
}

impl Connector {
    pub(super) fn new(
        route: Route,
        objects: Option<Arc<dyn Objects>>,
        tls: Option<TlsConnector>,
        server_name: String,
    ) -> Self {
        Connector(Arc::new(Inner { route, objects, tls, server_name }))
    }
}

impl Inner {
    async fn connect(&self) -> Result<Stream, Unreachable> {
        let (host, port) = match (&self.route, &self.objects) {
            (Route::Direct { host, port, .. }, _) => (host.clone(), *port),
            (Route::Service(service), Some(objects)) => resolve::endpoint(&**objects, service).await?,
            (Route::Service(service), None) => (service.server_name(), service.port),
        };
        let stream = dial(host.trim_matches(['[', ']']), port).await?;
        let Some(tls) = &self.tls else { return Ok(Stream(TokioIo::new(Box::new(stream)))) };
        let name = self.server_name.trim_matches(['[', ']']).to_string();
        let name = ServerName::try_from(name.clone()).map_err(|_| Unreachable::Name(name))?;
        let tls = tls.connect(name, stream).await.map_err(Unreachable::Tls)?;
        Ok(Stream(TokioIo::new(Box::new(tls))))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, Unreachable> {
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(|_| Unreachable::Name(host.into()))?;
    let mut last = Unreachable::Name(host.into());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = Unreachable::Connect(address.to_string(), error),
        }
    }
    Err(last)
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Unreachable;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Unreachable>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreachable>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.connect().await })
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, encrypted or not.
pub(super) struct Stream(TokioIo<Box<dyn Duplex>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
