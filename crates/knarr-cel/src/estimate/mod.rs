//! What an expression costs at least and at most, found without running it: cel-go's `checker/cost.go` and Kubernetes' costs of
//! its functions. The numbers decide which rules a CRD may have, so they must be upstream's.

mod functions;
mod sizes;

use std::collections::HashMap;

use crate::ast::{Ast, Call, Expr, Fold, Id, Kind, Literal, operator};
use crate::check::{Checked, Reference};
use crate::cost::{LIST_CREATION, MAP_CREATION, STRUCT_CREATION};
use crate::functions::Overload;
use crate::schema::Declaration;
use crate::types::Type;
use sizes::{CallEstimate, EntrySize};
pub use sizes::{CostEstimate, SizeEstimate};

/// Estimates a checked tree. `root` is what the first name of every path is declared to be.
pub fn estimate(ast: &Ast, checked: &Checked, root: Option<&Declaration>) -> CostEstimate {
    let mut estimator = Estimator {
        checked,
        root,
        paths: HashMap::new(),
        sizes: HashMap::new(),
        entries: HashMap::new(),
        locals: Vec::new(),
    };
    estimator.cost(&ast.root)
}

/// The steps from a variable to a value: its name, then field names, `@items`, `@keys`, `@values`.
type Path = Vec<String>;

struct Estimator<'a> {
    checked: &'a Checked,
    root: Option<&'a Declaration>,
    paths: HashMap<Id, Path>,
    sizes: HashMap<Id, SizeEstimate>,
    entries: HashMap<Id, EntrySize>,
    locals: Vec<LocalVariable>,
}

struct LocalVariable {
    name: String,
    path: Path,
    size: Option<SizeEstimate>,
    entry: Option<EntrySize>,
}

const ONE: CostEstimate = CostEstimate { min: 1, max: 1 };

