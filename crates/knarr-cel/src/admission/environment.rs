//! The variables of admission expressions: their types, and their values in one request.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;

use crate::authorizer::{
    Authorizer, Question, authorizer_type, authorizer_value, resource_check_type, resource_check_value,
};
use crate::cost::Budget;
use crate::environment::Environment;
use crate::error::EvalError;
use crate::evaluate::{Bindings, Program};
use crate::types::Type;
use crate::value::{Map, Owned, Value};

/// Which of the variables there are beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    pub params: bool,
    pub authorizer: bool,
}

/// The environment of admission expressions.
pub fn environment(available: Available) -> Environment {
    let mut environment = Environment::new()
        .declare("object", Type::Dyn)
        .declare("oldObject", Type::Dyn)
        .declare("namespaceObject", namespace_type())
        .declare("request", admission_request_type());
    if available.params {
        environment = environment.declare("params", Type::Dyn);
    }
    if available.authorizer {
        environment = environment
            .declare("authorizer", authorizer_type())
            .declare("authorizer.requestResource", resource_check_type());
    }
    environment
}

/// Variables by name, each with its program or why it has none.
pub type ComposedVariables = Vec<(String, Result<Program, String>)>;

/// Adds `variables` to an environment, one after the other: each may speak of those before it. Variables that do not compile
/// keep their error, and are of any type to others.
pub fn declare_variables(environment: Environment, variables: &[(String, String)]) -> (Environment, ComposedVariables) {
    let mut types: BTreeMap<String, Type> = BTreeMap::new();
    let mut out = Vec::new();
    let mut environment = with_variables(environment, &types);
    for (name, expression) in variables {
        let compiled = environment.compile(expression).map_err(|error| format!("compilation failed: {error}"));
        if expression.trim().is_empty() || name.trim().is_empty() {
            out.push((name.clone(), compiled));
            continue;
        }
        let found = compiled.as_ref().map_or(Type::Dyn, |program| program.output().clone());
        environment = environment.declare(&format!("variables.{name}"), found.clone());
        types.insert(name.clone(), found);
        environment = with_variables(environment, &types);
        out.push((name.clone(), compiled));
    }
    (environment, out)
}

fn with_variables(environment: Environment, types: &BTreeMap<String, Type>) -> Environment {
    environment.declare("variables", Type::object("kubernetes.variables", types.clone()))
}

/// The type of `request`.
pub fn admission_request_type() -> Type {
    let text = |name: &str| (name.to_string(), Type::String);
    let field = |name: &str, declared: Type| (name.to_string(), declared);
    let kind = Type::object("kubernetes.GroupVersionKind", ["group", "version", "kind"].map(text));
    let resource = Type::object("kubernetes.GroupVersionResource", ["group", "version", "resource"].map(text));
    let texts = Type::list(Type::String);
    let user = Type::object(
        "kubernetes.UserInfo",
        [text("username"), text("uid"), field("groups", texts.clone()), field("extra", Type::map(Type::String, texts))],
    );
    let named = ["subResource", "requestSubResource", "name", "namespace", "operation"].map(text);
    let typed = [
        field("kind", kind.clone()),
        field("resource", resource.clone()),
        field("requestKind", kind),
        field("requestResource", resource),
        field("userInfo", user),
        field("dryRun", Type::Bool),
        field("options", Type::Dyn),
    ];
    Type::object("kubernetes.AdmissionRequest", named.into_iter().chain(typed))
}

/// The type of `namespaceObject`: what of a namespace expressions may see.
pub fn namespace_type() -> Type {
    let text = |name: &str| (name.to_string(), Type::String);
    let field = |name: &str, declared: Type| (name.to_string(), declared);
    let texts = || Type::list(Type::String);
    let labels = || Type::map(Type::String, Type::String);
    let spec = Type::object("kubernetes.NamespaceSpec", [field("finalizers", texts())]);
    let condition = ["status", "type", "message", "reason"].map(text);
    let condition = condition.into_iter().chain([field("lastTransitionTime", Type::Timestamp)]);
    let condition = Type::object("kubernetes.NamespaceCondition", condition);
    let status =
        Type::object("kubernetes.NamespaceStatus", [field("conditions", Type::list(condition)), text("phase")]);
    let named = ["name", "generateName", "namespace", "UID", "resourceVersion"].map(text);
    let typed = [
        field("labels", labels()),
        field("annotations", labels()),
        field("creationTimestamp", Type::Timestamp),
        field("deletionTimestamp", Type::Timestamp),
        field("deletionGracePeriodSeconds", Type::Int),
        field("generation", Type::Int),
        field("finalizers", texts()),
    ];
    let metadata = Type::object("kubernetes.NamespaceMetadata", named.into_iter().chain(typed));
    Type::object("kubernetes.Namespace", [field("metadata", metadata), field("spec", spec), field("status", status)])
}

