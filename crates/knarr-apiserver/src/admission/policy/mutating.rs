//! Mutating policies: what becomes of an object before it is validated.

use std::sync::Arc;

use knarr_api::decode::FieldValidation;
use knarr_api::status::{Cause, Details, Reason};
use knarr_api::{Object, StatusError, apply, patch};
use knarr_cel::admission::{Composed, Input, describe};
use knarr_cel::{Budget, Message, Value};
use serde_json::{Value as Json, json};

use super::super::Request;
use super::super::matching::Matched;
use super::super::refusal::forbidden;
use super::super::reinvocation::Memory;
use super::Policies;
use super::authorizer::Asking;
use super::definition::{Binding, Definition, Mutation};
use super::params::{self, Missing};
use super::request::{Shown, namespace_object};
use crate::http::negotiate::Encoding;
use crate::registry::Served;

/// A policy that could not do its work.
struct Failure {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Reason,
}

pub async fn dispatch(policies: &Policies, request: &mut Request) -> Result<(), StatusError> {
    let mut memory = std::mem::take(&mut request.reinvocation.policies);
    memory.begin(request);
    let result = round(policies, request, &mut memory).await;
    memory.end(request);
    request.reinvocation.policies = memory;
    match result? {
        failures if failures.is_empty() => Ok(()),
        failures => Err(refusal(request, &failures)),
    }
}

async fn round(policies: &Policies, request: &mut Request, memory: &mut Memory) -> Result<Vec<Failure>, StatusError> {
    let (definitions, bindings) = (policies.definitions.get(), policies.bindings.get());
    let mut failures = Vec::new();
    for definition in &definitions.all {
        let bound: Vec<&Arc<Binding>> = bindings.all.iter().filter(|b| b.policy == definition.name).collect();
        if bound.is_empty() {
            continue;
        }
        let mut own = Vec::new();
        policy(policies, request, definition, &bound, memory, &mut own).await?;
        if !definition.ignores_failure {
            failures.append(&mut own);
        }
    }
    Ok(failures)
}

async fn policy(
    policies: &Policies,
    request: &mut Request,
    definition: &Definition,
    bound: &[&Arc<Binding>],
    memory: &mut Memory,
    failures: &mut Vec<Failure>,
) -> Result<(), StatusError> {
    let registry = &policies.registry;
    let failure = |binding: Option<&Binding>, what: &str, why: String| Failure {
        policy: definition.name.clone(),
        binding: binding.map(|b| b.name.clone()),
        message: format!("failed to configure {what}: {why}"),
        reason: Reason::Forbidden,
    };
    let matched = match definition.matching.matches(registry, request) {
        Ok(None) => return Ok(()),
        Ok(Some(matched)) => matched,
        Err(why) => {
            failures.push(failure(None, "policy", why.to_string()));
            return Ok(());
        }
    };
    for binding in bound {
        match binding.matching.as_ref().map_or(Ok(true), |m| m.matches(registry, request).map(|m| m.is_some())) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(why) => {
                failures.push(failure(Some(binding), "binding", why.to_string()));
                continue;
            }
        }
        let kind = definition.param_kind.as_ref();
        match params::collect(registry, kind, binding.param_ref.as_ref(), &request.namespace) {
            Err(Missing::Policy(why)) => failures.push(failure(None, "policy", why)),
            Err(Missing::Binding(why)) => failures.push(failure(Some(binding), "binding", why)),
            Ok(params) => {
                for (i, param) in params.iter().enumerate() {
                    let id = format!("{}/{}/{i}", definition.name, binding.name);
                    let invocation = Invocation { policies, definition, matched: &matched, param: param.as_ref(), id };
                    if let Err(message) = invocation.run(request, memory).await? {
                        let (policy, binding) = (definition.name.clone(), Some(binding.name.clone()));
                        failures.push(Failure { policy, binding, message, reason: Reason::Invalid });
                    }
                }
            }
        }
    }
    Ok(())
}

fn refusal(request: &Request, failures: &[Failure]) -> StatusError {
    let mut error = forbidden(request, "admission request denied by policy");
    let shown = |failure: &Failure| match &failure.binding {
        Some(binding) => {
            format!("policy '{}' with binding '{binding}' denied request: {}", failure.policy, failure.message)
        }
        None => format!("policy {:?} denied request: {}", failure.policy, failure.message),
    };
    error.message = shown(&failures[0]);
    error.reason = failures[0].reason;
    let details: &mut Details = error.details.get_or_insert_with(Default::default);
    details.causes.extend(failures.iter().map(|f| Cause { message: shown(f), ..Cause::default() }));
    error
}

/// One policy with one parameter.
struct Invocation<'a> {
    policies: &'a Policies,
    definition: &'a Definition,
    matched: &'a Matched,
    param: Option<&'a Object>,
    /// Tells invocations apart.
    id: String,
}

