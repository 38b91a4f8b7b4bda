//! `/livez`, `/readyz`, `/healthz` and every single check below them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::http::{Body, respond};
use crate::metrics::slis::Slis;
use crate::registry::Registry;
use crate::registry::options::Query;

/// A condition of being healthy. The text of `Err` is logged and shown on the check's own page, not in the summary.
pub type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A named check and the pages it belongs to.
#[derive(Clone)]
pub struct HealthCheck {
    pub name: String,
    /// A server that fails it cannot be healed by waiting: it is also on `/livez` and `/healthz`.
    pub live: bool,
    pub check: Check,
}

impl HealthCheck {
    /// A check that needs not wait for its answer.
    pub fn new(name: &str, live: bool, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        let check: Check = Arc::new(move || std::future::ready(check()).boxed());
        HealthCheck { name: name.into(), live, check }
    }

    fn is_on(&self, page: &str) -> bool {
        self.live || page == "readyz"
    }
}

/// The pages of health.
pub const PAGES: [&str; 3] = ["healthz", "livez", "readyz"];

/// A step of starting that the server is not healthy before, under the names of all of upstream's checks that say as much.
#[derive(Clone)]
pub struct StartStage {
    names: &'static [&'static str],
    done: CancellationToken,
}

impl StartStage {
    pub fn new(names: &'static [&'static str]) -> Self {
        StartStage { names, done: CancellationToken::new() }
    }

    pub fn done(&self) {
        self.done.cancel();
    }

    /// Returns once it is done.
    pub async fn reached(&self) {
        self.done.cancelled().await;
    }

    pub fn checks(&self) -> impl Iterator<Item = HealthCheck> {
        self.names.iter().map(|name| {
            let done = self.done.clone();
            HealthCheck::new(name, true, move || match done.is_cancelled() {
                true => Ok(()),
                false => Err("not finished".into()),
            })
        })
    }
}

/// Upstream's `--etcd-healthcheck-timeout` and `--etcd-readycheck-timeout`.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);
/// The key that upstream reads, too.
const STORE_KEY: &str = "/registry/health";

/// The checks that every server has, in upstream's order.
pub fn own_checks(registry: &Arc<Registry>, stopping: &CancellationToken) -> Vec<HealthCheck> {
    let caches = registry.clone();
    let stopping = stopping.clone();
    vec![
        HealthCheck::new("ping", true, || Ok(())),
        store_check(registry, "etcd", true),
        store_check(registry, "etcd-readiness", false),
        HealthCheck::new("informer-sync", false, move || match caches.is_following() {
            true => Ok(()),
            false => Err("the caches do not follow the store".into()),
        }),
        HealthCheck::new("shutdown", false, move || match stopping.is_cancelled() {
            true => Err("process is shutting down".into()),
            false => Ok(()),
        }),
    ]
}

/// Whether the store answers.
pub fn store_check(registry: &Arc<Registry>, name: &str, live: bool) -> HealthCheck {
    let registry = registry.clone();
    let check: Check = Arc::new(move || store_answers(registry.clone()).boxed());
    HealthCheck { name: name.into(), live, check }
}

/// The store is read, and its last write, whenever that was, did not fail.
async fn store_answers(registry: Arc<Registry>) -> Result<(), String> {
    if let Some(why) = registry.last_store_failure() {
        return Err(why);
    }
    let store = registry.store().clone();
    let read = async {
        store.revision().await?;
        store.get(STORE_KEY).await
    };
    match tokio::time::timeout(STORE_TIMEOUT, read).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the store does not answer in time".into()),
    }
}

/// The answer on one of the three pages; `rest` is what follows it in the path. `None` for a check that does not exist.
pub async fn serve(
    checks: &[HealthCheck],
    slis: &Slis,
    page: &'static str,
    rest: &[&str],
    query: &Query,
) -> Option<Response<Body>> {
    let checks: Vec<&HealthCheck> = checks.iter().filter(|c| c.is_on(page)).collect();
    if rest.is_empty() {
        return Some(summary(&checks, slis, page, query).await);
    }
    let name = rest.join("/");
    let check = checks.iter().find(|c| c.name == name)?;
    Some(match (check.check)().await {
        Ok(()) => respond::text(StatusCode::OK, "ok"),
        Err(why) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
    })
}

/// Makes every check for whoever measures: a server that nobody probes would have no results.
pub async fn measure(checks: &[HealthCheck], slis: &Slis) {
    for check in checks {
        let healthy = (check.check)().await.is_ok();
        for page in PAGES.iter().filter(|page| check.is_on(page)) {
            slis.checked(&check.name, page, healthy);
        }
    }
}

async fn summary(checks: &[&HealthCheck], slis: &Slis, page: &str, query: &Query) -> Response<Body> {
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = false;
    for check in checks {
        let name = check.name.as_str();
        if excluded.contains(&name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let outcome = (check.check)().await;
        slis.checked(name, page, outcome.is_ok());
        match outcome {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                tracing::warn!(check = name, why, "not healthy");
                failed = true;
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    lines.push_str(&unknown(&excluded, checks));
    if failed {
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{page} check failed\n"));
    }
    match query.flag("verbose") {
        Some(_) => respond::text(StatusCode::OK, format!("{lines}{page} check passed\n")),
        None => respond::text(StatusCode::OK, "ok"),
    }
}

/// A warning about exclusions that exclude nothing.
fn unknown(excluded: &[&str], checks: &[&HealthCheck]) -> String {
    let known = |name: &str| checks.iter().any(|c| c.name == name);
    let mut unknown: Vec<String> = excluded.iter().filter(|e| !known(e)).map(|e| format!("{e:?}")).collect();
    unknown.sort();
    unknown.dedup();
    match unknown.is_empty() {
        true => String::new(),
        false => {
            format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(","))
        }
    }
}
