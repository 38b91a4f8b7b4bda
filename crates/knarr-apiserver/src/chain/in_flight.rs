//! How many requests may be at work at once: upstream's two limits. Priority and fairness takes this place later.

use std::sync::Arc;

use http::{Request, Response};
use knarr_api::StatusError;
use knarr_api::status::{Details, Reason};
use tokio::sync::Semaphore;

use super::Handler;
use super::request_info::RequestInfo;
use crate::authentication::User;
use crate::http::{Body, respond};

/// Refuses what is too much with upstream's 429.
pub struct InFlight<H> {
    inner: H,
    reading: Semaphore,
    writing: Semaphore,
}

impl<H> InFlight<H> {
    pub fn new(inner: H, reading: usize, writing: usize) -> Self {
        InFlight { inner, reading: Semaphore::new(reading), writing: Semaphore::new(writing) }
    }
}

impl<H: Handler> Handler for InFlight<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let extensions = request.extensions();
        let exempt = extensions.get::<Arc<RequestInfo>>().is_none_or(|info| info.long_running)
            || extensions.get::<Arc<User>>().is_some_and(|user| user.in_group("system:masters"));
        if exempt {
            return self.inner.handle(request).await;
        }
        let reads = matches!(request.method().as_str(), "GET" | "HEAD");
        let limit = if reads { &self.reading } else { &self.writing };
        match limit.try_acquire() {
            Ok(_permit) => self.inner.handle(request).await,
            Err(_) => respond::from_error(&too_many()),
        }
    }
}

fn too_many() -> StatusError {
    let message = "Too many requests, please try again later.";
    let details = Details { retry_after_seconds: 1, ..Details::default() };
    StatusError { details: Some(Box::new(details)), ..StatusError::new(Reason::TooManyRequests, message) }
}
