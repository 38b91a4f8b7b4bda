//! Expressions of admission: match conditions of webhooks and policies, and the variables that they speak of.
//!
//! A webhook compiles its `matchConditions` once ([`MatchConditions::compile`]) and asks [`MatchConditions::evaluate`] with an
//! [`Input`] for each request; what an error means is its failure policy's to say.

mod conditions;
mod environment;
mod type_check;

pub use conditions::{ConditionError, MatchConditions, Matched, compile, describe};
pub use environment::{
    Available, Composed, ComposedVariables, Input, admission_request_type, declare_variables, environment,
    namespace_type,
};
pub use type_check::{ExpressionWarning, Kinds, type_check};
