//! Everything that is not a resource: health, version, metrics, discovery, the root's list of paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use knarr_api::release;
use serde_json::json;

use crate::aggregation::Aggregator;
use crate::chain::request_info::RequestInfo;
use crate::discovery::{self, Catalog};
use crate::health::{self, HealthCheck};
use crate::http::Body;
use crate::http::{negotiate, respond};
use crate::metrics::{ResourceCount, SharedMetrics};
use crate::openapi;
use crate::registry::options::Query;
use crate::registry::{Registry, Table};
use crate::zpages;

/// A page of another room, such as the token issuer's keys.
#[async_trait::async_trait]
pub trait Page: Send + Sync {
    /// The answer to a path; `None` if it is not this page's.
    async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>>;
}

#[async_trait::async_trait]
impl Page for crate::tokens::Discovery {
    async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>> {
        let (document, content_type) = self.document(&info.path)?;
        if parts.method != Method::GET {
            return Some(respond::no_method(&info.path, "GET"));
        }
        Some(respond::with_type(StatusCode::OK, HeaderValue::from_static(content_type), Body::from(document)))
    }
}

/// Serves the paths that are no resources.
pub struct Pages {
    pub registry: Arc<Registry>,
    pub aggregator: Arc<Aggregator>,
    pub metrics: SharedMetrics,
    pub checks: Vec<HealthCheck>,
    pub pages: Vec<Arc<dyn Page>>,
    /// The address that `/api` tells clients.
    pub server_address: String,
    /// What the server was started with.
    pub flags: BTreeMap<String, String>,
    pub started: Timestamp,
}

const ROOT_PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/statusz",
    "/version",
];

impl Pages {
    pub async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Response<Body> {
        for page in &self.pages {
            if let Some(response) = page.serve(info, parts).await {
                return response;
            }
        }
        let words: Vec<&str> = info.path.trim_matches('/').split('/').collect();
        if let Some(page) = health_page(&words) {
            let query = Query::parse(parts.uri.query().unwrap_or_default());
            let answer = health::serve(&self.checks, &self.metrics.slis, page, &words[1..], &query).await;
            return answer.unwrap_or_else(respond::page_not_found);
        }
        if words == ["metrics", "slis"] {
            health::measure(&self.checks, &self.metrics.slis).await;
        }
        if info.path.starts_with("/openapi/") {
            let document = openapi::serve(&self.registry, &self.aggregator, &words, parts).await;
            return document.unwrap_or_else(respond::page_not_found);
        }
        match self.page(info, parts) {
            None => respond::no_route(&info.path),
            Some(_) if !self.has_method(&words, &parts.method) => respond::no_method(&info.path, "GET"),
            Some(page) => page,
        }
    }

    /// Whether upstream's page looks at the method, and at which. Those of groups do not, nor do the measurements but to forget them.
    fn has_method(&self, words: &[&str], method: &Method) -> bool {
        let built_in = |group: &str| {
            let table = self.registry.table();
            table.rows.iter().any(|served| served.resource.group == group && served.custom.is_none())
        };
        match words {
            [""] | ["apis"] | ["apis", _] => true,
            ["metrics", ..] => method != Method::DELETE,
            ["api", ..] | ["version"] => method == Method::GET,
            ["apis", group, _] if built_in(group) => method == Method::GET,
            _ => matches!(*method, Method::GET | Method::HEAD),
        }
    }

    fn page(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>> {
        let path = info.path.trim_end_matches('/');
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let table = self.registry.table();
        match words.as_slice() {
            [] => Some(self.root()),
            ["api"] => Some(discovery::core_versions(&self.catalog(&table), &parts.headers, &self.server_address)),
            ["api", version] => discovery::resource_list(&table, &parts.headers, "", version),
            ["apis"] => Some(discovery::group_list(&self.catalog(&table), &parts.headers)),
            ["apis", group] => discovery::group(&self.catalog(&table), &parts.headers, group),
            ["apis", group, version] if !group.is_empty() => {
                discovery::resource_list(&table, &parts.headers, group, version)
            }
            ["version"] => Some(match negotiate::require_json(&parts.headers) {
                Ok(()) => self.version(),
                Err(error) => respond::from_error(&error),
            }),
            ["flagz"] => Some(zpages::flags(&parts.headers, &self.flags)),
            ["statusz"] => Some(zpages::status(&parts.headers, self.started, &self.paths())),
            ["metrics"] => Some(self.metrics_page()),
            ["metrics", "slis"] => Some(measurements(self.metrics.slis.render())),
            _ => None,
        }
    }

    fn catalog<'a>(&'a self, table: &'a Table) -> Catalog<'a> {
        Catalog::new(table, &self.aggregator)
    }

    fn root(&self) -> Response<Body> {
        respond::indented_json(StatusCode::OK, &json!({"paths": self.paths()}))
    }

    fn paths(&self) -> Vec<String> {
        let table = self.registry.table();
        let mut paths: Vec<String> = ROOT_PATHS.iter().map(|p| p.to_string()).collect();
        paths.extend(["/api", "/api/v1", "/apis", "/apis/"].map(str::to_string));
        for check in &self.checks {
            let pages: &[&str] = if check.live { &["healthz", "livez", "readyz"] } else { &["readyz"] };
            paths.extend(pages.iter().map(|page| format!("/{page}/{}", check.name)));
        }
        for served in &table.rows {
            let row = &served.resource;
            if !row.group.is_empty() {
                paths.push(format!("/apis/{}", row.group));
                paths.push(format!("/apis/{}/{}", row.group, row.version));
            }
        }
        for version in self.aggregator.services().remote.keys() {
            paths.push(format!("/apis/{}", version.group));
            paths.push(format!("/apis/{version}"));
        }
        paths.sort();
        paths.dedup();
        paths
    }

    fn version(&self) -> Response<Body> {
        respond::indented_json(
            StatusCode::OK,
            &json!({
                "major": release::MAJOR, "minor": release::MINOR,
                "emulationMajor": release::MAJOR, "emulationMinor": release::MINOR,
                "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
                "gitVersion": git_version(), "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "", "compiler": "rustc",
                "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
            }),
        )
    }

    fn metrics_page(&self) -> Response<Body> {
        let table = self.registry.table();
        let counts = self.registry.caches.all().into_iter().filter_map(|cache| {
            let version = table.stored_version(&cache.resource)?.kind.version.to_string();
            Some(ResourceCount {
                group: cache.resource.group.to_string(),
                version,
                resource: cache.resource.resource.to_string(),
                objects: cache.snapshot().len(),
                events: cache.delivered_events(),
            })
        });
        measurements(self.metrics.render(counts))
    }
}

/// Whether the path's page is a document that is served byte by byte.
pub fn is_document(path: &str) -> bool {
    ["/openapi/", "/openid/", "/.well-known/"].iter().any(|prefix| path.starts_with(prefix))
}

fn health_page(words: &[&str]) -> Option<&'static str> {
    health::PAGES.into_iter().find(|page| words.first() == Some(page))
}

/// Prometheus' text.
fn measurements(text: String) -> Response<Body> {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    respond::with_type(StatusCode::OK, content_type, Body::from(text))
}

/// The release whose behaviour this is, and which Knarr.
pub fn git_version() -> String {
    format!("v{}+knarr-{}", release::VERSION, env!("CARGO_PKG_VERSION"))
}

/// The machine's architecture as Go calls it.
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
