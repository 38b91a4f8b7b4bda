//! Type-checks the expressions of ValidatingAdmissionPolicies and says in their status what does not agree.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use knarr_api::GroupVersionKind;
use knarr_api::resource::built_in;
use knarr_cel::admission::{Kinds, type_check};
use knarr_cel::{Type, builtin, schema};
use knarr_client::kinds::to_tree;
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "validatingadmissionpolicy-status-controller";

pub(crate) async fn run(context: Arc<Context>) {
    let policies = context.informers.all::<ValidatingAdmissionPolicy>();
    let definitions = context.informers.all::<CustomResourceDefinition>();
    let loop_ = TypeChecking { policies: policies.clone(), definitions, client: context.client(CONTROLLER) };
    Controller::new(loop_)
        .watch(&policies, |event: &Event<ValidatingAdmissionPolicy>| vec![meta::name_of(&**event.object()).to_string()])
        .run(context.shutdown.clone())
        .await;
}

struct TypeChecking {
    policies: Informer<ValidatingAdmissionPolicy>,
    definitions: Informer<CustomResourceDefinition>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for TypeChecking {
    type Key = String;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        self.definitions.synced().await;
        let Some(policy) = self.policies.get("", name) else { return Ok(Action::Done) };
        let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
        let Some(generation) = policy.metadata.generation.filter(|generation| *generation > observed) else {
            return Ok(Action::Done);
        };
        let spec = to_tree(&policy.spec).unwrap_or_default();
        let warnings: Vec<Value> = type_check(&spec, &Served(&self.definitions))
            .into_iter()
            .map(|w| json!({ "fieldRef": w.field_ref, "warning": w.warning }))
            .collect();
        let checked = if warnings.is_empty() { json!({}) } else { json!({ "expressionWarnings": warnings }) };
        let patch = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": name },
            "status": { "observedGeneration": generation, "typeChecking": checked },
        });
        let api: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        api.patch_status(name, &PatchParams::apply(CONTROLLER).force(), &Patch::Apply(patch)).await?;
        Ok(Action::Done)
    }
}

/// The built-in kinds and the custom ones.
struct Served<'a>(&'a Informer<CustomResourceDefinition>);

impl Kinds for Served<'_> {
    fn kind_of(&self, group: &str, version: &str, resource: &str) -> Option<GroupVersionKind> {
        let rows = &built_in().resources;
        let row = rows.iter().find(|r| r.group == group && r.version == version && r.resource == resource);
        if let Some(row) = row {
            return Some(row.gvk());
        }
        let definition = self.0.get("", &format!("{resource}.{group}"))?;
        let serves = definition.spec.versions.iter().any(|v| v.served && v.name == version);
        serves
            .then(|| GroupVersionKind::new(group.to_string(), version.to_string(), definition.spec.names.kind.clone()))
    }

    fn type_of(&self, kind: &GroupVersionKind) -> Option<Type> {
        if let Some(found) = builtin::kind_type(kind) {
            return Some(found);
        }
        let all = self.0.list();
        let definition = all.iter().find(|d| d.spec.group == kind.group && d.spec.names.kind == kind.kind)?;
        let version = definition.spec.versions.iter().find(|v| v.name == kind.version)?;
        let given = version.schema.as_ref()?.open_api_v3_schema.as_ref()?;
        let given = to_tree(given).ok()?;
        Some(schema::declare(&given, true)?.cel_type(&kind.kind))
    }
}
