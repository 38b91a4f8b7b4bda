//! Who asks, in whose name, and whether they may.

use std::sync::Arc;

use http::{HeaderMap, Request, Response};
use knarr_api::StatusError;

use super::Handler;
use super::request_info::RequestInfo;
use crate::authentication::{self, User, impersonation};
use crate::authorization::{self, Attributes, Decision};
use crate::http::{Body, respond};

/// Puts the [`User`] into the request's extensions, or answers 401.
pub struct Authenticate<H> {
    pub inner: H,
    pub authenticators: authentication::Chain,
}

impl<H: Handler> Handler for Authenticate<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        match self.authenticators.authenticate(&parts).await {
            Ok(user) => {
                parts.extensions.insert(user);
                self.inner.handle(Request::from_parts(parts, body)).await
            }
            Err(error) => respond::from_error(&error),
        }
    }
}

/// Sees every authenticated request and its answer.
pub trait Audit: Send + Sync {
    fn answered(&self, info: &RequestInfo, user: &User, code: u16);
}

/// Impersonation and audit.
pub struct Impersonate<H> {
    pub inner: H,
    /// Who may impersonate whom.
    pub authorizers: authorization::Chain,
    pub audit: Option<Arc<dyn Audit>>,
}

impl<H: Handler> Handler for Impersonate<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let user = parts.extensions.get::<Arc<User>>().cloned().unwrap_or_default();
        let info = parts.extensions.get::<Arc<RequestInfo>>().cloned();
        let asked = info.as_deref().map(|info| attributes(info, &user)).unwrap_or_default();
        match impersonation::impersonate(&parts.headers, &user, &asked, &self.authorizers).await {
            Ok(effective) => drop(parts.extensions.insert(effective)),
            Err(error) => return respond::from_error(&error),
        }
        remove_impersonation(&mut parts.headers);
        let response = self.inner.handle(Request::from_parts(parts, body)).await;
        if let (Some(audit), Some(info)) = (&self.audit, info) {
            audit.answered(&info, &user, response.status().as_u16());
        }
        response
    }
}

/// Nobody further on may act on them a second time, nor a proxied server.
fn remove_impersonation(headers: &mut HeaderMap) {
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Lets pass what the authorizers allow.
pub struct Authorize<H> {
    pub inner: H,
    pub authorizers: authorization::Chain,
}

impl<H: Handler> Handler for Authorize<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let extensions = request.extensions();
        let (Some(info), Some(user)) = (extensions.get::<Arc<RequestInfo>>(), extensions.get::<Arc<User>>()) else {
            return respond::from_error(&StatusError::internal("no user or request info in the request"));
        };
        let attributes = attributes(info, user);
        match self.authorizers.authorize(&attributes).await {
            Decision::Allow { .. } => {}
            refused => return respond::from_error(&authorization::refusal(&attributes, refused)),
        }
        self.inner.handle(request).await
    }
}

/// A request as authorizers see it.
pub fn attributes<'a>(info: &'a RequestInfo, user: &'a User) -> Attributes<'a> {
    Attributes {
        user,
        verb: &info.verb,
        is_resource: info.is_resource,
        group: &info.group,
        version: &info.version,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: &info.name,
        path: &info.path,
        field_selector: &info.field_selector,
        label_selector: &info.label_selector,
    }
}
