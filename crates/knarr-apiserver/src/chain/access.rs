//! Who asks, in whose name, and whether they may.

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use http::{Request, Response};
use knarr_api::StatusError;

use super::Handler;
use super::request_info::RequestInfo;
use crate::authentication::{self, User};
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

/// Lets a user act as another.
#[async_trait]
pub trait Impersonator: Send + Sync {
    /// The user that the `Impersonate-` headers ask for, `None` where there are none, 403 where it is not allowed.
    async fn impersonate(&self, request: &Parts, user: &Arc<User>) -> Result<Option<Arc<User>>, StatusError>;
}

/// Sees every authenticated request and its answer.
pub trait Audit: Send + Sync {
    fn answered(&self, info: &RequestInfo, user: &User, code: u16);
}

/// Impersonation and audit.
pub struct Impersonate<H> {
    pub inner: H,
    pub impersonator: Option<Arc<dyn Impersonator>>,
    pub audit: Option<Arc<dyn Audit>>,
}

impl<H: Handler> Handler for Impersonate<H> {
    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let user = parts.extensions.get::<Arc<User>>().cloned().unwrap_or_default();
        if let Some(impersonator) = &self.impersonator {
            match impersonator.impersonate(&parts, &user).await {
                Ok(Some(other)) => drop(parts.extensions.insert(other)),
                Ok(None) => {}
                Err(error) => return respond::from_error(&error),
            }
        }
        let info = parts.extensions.get::<Arc<RequestInfo>>().cloned();
        let response = self.inner.handle(Request::from_parts(parts, body)).await;
        if let (Some(audit), Some(info)) = (&self.audit, info) {
            audit.answered(&info, &user, response.status().as_u16());
        }
        response
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
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                return respond::from_error(&authorization::forbidden(&attributes, &reason));
            }
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
