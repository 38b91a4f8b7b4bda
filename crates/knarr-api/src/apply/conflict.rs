//! The 409 of an apply: which fields, whose.

use serde_json::Value;

use super::field_set::{FieldPath, FieldSet, shown};
use super::managed::{Manager, Operation};
use crate::status::{Cause, Details, Reason, StatusError};

/// Fields that the applying manager would change and others own.
#[derive(Debug, Default)]
pub struct Conflicts(Vec<(String, FieldPath)>);

impl Conflicts {
    pub fn add(&mut self, manager: &Manager, fields: &FieldSet) {
        let owner = shown_manager(manager);
        self.0.extend(fields.paths().into_iter().map(|path| (owner.clone(), path)));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out what `allowed` holds.
    pub fn without(mut self, allowed: &FieldSet) -> Conflicts {
        self.0.retain(|(_, path)| !allowed.has_path(path));
        self
    }

    fn message(&self) -> String {
        if let [(owner, path)] = self.0.as_slice() {
            return format!("Apply failed with 1 conflict: conflict with {owner}: {}", shown(path));
        }
        let mut owners: Vec<&String> = self.0.iter().map(|(owner, _)| owner).collect();
        owners.sort_unstable();
        owners.dedup();
        let mut lines = Vec::new();
        for owner in owners {
            lines.push(format!("conflicts with {owner}:"));
            lines.extend(self.0.iter().filter(|(o, _)| o == owner).map(|(_, path)| format!("- {}", shown(path))));
        }
        format!("Apply failed with {} conflicts: {}", self.0.len(), lines.join("\n"))
    }
}

impl From<Conflicts> for StatusError {
    fn from(conflicts: Conflicts) -> Self {
        let cause = |(owner, path): &(String, FieldPath)| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {owner}"),
            field: shown(path),
        };
        let causes = conflicts.0.iter().map(cause).collect();
        let mut error = StatusError::new(Reason::Conflict, conflicts.message());
        error.details = Some(Box::new(Details { causes, ..Details::default() }));
        error
    }
}

fn shown_manager(manager: &Manager) -> String {
    let mut out = Value::from(manager.name.as_str()).to_string();
    if !manager.subresource.is_empty() {
        out.push_str(&format!(" with subresource {}", Value::from(manager.subresource.as_str())));
    }
    if manager.operation == Operation::Update {
        out.push_str(&format!(" using {}", manager.api_version));
    }
    out
}