/// The values of the variables in one request.
pub struct Input<'a> {
    /// Null on delete.
    pub object: &'a Json,
    /// Null on create.
    pub old_object: &'a Json,
    /// An `admission.k8s.io` request without its objects.
    pub request: &'a Json,
    pub params: Option<&'a Json>,
    pub namespace: Option<&'a Json>,
    pub authorizer: Option<Arc<dyn Authorizer + 'a>>,
    /// What `authorizer.requestResource` asks about.
    pub request_resource: Question,
}

impl<'a> Bindings<'a> for Input<'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        let or_null = |json: Option<&'a Json>| json.map_or(Value::Null, Value::from_json);
        Some(Ok(match name {
            "object" => Value::from_json(self.object),
            "oldObject" => Value::from_json(self.old_object),
            "request" => Value::from_json(self.request),
            "params" => or_null(self.params),
            "namespaceObject" => or_null(self.namespace),
            "authorizer" => authorizer_value(self.authorizer.clone()?),
            "authorizer.requestResource" => {
                resource_check_value(self.authorizer.clone()?, self.request_resource.clone())
            }
            _ => return None,
        }))
    }
}

/// An input with composed variables, each evaluated when it is first asked for. They are paid for from their own budget.
pub struct Composed<'i, 'a> {
    input: &'i Input<'a>,
    variables: &'i [(String, Result<Program, String>)],
    state: Mutex<State<'a>>,
}

struct State<'a> {
    values: BTreeMap<String, Result<Value<'a>, EvalError>>,
    budget: Budget,
}

impl<'i, 'a> Composed<'i, 'a> {
    pub fn new(input: &'i Input<'a>, variables: &'i [(String, Result<Program, String>)], budget: Budget) -> Self {
        Composed { input, variables, state: Mutex::new(State { values: BTreeMap::new(), budget }) }
    }

    /// What all variables may still cost.
    pub fn remaining(&self) -> u64 {
        self.state.lock().budget.remaining()
    }

    /// Pays for an evaluation that is no variable's.
    pub fn spend(&self, cost: u64) -> Result<(), EvalError> {
        self.state.lock().budget.spend(cost)
    }

    fn variable(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        if let Some(known) = self.state.lock().values.get(name) {
            return Some(known.clone());
        }
        let (_, program) = self.variables.iter().find(|(known, _)| known == name)?;
        let value = match program {
            Ok(program) => {
                // Not under the lock: the variable may ask for others.
                let evaluation = program.run(self);
                let paid = self.state.lock().budget.spend(evaluation.cost);
                paid.and(evaluation.result).map_err(|error| named(name, error))
            }
            Err(error) => Err(EvalError::failed(format!("composited variable {name:?} fails to compile: {error}"))),
        };
        self.state.lock().values.insert(name.to_string(), value.clone());
        Some(value)
    }

    /// All variables as one map. Those that fail are left out.
    fn all(&self) -> Value<'a> {
        let mut map = Owned::default();
        for (name, _) in self.variables {
            if let Some(Ok(value)) = self.variable(name) {
                map.insert(Value::string(name.as_str()), value);
            }
        }
        Value::Map(Map::Owned(Arc::new(map)))
    }
}

fn named(name: &str, error: EvalError) -> EvalError {
    match error.is_final() {
        true => error,
        false => EvalError::failed(format!("composited variable {name:?} fails to evaluate: {error}")),
    }
}

impl<'a> Bindings<'a> for Composed<'_, 'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match name.strip_prefix("variables.") {
            Some(variable) => self.variable(variable),
            None if name == "variables" => Some(Ok(self.all())),
            None => self.input.resolve(name),
        }
    }
}
