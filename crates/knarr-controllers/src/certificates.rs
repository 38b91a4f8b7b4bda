//! Certificate signing requests: approved where a kubelet asks for its own client certificate, signed by the cluster's authority, and
//! removed when they are of no more use.

mod approving;
mod cleaning;
mod recognize;
mod signing;

use std::sync::Arc;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use knarr_client::Event;

use crate::context::Context;
use crate::meta;

/// The service account that all three act as.
const CONTROLLER: &str = "certificate-controller";

pub(crate) async fn run(context: Arc<Context>) {
    tokio::join!(approving::run(context.clone()), signing::run(context.clone()), cleaning::run(context));
}

fn keys(event: &Event<CertificateSigningRequest>) -> Vec<String> {
    match event {
        Event::Deleted(_) => Vec::new(),
        _ => vec![meta::name_of(&**event.object()).to_string()],
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default()
}

fn has_condition(request: &CertificateSigningRequest, type_: &str) -> bool {
    conditions(request).iter().any(|c| c.type_ == type_)
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(certificate.0.as_slice())
}

fn with_condition(
    request: &CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: &str,
) -> CertificateSigningRequest {
    let mut changed = request.clone();
    let condition = CertificateSigningRequestCondition {
        type_: type_.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(meta::now()),
        last_transition_time: None,
    };
    changed.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    changed
}
