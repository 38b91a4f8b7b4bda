//! `matchConditions`: whether a webhook or policy wants a request at all.

use serde_json::Value as Json;

use super::environment::{Available, environment};
use crate::cost::{Budget, MATCH_CONDITIONS_BUDGET};
use crate::error::EvalError;
use crate::evaluate::{Bindings, Program};
use crate::source::CompileError;
use crate::types::Type;

/// Compiles an expression that must have one of these types. The error is what upstream says of it.
pub fn compile(environment: &crate::Environment, expression: &str, wanted: &[Type]) -> Result<Program, String> {
    let program =
        environment.compile(expression).map_err(|error: CompileError| format!("compilation failed: {error}"))?;
    if wanted.is_empty() || wanted.iter().any(|wanted| wanted.is_exactly(program.output())) {
        return Ok(program);
    }
    let found = program.output();
    Err(match wanted {
        [wanted] => format!("must evaluate to {} but got {found}", wanted.runtime_name()),
        wanted => {
            let names: Vec<&str> = wanted.iter().map(Type::runtime_name).collect();
            format!("must evaluate to one of [{}] but got {found}", names.join(" "))
        }
    })
}

/// What evaluating an expression of admission came to, as errors show it.
pub fn describe(expression: &str, error: &EvalError) -> String {
    match error {
        EvalError::OutOfBudget => error.to_string(),
        error => format!("expression '{expression}' resulted in error: {error}"),
    }
}

#[derive(Debug)]
struct Condition {
    name: String,
    expression: String,
    program: Result<Program, String>,
}

/// The compiled `matchConditions` of a webhook or policy.
#[derive(Debug, Default)]
pub struct MatchConditions {
    conditions: Vec<Condition>,
}

/// A condition that is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionError {
    /// Its place in the list.
    pub index: usize,
    pub expression: String,
    pub detail: String,
}

/// Whether a request matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    Yes,
    /// The name of the condition that is false.
    No(String),
    /// No condition is false, but some have errors: the failure policy decides. The text is upstream's.
    Error(String),
}

impl MatchConditions {
    /// Compiles a list of `{name, expression}`; conditions that do not compile are told, and fail when they are evaluated.
    pub fn compile(list: &Json, available: Available) -> (Self, Vec<ConditionError>) {
        let environment = environment(available);
        let mut errors = Vec::new();
        let mut conditions = Vec::new();
        for (index, given) in list.as_array().into_iter().flatten().enumerate() {
            let text = |name: &str| given[name].as_str().unwrap_or_default().to_string();
            let expression = text("expression").trim().to_string();
            let program = compile(&environment, &expression, &[Type::Bool]);
            if let Err(detail) = &program {
                errors.push(ConditionError { index, expression: expression.clone(), detail: detail.clone() });
            }
            conditions.push(Condition { name: text("name"), expression, program });
        }
        (MatchConditions { conditions }, errors)
    }

    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Evaluates all conditions: one that is false decides, whatever errors the others have.
    pub fn evaluate<'a>(&self, bindings: &dyn Bindings<'a>) -> Matched {
        let mut budget = Budget::new(MATCH_CONDITIONS_BUDGET);
        let mut errors = Vec::new();
        for condition in &self.conditions {
            match condition.evaluate(bindings, &mut budget) {
                Ok(true) => {}
                Ok(false) => return Matched::No(condition.name.clone()),
                Err((true, error)) => return Matched::Error(error),
                Err((false, error)) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Matched::Yes,
            [error] => Matched::Error(error.clone()),
            errors => Matched::Error(format!("[{}]", errors.join(", "))),
        }
    }
}

impl Condition {
    /// Whether it holds; an error says whether nothing further may be evaluated.
    fn evaluate<'a>(&self, bindings: &dyn Bindings<'a>, budget: &mut Budget) -> Result<bool, (bool, String)> {
        let program = self.program.as_ref().map_err(|error| (false, format!("compilation error: {error}")))?;
        let value = program
            .evaluate(bindings, budget)
            .map_err(|error| (matches!(error, EvalError::OutOfBudget), describe(&self.expression, &error)))?;
        Ok(value.as_bool() == Some(true))
    }
}
