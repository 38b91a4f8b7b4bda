//! The way of every request, from the connection or from memory, to the answer:
//! panic guard, request info, origins, timeout, authentication, audit, impersonation, priority and fairness, authorization,
//! routes.
//!
//! A filter wraps a [`Handler`] and is one; the whole chain is one future with no allocation of its own.

pub mod access;
pub mod audit;
pub mod cors;
pub mod deadline;
pub mod farewell;
mod lasting;
pub mod priority_and_fairness;
pub mod request_info;
pub mod watchdog;

use std::future::Future;

pub use lasting::Lasting;

use http::{Request, Response};

use crate::http::Body;

/// Answers requests. Failing is answering: there is no error.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;
}
