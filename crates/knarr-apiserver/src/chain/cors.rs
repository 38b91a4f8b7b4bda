//! Answers to browsers of other origins (`--cors-allowed-origins`).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use regex::Regex;

use super::Handler;
use crate::http::Body;

/// Lets pages of the allowed origins read the answers. Without origins it does nothing.
pub struct Cors<H> {
    pub inner: H,
    pub origins: Vec<Regex>,
}

impl<H: Handler> Handler for Cors<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if self.origins.is_empty() {
            return self.inner.handle(request).await;
        }
        let Some(origin) = request.headers().get(ORIGIN).filter(|o| self.allows(o)).cloned() else {
            return self.inner.handle(request).await;
        };
        // A preflight carries no credentials: it ends here.
        let mut response = if request.method() == Method::OPTIONS {
            let mut empty = Response::new(Body::empty());
            *empty.status_mut() = StatusCode::NO_CONTENT;
            empty
        } else {
            self.inner.handle(request).await
        };
        allow(response.headers_mut(), origin);
        response
    }
}

impl<H> Cors<H> {
    fn allows(&self, origin: &HeaderValue) -> bool {
        origin.to_str().is_ok_and(|origin| self.origins.iter().any(|allowed| allowed.is_match(origin)))
    }
}

fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE, PATCH";
    const HEADERS: &str = "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since";
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(HEADERS));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Date"));
    headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
}
