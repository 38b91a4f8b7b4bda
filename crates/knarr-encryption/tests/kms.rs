//! A key service of our own behind a unix socket, and a store encrypted by it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use knarr_encryption::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use knarr_encryption::{EncryptedStore, EncryptionConfiguration, Rules};
use knarr_store::{Embedded, Expect, Revision, Store, StoreError};
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status};

/// "Encrypts" by turning bytes over and saying with which key.
struct KeyService {
    key: Mutex<String>,
    down: AtomicBool,
    decrypted: AtomicUsize,
}

impl KeyService {
    fn answer_status(&self) -> Result<StatusResponse, Status> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("out to lunch"));
        }
        Ok(StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id: self.key.lock().clone() })
    }

    fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Status> {
        let ciphertext = request.plaintext.iter().map(|b| !b).collect();
        let annotations = [("version.test.example".to_string(), b"1".to_vec())].into();
        Ok(EncryptResponse { ciphertext, key_id: self.key.lock().clone(), annotations })
    }

    fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        self.decrypted.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Status::unavailable("out to lunch"));
        }
        assert_eq!(request.annotations["version.test.example"], b"1");
        Ok(DecryptResponse { plaintext: request.ciphertext.iter().map(|b| !b).collect() })
    }
}

/// The three methods as a tower service, as generated code would have them.
#[derive(Clone)]
struct Server(Arc<KeyService>);

struct Method<F>(Arc<KeyService>, F);

impl<Q, A, F> tonic::server::UnaryService<Q> for Method<F>
where
    F: Fn(&KeyService, Q) -> Result<A, Status>,
    A: Send + 'static,
{
    type Response = A;
    type Future = std::future::Ready<Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        std::future::ready((self.1)(&self.0, request.into_inner()).map(Response::new))
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Server {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let service = self.0.clone();
        macro_rules! unary {
            ($method:expr, $question:ty, $answer:ty) => {{
                let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::<$answer, $question>::default());
                Ok(grpc.unary(Method(service, $method), request).await)
            }};
        }
        Box::pin(async move {
            match request.uri().path() {
                "/v2.KeyManagementService/Status" => {
                    unary!(|s: &KeyService, _| s.answer_status(), StatusRequest, StatusResponse)
                }
                "/v2.KeyManagementService/Encrypt" => unary!(KeyService::encrypt, EncryptRequest, EncryptResponse),
                _ => unary!(KeyService::decrypt, DecryptRequest, DecryptResponse),
            }
        })
    }
}

impl tonic::server::NamedService for Server {
    const NAME: &'static str = "v2.KeyManagementService";
}

struct World {
    service: Arc<KeyService>,
    plain: Arc<dyn Store>,
    config: EncryptionConfiguration,
    directory: tempfile::TempDir,
}

fn locate(key: &str) -> Option<(&str, &str)> {
    key.strip_prefix("/registry/")?.split_once('/').map(|(resource, _)| ("", resource))
}

async fn world() -> World {
    world_of("k").await
}

/// With a key service of this name in the configuration.
async fn world_of(provider: &str) -> World {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("kms.sock");
    let service = Arc::new(KeyService {
        key: Mutex::new("key-1".into()),
        down: AtomicBool::new(false),
        decrypted: AtomicUsize::new(0),
    });
    let listener = UnixListener::bind(&socket).unwrap();
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(Server(service.clone()));
    tokio::spawn(server.serve_with_incoming(incoming));
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - kms: {{apiVersion: v2, name: {provider}, endpoint: 'unix://{}', timeout: 2s}}\n  - identity: {{}}\n",
        socket.display()
    );
    let plain: Arc<dyn Store> = Arc::new(Embedded::open(&directory.path().join("store")).unwrap());
    World { service, plain, config: EncryptionConfiguration::parse(&text).unwrap(), directory }
}

impl World {
    async fn store(&self) -> EncryptedStore {
        let store = EncryptedStore::new(self.plain.clone(), Rules::new(&self.config).unwrap(), locate);
        for kms in store.rules().key_services() {
            let _ = kms.probe().await;
        }
        store
    }

    async fn raw(&self, key: &str) -> Vec<u8> {
        self.plain.get(key).await.unwrap().unwrap().value.to_vec()
    }
}

const A: &str = "/registry/secrets/ns/a";
const B: &str = "/registry/secrets/ns/b";

async fn put(store: &EncryptedStore, key: &str) -> Result<Revision, StoreError> {
    store.put(key, Bytes::from_static(b"{\"secret\":\"hunter2\"}"), Expect::Any, None).await
}

