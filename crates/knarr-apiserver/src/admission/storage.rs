//! Plug-ins about volumes: default class, protection of what is in use, who may grow.

use std::sync::Arc;

use async_trait::async_trait;
use knarr_api::object::ObjectExt;
use knarr_api::quantity::Quantity;
use knarr_api::{GroupResource, Object, StatusError};
use serde_json::{Value, json};

use super::refusal::{annotation, forbidden, is_main, list_mut, text};
use super::{Operation, Plugin, Request};
use crate::objects::Objects;

const GROUP: &str = "storage.k8s.io";
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

fn is_default(object: &Object, annotations: &[&str]) -> bool {
    annotations.iter().any(|a| annotation(object, a) == Some("true"))
}

/// Of several defaults the newest, and of those as old the first by name.
pub(super) fn newest_default(objects: Vec<Arc<Object>>, annotations: &[&str]) -> Option<Arc<Object>> {
    let mut defaults: Vec<_> = objects.into_iter().filter(|o| is_default(o, annotations)).collect();
    let made = |o: &Object| o.meta_str("creationTimestamp").to_string();
    defaults.sort_by(|a, b| made(b).cmp(&made(a)).then_with(|| a.name().cmp(b.name())));
    defaults.into_iter().next()
}

/// A claim that names no class gets the default one.
pub struct DefaultStorageClass {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let Some(claim) = &mut request.object else { return Ok(()) };
        let named = claim.pointer("/spec/storageClassName").is_some_and(|c| !c.is_null());
        if named || annotation(claim, CLASS_ANNOTATION).is_some() {
            return Ok(());
        }
        let classes = self.objects.list(&GroupResource::new(GROUP, "storageclasses"), "").await?;
        let annotations =
            ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
        if let Some(class) = newest_default(classes, &annotations) {
            claim["spec"]["storageClassName"] = class.name().into();
        }
        Ok(())
    }
}

/// Volumes, claims and classes of attributes stay while something uses them.
pub struct StorageObjectInUseProtection;

#[async_trait]
impl Plugin for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        let finalizer = if is_main(request, "", "persistentvolumeclaims") {
            "kubernetes.io/pvc-protection"
        } else if is_main(request, "", "persistentvolumes") {
            "kubernetes.io/pv-protection"
        } else if is_main(request, "storage.k8s.io", "volumeattributesclasses") {
            "kubernetes.io/vac-protection"
        } else {
            return Ok(());
        };
        let Some(object) = &mut request.object else { return Ok(()) };
        let Some(finalizers) = list_mut(&mut object["metadata"], "finalizers") else { return Ok(()) };
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.into());
        }
        Ok(())
    }
}

/// A claim grows only if its class lets it.
pub struct PersistentVolumeClaimResize {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    async fn validate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "", "persistentvolumeclaims") {
            return Ok(());
        }
        let (Some(claim), Some(old)) = (&request.object, &request.old_object) else { return Ok(()) };
        if !grows(claim, old) {
            return Ok(());
        }
        if text(old, "/status/phase") != "Bound" {
            return Err(forbidden(request, "Only bound persistent volume claims can be expanded"));
        }
        let class = annotation(claim, CLASS_ANNOTATION).unwrap_or(text(claim, "/spec/storageClassName"));
        let found = self.objects.get(&GroupResource::new(GROUP, "storageclasses"), "", class).await?;
        if found.is_some_and(|c| c.get("allowVolumeExpansion") == Some(&Value::Bool(true))) {
            return Ok(());
        }
        let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
        Err(forbidden(request, why))
    }
}

fn grows(claim: &Object, old: &Object) -> bool {
    let size = |c: &Object| text(c, "/spec/resources/requests/storage").parse::<Quantity>().ok();
    matches!((size(claim), size(old)), (Some(new), Some(old)) if new > old)
}

/// An ingress that names no class gets the default one.
pub struct DefaultIngressClass {
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    async fn mutate(&self, request: &mut Request) -> Result<(), StatusError> {
        if !is_main(request, "networking.k8s.io", "ingresses") {
            return Ok(());
        }
        let Some(ingress) = &mut request.object else { return Ok(()) };
        let named = ingress.pointer("/spec/ingressClassName").is_some_and(|c| !c.is_null());
        if named || annotation(ingress, "kubernetes.io/ingress.class").is_some() {
            return Ok(());
        }
        let classes = self.objects.list(&GroupResource::new("networking.k8s.io", "ingressclasses"), "").await?;
        if let Some(class) = newest_default(classes, &["ingressclass.kubernetes.io/is-default-class"]) {
            ingress["spec"]["ingressClassName"] = json!(class.name());
        }
        Ok(())
    }
}
