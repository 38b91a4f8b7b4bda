//! `/openapi/v2` and `/openapi/v3`, rendered from the tables when somebody asks: kept nowhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{Response, StatusCode};
use knarr_api::custom_resource::Definition;
use knarr_api::openapi::custom::Published;
use knarr_api::{GroupVersion, openapi};
use serde_json::{Value, json};

use crate::aggregation::Aggregator;
use crate::custom_resources;
use crate::http::Body;
use crate::http::negotiate;
use crate::http::respond;
use crate::registry::{Registry, Served};

/// The answer to a path under `/openapi`; `None` where there is no such document.
pub async fn serve(
    registry: &Arc<Registry>,
    aggregator: &Arc<Aggregator>,
    words: &[&str],
    parts: &Parts,
) -> Option<Response<Body>> {
    if let ["openapi", "v3", "apis", group, version] = words
        && let Some(answer) = aggregator.openapi_v3(group, version, parts).await
    {
        return Some(answer);
    }
    let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
    let (registry, aggregator) = (registry.clone(), aggregator.clone());
    let path = words.join("/");
    let Some(form) = form(&path, parts) else { return Some(not_acceptable(&path)) };
    // Rendering takes long enough to hold other requests up.
    let document = tokio::task::spawn_blocking(move || {
        Some(match (document(&registry, &aggregator, &words)?, form) {
            (document, Form::Json) => document.to_string().into_bytes(),
            (document, Form::Protobuf) => openapi::protobuf::document(&document),
        })
    });
    match document.await.ok()? {
        Some(bytes) => Some(answer(&path, bytes, form, parts)),
        None if path.starts_with(V3_DOCUMENTS) => Some(empty(StatusCode::NOT_FOUND)),
        None => None,
    }
}

const V3_INDEX: &str = "openapi/v3";
const V3_DOCUMENTS: &str = "openapi/v3/";

fn not_acceptable(path: &str) -> Response<Body> {
    let mut response = empty(StatusCode::NOT_ACCEPTABLE);
    add_vary(path, &mut response);
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = respond::with_type(status, respond::JSON, Body::empty());
    response.headers_mut().remove(http::header::CONTENT_TYPE);
    response
}

/// Upstream compresses version 2 itself, and asks nobody how to write the index of version 3.
fn add_vary(path: &str, response: &mut Response<Body>) {
    if path == "openapi/v2" {
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    if path != V3_INDEX {
        response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    }
}

/// How a document is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// What the client wants most; only version 2 has a protobuf form. `None`: nothing there is.
fn form(path: &str, parts: &Parts) -> Option<Form> {
    let clauses = negotiate::clauses(&parts.headers);
    if clauses.is_empty() || path == V3_INDEX {
        return Some(Form::Json);
    }
    clauses.iter().find_map(|clause| match clause.media_type {
        "application/json" | "*/*" | "application/*" => Some(Form::Json),
        // The `@` is how clients before 1.27 wrote it.
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf" | PROTOBUF if path == "openapi/v2" => {
            Some(Form::Protobuf)
        }
        _ => None,
    })
}

fn document(registry: &Registry, aggregator: &Aggregator, words: &[String]) -> Option<Value> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["openapi", "v2"] => {
            let mut document = v2(registry);
            aggregator.add_openapi_v2(&mut document);
            Some(document)
        }
        ["openapi", "v3"] => {
            let mut index = index(registry);
            aggregator.add_openapi_v3_index(&mut index);
            Some(index)
        }
        ["openapi", "v3", path @ ..] => v3(registry, &path.join("/")),
        _ => None,
    }
}

fn v3(registry: &Registry, path: &str) -> Option<Value> {
    openapi::v3(path).or_else(|| {
        let customs = customs(registry);
        let (version, rows) = customs.iter().find(|(version, _)| custom_path(version) == path)?;
        let schemas = schemas(registry, rows);
        Some(openapi::custom::v3(version, &published(rows, &schemas)))
    })
}

fn v2(registry: &Registry) -> Value {
    let mut document = openapi::v2();
    for rows in customs(registry).values() {
        let schemas = schemas(registry, rows);
        openapi::custom::add_to_v2(&mut document, &published(rows, &schemas));
    }
    document
}

/// The schema of each row, as its definition has it.
fn schemas(registry: &Registry, rows: &[Arc<Served>]) -> Vec<Value> {
    let definitions = registry.cache(&custom_resources::definitions());
    let snapshot = definitions.snapshot();
    let schema = |served: &Arc<Served>| {
        let name = served.custom.as_ref().map(|custom| custom.kind.name.as_str()).unwrap_or_default();
        let object = snapshot.get(name).map(|entry| entry.object()).unwrap_or_default();
        let found = Definition(&object).versions().find(|v| v.name == served.kind.version).map(|v| v.schema.clone());
        found.unwrap_or_default()
    };
    rows.iter().map(schema).collect()
}

fn published<'a>(rows: &'a [Arc<Served>], schemas: &'a [Value]) -> Vec<Published<'a>> {
    let one = |(served, schema): (&'a Arc<Served>, &'a Value)| {
        let custom = served.custom.as_deref()?;
        Some(Published {
            resource: &served.resource,
            list_kind: &custom.list_kind,
            schema,
            keeps_unknown: custom.kind.keeps_unknown,
            selectable: &custom.selectable,
        })
    };
    rows.iter().zip(schemas).filter_map(one).collect()
}

fn custom_path(version: &GroupVersion) -> String {
    format!("apis/{version}")
}

fn customs(registry: &Registry) -> BTreeMap<GroupVersion, Vec<Arc<Served>>> {
    let mut customs: BTreeMap<GroupVersion, Vec<Arc<Served>>> = BTreeMap::new();
    for served in registry.table().rows.iter().filter(|s| s.custom.is_some()) {
        customs.entry(served.resource.group_version()).or_default().push(served.clone());
    }
    customs
}

/// What there is, each with a hash of its content.
fn index(registry: &Registry) -> Value {
    let mut index = openapi::v3_index();
    for (version, rows) in customs(registry) {
        let path = custom_path(&version);
        let states: Vec<&str> = rows.iter().filter_map(|s| s.custom.as_ref()).map(|c| c.kind.state.as_str()).collect();
        let hash = hash_of(states.join(","));
        index["paths"][&path] = json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")});
    }
    index
}

fn hash_of(text: impl AsRef<[u8]>) -> String {
    format!("{:016X}", std::hash::BuildHasher::hash_one(&foldhash::quality::FixedState::default(), text.as_ref()))
}

/// With an entity tag; a document that was asked for by its hash never changes.
fn answer(path: &str, bytes: Vec<u8>, form: Form, parts: &Parts) -> Response<Body> {
    let etag = format!("\"{}\"", hash_of(&bytes));
    let unchanged = parts.headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let content_type = match form {
        Form::Json if path == V3_INDEX => respond::TEXT,
        Form::Json => respond::JSON,
        Form::Protobuf => HeaderValue::from_static(PROTOBUF),
    };
    let mut response = match unchanged {
        true => respond::with_type(StatusCode::NOT_MODIFIED, content_type, Body::empty()),
        false => respond::with_type(StatusCode::OK, content_type, Body::from(bytes)),
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    if path != V3_INDEX && parts.uri.query().is_some_and(|q| q.contains("hash=")) {
        headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    add_vary(path, &mut response);
    response
}
