//! Label and field selectors: parsing with upstream's error texts, canonical text, and matching.
//!
//! A selector is parsed once at the border and matched many times (every watcher, every event), so matching allocates
//! nothing and hashes nothing but the label it asks for.

mod field;
mod label;
mod label_syntax;

pub use field::{FieldSelector, FieldTerm};
pub use label::{LabelSelector, Labels, Operator, Requirement};

/// Why a selector cannot be used; the text is upstream's, and goes out as a 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl SelectorError {
    fn new(message: impl Into<String>) -> Self {
        SelectorError(message.into())
    }
}

impl From<SelectorError> for crate::StatusError {
    fn from(error: SelectorError) -> Self {
        crate::StatusError::bad_request(error.0)
    }
}
