//! Stored policies and bindings, compiled once per change.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use knarr_api::GroupVersionKind;
use knarr_api::resource::GroupVersion;
use knarr_cel::admission::{self, Available, MatchConditions};
use knarr_cel::{Environment, Program, Type, json_patch_type, object_type};
use serde_json::Value;

use super::super::matching::Matching;
use super::params::ParamRef;
use crate::cache::{Entry, Snapshot};

/// One policy.
pub struct Definition {
    pub name: String,
    pub ignores_failure: bool,
    pub matching: Matching,
    pub param_kind: Option<GroupVersionKind>,
    pub conditions: MatchConditions,
    pub variables: Vec<(String, Result<Program, String>)>,
    pub validations: Vec<Validation>,
    pub audit_annotations: Vec<AuditAnnotation>,
    pub mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`
    pub reinvoked: bool,
}

pub struct Validation {
    pub expression: String,
    pub program: Result<Program, String>,
    pub message: String,
    pub message_program: Option<Result<Program, String>>,
    /// As written; empty means `Invalid`.
    pub reason: String,
}

pub struct AuditAnnotation {
    pub key: String,
    pub expression: String,
    pub program: Result<Program, String>,
}

pub struct Mutation {
    pub json_patch: bool,
    pub expression: String,
    pub program: Result<Program, String>,
}

/// One binding.
pub struct Binding {
    pub name: String,
    pub policy: String,
    /// `None`: everything that the policy matches.
    pub matching: Option<Matching>,
    pub param_ref: Option<ParamRef>,
    pub deny: bool,
    pub warn: bool,
    pub audit: bool,
}

/// What is compiled of each stored object, in the order of names.
pub struct Compiled<T> {
    by_name: HashMap<Arc<str>, (Arc<Entry>, Arc<T>), RandomState>,
    pub all: Vec<Arc<T>>,
}

pub type Definitions = Compiled<Definition>;
pub type Bindings = Compiled<Binding>;

impl<T> Default for Compiled<T> {
    fn default() -> Self {
        Compiled { by_name: HashMap::default(), all: Vec::new() }
    }
}

/// Compiles what has changed since `before`.
fn compile<T>(snapshot: &Snapshot, before: Option<&Compiled<T>>, make: fn(&str, &Value) -> T) -> Compiled<T> {
    let mut out = Compiled::default();
    for (name, entry) in &snapshot.entries {
        let known = before.and_then(|b| b.by_name.get(name)).filter(|(of, _)| Arc::ptr_eq(of, entry));
        let own = known.map_or_else(|| Arc::new(make(entry.name(), &entry.object()["spec"])), |(_, own)| own.clone());
        out.all.push(own.clone());
        out.by_name.insert(name.clone(), (entry.clone(), own));
    }
    out
}

pub fn validating(snapshot: &Snapshot, before: Option<&Definitions>) -> Definitions {
    compile(snapshot, before, |name, spec| Definition::of(name, spec, false))
}

pub fn mutating(snapshot: &Snapshot, before: Option<&Definitions>) -> Definitions {
    compile(snapshot, before, |name, spec| Definition::of(name, spec, true))
}

pub fn bindings(snapshot: &Snapshot, before: Option<&Bindings>) -> Bindings {
    compile(snapshot, before, Binding::of)
}

pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The environments of a policy's expressions.
pub struct Environments {
    /// With `authorizer` and the composed variables.
    pub full: Environment,
    /// Messages may not ask the authorizer.
    pub messages: Environment,
    pub variables: Vec<(String, Result<Program, String>)>,
}

impl Environments {
    pub fn of(spec: &Value, mutating: bool) -> Self {
        let params = spec["paramKind"].is_object();
        let base = |authorizer| {
            let environment = admission::environment(Available { params, authorizer });
            if mutating { environment.with_mutation_types() } else { environment }
        };
        let given: Vec<(String, String)> = list(spec, "variables")
            .iter()
            .map(|v| (text(v, "name").to_string(), text(v, "expression").to_string()))
            .collect();
        // Expressions of a validating policy without variables know of none.
        let declare = |environment| match given.is_empty() && !mutating {
            true => (environment, Vec::new()),
            false => admission::declare_variables(environment, &given),
        };
        let (full, variables) = declare(base(true));
        let (messages, _) = declare(base(false));
        Environments { full, messages, variables }
    }

    pub fn condition(&self, expression: &str) -> Result<Program, String> {
        admission::compile(&self.full, expression, &[Type::Bool])
    }

    pub fn message(&self, expression: &str) -> Result<Program, String> {
        admission::compile(&self.messages, expression, &[Type::String])
    }

    pub fn annotation(&self, expression: &str) -> Result<Program, String> {
        admission::compile(&self.full, expression, &[Type::String, Type::Null])
    }

    pub fn mutation(&self, expression: &str, json_patch: bool) -> Result<Program, String> {
        let wanted = if json_patch { Type::list(json_patch_type()) } else { object_type("Object") };
        admission::compile(&self.full, expression, &[wanted])
    }
}

impl Definition {
    fn of(name: &str, spec: &Value, mutating: bool) -> Definition {
        let environments = Environments::of(spec, mutating);
        let available = Available { params: spec["paramKind"].is_object(), authorizer: true };
        let (conditions, _) = MatchConditions::compile(&spec["matchConditions"], available);
        let validations = list(spec, "validations").iter().map(|v| Validation::of(v, &environments)).collect();
        let annotation = |v: &Value| AuditAnnotation {
            key: text(v, "key").to_string(),
            expression: text(v, "valueExpression").to_string(),
            program: environments.annotation(text(v, "valueExpression")),
        };
        let mutation = |v: &Value| {
            let json_patch = text(v, "patchType") == "JSONPatch";
            let expression = text(&v[if json_patch { "jsonPatch" } else { "applyConfiguration" }], "expression");
            let program = environments.mutation(expression, json_patch);
            Mutation { json_patch, expression: expression.to_string(), program }
        };
        Definition {
            name: name.to_string(),
            ignores_failure: text(spec, "failurePolicy") == "Ignore",
            matching: Matching::of_policy(&spec["matchConstraints"]),
            param_kind: param_kind(&spec["paramKind"]),
            conditions,
            validations,
            audit_annotations: list(spec, "auditAnnotations").iter().map(annotation).collect(),
            mutations: list(spec, "mutations").iter().map(mutation).collect(),
            reinvoked: text(spec, "reinvocationPolicy") == "IfNeeded",
            variables: environments.variables,
        }
    }
}

fn param_kind(value: &Value) -> Option<GroupVersionKind> {
    let version = GroupVersion::parse(text(value, "apiVersion"))?;
    value.is_object().then(|| GroupVersionKind::new(version.group, version.version, text(value, "kind").to_string()))
}

impl Validation {
    fn of(value: &Value, environments: &Environments) -> Validation {
        let message_expression = text(value, "messageExpression");
        Validation {
            expression: text(value, "expression").to_string(),
            program: environments.condition(text(value, "expression")),
            message: text(value, "message").to_string(),
            message_program: (!message_expression.is_empty()).then(|| environments.message(message_expression)),
            reason: text(value, "reason").to_string(),
        }
    }
}

impl Binding {
    fn of(name: &str, spec: &Value) -> Binding {
        let acts = |action: &str| list(spec, "validationActions").iter().any(|a| a == action);
        Binding {
            name: name.to_string(),
            policy: text(spec, "policyName").to_string(),
            matching: spec["matchResources"].is_object().then(|| Matching::of_policy(&spec["matchResources"])),
            param_ref: spec["paramRef"].is_object().then(|| ParamRef::of(&spec["paramRef"])),
            deny: acts("Deny"),
            warn: acts("Warn"),
            audit: acts("Audit"),
        }
    }
}
