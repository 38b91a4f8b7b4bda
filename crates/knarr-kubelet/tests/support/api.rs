//! A small Kubernetes API in memory: create, get, list, watch, patch and delete of anything, with graceful deletion of pods.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

type Objects = BTreeMap<String, Value>;
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

#[derive(Clone)]
struct Change {
    kind: &'static str,
    path: String,
    object: Value,
}

/// The API. Objects are known by their path, such as `/api/v1/namespaces/default/pods/x`.
#[derive(Clone)]
pub struct FakeApi {
    objects: Arc<Mutex<Objects>>,
    changes: broadcast::Sender<Change>,
    revision: Arc<std::sync::atomic::AtomicU64>,
}

impl FakeApi {
    pub fn new() -> FakeApi {
        FakeApi { objects: Arc::default(), changes: broadcast::channel(10_000).0, revision: Arc::default() }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().get(path).cloned()
    }

    pub fn list(&self, part: &str) -> Vec<Value> {
        self.objects.lock().iter().filter(|(path, _)| path.contains(part)).map(|(_, object)| object.clone()).collect()
    }

    pub fn create(&self, collection: &str, mut object: Value) -> String {
        let name = object["metadata"]["name"].as_str().unwrap_or("unnamed").to_owned();
        let path = format!("{collection}/{name}");
        if let Some((_, rest)) = collection.split_once("/namespaces/") {
            object["metadata"]["namespace"] = rest.split('/').next().into();
        }
        object["metadata"]["uid"] = uuid::Uuid::new_v4().to_string().into();
        self.store(&mut self.objects.lock(), "ADDED", &path, object);
        path
    }

