//! Literals that a function would refuse whenever it is called: durations, timestamps, patterns and format texts.

use super::{Checked, Reference};
use crate::ast::{Ast, Call, Expr, Kind};
use crate::functions::{check_format, regexes, time};
use crate::source::Issue;
use crate::types::Type;

/// Adds an issue for each literal that can never work.
pub fn validate(ast: &Ast, checked: &Checked, issues: &mut Vec<Issue>) {
    homogeneous(&ast.root, checked, &mut |id, message| {
        issues.push(Issue { position: ast.positions.get(id as usize).copied(), message });
    });
    ast.root.visit(&mut |expr: &Expr| {
        let Some(call) = expr.as_call() else { return };
        if let Some((id, message)) = wrong_literal(expr, call, checked) {
            issues.push(Issue { position: ast.positions.get(id as usize).copied(), message });
        }
    });
}

fn wrong_literal(expr: &Expr, call: &Call, checked: &Checked) -> Option<(u32, String)> {
    let Some(Reference::Function(function, _)) = checked.references.get(&expr.id) else { return None };
    let literal = |at: usize| call.arguments.get(at).and_then(|a| Some((a.id, a.as_string()?)));
    match *function {
        "duration" => {
            let (id, text) = literal(0)?;
            time::parse_duration(text).is_none().then(|| (id, "invalid duration argument".to_string()))
        }
        "timestamp" => {
            let (id, text) = literal(0)?;
            time::parse_timestamp(text).is_none().then(|| (id, "invalid timestamp argument".to_string()))
        }
        "matches" => {
            let (id, pattern) = literal(if call.target.is_some() { 0 } else { 1 })?;
            regexes::compile(pattern).is_err().then(|| (id, "invalid matches argument".to_string()))
        }
        "format" => {
            let text = call.target.as_ref()?.as_string()?;
            let Kind::List(elements) = &call.arguments.first()?.kind else { return None };
            let types: Vec<_> = elements.iter().map(|e| checked.type_of(&e.value).clone()).collect();
            let (at, message) = check_format(text, &types).err()?;
            Some((at.map_or(expr.id, |at| elements[at].value.id), message))
        }
        _ => None,
    }
}

/// Elements of one literal must have one type, except within the arguments of `format`.
fn homogeneous(expr: &Expr, checked: &Checked, report: &mut dyn FnMut(u32, String)) {
    if expr.as_call().is_some_and(|call| call.function == "format") {
        return;
    }
    match &expr.kind {
        Kind::List(elements) => {
            same_types(elements.iter().map(|e| (&e.value, e.optional)), true, checked, report);
        }
        Kind::Map(entries) => {
            same_types(entries.iter().map(|e| (&e.key, false)), false, checked, report);
            same_types(entries.iter().map(|e| (&e.value, e.optional)), false, checked, report);
        }
        _ => {}
    }
    for child in expr.children() {
        homogeneous(child, checked, report);
    }
}

fn same_types<'e>(
    elements: impl Iterator<Item = (&'e Expr, bool)>,
    first_only: bool,
    checked: &Checked,
    report: &mut dyn FnMut(u32, String),
) {
    let mut wanted: Option<&Type> = None;
    for (element, optional) in elements {
        let found = checked.type_of(element);
        let found = if optional { found.unwrap_optional().unwrap_or(found) } else { found };
        match wanted {
            None => wanted = Some(found),
            Some(wanted) if !wanted.is_exactly(found) => {
                report(element.id, format!("expected type '{wanted}' but found '{found}'"));
                if first_only {
                    return;
                }
            }
            Some(_) => {}
        }
    }
}