impl Estimator<'_> {
    fn local(&self, name: &str) -> Option<&LocalVariable> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn type_of(&self, expr: &Expr) -> &Type {
        self.checked.type_of(expr)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let Some(local) = expr.as_ident().and_then(|name| self.local(name)) {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn path_with(&self, expr: &Expr, step: &str) -> Path {
        let mut path = self.path(expr);
        path.push(step.to_string());
        path
    }

    fn cost(&mut self, expr: &Expr) -> CostEstimate {
        if let Some(Reference::Variable(name) | Reference::Type(name)) = self.checked.references.get(&expr.id) {
            self.paths.insert(expr.id, vec![name.clone()]);
            return ONE;
        }
        match &expr.kind {
            Kind::Literal(_) => CostEstimate::default(),
            Kind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                ONE
            }
            Kind::Select(select) => {
                let operand = self.cost(&select.operand);
                if select.test_only {
                    return operand;
                }
                let path = self.path_with(&select.operand, &select.field);
                let looked_up =
                    matches!(self.type_of(&select.operand), Type::Map(_) | Type::Struct(_) | Type::Variable(_));
                self.paths.insert(expr.id, path);
                if looked_up { operand.plus(ONE) } else { operand }
            }
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) => {
                let values: Vec<&Expr> = elements.iter().map(|e| &e.value).collect();
                let cost = self.sum(&values);
                let value = self.union_of_sizes(&values);
                self.entries.insert(expr.id, EntrySize { list: true, key: SizeEstimate::exactly(1), value });
                cost.plus(CostEstimate::exactly(LIST_CREATION))
            }
            Kind::Map(entries) => {
                let (keys, values): (Vec<&Expr>, Vec<&Expr>) = entries.iter().map(|e| (&e.key, &e.value)).unzip();
                let cost = self.sum(&keys).plus(self.sum(&values));
                let (key, value) = (self.union_of_sizes(&keys), self.union_of_sizes(&values));
                self.entries.insert(expr.id, EntrySize { list: false, key, value });
                cost.plus(CostEstimate::exactly(MAP_CREATION))
            }
            Kind::Struct(message) => {
                let values: Vec<&Expr> = message.fields.iter().map(|f| &f.value).collect();
                self.sum(&values).plus(CostEstimate::exactly(STRUCT_CREATION))
            }
            Kind::Fold(fold) if fold.is_binding() => self.binding(expr, fold),
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn sum(&mut self, exprs: &[&Expr]) -> CostEstimate {
        exprs.iter().fold(CostEstimate::default(), |sum, expr| sum.plus(self.cost(expr)))
    }

    fn union_of_sizes(&mut self, exprs: &[&Expr]) -> SizeEstimate {
        let sizes: Vec<SizeEstimate> = exprs.iter().map(|e| self.size_or_unknown(e)).collect();
        sizes.into_iter().reduce(SizeEstimate::union).unwrap_or_default()
    }

    fn binding(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let cost = self.cost(&fold.range).plus(self.cost(&fold.start));
        self.push_value(&fold.accumulator, &fold.start);
        let cost = cost.plus(self.cost(&fold.result));
        self.copy_sizes(expr, &fold.result);
        self.locals.pop();
        cost
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> CostEstimate {
        let cost = self.cost(&fold.range).plus(self.cost(&fold.start));
        let outer = self.locals.len();
        self.push_value(&fold.accumulator, &fold.start);
        self.push_loop_variables(fold);
        let round = self.cost(&fold.condition).plus(self.cost(&fold.step));
        self.locals.truncate(outer + 1);
        let cost = cost.plus(self.cost(&fold.result));
        self.locals.truncate(outer);
        let rounds = self.size_or_unknown(&fold.range);
        match &fold.start.kind {
            Kind::Literal(_) => {
                if let Some(size) = self.size(&fold.start) {
                    self.sizes.insert(expr.id, size);
                }
            }
            Kind::List(_) | Kind::Map(_) => {
                self.sizes.insert(expr.id, rounds);
                if let Some(entry) = self.entry_size(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        cost.plus(rounds.times_cost(round))
    }

    fn push_value(&mut self, name: &str, value: &Expr) {
        let (path, size, entry) = (self.path(value), self.size(value), self.entry_size(value));
        self.locals.push(LocalVariable { name: name.to_string(), path, size, entry });
    }

    fn push_loop_variables(&mut self, fold: &Fold) {
        let entry = self.entry_size(&fold.range);
        let list = entry.map_or_else(|| matches!(self.type_of(&fold.range), Type::List(_)), |entry| entry.list);
        let (key, value) = (entry.map(|e| e.key), entry.map(|e| e.value));
        let push = |estimator: &mut Self, name: &str, step: &str, size| {
            let path = estimator.path_with(&fold.range, step);
            estimator.locals.push(LocalVariable { name: name.to_string(), path, size, entry: None });
        };
        match &fold.second {
            Some(second) => {
                push(self, &fold.variable, if list { "@indices" } else { "@keys" }, key);
                push(self, second, if list { "@items" } else { "@values" }, value);
            }
            None if list => push(self, &fold.variable, "@items", value),
            None => push(self, &fold.variable, "@keys", key),
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> CostEstimate {
        if let (operator::OPTIONAL_SELECT, [operand, field]) = (call.function.as_str(), call.arguments.as_slice()) {
            let cost = self.cost(operand).plus(ONE);
            let path = self.path_with(operand, field.as_string().map_or("", |name| name));
            self.paths.insert(expr.id, path);
            return cost;
        }
        if let ("dyn", None, [argument]) = (call.function.as_str(), &call.target, call.arguments.as_slice()) {
            let cost = ONE.plus(self.cost(argument));
            self.copy_sizes(expr, argument);
            return cost;
        }
        let costs: Vec<CostEstimate> = call.arguments.iter().map(|a| self.cost(a)).collect();
        let Some(Reference::Function(function, overloads)) = self.checked.references.get(&expr.id) else {
            return CostEstimate::default();
        };
        let mut total = CostEstimate::default();
        let method = overloads.first().is_some_and(|o| o.method);
        let target = call.target.as_ref().filter(|_| method);
        if let Some(target) = target {
            total = self.cost(target);
        }
        let mut cost: Option<CostEstimate> = None;
        let mut result_size: Option<SizeEstimate> = None;
        for overload in overloads {
            let found = self.overload_cost(expr, function, overload, target, &call.arguments, &costs);
            cost = Some(cost.map_or(found.cost, |known| known.union(found.cost)));
            result_size = match (result_size, found.size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if let (&operator::INDEX, Some(indexed)) = (function, call.arguments.first()) {
                result_size = self.entry_size(indexed).map(|entry| entry.value);
                let step = if matches!(overload.parameters[0], Type::List(_)) { "@items" } else { "@values" };
                if matches!(overload.parameters[0], Type::List(_) | Type::Map(_)) {
                    let path = self.path_with(indexed, step);
                    self.paths.insert(expr.id, path);
                }
            }
            result_size = result_size.or_else(|| self.size(expr));
        }
        if let Some(size) = result_size {
            self.sizes.insert(expr.id, size);
        }
        total.plus(cost.unwrap_or_default())
    }

    fn overload_cost(
        &mut self,
        expr: &Expr,
        function: &str,
        overload: &Overload,
        target: Option<&Expr>,
        arguments: &[Expr],
        costs: &[CostEstimate],
    ) -> CallEstimate {
        let sum = costs.iter().fold(CostEstimate::default(), |sum, cost| sum.plus(*cost));
        match (function, costs) {
            (operator::AND | operator::OR, [left, right]) => {
                return CallEstimate::of(CostEstimate { min: left.min, max: left.plus(*right).max });
            }
            (operator::CONDITIONAL, [condition, yes, no]) => {
                let size = self.size_or_unknown(&arguments[1]).union(self.size_or_unknown(&arguments[2]));
                self.union_entries(expr, &arguments[1], &arguments[2]);
                return CallEstimate { cost: condition.plus(yes.union(*no)), size: Some(size) };
            }
            (operator::ADD, [_, _]) => self.union_entries(expr, &arguments[0], &arguments[1]),
            _ => {}
        }
        let own = self.function_cost(function, overload, target, arguments);
        CallEstimate { cost: own.cost.plus(sum), size: own.size }
    }

    fn union_entries(&mut self, expr: &Expr, a: &Expr, b: &Expr) {
        if let (Some(a), Some(b)) = (self.entry_size(a), self.entry_size(b)) {
            self.entries.insert(expr.id, a.union(b));
        }
    }

    fn copy_sizes(&mut self, to: &Expr, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.sizes.insert(to.id, size);
        }
        if let Some(entry) = self.entry_size(from) {
            self.entries.insert(to.id, entry);
        }
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> SizeEstimate {
        self.size(expr).unwrap_or(SizeEstimate::UNKNOWN)
    }

    fn size(&mut self, expr: &Expr) -> Option<SizeEstimate> {
        if let Some(size) = self.sizes.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = literal_size(expr) {
            return Some(SizeEstimate::exactly(size));
        }
        if let Some(size) = self.declared_size(&self.path(expr)) {
            self.sizes.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(self.type_of(expr)) {
            return Some(SizeEstimate::exactly(1));
        }
        self.local(expr.as_ident()?)?.size
    }

    /// What the schema says of the size of what a path leads to.
    fn declared_size(&self, path: &[String]) -> Option<SizeEstimate> {
        let (_, steps) = path.split_first()?;
        let mut at = self.root?;
        for step in steps {
            if step == "@keys" {
                // Keys are texts of any length that fits a request.
                return matches!(at.kind, crate::schema::Kind::Map(_)).then_some(SizeEstimate::UP_TO_REQUEST);
            }
            at = at.at(step)?;
        }
        Some(SizeEstimate { min: 0, max: at.max_elements })
    }

    fn entry_size(&self, expr: &Expr) -> Option<EntrySize> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        self.local(expr.as_ident()?)?.entry
    }
}

fn literal_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        Kind::Literal(Literal::String(text)) => text.chars().count() as u64,
        Kind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        Kind::Literal(_) => 1,
        Kind::List(elements) => elements.len() as u64,
        Kind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}

fn is_scalar(found: &Type) -> bool {
    match found {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrap_optional().is_some_and(is_scalar),
    }
}
