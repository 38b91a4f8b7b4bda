//! Rules over objects.

use std::sync::Arc;

use knarr_api::field::{ErrorKind, FieldError, Path};
use serde_json::Value as Json;

use super::{Node, Rule};
use crate::cost::Budget;
use crate::error::EvalError;
use crate::evaluate::{Program, Variables};
use crate::value::Value;

/// The longest message that an expression may make.
const MESSAGE_LIMIT: usize = 5 * 1024;
const NO_FURTHER: &str = "validation failed due to running out of cost budget, no further validation rules will be run";

pub fn validate(
    root: &Node,
    new: &Json,
    old: Option<&Json>,
    path: &Path<'_>,
    budget: &mut Budget,
    warnings: &mut Vec<String>,
) -> Vec<FieldError> {
    let mut walk = Walk { errors: Vec::new(), warnings, budget };
    let before = old.map(|old| Before { new, old });
    // Running out of budget ends the walk; why is among the errors.
    let _ = walk.node(root, new, old, before, path);
    walk.errors
}

/// No further rule may run.
struct Stop;

/// The nearest part around a place whose state before is known.
#[derive(Clone, Copy)]
struct Before<'a> {
    new: &'a Json,
    old: &'a Json,
}

struct Walk<'w> {
    errors: Vec<FieldError>,
    warnings: &'w mut Vec<String>,
    budget: &'w mut Budget,
}

impl Walk<'_> {
    fn node(
        &mut self,
        node: &Node,
        new: &Json,
        old: Option<&Json>,
        before: Option<Before<'_>>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        if new.is_null() {
            return Ok(());
        }
        let old = old.filter(|old| !old.is_null());
        self.rules(node, new, old, before, path)?;
        for branch in &node.all_of {
            self.node(branch, new, old, before, path)?;
        }
        match new {
            Json::Array(items) => self.items(node, items, old, before, path),
            Json::Object(map) => self.fields(node, map, old, before, path),
            _ => Ok(()),
        }
    }

    fn items(
        &mut self,
        node: &Node,
        items: &[Json],
        old: Option<&Json>,
        before: Option<Before<'_>>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        let Some(below) = &node.items else { return Ok(()) };
        for (i, item) in items.iter().enumerate() {
            let old = node.keys.as_ref().and_then(|keys| find_by_keys(old?.as_array()?, item, keys));
            self.node(below, item, old, nearest(item, old, before), &path.index(i))?;
        }
        Ok(())
    }

    fn fields(
        &mut self,
        node: &Node,
        map: &serde_json::Map<String, Json>,
        old: Option<&Json>,
        before: Option<Before<'_>>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        for (name, value) in map {
            let old = old.and_then(|old| old.get(name));
            let before = nearest(value, old, before);
            if let Some(below) = &node.values {
                self.node(below, value, old, before, &path.key(name))?;
            }
            if let Some(below) = node.properties.get(name) {
                self.node(below, value, old, before, &path.child(name))?;
            }
        }
        Ok(())
    }

    fn rules(
        &mut self,
        node: &Node,
        new: &Json,
        old: Option<&Json>,
        before: Option<Before<'_>>,
        path: &Path<'_>,
    ) -> Result<(), Stop> {
        let Some(declaration) = node.declaration.as_ref().filter(|_| !node.rules.is_empty()) else { return Ok(()) };
        if self.budget.is_spent() {
            return self.stop(node, path, NO_FURTHER);
        }
        let read = |json| Value::read(json, Some(declaration));
        let current = read(new);
        let previous = old.map(read);
        for rule in &node.rules {
            if rule.uses_old_self && old.is_none() && !rule.optional_old_self {
                continue;
            }
            let program = match &rule.program {
                Ok(program) => program,
                Err(why) => {
                    self.invalid(node, path, format!("rule compile error: {why}"));
                    continue;
                }
            };
            let variables = match variables(rule, &current, &previous) {
                Ok(variables) => variables,
                Err(error) => {
                    self.invalid(node, path, format!("{error} evaluating rule: {}", rule.shown()));
                    continue;
                }
            };
            if self.holds(node, rule, program, &variables, path)? {
                continue;
            }
            let detail = self.message(node, rule, &variables, path)?;
            let error = rule.error(node, new, path, detail);
            match before.is_some_and(|before| before.new == before.old) && !rule.uses_old_self {
                true => self.warnings.push(error.to_string()),
                false => self.errors.push(error),
            }
        }
        Ok(())
    }

    /// Whether a rule holds, or has an error that is told here.
    fn holds(
        &mut self,
        node: &Node,
        rule: &Rule,
        program: &Program,
        variables: &Variables<'_>,
        path: &Path<'_>,
    ) -> Result<bool, Stop> {
        let error = match program.evaluate(variables, self.budget) {
            Ok(value) => return Ok(value.as_bool() == Some(true)),
            Err(error) => error,
        };
        let rule = rule.shown();
        match error {
            EvalError::OutOfBudget => self.stop(node, path, NO_FURTHER)?,
            EvalError::CostLimit => {
                let why = format!(
                    "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
                );
                self.stop(node, path, &why)?;
            }
            EvalError::NoSuchOverload(_) => {
                let why = format!(
                    "'{error}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
                );
                self.invalid(node, path, why);
            }
            EvalError::Failed(_) => self.invalid(node, path, format!("{error} evaluating rule: {rule}")),
        }
        Ok(true)
    }

    /// What a broken rule says: the message that its expression makes, or the one that it has.
    fn message(
        &mut self,
        node: &Node,
        rule: &Rule,
        variables: &Variables<'_>,
        path: &Path<'_>,
    ) -> Result<String, Stop> {
        let Some(program) = &rule.message_program else { return Ok(rule.default_message()) };
        let made = match program.evaluate(variables, self.budget) {
            Ok(value) => value.as_str().map(|text| text.trim().to_string()),
            Err(EvalError::OutOfBudget) => {
                let why = "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run";
                return self.stop(node, path, why).map(|()| String::new());
            }
            Err(EvalError::CostLimit) => {
                let why = format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_text
                );
                return self.stop(node, path, &why).map(|()| String::new());
            }
            Err(_) => None,
        };
        let usable = |text: &String| !text.is_empty() && text.len() <= MESSAGE_LIMIT && !text.contains('\n');
        Ok(made.filter(usable).unwrap_or_else(|| rule.default_message()))
    }

    fn stop(&mut self, node: &Node, path: &Path<'_>, why: &str) -> Result<(), Stop> {
        self.invalid(node, path, why.to_string());
        Err(Stop)
    }

    fn invalid(&mut self, node: &Node, path: &Path<'_>, detail: String) {
        let value = Some(Json::from(node.type_name.as_str()).to_string());
        self.errors.push(FieldError { kind: ErrorKind::Invalid, path: shown_path(path), value, detail });
    }
}

