//! Everything that is not a resource: health, version, metrics, discovery, the root's list of paths.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::aggregation::Aggregator;
use crate::chain::request_info::RequestInfo;
use crate::discovery::{self, Catalog};
use crate::http::Body;
use crate::http::respond;
use crate::metrics::SharedMetrics;
use crate::openapi;
use crate::registry::options::Query;
use crate::registry::{Registry, Table};

/// A condition of being healthy. The text of `Err` is logged, not shown.
pub type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A named check and the pages it belongs to.
#[derive(Clone)]
pub struct HealthCheck {
    pub name: String,
    /// A server that fails it cannot be healed by waiting.
    pub live: bool,
    pub check: Check,
}

/// A page of another room, such as the token issuer's keys.
#[async_trait::async_trait]
pub trait Page: Send + Sync {
    /// The answer to a path; `None` if it is not this page's.
    async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>>;
}

#[async_trait::async_trait]
impl Page for crate::tokens::Discovery {
    async fn serve(&self, info: &RequestInfo, _parts: &Parts) -> Option<Response<Body>> {
        let (document, content_type) = self.document(&info.path)?;
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
    pub git_version: String,
}

const ROOT_PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/healthz",
    "/healthz/etcd",
    "/healthz/ping",
    "/livez",
    "/livez/etcd",
    "/livez/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/readyz/etcd",
    "/readyz/ping",
    "/readyz/shutdown",
    "/version",
];

impl Pages {
    pub async fn serve(&self, info: &RequestInfo, parts: &Parts) -> Response<Body> {
        for page in &self.pages {
            if let Some(response) = page.serve(info, parts).await {
                return response;
            }
        }
        if info.path.starts_with("/openapi/") && parts.method == Method::GET {
            let words: Vec<&str> = info.path.trim_matches('/').split('/').collect();
            let document = openapi::serve(&self.registry, &self.aggregator, &words, parts).await;
            return document.unwrap_or_else(respond::page_not_found);
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return match self.page(info, parts) {
                Some(_) => respond::method_not_allowed("GET"),
                None => respond::page_not_found(),
            };
        }
        self.page(info, parts).unwrap_or_else(respond::page_not_found)
    }

    fn page(&self, info: &RequestInfo, parts: &Parts) -> Option<Response<Body>> {
        let path = info.path.trim_end_matches('/');
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let table = self.registry.table();
        match words.as_slice() {
            [] => Some(self.root()),
            ["api"] => Some(discovery::core_versions(&self.catalog(&table), &parts.headers, &self.server_address)),
            ["api", version] => discovery::resource_list(&table, "", version),
            ["apis"] => Some(discovery::group_list(&self.catalog(&table), &parts.headers)),
            ["apis", group] => discovery::group(&self.catalog(&table), group),
            ["apis", group, version] if !group.is_empty() => discovery::resource_list(&table, group, version),
            ["version"] => Some(self.version()),
            ["metrics"] => Some(self.metrics_page()),
            ["healthz" | "livez" | "readyz", ..] => self.health(&words, parts),
            _ => None,
        }
    }

    fn catalog<'a>(&'a self, table: &'a Table) -> Catalog<'a> {
        Catalog::new(table, &self.aggregator)
    }

    fn root(&self) -> Response<Body> {
        let table = self.registry.table();
        let mut paths: Vec<String> = ROOT_PATHS.iter().map(|p| p.to_string()).collect();
        paths.extend(["/api", "/api/v1", "/apis", "/apis/"].map(str::to_string));
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
        respond::json(StatusCode::OK, &json!({"paths": paths}))
    }

    fn version(&self) -> Response<Body> {
        respond::json(
            StatusCode::OK,
            &json!({
                "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
                "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
                "gitVersion": self.git_version, "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
                "goVersion": "", "compiler": "rustc",
                "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
            }),
        )
    }

    fn metrics_page(&self) -> Response<Body> {
        let caches = self.registry.caches.all();
        let text = self.metrics.render(caches.iter().map(|c| (c.resource.to_string(), c.snapshot().len())));
        let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        respond::with_type(StatusCode::OK, content_type, Body::from(text))
    }

    fn health(&self, words: &[&str], parts: &Parts) -> Option<Response<Body>> {
        let page = words[0];
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let checks: Vec<&HealthCheck> = self.checks.iter().filter(|c| page == "readyz" || c.live).collect();
        match words.get(1..).unwrap_or_default() {
            [] => Some(summary(page, &checks, &query)),
            rest => {
                let name = rest.join("/");
                let check = checks.iter().find(|c| c.name == name)?;
                Some(match (check.check)() {
                    Ok(()) => respond::text(StatusCode::OK, "ok"),
                    Err(why) => {
                        respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
                    }
                })
            }
        }
    }
}

fn summary(page: &str, checks: &[&HealthCheck], query: &Query) -> Response<Body> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        if excluded.contains(&check.name.as_str()) {
            lines.push_str(&format!("[+]{} excluded: ok\n", check.name));
            continue;
        }
        match (check.check)() {
            Ok(()) => lines.push_str(&format!("[+]{} ok\n", check.name)),
            Err(why) => {
                tracing::warn!(check = check.name, why, "not healthy");
                failed = true;
                lines.push_str(&format!("[-]{} failed: reason withheld\n", check.name));
            }
        }
    }
    let unknown: Vec<String> =
        excluded.iter().filter(|e| !checks.iter().any(|c| c.name == **e)).map(|e| format!("{e:?}")).collect();
    if !unknown.is_empty() {
        lines
            .push_str(&format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(", ")));
    }
    if failed {
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{page} check failed\n"));
    }
    match query.flag("verbose") {
        Some(_) => respond::text(StatusCode::OK, format!("{lines}{page} check passed\n")),
        None => respond::text(StatusCode::OK, "ok"),
    }
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
