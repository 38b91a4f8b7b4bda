//! Validating policies: whether a request may be.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use knarr_api::status::{Cause, Details, Reason};
use knarr_api::{Object, StatusError};
use knarr_cel::admission::{Composed, Input, Matched, describe};
use knarr_cel::{Budget, EvalError, Program, Value};
use serde_json::json;

use super::super::Request;
use super::super::refusal::forbidden;
use super::Policies;
use super::authorizer::Asking;
use super::definition::{AuditAnnotation, Binding, Definition, Validation};
use super::params::{self, Missing};
use super::request::{Shown, namespace_object};

/// The longest value of an audit annotation.
const ANNOTATION_LIMIT: usize = 10 * 1024;
/// The longest message that an expression may make.
const MESSAGE_LIMIT: usize = 5 * 1024;
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// A validation that does not hold, or cannot be evaluated.
struct Failure {
    /// Its place among the policy's validations.
    index: usize,
    message: String,
    reason: Reason,
    /// Refuses whatever the binding's actions are.
    always: bool,
}

impl Failure {
    fn of_policy(message: String, always: bool) -> Failure {
        Failure { index: 0, message, reason: Reason::Invalid, always }
    }
}

/// What one evaluation of a policy came to.
#[derive(Default)]
struct Outcome {
    failures: Vec<Failure>,
    annotations: Vec<(String, String)>,
}

pub async fn dispatch(policies: &Policies, request: &mut Request) -> Result<(), StatusError> {
    let (definitions, bindings) = (policies.definitions.get(), policies.bindings.get());
    let mut denied: Option<StatusError> = None;
    let mut effects = Effects::default();
    for definition in &definitions.all {
        let bound: Vec<&Arc<Binding>> = bindings.all.iter().filter(|b| b.policy == definition.name).collect();
        if bound.is_empty() {
            continue;
        }
        request.settle_empties();
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (binding, failures) in evaluate(policies, request, definition, &bound, &mut annotations).await? {
            for failure in failures {
                let refusal = effects.act(request, definition, binding, &failure);
                denied = denied.or(refusal);
            }
        }
        for (key, values) in annotations {
            effects.annotations.push((format!("{}/{key}", definition.name), values.join(", ")));
        }
    }
    effects.publish(request);
    denied.map_or(Ok(()), Err)
}

/// What is told beside the answer.
#[derive(Default)]
struct Effects {
    warnings: Vec<String>,
    audited: Vec<serde_json::Value>,
    annotations: Vec<(String, String)>,
}

impl Effects {
    /// Does what the binding says of a failure; the refusal, if it is one.
    fn act(
        &mut self,
        request: &Request,
        definition: &Definition,
        binding: Option<&Binding>,
        failure: &Failure,
    ) -> Option<StatusError> {
        let (policy, bound) = (&definition.name, binding.map_or("", |b| b.name.as_str()));
        if let Some(binding) = binding.filter(|_| !failure.always) {
            if binding.warn {
                let message = &failure.message;
                self.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{bound}': {message}"
                ));
            }
            if binding.audit {
                self.audited.push(audited(definition, binding, failure));
            }
            if !binding.deny {
                return None;
            }
        }
        Some(refusal(request, policy, bound, failure))
    }

    fn publish(self, request: &mut Request) {
        request.warnings.extend(self.warnings);
        request.audit_annotations.extend(self.annotations);
        if !self.audited.is_empty() {
            let all = serde_json::Value::Array(self.audited).to_string();
            request.audit_annotations.push((FAILURES.to_string(), all));
        }
    }
}

fn audited(definition: &Definition, binding: &Binding, failure: &Failure) -> serde_json::Value {
    let mut actions = Vec::new();
    for (wanted, name) in [(binding.deny, "Deny"), (binding.warn, "Warn"), (binding.audit, "Audit")] {
        if wanted {
            actions.push(name);
        }
    }
    json!({
        "message": failure.message,
        "policy": definition.name,
        "binding": binding.name,
        "expressionIndex": failure.index,
        "validationActions": actions,
    })
}

fn refusal(request: &Request, policy: &str, binding: &str, failure: &Failure) -> StatusError {
    let by = if binding.is_empty() { String::new() } else { format!(" with binding '{binding}'") };
    let message = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {}", failure.message);
    let mut error = forbidden(request, &message);
    error.reason = failure.reason;
    error.code = failure.reason.code();
    let details: &mut Details = error.details.get_or_insert_with(Default::default);
    details.causes.push(Cause { message, ..Cause::default() });
    error
}

type Failures<'b> = Vec<(Option<&'b Binding>, Vec<Failure>)>;

