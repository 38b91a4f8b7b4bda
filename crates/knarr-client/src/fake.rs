//! A small API in memory for tests: create, get, list, watch, replace, merge-patch and delete of any kind, with resource versions and
//! conflicts, and nothing else of what an API server does. (The controllers' tests include this file too.)

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

type Answer = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// Clones are the same API.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    /// The revision of the last write; watches wait on it.
    revision: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    /// By collection (`/apis/apps/v1/deployments`), namespace and name.
    objects: BTreeMap<(String, String, String), Value>,
    /// Every write: revision, collection, type, object.
    log: Vec<(u64, String, &'static str, Value)>,
    expire_before: u64,
}

struct Place {
    collection: String,
    namespace: String,
    name: String,
}

impl FakeApi {
    pub fn new() -> Self {
        FakeApi { state: Arc::default(), revision: Arc::new(watch::channel(1).0) }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        crate::transport::in_memory(service, ())
    }

    async fn answer(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let query: BTreeMap<String, String> = parts
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('=').map(|(key, value)| (key.to_string(), value.to_string())))
            .collect();
        let place = Place::parse(parts.uri.path());
        if parts.method == Method::GET && query.contains_key("watch") {
            let from = query.get("resourceVersion").and_then(|rv| rv.parse().ok()).unwrap_or(0);
            return self.watch(place, from);
        }
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let result = match parts.method {
            Method::POST => self.create(place, body),
            Method::GET if place.name.is_empty() => Ok(self.list(&place)),
            Method::GET => self.state.lock().objects.get(&place.key()).cloned().ok_or((404, "NotFound")),
            Method::PUT => self.write(place, |_| body),
            Method::PATCH => self.write(place, |known| merged(known, &body)),
            Method::DELETE => self.delete(place),
            _ => Err((405, "MethodNotAllowed")),
        };
        match result {
            Ok(object) => respond(200, object),
            Err((code, reason)) => respond(
                code,
                json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
                }),
            ),
        }
    }

    fn commit(&self, state: &mut State, place: &Place, kind: &'static str, mut object: Value) -> Value {
        let revision = *self.revision.borrow() + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        match kind {
            "DELETED" => drop(state.objects.remove(&place.key())),
            _ => drop(state.objects.insert(place.key(), object.clone())),
        }
        state.log.push((revision, place.collection.clone(), kind, object.clone()));
        self.revision.send_replace(revision);
        object
    }

    fn create(&self, mut place: Place, mut object: Value) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state.lock();
        let revision = *self.revision.borrow();
        let generated = object["metadata"]["generateName"].as_str().map(|prefix| format!("{prefix}{revision}"));
        let named = object["metadata"]["name"].as_str().map(str::to_string);
        place.name = named.or(generated).ok_or((422, "Invalid"))?;
        if state.objects.contains_key(&place.key()) {
            return Err((409, "AlreadyExists"));
        }
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(place.name);
        metadata["uid"] = json!(format!("uid-{revision}"));
        metadata["generation"] = json!(1);
        metadata["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if !place.namespace.is_empty() {
            metadata["namespace"] = json!(place.namespace);
        }
        Ok(self.commit(&mut state, &place, "ADDED", object))
    }

    fn write(&self, place: Place, change: impl FnOnce(&Value) -> Value) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state.lock();
        let known = state.objects.get(&place.key()).cloned().ok_or((404, "NotFound"))?;
        let object = change(&known);
        let wanted = &object["metadata"]["resourceVersion"];
        if wanted.is_string() && *wanted != known["metadata"]["resourceVersion"] {
            return Err((409, "Conflict"));
        }
        Ok(self.commit(&mut state, &place, "MODIFIED", object))
    }

    fn delete(&self, place: Place) -> Result<Value, (u16, &'static str)> {
        let mut state = self.state.lock();
        let known = state.objects.get(&place.key()).cloned().ok_or((404, "NotFound"))?;
        Ok(self.commit(&mut state, &place, "DELETED", known))
    }

    fn list(&self, place: &Place) -> Value {
        let state = self.state.lock();
        let items: Vec<_> = state
            .objects
            .iter()
            .filter(|((collection, namespace, _), _)| {
                *collection == place.collection && (place.namespace.is_empty() || *namespace == place.namespace)
            })
            .map(|(_, object)| object.clone())
            .collect();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": self.revision.borrow().to_string() }, "items": items })
    }

    fn watch(&self, place: Place, from: u64) -> Answer {
        if from < self.state.lock().expire_before {
            let gone = json!({ "type": "ERROR", "object": { "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" } });
            return Response::new(StreamBody::new(futures::stream::once(async move { Ok(line(&gone)) }).boxed()));
        }
        let events =
            futures::stream::unfold((self.clone(), self.revision.subscribe(), from), move |(api, mut news, seen)| {
                let place = Place {
                    collection: place.collection.clone(),
                    namespace: place.namespace.clone(),
                    name: String::new(),
                };
                async move {
                    loop {
                        let (fresh, seen_now) = api.since(&place, seen);
                        if !fresh.is_empty() {
                            return Some((
                                futures::stream::iter(fresh.into_iter().map(|event| Ok(line(&event)))),
                                (api, news, seen_now),
                            ));
                        }
                        news.changed().await.ok()?;
                    }
                }
            });
        Response::new(StreamBody::new(events.flatten().boxed()))
    }

    fn since(&self, place: &Place, seen: u64) -> (Vec<Value>, u64) {
        let state = self.state.lock();
        let last = state.log.last().map_or(seen, |(revision, ..)| *revision);
        let of_place =
            |object: &Value| place.namespace.is_empty() || object["metadata"]["namespace"] == json!(place.namespace);
        let fresh = state.log.iter().filter(|(revision, collection, _, object)| {
            *revision > seen && *collection == place.collection && of_place(object)
        });
        (fresh.map(|(_, _, kind, object)| json!({ "type": kind, "object": object })).collect(), last.max(seen))
    }
}

impl Place {
    /// `/api/v1/namespaces/NS/PLURAL/NAME[/SUB]` and its shorter forms.
    fn parse(path: &str) -> Place {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (prefix, rest) = parts.split_at(if parts[0] == "api" { 2 } else { 3 }.min(parts.len()));
        let at = |n: usize| rest.get(n).copied().unwrap_or_default();
        let (namespace, plural, name) = match at(0) == "namespaces" && !matches!(at(2), "" | "status" | "finalize") {
            true => (at(1), at(2), at(3)),
            false => ("", at(0), at(1)),
        };
        Place { collection: format!("/{}/{plural}", prefix.join("/")), namespace: namespace.into(), name: name.into() }
    }

    fn key(&self) -> (String, String, String) {
        (self.collection.clone(), self.namespace.clone(), self.name.clone())
    }
}

fn merged(known: &Value, patch: &Value) -> Value {
    let (Value::Object(known), Value::Object(patch)) = (known, patch) else { return patch.clone() };
    let mut result = known.clone();
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            result
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .for_each(|l| l.retain(|v| !gone.contains(v)));
            continue;
        }
        match value {
            Value::Null => drop(result.remove(key)),
            value => drop(result.insert(key.clone(), merged(known.get(key).unwrap_or(&Value::Null), value))),
        }
    }
    Value::Object(result)
}

fn line(value: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{value}\n")))
}

fn respond(code: u16, body: Value) -> Answer {
    let stream = futures::stream::once(async move { Ok(Frame::data(Bytes::from(body.to_string()))) }).boxed();
    let mut response = Response::new(StreamBody::new(stream));
    *response.status_mut() = http::StatusCode::from_u16(code).expect("codes above are valid");
    response
}