#[tokio::test]
async fn values_are_encrypted_by_derived_keys() {
    let world = world().await;
    let store = world.store().await;
    put(&store, A).await.unwrap();
    store.put("/registry/configmaps/ns/c", Bytes::from_static(b"plain"), Expect::Any, None).await.unwrap();
    let stored = world.raw(A).await;
    assert!(stored.starts_with(b"k8s:enc:kms:v2:k:"));
    assert!(!stored.windows(7).any(|w| w == b"hunter2"));
    assert_eq!(world.raw("/registry/configmaps/ns/c").await, b"plain");
    assert_eq!(store.get(A).await.unwrap().unwrap().value, "{\"secret\":\"hunter2\"}");
    assert_eq!(world.service.decrypted.load(Ordering::SeqCst), 0, "the seed in use need not be decrypted");
    // Another process knows nothing yet, and asks once for all values of a seed.
    put(&store, B).await.unwrap();
    let other = world.store().await;
    for key in [A, B, A] {
        assert_eq!(other.get(key).await.unwrap().unwrap().value, "{\"secret\":\"hunter2\"}");
    }
    assert_eq!(world.service.decrypted.load(Ordering::SeqCst), 1);
    // A value is bound to its place.
    world.plain.put(B, stored.into(), Expect::Any, None).await.unwrap();
    assert!(other.get(B).await.unwrap().unwrap().value.starts_with(b"k8s:enc:"));
    assert!(matches!(other.unreadable(B), Some(StoreError::Unreadable { .. })));
    drop(world.directory);
}

#[tokio::test]
async fn a_new_key_makes_old_values_stale() {
    let world = world().await;
    let store = world.store().await;
    put(&store, A).await.unwrap();
    assert!(!store.is_stale(A).await);
    *world.service.key.lock() = "key-2".into();
    store.rules().key_services()[0].probe().await.unwrap();
    assert!(store.is_stale(A).await);
    assert_eq!(store.get(A).await.unwrap().unwrap().value, "{\"secret\":\"hunter2\"}");
    put(&store, A).await.unwrap();
    assert!(!store.is_stale(A).await);
}

#[tokio::test]
async fn without_the_service_values_are_errors_until_it_is_back() {
    let world = world().await;
    put(&world.store().await, A).await.unwrap();
    world.service.down.store(true, Ordering::SeqCst);
    let store = world.store().await;
    let health = store.rules().key_services()[0].health().unwrap_err();
    assert!(health.contains("out to lunch"), "{health}");
    assert!(put(&store, B).await.is_err(), "nothing is written in the clear");
    let range = store.range("/registry/", None, 0, None).await.unwrap();
    assert_eq!(range.items.len(), 1);
    assert!(store.unreadable("/registry/secrets/").is_some());
    assert!(store.unreadable("/registry/configmaps/").is_none());
    let mut watch = store.watch("/registry/", Revision(0)).await.unwrap();
    assert!(watch.next().await.unwrap().is_ok());
    world.service.down.store(false, Ordering::SeqCst);
    store.rules().key_services()[0].probe().await.unwrap();
    store.mend().await;
    // The watch ends with an error, so that who follows it reads everything again.
    let ended = async { while watch.next().await.is_some_and(|batch| batch.is_ok()) {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), ended).await.unwrap();
    assert_eq!(store.get(A).await.unwrap().unwrap().value, "{\"secret\":\"hunter2\"}");
    assert!(store.unreadable("/registry/secrets/").is_none());
}

#[tokio::test]
async fn what_is_asked_of_a_key_service_is_measured() {
    let world = world_of("metered").await;
    let store = world.store().await;
    put(&store, A).await.unwrap();
    put(&store, B).await.unwrap();
    world.store().await.get(A).await.unwrap();
    world.service.key.lock().clear();
    assert!(store.rules().key_services()[0].probe().await.is_err());
    world.service.down.store(true, Ordering::SeqCst);
    assert!(store.rules().key_services()[0].probe().await.is_err());
    let registry = prometheus::Registry::new();
    for collector in knarr_encryption::kms::metrics::collectors() {
        registry.register(collector).unwrap();
    }
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let measured = |start: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("{start} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
    };
    let key = "sha256:be2974546978e3739e6d6da85c4be9f334ce32df2b9fd4b6ff1b55c0d57e9d44";
    let prefix = "apiserver_envelope_encryption";
    let calls = |method: &str, code: &str| {
        measured(&format!(
            "{prefix}_kms_operations_latency_seconds_count{{grpc_status_code=\"{code}\",method_name=\"/v2.KeyManagementService/{method}\",provider_name=\"metered\"}}"
        ))
    };
    assert_eq!(
        [calls("Status", "OK"), calls("Encrypt", "OK"), calls("Decrypt", "OK"), calls("Status", "Unavailable")],
        [3.0, 2.0, 1.0, 1.0]
    );
    let uses = |way: &str| {
        measured(&format!(
            "{prefix}_key_id_hash_total{{apiserver_id_hash=\"\",key_id_hash=\"{key}\",provider_name=\"metered\",transformation_type=\"{way}\"}}"
        ))
    };
    assert_eq!((uses("to_storage"), uses("from_storage")), (2.0, 1.0));
    let at = format!(
        "{prefix}_key_id_hash_status_last_timestamp_seconds{{apiserver_id_hash=\"\",key_id_hash=\"{key}\",provider_name=\"metered\"}}"
    );
    assert!(measured(&at) > 1.7e9);
    assert_eq!(
        measured(&format!("{prefix}_invalid_key_id_from_status_total{{error=\"empty\",provider_name=\"metered\"}}")),
        1.0
    );
    assert!(measured(&format!("{prefix}_dek_source_cache_size{{provider_name=\"metered\"}}")) >= 1.0);
}
