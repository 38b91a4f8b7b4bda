//! The client of a key service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

use super::messages::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject, StatusRequest, StatusResponse,
};

use super::metrics::KmsMeter;

/// `v2.KeyManagementService` behind a unix socket; connects on first use, and anew when the connection breaks.
pub(super) struct Service {
    channel: Channel,
    timeout: Duration,
    meter: Arc<KmsMeter>,
}

impl Service {
    /// `unix:///path`, or `unix:///@name` for an abstract socket.
    pub fn new(endpoint: &str, timeout: Duration, meter: Arc<KmsMeter>) -> Self {
        let path = endpoint.strip_prefix("unix:").unwrap_or(endpoint);
        let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        // The address means nothing: the connector decides where to go.
        let channel =
            Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { connect(&path).await.map(TokioIo::new) }
            }));
        Service { channel, timeout, meter }
    }

    pub async fn status(&self) -> Result<StatusResponse, String> {
        self.call("/v2.KeyManagementService/Status", StatusRequest {}).await
    }

    pub async fn encrypt(&self, plaintext: &[u8]) -> Result<EncryptResponse, String> {
        let request = EncryptRequest { plaintext: plaintext.to_vec(), uid: uid() };
        self.call("/v2.KeyManagementService/Encrypt", request).await
    }

    pub async fn decrypt(&self, object: &EncryptedObject) -> Result<Vec<u8>, String> {
        let request = DecryptRequest {
            ciphertext: object.encrypted_dek_source.clone(),
            uid: uid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone().into_iter().collect(),
        };
        let answer: DecryptResponse = self.call("/v2.KeyManagementService/Decrypt", request).await?;
        Ok(answer.plaintext)
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, String>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        let calling = async {
            client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
            let codec = tonic_prost::ProstCodec::<Q, A>::default();
            let path = http::uri::PathAndQuery::from_static(method);
            client.unary(Request::new(request), path, codec).await
        };
        let started = Instant::now();
        let answered = tokio::time::timeout(self.timeout, calling).await;
        let answered = answered.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        self.meter.called(method, started, answered.as_ref().err().map_or(Code::Ok, Status::code));
        match answered {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(format!("rpc error: code = {:?} desc = {}", status.code(), status.message())),
        }
    }
}

fn uid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A path that begins with `@` (or `/@`) names an abstract socket.
async fn connect(path: &std::path::Path) -> std::io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    let text = path.to_string_lossy();
    let Some(name) = text.trim_start_matches('/').strip_prefix('@') else {
        return UnixStream::connect(path).await;
    };
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name.as_bytes())?;
    let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
