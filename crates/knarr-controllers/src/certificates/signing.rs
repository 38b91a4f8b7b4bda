//! An approved request for one of the cluster's own signers gets its certificate.

use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use knarr_client::{Action, Controller, Error, Informer, Reconciler};
use knarr_pki::{CertificateAuthority, SigningRequest};
use kube::api::PostParams;
use kube::{Api, Client};

use super::{CONTROLLER, certificate, has_condition, keys, recognize, with_condition};
use crate::context::Context;
use crate::meta;

/// Nobody gets less, or the certificate would be over as soon as it is there.
const SHORTEST_SECONDS: i64 = 600;

pub(super) async fn run(context: Arc<Context>) {
    let Some(authority) = context.config.signing_authority.clone() else { return };
    let requests = context.informers.all::<CertificateSigningRequest>();
    let loop_ = Signing {
        requests: requests.clone(),
        client: context.client(CONTROLLER),
        authority,
        longest_seconds: context.config.certificate_lifetime.as_secs() as i64,
    };
    Controller::new(loop_).watch(&requests, keys).run(context.shutdown.clone()).await;
}

struct Signing {
    requests: Informer<CertificateSigningRequest>,
    client: Client,
    authority: Arc<CertificateAuthority>,
    longest_seconds: i64,
}

#[async_trait::async_trait]
impl Reconciler for Signing {
    type Key = String;

    fn name(&self) -> &'static str {
        "csrsigning"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", name) else { return Ok(Action::Done) };
        let denied = has_condition(&request, "Denied") || has_condition(&request, "Failed");
        if certificate(&request).is_some() || denied || !has_condition(&request, "Approved") {
            return Ok(Action::Done);
        }
        let Ok(parsed) = SigningRequest::parse(&request.spec.request.0) else { return Ok(Action::Done) };
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        let changed = match recognize::check(&request.spec.signer_name, &parsed, usages) {
            None => return Ok(Action::Done),
            Some(Err(why)) => with_condition(&request, "Failed", "SignerValidationFailure", &why),
            Some(Ok(())) => {
                let lifetime = self.lifetime(request.spec.expiration_seconds);
                let pem = self.authority.sign_for(&parsed, usages, lifetime);
                let pem = pem.map_err(|e| Error::other(format!("error auto signing csr: {e}")))?;
                let mut signed = (*request).clone();
                signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
                signed
            }
        };
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        api.replace_status(meta::name_of(&*request), &PostParams::default(), &changed).await?;
        Ok(Action::Done)
    }
}

impl Signing {
    /// What was asked, within reason.
    fn lifetime(&self, asked: Option<i32>) -> time::Duration {
        let seconds = asked.map_or(self.longest_seconds, i64::from);
        let shortest = SHORTEST_SECONDS.min(self.longest_seconds);
        time::Duration::seconds(seconds.clamp(shortest, self.longest_seconds))
    }
}