/// Evaluates one policy for each of its bindings.
async fn evaluate<'b>(
    policies: &Policies,
    request: &Request,
    definition: &Definition,
    bound: &[&'b Arc<Binding>],
    annotations: &mut BTreeMap<String, Vec<String>>,
) -> Result<Failures<'b>, StatusError> {
    let registry = &policies.registry;
    let misconfigured = |what: &str, why: &dyn Display| match definition.ignores_failure {
        true => Vec::new(),
        false => vec![Failure::of_policy(format!("failed to configure {what}: {why}"), true)],
    };
    let matched = match definition.matching.matches(registry, request) {
        Ok(None) => return Ok(Vec::new()),
        Ok(Some(matched)) => matched,
        Err(why) => return Ok(vec![(None, misconfigured("policy", &why))]),
    };
    let shown = Shown::new(registry, request, &matched).await?;
    let namespace = namespace_object(registry, request)?;
    let mut out = Vec::new();
    for binding in bound {
        match binding.matching.as_ref().map_or(Ok(true), |m| m.matches(registry, request).map(|m| m.is_some())) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(why) => {
                out.push((Some(&***binding), misconfigured("binding", &why)));
                continue;
            }
        }
        let kind = definition.param_kind.as_ref();
        let params = match params::collect(registry, kind, binding.param_ref.as_ref(), &request.namespace) {
            Ok(params) => params,
            Err(Missing::Policy(why)) => return Ok(vec![(None, misconfigured("policy", &why))]),
            Err(Missing::Binding(why)) => {
                out.push((Some(&***binding), misconfigured("binding", &why)));
                continue;
            }
        };
        for param in &params {
            let asking = Arc::new(Asking { chain: &policies.authorizer, user: &request.user });
            let input = shown.input(param.as_ref() as Option<&Object>, namespace.as_ref(), asking);
            let outcome = definition.validate(&input);
            out.push((Some(&***binding), outcome.failures));
            for (key, value) in outcome.annotations {
                let values = annotations.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
        }
    }
    Ok(out)
}

impl Definition {
    fn validate(&self, input: &Input<'_>) -> Outcome {
        match self.conditions.evaluate(input) {
            Matched::Yes => {}
            Matched::No(_) => return Outcome::default(),
            Matched::Error(why) => return self.failed(why),
        }
        let composed = Composed::new(input, &self.variables, Budget::default());
        let mut out = Outcome::default();
        for (index, validation) in self.validations.iter().enumerate() {
            match validation.check(&composed) {
                Ok(None) => {}
                Ok(Some(message)) => {
                    let reason = reason(&validation.reason);
                    out.failures.push(Failure { index, message, reason, always: false });
                }
                Err(Ended(why)) => return self.failed(why),
                Err(Wrong(why)) if !self.ignores_failure => {
                    out.failures.push(Failure { index, message: why, reason: Reason::Invalid, always: false });
                }
                Err(Wrong(_)) => {}
            }
        }
        let composed = Composed::new(input, &self.variables, Budget::default());
        for annotation in &self.audit_annotations {
            match annotation.value(&composed) {
                Ok(value) => out.annotations.extend(value.map(|value| (annotation.key.clone(), value))),
                Err(why) if !self.ignores_failure => out.failures.push(Failure::of_policy(why, true)),
                Err(_) => {}
            }
        }
        out
    }

    /// That the policy could not be evaluated, unless it says that this does not matter.
    fn failed(&self, why: String) -> Outcome {
        let failures = if self.ignores_failure { Vec::new() } else { vec![Failure::of_policy(why, false)] };
        Outcome { failures, annotations: Vec::new() }
    }
}

fn reason(text: &str) -> Reason {
    match text {
        "Unauthorized" => Reason::Unauthorized,
        "Forbidden" => Reason::Forbidden,
        "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
        _ => Reason::Invalid,
    }
}

/// Why an expression has no value.
enum Unevaluated {
    /// This one is wrong.
    Wrong(String),
    /// No further one may be evaluated.
    Ended(String),
}

use Unevaluated::{Ended, Wrong};

fn run<'a>(
    program: &Result<Program, String>,
    expression: &str,
    composed: &Composed<'_, 'a>,
) -> Result<Value<'a>, Unevaluated> {
    let program = program.as_ref().map_err(|error| Wrong(format!("compilation error: {error}")))?;
    let evaluation = program.run(composed);
    composed.spend(evaluation.cost).map_err(|error| Ended(error.to_string()))?;
    evaluation.result.map_err(|error| match error {
        EvalError::OutOfBudget => Ended(error.to_string()),
        error => Wrong(describe(expression, &error)),
    })
}

impl Validation {
    /// Why the request is refused, if it is.
    fn check(&self, composed: &Composed<'_, '_>) -> Result<Option<String>, Unevaluated> {
        let value = run(&self.program, &self.expression, composed)?;
        if value.as_bool() == Some(true) {
            return Ok(None);
        }
        let made = match &self.message_program {
            None => None,
            Some(program) => match run(program, "", composed) {
                Ok(value) => value.as_str().map(|text| text.trim().to_string()),
                Err(Wrong(_)) => None,
                Err(Ended(why)) => return Err(Wrong(format!("failed messageExpression: {why}"))),
            },
        };
        let usable = |text: &String| !text.is_empty() && text.len() <= MESSAGE_LIMIT && !text.contains('\n');
        let message = made.filter(usable).or_else(|| Some(self.message.trim().to_string()).filter(|m| !m.is_empty()));
        Ok(Some(message.unwrap_or_else(|| format!("failed expression: {}", self.expression.trim()))))
    }
}

impl AuditAnnotation {
    /// The value to publish, if there is one.
    fn value(&self, composed: &Composed<'_, '_>) -> Result<Option<String>, String> {
        let value = match run(&self.program, &self.expression, composed) {
            Ok(value) => value,
            Err(Wrong(why) | Ended(why)) => return Err(why),
        };
        match &value {
            Value::String(text) => {
                let mut text = text.trim().to_string();
                let end = (0..=ANNOTATION_LIMIT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
                text.truncate(end.unwrap_or(0));
                Ok(Some(text).filter(|text| !text.is_empty()))
            }
            Value::Null => Ok(None),
            other => Err(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                self.expression,
                other.type_name()
            )),
        }
    }
}
