//! Errors at a field path, as upstream's `field.Error` shows them: the wording is part of the API's contract.

use std::fmt;

use serde_json::Value;

/// A path to a field: `spec.containers[0].ports[1].containerPort`, `metadata.labels[a.b/c]`.
///
/// Cheap to extend on the stack: each step borrows its parent; it is rendered only when an error is reported.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// The empty path: the object itself.
    pub const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// `self.name`; a dotted name adds several steps at once.
    pub fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// `self[index]`
    pub fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// `self[key]`
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => {
                let first = self.parent.is_none_or(|p| matches!(p.step, Step::Root));
                if first { f.write_str(name) } else { write!(f, ".{name}") }
            }
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What is wrong with a field. [`ErrorKind::cause`] is the reason a `Status` cause carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    InternalError,
    TypeInvalid,
}

impl ErrorKind {
    /// The machine-readable reason in `status.details.causes[].reason`.
    pub fn cause(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::InternalError => "InternalError",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
            ErrorKind::InternalError => "Internal error",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: ErrorKind,
    /// The rendered path.
    pub path: String,
    /// The offending value, shown as Go shows it (`"text"`, `7`, JSON for composite values); `None` where upstream shows none.
    pub value: Option<String>,
    /// What was expected; may be empty.
    pub detail: String,
}

/// Renders a value the way upstream's messages do.
fn shown(value: &Value) -> String {
    value.to_string()
}

impl FieldError {
    fn new(kind: ErrorKind, path: &Path<'_>, value: Option<String>, detail: impl Into<String>) -> Self {
        FieldError { kind, path: path.to_string(), value, detail: detail.into() }
    }

    pub fn required(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Required, path, None, detail)
    }

    pub fn forbidden(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Forbidden, path, None, detail)
    }

    pub fn invalid(path: &Path<'_>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, path, Some(shown(value)), detail)
    }

    pub fn type_invalid(path: &Path<'_>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::TypeInvalid, path, Some(shown(value)), detail)
    }

    pub fn duplicate(path: &Path<'_>, value: &Value) -> Self {
        Self::new(ErrorKind::Duplicate, path, Some(shown(value)), "")
    }

    pub fn not_found(path: &Path<'_>, value: &Value) -> Self {
        Self::new(ErrorKind::NotFound, path, Some(shown(value)), "")
    }

    /// `Unsupported value: "x": supported values: "a", "b"`
    pub fn not_supported(path: &Path<'_>, value: &Value, supported: &[&str]) -> Self {
        let mut detail = String::new();
        if !supported.is_empty() {
            detail.push_str("supported values: ");
            for (i, s) in supported.iter().enumerate() {
                if i > 0 {
                    detail.push_str(", ");
                }
                detail.push_str(&Value::from(*s).to_string());
            }
        }
        Self::new(ErrorKind::NotSupported, path, Some(shown(value)), detail)
    }

    /// `Too long: may not be more than N bytes`
    pub fn too_long(path: &Path<'_>, max: usize) -> Self {
        Self::new(ErrorKind::TooLong, path, None, format!("may not be more than {max} bytes"))
    }

    /// `Too many: N: must have at most M items`
    pub fn too_many(path: &Path<'_>, actual: usize, max: usize) -> Self {
        Self::new(ErrorKind::TooMany, path, Some(actual.to_string()), format!("must have at most {max} items"))
    }

    pub fn internal(path: &Path<'_>, detail: impl Into<String>) -> Self {
        Self::new(ErrorKind::InternalError, path, None, detail)
    }

    /// The message without the path, as it stands in `status.details.causes[].message`.
    pub fn body(&self) -> String {
        let mut out = self.kind.title().to_string();
        if let Some(value) = &self.value {
            out.push_str(": ");
            out.push_str(value);
        }
        if !self.detail.is_empty() {
            out.push_str(": ");
            out.push_str(&self.detail);
        }
        out
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// Everything wrong with an object, in the order found.
pub type ErrorList = Vec<FieldError>;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_read_as_upstream_writes_them() {
        let root = Path::ROOT;
        let spec = root.child("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(first.child("name").to_string(), "spec.containers[0].name");
        let labels = Path::ROOT.child("metadata");
        let labels = labels.child("labels");
        assert_eq!(labels.key("a.b/c").to_string(), "metadata.labels[a.b/c]");
    }

    #[test]
    fn messages_read_as_upstream_writes_them() {
        let root = Path::ROOT;
        let path = root.child("spec");
        assert_eq!(FieldError::invalid(&path, &json!("x"), "no").to_string(), "spec: Invalid value: \"x\": no");
        assert_eq!(
            FieldError::not_supported(&path, &json!("x"), &["a", "b"]).to_string(),
            "spec: Unsupported value: \"x\": supported values: \"a\", \"b\""
        );
    }
}
