//! Whether the expressions of a ValidatingAdmissionPolicy agree with the types of what it matches. Nothing is refused for it: the
//! policy's status tells.

use knarr_api::resource::{GroupVersion, GroupVersionKind};
use serde_json::Value as Json;

use super::environment::{Available, declare_variables, environment};
use crate::types::Type;

/// At most so many kinds are looked at for one rule.
const KINDS: usize = 10;

/// What is known of the kinds that a policy may match.
pub trait Kinds {
    /// The kind of a resource.
    fn kind_of(&self, group: &str, version: &str, resource: &str) -> Option<GroupVersionKind>;
    /// The type of a kind's objects.
    fn type_of(&self, kind: &GroupVersionKind) -> Option<Type>;
}

/// An expression that does not agree with a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionWarning {
    pub field_ref: String,
    pub warning: String,
}

/// Checks the validations of a policy's `spec`.
pub fn type_check(spec: &Json, kinds: &dyn Kinds) -> Vec<ExpressionWarning> {
    let matched = kinds_to_check(spec, kinds);
    let types: Vec<(GroupVersionKind, Type)> =
        matched.into_iter().filter_map(|kind| kinds.type_of(&kind).map(|found| (kind, found))).collect();
    let params = param_kind(spec);
    let params_type = params.as_ref().and_then(|kind| kinds.type_of(kind)).unwrap_or(Type::Dyn);
    let mut out = Vec::new();
    for (i, validation) in list(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = validation[field].as_str().unwrap_or_default();
            if expression.is_empty() {
                continue;
            }
            let wrong: Vec<String> = types
                .iter()
                .filter_map(|(kind, found)| {
                    let error = check_one(spec, expression, found, params.is_some(), &params_type)?;
                    Some(format!("{}, Kind={}: {error}\n", shown_version(kind), kind.kind))
                })
                .collect();
            if !wrong.is_empty() {
                let field_ref = format!("spec.validations[{i}].{field}");
                out.push(ExpressionWarning { field_ref, warning: wrong.join("\n") });
            }
        }
    }
    out
}

/// Core kinds show an empty group: `/v1`.
fn shown_version(kind: &GroupVersionKind) -> String {
    format!("{}/{}", kind.group, kind.version)
}

fn check_one(spec: &Json, expression: &str, object: &Type, params: bool, params_type: &Type) -> Option<String> {
    let mut base = environment(Available { params, authorizer: true })
        .declare("object", object.clone())
        .declare("oldObject", object.clone());
    if params {
        base = base.declare("params", params_type.clone());
    }
    let text = |value: &Json, name: &str| value[name].as_str().unwrap_or_default().to_string();
    let variables: Vec<(String, String)> =
        list(spec, "variables").iter().map(|v| (text(v, "name"), text(v, "expression"))).collect();
    let (environment, _) = declare_variables(base, &variables);
    environment.compile(expression).err().map(|error| format!("compilation failed: {error}"))
}

fn list<'a>(value: &'a Json, name: &str) -> &'a [Json] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn param_kind(spec: &Json) -> Option<GroupVersionKind> {
    let given = &spec["paramKind"];
    let version = GroupVersion::parse(given["apiVersion"].as_str()?)?;
    Some(GroupVersionKind::new(version.group, version.version, given["kind"].as_str()?.to_string()))
}

/// The kinds that rules name without wildcards, in the order of their names.
fn kinds_to_check(spec: &Json, kinds: &dyn Kinds) -> Vec<GroupVersionKind> {
    let mut out: Vec<GroupVersionKind> = Vec::new();
    for rule in list(&spec["matchConstraints"], "resourceRules") {
        let texts = |name: &str| -> Vec<&str> { list(rule, name).iter().filter_map(Json::as_str).collect() };
        let (groups, versions, resources) = (texts("apiGroups"), texts("apiVersions"), texts("resources"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let plain = resources.iter().filter(|resource| !resource.contains(['*', '/']));
        let all = groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v)));
        let found = all.flat_map(|(g, v)| plain.clone().filter_map(move |r| kinds.kind_of(g, v, r)));
        for kind in found.take(KINDS) {
            if !out.contains(&kind) {
                out.push(kind);
            }
        }
    }
    out.sort_by(|a, b| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
    out
}
