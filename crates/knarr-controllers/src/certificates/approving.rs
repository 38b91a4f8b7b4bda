//! A kubelet's request for its client certificate is approved where its requester may make such requests.

use std::sync::Arc;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use knarr_client::{Action, Controller, Error, Informer, Reconciler};
use knarr_pki::SigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};

use super::{CONTROLLER, certificate, has_condition, keys, recognize, with_condition};
use crate::context::Context;
use crate::meta;

pub(super) async fn run(context: Arc<Context>) {
    let requests = context.informers.all::<CertificateSigningRequest>();
    let loop_ = Approving { requests: requests.clone(), client: context.client(CONTROLLER) };
    Controller::new(loop_).watch(&requests, keys).run(context.shutdown.clone()).await;
}

struct Approving {
    requests: Informer<CertificateSigningRequest>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for Approving {
    type Key = String;

    fn name(&self) -> &'static str {
        "csrapproving"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(request) = self.requests.get("", name) else { return Ok(Action::Done) };
        let decided = has_condition(&request, "Approved") || has_condition(&request, "Denied");
        if certificate(&request).is_some() || decided || request.spec.signer_name != recognize::KUBELET_CLIENT {
            return Ok(Action::Done);
        }
        let usages = request.spec.usages.as_deref().unwrap_or_default();
        // What cannot be read will not be better at the next look.
        let Ok(parsed) = SigningRequest::parse(&request.spec.request.0) else { return Ok(Action::Done) };
        if recognize::kubelet_client(&parsed, usages).is_err() {
            return Ok(Action::Done);
        }
        let own = request.spec.username.as_deref() == Some(parsed.common_name.as_str());
        let kinds = [
            ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview."),
            ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."),
        ];
        for (subresource, message) in kinds.iter().filter(|(subresource, _)| own || *subresource == "nodeclient") {
            if self.may(&request, subresource).await? {
                return self.approve(&request, message).await;
            }
        }
        Ok(Action::Done)
    }
}

impl Approving {
    async fn may(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".into()),
                    resource: Some("certificatesigningrequests".into()),
                    subresource: Some(subresource.into()),
                    verb: Some("create".into()),
                    version: Some("*".into()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answered = api.create(&PostParams::default(), &review).await?;
        Ok(answered.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, request: &CertificateSigningRequest, message: &str) -> Result<Action, Error> {
        let approved = with_condition(request, "Approved", "AutoApproved", message);
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let name = meta::name_of(request);
        api.replace_subresource("approval", name, &PostParams::default(), &approved).await?;
        Ok(Action::Done)
    }
}
