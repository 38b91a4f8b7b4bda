//! The type checker: cel-go's algorithm and its error texts.

mod assign;
mod literals;

use std::collections::HashMap;
use std::sync::Arc;

use crate::ast::{Ast, Call, Element, Entry, Expr, Fold, Id, Kind, Literal, Select, Struct, operator};
use crate::environment::Environment;
use crate::functions::{self, Function, Overload};
use crate::source::Issue;
use crate::types::{Fields, StructType, Type};
use assign::Mapping;

/// What a name in an expression turned out to be.
#[derive(Clone, Debug)]
pub enum Reference {
    /// A variable by its full, perhaps dotted, name.
    Variable(String),
    /// A variable of a loop.
    Local(String),
    /// A type by its name.
    Type(String),
    /// A function and those of its overloads that the arguments may fit.
    Function(&'static str, Vec<&'static Overload>),
}

/// What the checker knows of each node, by [`Id`].
#[derive(Debug, Default)]
pub struct Checked {
    pub types: HashMap<Id, Type>,
    pub references: HashMap<Id, Reference>,
}

impl Checked {
    pub fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(&expr.id).unwrap_or(&Type::Dyn)
    }
}

/// Checks a tree. Every mistake is reported, each once.
pub fn check(ast: &Ast, environment: &Environment) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        ast,
        environment,
        scopes: Vec::new(),
        mapping: Mapping::default(),
        out: Checked::default(),
        issues: Vec::new(),
    };
    checker.check(&ast.root);
    let Checker { mapping, mut out, mut issues, .. } = checker;
    for known in out.types.values_mut() {
        *known = mapping.substitute(known, true);
    }
    if issues.is_empty() {
        literals::validate(ast, &out, &mut issues);
    }
    if issues.is_empty() { Ok(out) } else { Err(issues) }
}

