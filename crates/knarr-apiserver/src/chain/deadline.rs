//! How long a request may take: upstream's 60 seconds, or less where the client says `timeout=`.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use knarr_api::status::Reason;
use knarr_api::{StatusError, go_duration};
use tokio::time::Instant;

use super::Handler;
use super::request_info::RequestInfo;
use crate::http::{Body, respond};
use crate::registry::options::Query;

/// When a request must have been answered; only in requests that ask for less than the server allows.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Ends requests that take too long, except those that are meant to last.
pub struct Timeout<H> {
    pub inner: H,
    pub limit: Duration,
}

impl<H: Handler> Handler for Timeout<H> {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let lasts = request.extensions().get::<Arc<RequestInfo>>().is_some_and(|info| info.long_running);
        if lasts {
            return self.inner.handle(request).await;
        }
        let limit = match asked(request.uri().query().unwrap_or_default()) {
            Ok(Some(asked)) if asked < self.limit => {
                request.extensions_mut().insert(Deadline(Instant::now() + asked));
                asked
            }
            Ok(_) => self.limit,
            Err(why) => return respond::from_error(&StatusError::bad_request(why)),
        };
        match tokio::time::timeout(limit, self.inner.handle(request)).await {
            Ok(response) => response,
            Err(_) => respond::from_error(&StatusError::new(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            )),
        }
    }
}

/// The time in `timeout=`; 0 asks for none, as upstream.
fn asked(query: &str) -> Result<Option<Duration>, String> {
    if !query.contains("timeout=") {
        return Ok(None);
    }
    match Query::parse(query).get("timeout") {
        "" => Ok(None),
        text => match go_duration::nanos(text) {
            Ok(nanos) => Ok(u64::try_from(nanos).ok().filter(|n| *n > 0).map(Duration::from_nanos)),
            Err(why) => Err(format!("invalid timeout specified in the request URL - {why}")),
        },
    }
}
