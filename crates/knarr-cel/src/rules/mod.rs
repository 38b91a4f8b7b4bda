//! `x-kubernetes-validations`: the rules of a structural schema, compiled once and checked on every write.

mod compile;
mod field_path;
mod validate;

use std::collections::BTreeMap;

use knarr_api::field::{FieldError, Path};
use serde_json::Value as Json;

use crate::cost::Budget;
use crate::evaluate::Program;
use crate::schema::Declaration;

pub use field_path::normalize as normalize_field_path;

/// What the rules of one expression may cost at most, times how often it may run.
pub const RULE_COST_LIMIT: u64 = 10_000_000;
/// What all rules of one schema may cost together.
pub const SCHEMA_COST_LIMIT: u64 = 100_000_000;

/// The compiled rules of a schema.
#[derive(Debug, Default)]
pub struct Rules {
    root: Option<Node>,
}

/// The rules at one place of a schema and below it.
#[derive(Debug)]
struct Node {
    /// The schema's `type`, which error messages show.
    type_name: String,
    declaration: Option<Declaration>,
    rules: Vec<Rule>,
    properties: BTreeMap<String, Node>,
    values: Option<Box<Node>>,
    items: Option<Box<Node>>,
    /// Rules within `allOf`, about the same value.
    all_of: Vec<Node>,
    /// The keys that tell the items of a list apart (`x-kubernetes-list-map-keys`).
    keys: Option<Vec<String>>,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    /// `None` where it did not compile, which is told on every use.
    program: Result<Program, String>,
    text: String,
    message: String,
    message_program: Option<Program>,
    message_text: String,
    reason: String,
    field_path: Option<String>,
    uses_old_self: bool,
    optional_old_self: bool,
}

impl Rules {
    /// Compiles the rules of a structural schema (`openAPIV3Schema`) that stands at `path`. The errors are what upstream says of
    /// them when a definition is created: wrong expressions, wrong field paths, too high costs.
    pub fn compile(schema: &Json, path: &Path<'_>) -> (Rules, Vec<FieldError>) {
        compile::compile(schema, path)
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Checks an object against the rules. `old` is what stands now, on an update: rules about `oldSelf` need it, and rules
    /// that an unchanged part breaks already only warn. No rule runs once the budget is spent.
    pub fn validate(
        &self,
        new: &Json,
        old: Option<&Json>,
        path: &Path<'_>,
        budget: &mut Budget,
        warnings: &mut Vec<String>,
    ) -> Vec<FieldError> {
        match &self.root {
            Some(root) => validate::validate(root, new, old, path, budget, warnings),
            None => Vec::new(),
        }
    }
}