impl Invocation<'_> {
    /// Applies the mutations; the inner error is the policy's.
    async fn run(&self, request: &mut Request, memory: &mut Memory) -> Result<Result<(), String>, StatusError> {
        let again = memory.asks(request, &self.id);
        if request.object.is_none() {
            return Ok(Ok(()));
        }
        request.settle_empties();
        let before = request.object.clone();
        let mut problems = Vec::new();
        match self.matches(request).await? {
            Ok(true) if again => {}
            Ok(_) => return Ok(Ok(())),
            Err(why) => return Ok(Err(why)),
        }
        for mutation in &self.definition.mutations {
            match self.mutate(request, mutation).await? {
                Ok(object) => request.object = Some(object),
                Err(why) => problems.push(why),
            }
        }
        if request.object != before {
            memory.require_again();
            request.reinvocation.wanted = true;
        }
        if self.definition.reinvoked {
            memory.note(&self.id);
        }
        Ok(if problems.is_empty() { Ok(()) } else { Err(problems.join(", ")) })
    }

    async fn matches(&self, request: &Request) -> Result<Result<bool, String>, StatusError> {
        use knarr_cel::admission::Matched;
        if self.definition.conditions.is_empty() {
            return Ok(Ok(true));
        }
        let shown = Shown::new(&self.policies.registry, request, self.matched).await?;
        let asking = Arc::new(Asking { chain: &self.policies.authorizer, user: &request.user });
        let input = shown.input(self.param, None, asking);
        Ok(match self.definition.conditions.evaluate(&input) {
            Matched::Yes => Ok(true),
            Matched::No(_) => Ok(false),
            Matched::Error(why) => Err(why),
        })
    }

    /// The object after one mutation, in the request's version.
    async fn mutate(&self, request: &Request, mutation: &Mutation) -> Result<Result<Object, String>, StatusError> {
        let registry = &self.policies.registry;
        let shown = Shown::new(registry, request, self.matched).await?;
        let namespace = namespace_object(registry, request)?;
        let row = &self.matched.resource;
        let Some(served) = registry.served(&row.group, &row.version, &row.resource) else {
            return Ok(Err(format!("resource {} is not served", row.resource)));
        };
        let asking = Arc::new(Asking { chain: &self.policies.authorizer, user: &request.user });
        let patched = {
            let input = shown.input(self.param, namespace.as_ref(), asking);
            mutated(self.definition, mutation, &input, &shown, &served)
        };
        let patched = match patched {
            Ok(patched) => patched,
            Err(why) => return Ok(Err(why)),
        };
        let text = serde_json::to_vec(&patched).map_err(StatusError::internal)?;
        let decoded = served.decode(&text.into(), Encoding::Json, FieldValidation::Strict);
        let mut object = match decoded {
            Ok(decoded) => decoded.object,
            Err(error) => return Err(StatusError::internal(error.message)),
        };
        served.apply_defaults(&mut object);
        let own = &request.resource;
        match (&self.matched.other, registry.served(&own.group, &own.version, &own.resource)) {
            (Some(other), Some(own)) => Ok(Ok(registry.convert(other, object, &own.kind).await?)),
            _ => Ok(Ok(object)),
        }
    }
}

/// The object as a mutation's expression wants it.
fn mutated(
    definition: &Definition,
    mutation: &Mutation,
    input: &Input<'_>,
    shown: &Shown<'_>,
    served: &Served,
) -> Result<Object, String> {
    let program = mutation.program.as_ref().map_err(|error| format!("compilation error: {error}"))?;
    let composed = Composed::new(input, &definition.variables, Budget::default());
    let evaluation = program.run(&composed);
    composed.spend(evaluation.cost).map_err(|error| error.to_string())?;
    let value = evaluation.result.map_err(|error| describe(&mutation.expression, &error))?;
    let object = shown.object();
    if mutation.json_patch { patch_json(&value, object) } else { patch_apply(&value, object, served) }
}

fn patch_apply(value: &Value<'_>, object: &Object, served: &Served) -> Result<Object, String> {
    let Value::Message(message) = value else {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", value.type_name()));
    };
    check_names(message, "Object")?;
    let mut config = value.to_json().map_err(|error| error.to_string())?;
    if let Some(fields) = config.as_object_mut() {
        for field in ["apiVersion", "kind"] {
            fields.insert(field.to_string(), object[field].clone());
        }
    }
    apply::merge_unowned(&served.schema, served.type_id, object, &config)
        .map_err(|error| format!("error applying patch: failed to convert patch object to typed object: {error}"))
}

/// That each part was built with the name of its place: `Object.spec` at `spec`.
fn check_names(message: &Message<'_>, path: &str) -> Result<(), String> {
    if *message.type_name != *path {
        return Err(format!(
            "type mismatch: unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
            &*message.type_name
        ));
    }
    for (name, value) in &message.fields {
        check_value(value, &format!("{path}.{name}"))?;
    }
    Ok(())
}

fn check_value(value: &Value<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Message(message) => check_names(message, path),
        Value::List(list) => list.iter().flatten().try_for_each(|item| check_value(&item, path)),
        _ => Ok(()),
    }
}

fn patch_json(value: &Value<'_>, object: &Object) -> Result<Object, String> {
    let Value::List(steps) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_string());
    };
    let mut operations = Vec::new();
    for step in steps.iter() {
        operations.push(operation(&step.map_err(|error| error.to_string())?)?);
    }
    let text = Json::Array(operations).to_string();
    match patch::json::apply(object.clone(), text.as_bytes()) {
        Ok(patched) => Ok(patched),
        // A failed test leaves the object as it is. The patch does not say which step failed: without its tests it would not.
        Err(_) if applies_without_tests(&text, object) => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {}", error.message)),
    }
}

fn applies_without_tests(text: &str, object: &Object) -> bool {
    let Ok(Json::Array(steps)) = serde_json::from_str(text) else { return false };
    let rest: Vec<Json> = steps.iter().filter(|step| step["op"] != "test").cloned().collect();
    rest.len() < steps.len() && patch::json::apply(object.clone(), Json::Array(rest).to_string().as_bytes()).is_ok()
}

fn operation(step: &Value<'_>) -> Result<Json, String> {
    let Value::Message(step) = step else {
        let found = step.type_name();
        return Err(format!(
            "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {found}"
        ));
    };
    let mut out = json!({});
    for (name, value) in &step.fields {
        let value = value.to_json().map_err(|error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        })?;
        if &**name != "from" || value != "" {
            out[&**name] = value;
        }
    }
    Ok(out)
}
