//! A kubelet asks for tokens of the pods that run on its node, for the audiences that those pods name.

use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::Value;

use super::{NodeRestriction, Outcome, refuse};
use crate::admission::refusal::{items, text};
use crate::admission::{Operation, Request};
use crate::authorization::Attributes;

impl NodeRestriction {
    pub(super) async fn check_token(&self, node: &str, request: &Request) -> Result<Outcome, StatusError> {
        if request.operation != Operation::Create || request.subresource != "token" {
            return Ok(Ok(()));
        }
        let Some(token) = &request.object else { return Ok(Ok(())) };
        let reference = &token["spec"]["boundObjectRef"];
        if text(reference, "/apiVersion") != "v1"
            || text(reference, "/kind") != "Pod"
            || text(reference, "/name").is_empty()
        {
            return Ok(refuse("node requested token not bound to a pod"));
        }
        let uid = text(reference, "/uid");
        if uid.is_empty() {
            return Ok(refuse("node requested token with a pod binding without a uid"));
        }
        let pods = GroupResource::new("", "pods");
        let found = self.objects.get(&pods, &request.namespace, text(reference, "/name")).await?;
        let pod = found.ok_or_else(|| StatusError::not_found(&pods, text(reference, "/name")))?;
        if pod.uid() != uid {
            return Ok(refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
            )));
        }
        if text(&pod, "/spec/nodeName") != node {
            return Ok(refuse("node requested token bound to a pod scheduled on a different node"));
        }
        self.check_audience(request, token, &pod).await
    }

    async fn check_audience(&self, request: &Request, token: &Object, pod: &Object) -> Result<Outcome, StatusError> {
        let audiences: Vec<&str> = items(token, "/spec/audiences").filter_map(Value::as_str).collect();
        let audience = match audiences.as_slice() {
            [] => "",
            [one] => one,
            _ => return Ok(refuse("node may only request 0 or 1 audiences")),
        };
        if self.names_audience(pod, audience).await? {
            return Ok(Ok(()));
        }
        let attributes = Attributes {
            user: &request.user,
            verb: "request-serviceaccounts-token-audience",
            is_resource: true,
            version: "v1",
            resource: audience,
            namespace: &request.namespace,
            name: &request.name,
            ..Attributes::default()
        };
        if self.authorizer.allows(&attributes).await {
            return Ok(Ok(()));
        }
        let user = &request.user.name;
        Ok(refuse(format!(
            "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
        )))
    }

    /// Whether a projected token of the pod, or the driver of one of its volumes, is for this audience.
    async fn names_audience(&self, pod: &Object, audience: &str) -> Result<bool, StatusError> {
        for volume in items(pod, "/spec/volumes") {
            let projected = items(volume, "/projected/sources").filter_map(|source| source.get("serviceAccountToken"));
            if projected.into_iter().any(|token| text(token, "/audience") == audience) {
                return Ok(true);
            }
            let claim = match volume.get("ephemeral").filter(|e| e.is_object()) {
                Some(_) => format!("{}-{}", pod.name(), text(volume, "/name")),
                None => text(volume, "/persistentVolumeClaim/claimName").to_string(),
            };
            let driver = match claim.as_str() {
                "" => text(volume, "/csi/driver").to_string(),
                claim => self.driver_of_claim(pod.namespace(), claim).await?,
            };
            if !driver.is_empty() && self.driver_names(&driver, audience).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn find(
        &self,
        group: &'static str,
        resource: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, StatusError> {
        self.objects.get(&GroupResource::new(group, resource), namespace, name).await
    }

    /// Empty where the claim has no volume, or that has no driver.
    async fn driver_of_claim(&self, namespace: &str, claim: &str) -> Result<String, StatusError> {
        let claim = self.find("", "persistentvolumeclaims", namespace, claim).await?;
        let volume = claim.as_deref().map_or("", |claim| text(claim, "/spec/volumeName"));
        if volume.is_empty() {
            return Ok(String::new());
        }
        let volume = self.find("", "persistentvolumes", "", volume).await?;
        Ok(volume.map(|volume| text(&volume, "/spec/csi/driver").to_string()).unwrap_or_default())
    }

    async fn driver_names(&self, driver: &str, audience: &str) -> Result<bool, StatusError> {
        let driver = self.find("storage.k8s.io", "csidrivers", "", driver).await?;
        Ok(driver.is_some_and(|d| items(&d, "/spec/tokenRequests").any(|r| text(r, "/audience") == audience)))
    }
}
