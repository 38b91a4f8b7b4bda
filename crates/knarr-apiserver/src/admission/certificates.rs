//! Plug-ins about certificate signing requests and trust bundles: who may approve, sign and attest for a signer.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::StatusError;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::refusal::{forbidden, is_main, text};
use super::{Operation, Plugin, Request};
use crate::authentication::User;
use crate::authorization::{Attributes, Chain};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether a user may do this for a signer, by its name or by its whole domain.
async fn may(authorizer: &Chain, user: &User, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let attributes = Attributes {
            user,
            verb,
            is_resource: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            name,
            ..Attributes::default()
        };
        if authorizer.allows(&attributes).await {
            return true;
        }
    }
    false
}

/// The request's subresource of a signing request, if it is one.
fn signing_request<'a>(request: &'a Request, subresource: &str) -> Option<&'a serde_json::Value> {
    let resource = &request.resource;
    let is = resource.group == GROUP && resource.resource == "certificatesigningrequests";
    request.old_object.as_deref().filter(|_| is && request.subresource == subresource)
}

/// Approving needs the right to approve for the signer.
pub struct CertificateApproval {
    pub authorizer: Chain,
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let Some(old) = signing_request(request, "approval") else { return Ok(()) };
        let signer = text(old, "/spec/signerName");
        if may(&self.authorizer, &request.user, "approve", signer).await {
            return Ok(());
        }
        Err(forbidden(request, format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// Putting a certificate or a failure into the status needs the right to sign for the signer.
pub struct CertificateSigning {
    pub authorizer: Chain,
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let (Some(old), Some(new)) = (signing_request(request, "status"), &request.object) else { return Ok(()) };
        let (certificate, conditions) = ("/status/certificate", "/status/conditions");
        if new.pointer(certificate) == old.pointer(certificate) && new.pointer(conditions) == old.pointer(conditions) {
            return Ok(());
        }
        let signer = text(old, "/spec/signerName");
        if may(&self.authorizer, &request.user, "sign", signer).await {
            return Ok(());
        }
        Err(forbidden(request, format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// Nobody becomes `system:masters` by a signing request.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        let Some(object) = &request.object else { return Ok(()) };
        let signer = text(object, "/spec/signerName");
        if !is_main(request, GROUP, "certificatesigningrequests") || signer != CLIENT_SIGNER {
            return Ok(());
        }
        if asks_for_masters(text(object, "/spec/request")) {
            let why = format!("use of {signer} signer with system:masters group is not allowed");
            return Err(forbidden(request, why));
        }
        Ok(())
    }
}

/// A request that cannot be read is the validation's to refuse.
fn asks_for_masters(encoded: &str) -> bool {
    let Ok(pem) = STANDARD.decode(encoded) else { return false };
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    let subject = &request.certification_request_info.subject;
    subject.iter_organization().any(|o| o.as_str() == Ok("system:masters"))
}

/// A trust bundle of a signer needs the right to attest for it.
pub struct ClusterTrustBundleAttest {
    pub authorizer: Chain,
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, GROUP, "clustertrustbundles") {
            return Ok(());
        }
        let Some(bundle) = &request.object else { return Ok(()) };
        let signer = text(bundle, "/spec/signerName");
        if signer.is_empty() || may(&self.authorizer, &request.user, "attest", signer).await {
            return Ok(());
        }
        Err(forbidden(request, format!("user not permitted to attest for signerName {signer:?}")))
    }
}
