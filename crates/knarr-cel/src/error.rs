//! Why an evaluation has no value.

use std::borrow::Cow;

/// Why an evaluation has no value. The texts are cel-go's: clients see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// The evaluation cost more than one call may. Nothing absorbs this error.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
    /// The budget that several evaluations share is used up.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    /// No function of this name takes such arguments.
    #[error("no such overload{0}")]
    NoSuchOverload(String),
    #[error("{0}")]
    Failed(Cow<'static, str>),
}

impl EvalError {
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        EvalError::Failed(message.into())
    }

    pub(crate) fn overload() -> Self {
        EvalError::NoSuchOverload(String::new())
    }

    /// Whether evaluation must stop at once, whatever `&&` and `||` would make of an error.
    pub fn is_final(&self) -> bool {
        matches!(self, EvalError::CostLimit | EvalError::OutOfBudget)
    }
}