/// The root has a name in errors, as upstream's nil path.
fn shown_path(path: &Path<'_>) -> String {
    let text = path.to_string();
    if text.is_empty() { "<nil>".to_string() } else { text }
}

fn nearest<'a>(new: &'a Json, old: Option<&'a Json>, before: Option<Before<'a>>) -> Option<Before<'a>> {
    match old {
        Some(old) => Some(Before { new, old }),
        None => before,
    }
}

fn find_by_keys<'a>(items: &'a [Json], item: &Json, keys: &[String]) -> Option<&'a Json> {
    items.iter().find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
}

/// `self` and `oldSelf`.
fn variables<'a>(
    rule: &Rule,
    current: &Result<Value<'a>, EvalError>,
    previous: &Option<Result<Value<'a>, EvalError>>,
) -> Result<Variables<'a>, EvalError> {
    let variables = Variables::new().bind("self", current.clone()?);
    if !rule.uses_old_self {
        return Ok(variables);
    }
    let previous = previous.clone().transpose()?;
    Ok(match (rule.optional_old_self, previous) {
        (true, previous) => variables.bind("oldSelf", Value::Optional(previous.map(Arc::new))),
        (false, Some(previous)) => variables.bind("oldSelf", previous),
        (false, None) => variables,
    })
}

impl Rule {
    /// What errors of the rule call it.
    fn shown(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { self.message.trim() }
    }

    fn default_message(&self) -> String {
        match self.message.as_str() {
            "" => format!("failed rule: {}", self.text.trim()),
            message => message.trim().to_string(),
        }
    }

    fn error(&self, node: &Node, value: &Json, path: &Path<'_>, detail: String) -> FieldError {
        let path = match &self.field_path {
            Some(field) => path.child(field).to_string(),
            None => shown_path(path),
        };
        let composite = matches!(node.type_name.as_str(), "object" | "array");
        let value = (!composite).then(|| value.to_string());
        let (kind, value, detail) = match self.reason.as_str() {
            "FieldValueForbidden" => (ErrorKind::Forbidden, None, detail),
            "FieldValueRequired" => (ErrorKind::Required, None, detail),
            "FieldValueDuplicate" => (ErrorKind::Duplicate, value, String::new()),
            _ => (ErrorKind::Invalid, value, detail),
        };
        FieldError { kind, path, value, detail }
    }
}
