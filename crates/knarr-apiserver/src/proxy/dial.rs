//! Connections to where requests go.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::target::{Location, Transport};
use knarr_pki::AnyCertificate;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection, encrypted or not.
pub(super) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Why there is no connection, in the words a client is shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("dial tcp {0}: connect: {reason}", reason = reason(.1))]
    Connect(String, std::io::Error),
    #[error("dial tcp {0}: i/o timeout")]
    Timeout(String),
    #[error("tls: {0}")]
    Tls(std::io::Error),
    #[error("\"{0}\" is no name of a server")]
    Name(String),
}

/// The system's words, without Rust's.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

pub(super) struct Dialer {
    kubelet: TlsConnector,
    unverified: TlsConnector,
}

impl Dialer {
    pub(super) fn new(mut kubelet: ClientConfig) -> Self {
        let provider = kubelet.crypto_provider().clone();
        kubelet.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut unverified = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        unverified.alpn_protocols = vec![b"http/1.1".to_vec()];
        Dialer { kubelet: TlsConnector::from(Arc::new(kubelet)), unverified: TlsConnector::from(Arc::new(unverified)) }
    }

    pub(super) async fn dial(&self, location: &Location) -> Result<Box<dyn Connection>, DialError> {
        let host = location.host.trim_matches(['[', ']']);
        let shown = || match host.contains(':') {
            true => format!("[{host}]:{}", location.port),
            false => format!("{host}:{}", location.port),
        };
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, location.port)));
        let stream = connecting.await.map_err(|_| DialError::Timeout(shown()))?;
        let stream = stream.map_err(|error| DialError::Connect(shown(), error))?;
        let _ = stream.set_nodelay(true);
        let connector = match location.transport {
            Transport::Http => return Ok(Box::new(stream)),
            Transport::Https => &self.unverified,
            Transport::Kubelet => &self.kubelet,
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Name(host.to_owned()))?;
        let handshake = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream));
        let tls = handshake.await.map_err(|_| DialError::Timeout(shown()))?.map_err(DialError::Tls)?;
        Ok(Box::new(tls))
    }
}