struct Checker<'a> {
    ast: &'a Ast,
    environment: &'a Environment,
    /// The variables of the loops around the current place, innermost last.
    scopes: Vec<(String, Type)>,
    mapping: Mapping,
    out: Checked,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn report(&mut self, id: Id, message: String) {
        self.issues.push(Issue { position: self.ast.positions.get(id as usize).copied(), message });
    }

    fn mismatch(&mut self, id: Id, wanted: &Type, found: &Type) {
        self.report(id, format!("expected type '{wanted}' but found '{found}'"));
    }

    fn undeclared(&mut self, id: Id, name: &str) {
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn type_of(&self, expr: &Expr) -> Type {
        self.out.type_of(expr).clone()
    }

    fn check(&mut self, expr: &Expr) {
        let found = match &expr.kind {
            Kind::Literal(literal) => literal_type(literal),
            Kind::Ident(name) => self.check_ident(expr.id, name),
            Kind::Select(select) => self.check_select(expr, select),
            Kind::Call(call) => self.check_call(expr.id, call),
            Kind::List(elements) => self.check_list(elements),
            Kind::Map(entries) => self.check_map(entries),
            Kind::Struct(message) => self.check_struct(expr.id, message),
            Kind::Fold(fold) => self.check_fold(fold),
        };
        self.out.types.insert(expr.id, found);
    }

    /// What a name means here: a loop's variable, a declared one, or a type.
    fn look_up(&self, name: &str) -> Option<(Type, Reference)> {
        let local = self.scopes.iter().rev().find(|(known, _)| known == name);
        if let Some((_, declared)) = local {
            return Some((declared.clone(), Reference::Local(name.to_string())));
        }
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(declared) = self.environment.variable(name) {
            return Some((declared.clone(), Reference::Variable(name.to_string())));
        }
        let named = self.environment.type_named(name)?;
        Some((Type::Type(Some(Arc::new(named))), Reference::Type(name.to_string())))
    }

    fn check_ident(&mut self, id: Id, name: &str) -> Type {
        match self.look_up(name) {
            Some((found, reference)) => {
                self.out.references.insert(id, reference);
                found
            }
            None => {
                self.undeclared(id, name);
                Type::Error
            }
        }
    }

    fn check_select(&mut self, expr: &Expr, select: &Select) -> Type {
        if let Some((found, reference)) = expr.qualified_name().and_then(|name| self.look_up(&name)) {
            self.out.references.insert(expr.id, reference);
            return found;
        }
        let found = self.check_field(expr.id, &select.operand, &select.field, false);
        if select.test_only { Type::Bool } else { self.mapping.substitute(&found, false) }
    }

    fn check_field(&mut self, id: Id, operand: &Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand = self.mapping.substitute(&self.type_of(operand), false);
        let (target, wrapped) = match operand.unwrap_optional() {
            Some(inner) => (inner.clone(), true),
            None => (operand.clone(), optional),
        };
        let found = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Struct(declared) => self.field_of(id, declared, field),
            Type::Variable(_) => {
                self.mapping.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other if other.is_dyn_or_error() => Type::Dyn,
            other => {
                self.report(id, format!("type '{other}' does not support field selection"));
                Type::Dyn
            }
        };
        if wrapped { Type::optional(found) } else { found }
    }

    fn field_of(&mut self, id: Id, declared: &StructType, field: &str) -> Type {
        if matches!(declared.fields, Fields::Hidden) {
            self.report(id, format!("unexpected failed resolution of '{}'", declared.name));
            return Type::Error;
        }
        declared.field(field).unwrap_or_else(|| {
            self.report(id, format!("undefined field '{field}'"));
            Type::Error
        })
    }

    fn check_optional_select(&mut self, id: Id, call: &Call) -> Type {
        match call.arguments.as_slice() {
            [operand, field] if field.as_string().is_some() => {
                let name = field.as_string().expect("just looked").clone();
                let found = self.check_field(id, operand, &name, true);
                self.mapping.substitute(&found, false)
            }
            _ => {
                self.report(id, "unsupported optional field selection: incorrect signature.".to_string());
                Type::Error
            }
        }
    }

    fn check_call(&mut self, id: Id, call: &Call) -> Type {
        if call.function == operator::OPTIONAL_SELECT {
            return self.check_optional_select(id, call);
        }
        for argument in &call.arguments {
            self.check(argument);
        }
        let Some(target) = &call.target else {
            return self.check_function(id, &call.function, None, &call.arguments);
        };
        // `a.b.c()` may be the function `a.b.c`, unless `a` is a variable.
        if let Some(prefix) = target.qualified_name() {
            let name = format!("{prefix}.{}", call.function);
            if self.find_function(&name).is_some() {
                return self.check_function(id, &name, None, &call.arguments);
            }
        }
        self.check(target);
        self.check_function(id, &call.function, Some(target), &call.arguments)
    }

    fn find_function(&self, name: &str) -> Option<(&'static str, &'static Function)> {
        let name = name.strip_prefix('.').unwrap_or(name);
        functions::find(name).filter(|_| self.environment.allows(name))
    }

    fn check_function(&mut self, id: Id, name: &str, target: Option<&Expr>, arguments: &[Expr]) -> Type {
        let Some((name, function)) = self.find_function(name) else {
            self.undeclared(id, name);
            return Type::Error;
        };
        if let operator::AND | operator::OR = name {
            return self.check_logic(id, name, function, arguments);
        }
        let given: Vec<Type> = target.into_iter().chain(arguments).map(|e| self.type_of(e)).collect();
        let mut result: Option<Type> = None;
        let mut fitting = Vec::new();
        for overload in function.overloads.iter().filter(|o| o.method == target.is_some()) {
            let (parameters, returned) = self.mapping.instantiate(overload);
            if !self.mapping.all_assignable(&given, &parameters) {
                continue;
            }
            fitting.push(overload);
            let returned = self.mapping.substitute(&returned, false);
            result = Some(match result {
                None => returned,
                Some(before) if before.is_exactly(&returned) || matches!(before, Type::Dyn) => before,
                Some(_) => Type::Dyn,
            });
        }
        let Some(result) = result else {
            let given: Vec<Type> = given.iter().map(|t| self.mapping.substitute(t, true)).collect();
            let signature = shown_arguments(&given, target.is_some());
            self.report(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            return Type::Error;
        };
        self.out.references.insert(id, Reference::Function(name, fitting));
        result
    }

    fn check_logic(&mut self, id: Id, name: &'static str, function: &'static Function, arguments: &[Expr]) -> Type {
        let mut fine = true;
        for argument in arguments {
            let given = self.type_of(argument);
            if !self.mapping.assignable(&given, &Type::Bool) {
                self.mismatch(argument.id, &Type::Bool, &given);
                fine = false;
            }
        }
        self.out.references.insert(id, Reference::Function(name, function.overloads.iter().collect()));
        if fine { Type::Bool } else { Type::Error }
    }

    fn check_list(&mut self, elements: &[Element]) -> Type {
        let mut joined = None;
        for element in elements {
            self.check(&element.value);
            let found = self.type_of(&element.value);
            let found = self.unwrap_if(element.optional, &element.value, found);
            joined = Some(self.join(joined, found));
        }
        Type::list(joined.unwrap_or_else(|| self.mapping.fresh()))
    }

    /// The type of an element that is marked optional.
    fn unwrap_if(&mut self, optional: bool, expr: &Expr, found: Type) -> Type {
        if !optional {
            return found;
        }
        match found.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if !matches!(found, Type::Dyn) {
                    self.mismatch(expr.id, &Type::optional(found.clone()), &found);
                }
                found
            }
        }
    }

    fn check_map(&mut self, entries: &[Entry]) -> Type {
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            self.check(&entry.key);
            let key = self.type_of(&entry.key);
            keys = Some(self.join(keys, key));
            self.check(&entry.value);
            let found = self.type_of(&entry.value);
            let found = self.unwrap_if(entry.optional, &entry.value, found);
            values = Some(self.join(values, found));
        }
        match (keys, values) {
            (Some(key), Some(value)) => Type::map(key, value),
            _ => Type::map(self.mapping.fresh(), self.mapping.fresh()),
        }
    }

    /// The most general of the types of a literal's elements. That they should agree is checked later: the arguments of
    /// `format` need not.
    fn join(&mut self, before: Option<Type>, now: Type) -> Type {
        let Some(before) = before else { return now };
        match self.mapping.assignable(&before, &now) {
            true => assign::most_general(&before, &now),
            false => Type::Dyn,
        }
    }

    fn check_struct(&mut self, id: Id, message: &Struct) -> Type {
        let found = self.environment.type_named(message.name.strip_prefix('.').unwrap_or(&message.name));
        let declared = match found {
            Some(Type::Struct(declared)) => declared,
            Some(other) => {
                self.report(id, format!("'{other}' is not a message type"));
                return Type::Error;
            }
            None => {
                self.undeclared(id, &message.name);
                return Type::Error;
            }
        };
        for field in &message.fields {
            self.check(&field.value);
            let wanted = self.field_of(field.id, &declared, &field.name);
            let given = self.type_of(&field.value);
            let given = self.unwrap_if(field.optional, &field.value, given);
            if !self.mapping.assignable(&wanted, &given) {
                let name = &field.name;
                self.report(
                    field.id,
                    format!("expected type of field '{name}' is '{wanted}' but provided type is '{given}'"),
                );
            }
        }
        Type::Struct(declared)
    }

    fn check_fold(&mut self, fold: &Fold) -> Type {
        self.check(&fold.range);
        self.check(&fold.start);
        let range = self.mapping.substitute(&self.type_of(&fold.range), false);
        let accumulated = self.type_of(&fold.start);
        let outer = self.scopes.len();
        self.scopes.push((fold.accumulator.clone(), accumulated.clone()));
        let (first, second) = self.loop_types(fold, &range);
        self.scopes.push((fold.variable.clone(), first));
        if let Some(name) = &fold.second {
            self.scopes.push((name.clone(), second));
        }
        self.check(&fold.condition);
        self.expect(&fold.condition, &Type::Bool);
        self.check(&fold.step);
        self.expect(&fold.step, &accumulated);
        self.scopes.truncate(outer + 1);
        self.check(&fold.result);
        self.scopes.truncate(outer);
        let result = self.type_of(&fold.result);
        self.mapping.substitute(&result, false)
    }

    /// The types of a loop's variables.
    fn loop_types(&mut self, fold: &Fold, range: &Type) -> (Type, Type) {
        match range {
            Type::List(element) if fold.second.is_some() => (Type::Int, Type::clone(element)),
            Type::List(element) => (Type::clone(element), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Variable(_) => {
                self.mapping.assignable(&Type::Dyn, range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let id = fold.range.id;
                self.report(id, format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"));
                (Type::Error, Type::Error)
            }
        }
    }

    fn expect(&mut self, expr: &Expr, wanted: &Type) {
        let found = self.type_of(expr);
        if !self.mapping.assignable(wanted, &found) {
            self.mismatch(expr.id, wanted, &found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// `(int, string)`, or `string.(int)` of a method.
fn shown_arguments(given: &[Type], method: bool) -> String {
    let list = |types: &[Type]| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", ");
    match given.split_first() {
        Some((receiver, rest)) if method => format!("{receiver}.({})", list(rest)),
        _ => format!("({})", list(given)),
    }
}
