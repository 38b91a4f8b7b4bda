//! How a [`kube::Client`] reaches the API: straight into a tower service of this process, or over HTTPS.

use std::path::Path;
use std::task::{Context, Poll};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::{BoxError, Service};

/// A client whose requests go to `service` without a socket, each carrying `identity` as an extension.
///
/// The API server reads that extension as an identity proven by the transport; everything else of its chain runs as for HTTPS.
pub fn in_memory<S, B, I>(service: S, identity: I) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    I: Clone + Send + Sync + 'static,
{
    Client::new(WithIdentity { service, identity }, "default")
}

/// Puts an identity into the extensions of each request.
#[derive(Clone)]
struct WithIdentity<S, I> {
    service: S,
    identity: I,
}

impl<S, I> Service<Request<Body>> for WithIdentity<S, I>
where
    S: Service<Request<Body>>,
    I: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request.extensions_mut().insert(self.identity.clone());
        self.service.call(request)
    }
}

/// Why a kubeconfig gave no client.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigClientError {
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig { path: String, source: KubeconfigError },
    #[error("kubeconfig {path}: {source}")]
    Client { path: String, source: kube::Error },
}

/// A client over HTTPS as the current context of the kubeconfig at `path` says.
pub async fn kubeconfig(path: &Path) -> Result<Client, KubeconfigClientError> {
    let shown = || path.display().to_string();
    let wrong = |source| KubeconfigClientError::Kubeconfig { path: shown(), source };
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(wrong)?;
    Client::try_from(config).map_err(|source| KubeconfigClientError::Client { path: shown(), source })
}
