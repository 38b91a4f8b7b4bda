//! Programs: the plan of a checked expression, run over values.

mod node;
mod planner;
mod run;

use std::borrow::Cow;

use crate::ast::Ast;
use crate::check::Checked;
use crate::cost::{Budget, PER_CALL_LIMIT};
use crate::error::EvalError;
use crate::estimate::{self, CostEstimate};
use crate::schema::Declaration;
use crate::source::Issue;
use crate::types::Type;
use crate::value::Value;
use node::Node;

/// The values of an expression's variables.
pub trait Bindings<'a> {
    /// The value of a variable by its declared name; `None` where it has none.
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

/// Variables with values that are there already.
#[derive(Clone, Default)]
pub struct Variables<'a> {
    values: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Variables<'a> {
    pub fn new() -> Self {
        Variables::default()
    }

    /// With a variable more; the last of a name counts.
    #[must_use]
    pub fn bind(mut self, name: impl Into<Cow<'a, str>>, value: Value<'a>) -> Self {
        self.values.push((name.into(), value));
        self
    }
}

impl<'a> Bindings<'a> for Variables<'a> {
    fn resolve(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        self.values.iter().rev().find(|(known, _)| known == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// What came of an evaluation, and what it cost.
pub struct Evaluation<'a> {
    pub result: Result<Value<'a>, EvalError>,
    pub cost: u64,
}

/// A compiled expression.
#[derive(Debug)]
pub struct Program {
    ast: Ast,
    checked: Checked,
    plan: Node,
    /// How many loop variables and accumulators live at once.
    slots: usize,
    output: Type,
    variables: Vec<String>,
}

/// Plans a checked tree. Fails where a constant part of it can never be evaluated.
pub(crate) fn plan(ast: Ast, checked: Checked) -> Result<Program, Issue> {
    let output = checked.type_of(&ast.root).clone();
    let planned = planner::plan(&ast, &checked)?;
    Ok(Program { plan: planned.root, slots: planned.slots, variables: planned.variables, ast, checked, output })
}

impl Program {
    /// The type of the result.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// The names of the variables that it speaks of.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Whether it speaks of a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| name == variable)
    }

    /// Evaluates and pays for it. Fails with the expression's own error, with [`EvalError::CostLimit`] where it costs more than
    /// one call may, and with [`EvalError::OutOfBudget`] where the budget does not reach.
    pub fn evaluate<'a>(&self, bindings: &dyn Bindings<'a>, budget: &mut Budget) -> Result<Value<'a>, EvalError> {
        let evaluation = self.run(bindings);
        budget.spend(evaluation.cost)?;
        evaluation.result
    }

    /// Evaluates, with the limit of one call.
    pub fn run<'a>(&self, bindings: &dyn Bindings<'a>) -> Evaluation<'a> {
        run::run(&self.plan, self.slots, bindings, PER_CALL_LIMIT)
    }

    /// What an evaluation costs at least and at most. `root` is what the first variable of every path is declared to be; without
    /// it, nothing bounds the size of values.
    pub fn estimate(&self, root: Option<&Declaration>) -> CostEstimate {
        estimate::estimate(&self.ast, &self.checked, root)
    }

    pub(crate) fn ast(&self) -> &Ast {
        &self.ast
    }
}