    /// Waits until `holds` of the object at `path`, or says how it stands.
    pub async fn until(&self, path: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.changes.subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(object) = self.get(path).filter(&holds) {
                return object;
            }
            let next = tokio::time::timeout_at(deadline, changes.recv()).await;
            assert!(next.is_ok(), "{path} never {what}: {:#}", self.get(path).unwrap_or_default()["status"]);
        }
    }

    pub async fn until_gone(&self, path: &str) {
        let mut changes = self.changes.subscribe();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while let Some(object) = self.get(path) {
            let next = tokio::time::timeout_at(deadline, changes.recv()).await;
            assert!(next.is_ok(), "{path} never went: {object:#}");
        }
    }

    /// Asks for a pod's end, as `kubectl delete` does.
    pub fn delete(&self, path: &str, grace: i64) {
        let patch =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}});
        self.patch(path, &patch);
    }

    pub fn patch(&self, path: &str, patch: &Value) -> Option<Value> {
        let mut objects = self.objects.lock();
        let mut object = objects.get(path)?.clone();
        merge(&mut object, patch);
        Some(self.store(&mut objects, "MODIFIED", path, object))
    }

    /// Stores and tells under one lock: no write is lost, and watchers see writes in their order.
    fn store(&self, objects: &mut Objects, kind: &'static str, path: &str, mut object: Value) -> Value {
        let revision = self.revision.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        objects.insert(path.to_owned(), object.clone());
        let _ = self.changes.send(Change { kind, path: path.to_owned(), object: object.clone() });
        object
    }

    /// Takes an object away at once, as a deletion by force does.
    pub fn remove(&self, path: &str) -> Option<Value> {
        let mut objects = self.objects.lock();
        let object = objects.remove(path)?;
        let _ = self.changes.send(Change { kind: "DELETED", path: path.to_owned(), object: object.clone() });
        Some(object)
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let object_path = path.strip_suffix("/status").unwrap_or(&path).to_owned();
        match parts.method {
            Method::GET if query.contains("watch=") => self.watch(&path, &query),
            Method::GET if is_collection(&path) => self.collection(&path, &query),
            Method::GET => found(self.get(&path)),
            Method::POST if path.ends_with("/token") => token(),
            Method::POST => {
                let path = self.create(&path, body);
                found(self.get(&path))
            }
            Method::PATCH => found(self.patch(&object_path, &body)),
            Method::DELETE => found(self.remove(&path)),
            _ => found(None),
        }
    }

    fn collection(&self, path: &str, query: &str) -> Answer {
        let selected = Selection::new(path, query);
        let objects = self.objects.lock();
        let items: Vec<_> = objects
            .iter()
            .filter(|(path, object)| selected.takes(path, object))
            .map(|(_, object)| object.clone())
            .collect();
        let revision = self.revision.load(std::sync::atomic::Ordering::SeqCst).to_string();
        json_answer(
            StatusCode::OK,
            &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
        )
    }

    fn watch(&self, path: &str, query: &str) -> Answer {
        let selected = Selection::new(path, query);
        let from: u64 = parameter(query, "resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        // What changed between the list and this watch is told first.
        let (missed, changes): (Vec<_>, _) = {
            let objects = self.objects.lock();
            let newer = |object: &Value| {
                object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0) > from
            };
            let missed = objects
                .iter()
                .filter(|(path, object)| selected.takes(path, object) && newer(object))
                .map(|(path, object)| Change { kind: "MODIFIED", path: path.clone(), object: object.clone() })
                .collect();
            (missed, self.changes.subscribe())
        };
        let changes = BroadcastStream::new(changes).filter_map(|change| async { change.ok() });
        let lines = futures::stream::iter(missed).chain(changes).filter_map(move |change| {
            let line = selected.takes(&change.path, &change.object).then(|| {
                let mut line = json!({"type": change.kind, "object": change.object}).to_string();
                line.push('\n');
                Ok::<_, Infallible>(Frame::data(Bytes::from(line)))
            });
            async move { line }
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

struct Selection {
    resource: String,
    namespace: Option<String>,
    field: Option<(String, String)>,
}

impl Selection {
    fn new(path: &str, query: &str) -> Selection {
        let field = parameter(query, "fieldSelector").and_then(|field| {
            let (name, value) = field.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let namespace = path
            .split_once("/namespaces/")
            .and_then(|(_, rest)| rest.split_once('/'))
            .map(|(namespace, _)| namespace.to_owned());
        Selection { resource: path.rsplit('/').next().unwrap_or_default().to_owned(), namespace, field }
    }

    fn takes(&self, path: &str, object: &Value) -> bool {
        let of_resource = path.rsplit('/').nth(1) == Some(&self.resource);
        let in_namespace =
            self.namespace.as_deref().is_none_or(|namespace| object["metadata"]["namespace"] == namespace);
        let selected = self.field.as_ref().is_none_or(|(field, value)| {
            object.pointer(&format!("/{}", field.replace('.', "/"))) == Some(&json!(value))
        });
        of_resource && in_namespace && selected
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
}

fn is_collection(path: &str) -> bool {
    ["pods", "services", "nodes", "configmaps", "secrets", "leases"]
        .iter()
        .any(|resource| path.rsplit('/').next() == Some(resource))
}

fn found(object: Option<Value>) -> Answer {
    match object {
        Some(object) => json_answer(StatusCode::OK, &object),
        None => json_answer(
            StatusCode::NOT_FOUND,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404}),
        ),
    }
}

fn token() -> Answer {
    let status = json!({"token": "a-token", "expirationTimestamp": "2099-01-01T00:00:00Z"});
    json_answer(
        StatusCode::CREATED,
        &json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {"audiences": []}, "status": status}),
    )
}

fn json_answer(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// JSON merge, with lists of conditions merged by type as strategic merge does.
fn merge(target: &mut Value, patch: &Value) {
    let (Some(fields), true) = (patch.as_object(), target.is_object()) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in fields {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|target| target.remove(key))),
            Value::Array(items) => {
                let items: Vec<_> = items.iter().filter(|item| item.get("$patch").is_none()).cloned().collect();
                target[key] = items.into();
            }
            Value::Object(_) => {
                if !target[key].is_object() {
                    target[key] = json!({});
                }
                merge(&mut target[key], value);
            }
            other => target[key] = other.clone(),
        }
    }
}
