//! Expressions of policies, webhooks and device selectors, checked when they are written: part of their validation in all but
//! place, since knarr-api, where validation lives, knows no expressions.

use knarr_api::Object;
use knarr_api::field::{ErrorKind, ErrorList, FieldError, Path};
use knarr_cel::admission::{Available, MatchConditions};
use serde_json::Value;

use super::definition::{Environments, list, text};
use super::devices;

/// What is wrong with the expressions of an object. Expressions that stand already are not looked at again.
pub fn policy_expressions(object: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    if old.is_some_and(|old| old["spec"] == object["spec"] && old["webhooks"] == object["webhooks"]) {
        return;
    }
    let root = Path::ROOT;
    let spec = root.child("spec");
    match text(object, "kind") {
        "ValidatingAdmissionPolicy" => validating(&object["spec"], &spec, errors),
        "MutatingAdmissionPolicy" => mutating(&object["spec"], &spec, errors),
        // A claim may not change: that is all there is to say of a changed one.
        "ResourceClaim" if old.is_some() => {}
        "ResourceClaim" | "ResourceClaimTemplate" | "DeviceClass" => {
            devices::check(&object["spec"], old.map(|old| &old["spec"]), &spec, errors);
        }
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            let path = root.child("webhooks");
            for (i, webhook) in list(object, "webhooks").iter().enumerate() {
                let available = Available { params: false, authorizer: true };
                conditions(webhook, available, &path.index(i), errors);
            }
        }
        _ => {}
    }
}

fn conditions(holder: &Value, available: Available, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let path = path.child("matchConditions");
    let (_, wrong) = MatchConditions::compile(&holder["matchConditions"], available);
    for error in wrong.into_iter().filter(|error| !error.expression.trim().is_empty()) {
        push(errors, &path.index(error.index).child("expression"), &error.expression, error.detail);
    }
}

pub(super) fn push(errors: &mut Vec<FieldError>, path: &Path<'_>, expression: &str, detail: String) {
    let value = Some(Value::from(expression).to_string());
    errors.push(FieldError { kind: ErrorKind::Invalid, path: path.to_string(), value, detail });
}

/// What both kinds of policy have.
fn common(spec: &Value, mutating: bool, path: &Path<'_>, errors: &mut Vec<FieldError>) -> Environments {
    let available = Available { params: spec["paramKind"].is_object(), authorizer: true };
    conditions(spec, available, path, errors);
    let environments = Environments::of(spec, mutating);
    let variables_path = path.child("variables");
    let given = list(spec, "variables");
    for (i, (_, compiled)) in environments.variables.iter().enumerate() {
        let expression = text(&given[i], "expression");
        if let (Err(why), false) = (compiled, expression.trim().is_empty()) {
            push(errors, &variables_path.index(i).child("expression"), expression, why.clone());
        }
    }
    environments
}

fn expression<T>(
    given: &str,
    path: &Path<'_>,
    errors: &mut Vec<FieldError>,
    compile: impl FnOnce(&str) -> Result<T, String>,
) {
    if given.trim().is_empty() {
        return;
    }
    if let Err(why) = compile(given) {
        push(errors, path, given, why);
    }
}

fn validating(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let environments = common(spec, false, path, errors);
    let validations = path.child("validations");
    for (i, value) in list(spec, "validations").iter().enumerate() {
        let path = validations.index(i);
        let given = |field: &str| text(value, field);
        expression(given("expression"), &path.child("expression"), errors, |e| environments.condition(e));
        expression(given("messageExpression"), &path.child("messageExpression"), errors, |e| environments.message(e));
    }
    let annotations = path.child("auditAnnotations");
    for (i, value) in list(spec, "auditAnnotations").iter().enumerate() {
        let path = annotations.index(i);
        let given = text(value, "valueExpression");
        expression(given, &path.child("valueExpression"), errors, |e| environments.annotation(e.trim()));
    }
}

fn mutating(spec: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let environments = common(spec, true, path, errors);
    let mutations = path.child("mutations");
    for (i, value) in list(spec, "mutations").iter().enumerate() {
        let path = mutations.index(i);
        for (kind, field, json_patch) in
            [("JSONPatch", "jsonPatch", true), ("ApplyConfiguration", "applyConfiguration", false)]
        {
            // A patch of another type than is said is not looked at.
            if text(value, "patchType") != kind {
                continue;
            }
            let compile = |e: &str| environments.mutation(e, json_patch);
            let given = text(&value[field], "expression").trim();
            expression(given, &path.child(field).child("expression"), errors, compile);
        }
    }
}
