//! The Common Expression Language as Kubernetes v1.36 speaks it. Pure: no I/O, no async.
//!
//! The way of an expression: [`Environment::compile`] parses a text (macros become folds on the way), checks its types against
//! the declared variables, and plans it; [`Program::evaluate`] runs the plan over [`Value`]s that borrow from the JSON at hand,
//! counting what it costs. Around that core: [`rules`] are the `x-kubernetes-validations` of a structural schema, and
//! [`admission`] are the expressions of webhooks and admission policies.
//!
//! Invariants: no input panics; an evaluation costs at most [`cost::PER_CALL_LIMIT`]; messages, costs and limits are
//! upstream's, since clients and stored objects depend on them. The syntax tree has cel-go's shape for that reason.
//!
//! The entry point for a fuzzer is [`fuzz`].

pub mod admission;
pub mod ast;
pub mod authorizer;
pub mod builtin;
mod check;
pub mod cost;
pub mod device;
mod environment;
mod error;
mod estimate;
mod evaluate;
mod functions;
mod parse;
pub mod rules;
pub mod schema;
mod source;
mod types;
mod value;

pub use cost::Budget;
pub use environment::{Environment, json_patch_type, object_type};
pub use error::EvalError;
pub use estimate::{CostEstimate, SizeEstimate};
pub use evaluate::{Bindings, Evaluation, Program, Variables};
pub use functions::regexes::translate as translate_regex;
pub use source::{CompileError, Issue};
pub use types::{Fields, StructType, Type};
pub use value::{Cidr, Duration, List, ListKind, Map, Message, Owned, Text, Value, compare, equal};

/// Parses, checks, plans, estimates and evaluates a text over one JSON value. Never panics, whatever the text.
pub fn fuzz(text: &str, json: &serde_json::Value) {
    let environment = Environment::new().declare("self", Type::Dyn).with_mutation_types();
    if let Ok(program) = environment.compile(text) {
        let _ = program.estimate(None);
        let variables = Variables::new().bind("self", Value::from_json(json));
        let _ = program.evaluate(&variables, &mut Budget::default());
    }
}
