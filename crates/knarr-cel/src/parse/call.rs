//! Calls, and the copies that macros make of what they are called with.

use super::{NODE_LIMIT, Parser, TOO_LARGE, macros};
use crate::ast::{Call, Element, Entry, Expr, FieldInit, Kind, Literal, Select, Struct};

impl<'s> Parser<'s> {
    pub(super) fn global_call(&mut self, position: u32, function: &str, arguments: Vec<Expr>) -> Expr {
        self.call(position, function, None, arguments)
    }

    /// A call, or what the macro of that name makes of it.
    pub(super) fn call(&mut self, position: u32, function: &str, target: Option<Expr>, arguments: Vec<Expr>) -> Expr {
        if let Some(expand) = macros::find(function, target.is_some(), arguments.len()) {
            let mut builder = macros::Builder { parser: self, position };
            return match expand(&mut builder, target, arguments) {
                Ok(expanded) => expanded,
                Err((id, message)) => {
                    let at = self.positions[id as usize];
                    self.error(Some(at), message.to_string());
                    self.node(position, Kind::Literal(Literal::Null))
                }
            };
        }
        let call = Call { function: function.to_string(), target, arguments };
        self.node(position, Kind::Call(Box::new(call)))
    }

    /// The same expression again. Macros that copy can nest: a tree past [`NODE_LIMIT`] is refused instead of grown.
    pub(super) fn copy(&mut self, expr: &Expr) -> Expr {
        let position = self.positions[expr.id as usize];
        if self.positions.len() > NODE_LIMIT {
            if !self.issues.iter().any(|i| i.message == TOO_LARGE) {
                self.error(None, TOO_LARGE.to_string());
            }
            return self.node(position, Kind::Literal(Literal::Null));
        }
        let kind = match &expr.kind {
            Kind::Literal(literal) => Kind::Literal(literal.clone()),
            Kind::Ident(name) => Kind::Ident(name.clone()),
            Kind::Select(s) => {
                let operand = self.copy(&s.operand);
                Kind::Select(Box::new(Select { operand, field: s.field.clone(), test_only: s.test_only }))
            }
            Kind::Call(c) => {
                let target = c.target.as_ref().map(|t| self.copy(t));
                let arguments = c.arguments.iter().map(|a| self.copy(a)).collect();
                Kind::Call(Box::new(Call { function: c.function.clone(), target, arguments }))
            }
            Kind::List(elements) => {
                let element = |e: &Element| Element { value: self.copy(&e.value), optional: e.optional };
                Kind::List(elements.iter().map(element).collect())
            }
            Kind::Map(entries) => Kind::Map(entries.iter().map(|e| self.copy_entry(e)).collect()),
            Kind::Struct(message) => {
                let fields = message.fields.iter().map(|f| self.copy_field(f)).collect();
                Kind::Struct(Box::new(Struct { name: message.name.clone(), fields }))
            }
            Kind::Fold(fold) => Kind::Fold(Box::new(self.copy_fold(fold))),
        };
        self.node(position, kind)
    }

    pub(super) fn copy_entry(&mut self, entry: &Entry) -> Entry {
        let id = self.id(self.positions[entry.id as usize]);
        Entry { id, key: self.copy(&entry.key), value: self.copy(&entry.value), optional: entry.optional }
    }

    pub(super) fn copy_field(&mut self, field: &FieldInit) -> FieldInit {
        let id = self.id(self.positions[field.id as usize]);
        FieldInit { id, name: field.name.clone(), value: self.copy(&field.value), optional: field.optional }
    }

    pub(super) fn copy_fold(&mut self, fold: &crate::ast::Fold) -> crate::ast::Fold {
        crate::ast::Fold {
            range: self.copy(&fold.range),
            variable: fold.variable.clone(),
            second: fold.second.clone(),
            accumulator: fold.accumulator.clone(),
            start: self.copy(&fold.start),
            condition: self.copy(&fold.condition),
            step: self.copy(&fold.step),
            result: self.copy(&fold.result),
        }
    }
}
