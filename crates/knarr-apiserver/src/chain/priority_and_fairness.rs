//! Who may be served now: API priority and fairness, or where that is switched off, upstream's two older limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{HeaderName, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use super::Handler;
use super::deadline::Deadline;
use super::request_info::RequestInfo;
use crate::authentication::User;
use crate::flow_control::level::{self, Asked, Place, Seat};
use crate::flow_control::schema::Schema;
use crate::flow_control::{FlowControl, work};
use crate::http::{Body, respond};
use crate::metrics::{Metrics, Series};
use crate::registry::Registry;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A request waits in its queue for this part of the time it may take at all.
const WAITING_PART: u32 = 4;
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How the server protects itself from too many requests.
pub enum Protection {
    Fair(Arc<FlowControl>),
    /// The most requests at work that read, and that write; `None`: no limit.
    MaxInFlight {
        reading: Option<Semaphore>,
        writing: Option<Semaphore>,
    },
}

impl Protection {
    /// Upstream's limits of `--max-requests-inflight` and `--max-mutating-requests-inflight`; 0 is no limit.
    pub fn max_in_flight(reading: usize, writing: usize) -> Self {
        let limit = |n: usize| (n > 0).then(|| Semaphore::new(n.min(Semaphore::MAX_PERMITS)));
        Protection::MaxInFlight { reading: limit(reading), writing: limit(writing) }
    }
}

/// Serves a request once there is room for it, or refuses it with upstream's 429.
pub struct Protect<H> {
    pub inner: H,
    pub protection: Protection,
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
    /// How long a request may take that does not say.
    pub request_timeout: Duration,
}

impl<H: Handler> Handler for Protect<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let extensions = request.extensions();
        let (Some(info), Some(user)) = (extensions.get::<Arc<RequestInfo>>(), extensions.get::<Arc<User>>()) else {
            return self.inner.handle(request).await;
        };
        // A watch is at work until it has begun; other long requests are not counted at all.
        if info.long_running && info.verb != "watch" {
            return self.inner.handle(request).await;
        }
        match &self.protection {
            Protection::Fair(flow_control) => {
                let configuration = flow_control.configuration();
                let Some(schema) = configuration.classify(info, user).cloned() else {
                    return self.inner.handle(request).await;
                };
                drop(configuration);
                self.fairly(request, schema).await
            }
            Protection::MaxInFlight { reading, writing } => {
                let exempt = info.long_running || user.in_group("system:masters");
                let limit = if info.reads() { reading } else { writing };
                match limit.as_ref().filter(|_| !exempt).map(Semaphore::try_acquire) {
                    None => self.inner.handle(request).await,
                    // A borrowed permit cannot outlive the handler; this older way counts handlers alone.
                    Some(Ok(_permit)) => self.inner.handle(request).await,
                    Some(Err(_)) => self.refuse(&request),
                }
            }
        }
    }
}

impl<H: Handler> Protect<H> {
    async fn fairly(&self, request: Request<Body>, schema: Arc<Schema>) -> Response<Body> {
        let seat = match self.ask(&request, &schema) {
            Some((Asked::Seated(seat), _)) => Some(seat),
            Some((Asked::Queued(place), limit)) => self.wait(place, limit, info_of(&request)).await,
            Some((Asked::Refused(_), _)) | None => None,
        };
        let watches = info_of(&request).is_some_and(|info| info.long_running);
        let mut response = match seat {
            Some(seat) => {
                let mut response = self.inner.handle(request).await;
                // A watch is at work until it has begun.
                if !watches {
                    respond::hold(&mut response, seat);
                }
                response
            }
            None => self.refuse(&request),
        };
        let headers = response.headers_mut();
        headers.insert(SCHEMA_UID, schema.uid.clone());
        headers.insert(LEVEL_UID, schema.level_uid.clone());
        response
    }

    /// Asks for a seat, and says how long it may be waited for.
    fn ask(&self, request: &Request<Body>, schema: &Arc<Schema>) -> Option<(Asked, Duration)> {
        let extensions = request.extensions();
        let info = extensions.get::<Arc<RequestInfo>>()?;
        let user = extensions.get::<Arc<User>>()?.clone();
        let most = schema.level.most_seats.load(Ordering::Relaxed);
        let query = request.uri().query().unwrap_or_default();
        let work = work::estimate(&self.registry, info, query, most);
        let asking = level::Request { schema: schema.clone(), info: info.clone(), user };
        let time = extensions.get::<Deadline>().map_or(self.request_timeout, Deadline::remaining);
        Some((schema.level.arrive(asking, work), (time / WAITING_PART).min(LONGEST_WAIT)))
    }

    async fn wait(&self, place: Place, limit: Duration, info: Option<Arc<RequestInfo>>) -> Option<Seat> {
        let _waiting = info.map(|info| self.metrics.waiting(&info));
        place.wait(limit).await.ok()
    }

    fn refuse(&self, request: &Request<Body>) -> Response<Body> {
        if let Some(info) = request.extensions().get::<Arc<RequestInfo>>() {
            let known = self.registry.table().get(&info.group, &info.version, &info.resource).is_some();
            let series = Series::of(info, request.method(), request.headers(), known);
            self.metrics.terminated(&series, StatusCode::TOO_MANY_REQUESTS.as_u16());
        }
        too_many()
    }
}

fn info_of(request: &Request<Body>) -> Option<Arc<RequestInfo>> {
    request.extensions().get::<Arc<RequestInfo>>().cloned()
}

fn too_many() -> Response<Body> {
    let mut response = respond::text(StatusCode::TOO_MANY_REQUESTS, "Too many requests, please try again later.\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
