//! Requests that have been answered, or that nobody answers, are removed after a while.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use knarr_client::{Action, Controller, Error, Informer, Reconciler};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};

use super::{CONTROLLER, certificate, conditions, keys};
use crate::context::Context;

const ANSWERED: Duration = Duration::from_secs(3600);
const UNANSWERED: Duration = Duration::from_secs(24 * 3600);
/// A wait is never longer, so that a clock that was set is noticed.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(super) async fn run(context: Arc<Context>) {
    let requests = context.informers.all::<CertificateSigningRequest>();
    let loop_ = Cleaning { requests: requests.clone(), client: context.client(CONTROLLER) };
    Controller::new(loop_).watch(&requests, keys).run(context.shutdown.clone()).await;
}

struct Cleaning {
    requests: Informer<CertificateSigningRequest>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for Cleaning {
    type Key = String;

    fn name(&self) -> &'static str {
        "csrcleaner"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", name) else { return Ok(Action::Done) };
        let Some(end) = end_of(&request) else { return Ok(Action::Done) };
        let left = end.as_second() - Timestamp::now().as_second();
        if left > 0 {
            return Ok(Action::RequeueAfter(Duration::from_secs(left as u64).min(LONGEST_WAIT)));
        }
        tracing::info!(request = name, "removing an old certificate signing request");
        let preconditions = Preconditions { uid: request.metadata.uid.clone(), ..Preconditions::default() };
        let options = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        match api.delete(name, &options).await.map_err(Error::from) {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}

/// When a request is of no more use.
fn end_of(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let after = |at: Timestamp, wait: Duration| at.checked_add(wait).ok();
    let issued = certificate(request);
    let by_condition = conditions(request).iter().filter_map(|condition| {
        let wait = match (condition.type_.as_str(), issued) {
            ("Approved", Some(_)) | ("Denied" | "Failed", _) => ANSWERED,
            ("Approved", None) => UNANSWERED,
            _ => return None,
        };
        after(condition.last_update_time.as_ref()?.0, wait)
    });
    let expiry = issued.and_then(expiry_of);
    let pending =
        if conditions(request).is_empty() { created(request).and_then(|at| after(at, UNANSWERED)) } else { None };
    by_condition.chain(expiry).chain(pending).min()
}

fn expiry_of(pem: &[u8]) -> Option<Timestamp> {
    knarr_pki::expiry(pem).and_then(|seconds| Timestamp::from_second(seconds).ok())
}

fn created(request: &CertificateSigningRequest) -> Option<Timestamp> {
    request.metadata.creation_timestamp.as_ref().map(|at| at.0)
}
