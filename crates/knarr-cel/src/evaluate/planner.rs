//! Checked tree to plan: names become slots, constants are folded, patterns compiled.

use std::sync::Arc;

use super::node::{Call, Fold, MapEntry, Node};
use super::{Variables, run};
use crate::ast::{Ast, Entry, Expr, Kind, Literal, Select, operator};
use crate::check::{Checked, Reference};
use crate::cost::PER_CALL_LIMIT;
use crate::functions::regexes;
use crate::source::Issue;
use crate::value::{Text, Value};

pub struct Planned {
    pub root: Node,
    pub slots: usize,
    pub variables: Vec<String>,
}

/// Conversions that are done once where their argument is constant.
const CONVERSIONS: [&str; 9] = ["bool", "bytes", "double", "duration", "dyn", "int", "string", "timestamp", "uint"];

pub fn plan(ast: &Ast, checked: &Checked) -> Result<Planned> {
    let mut planner = Planner { ast, checked, scopes: Vec::new(), slots: 0, variables: Vec::new() };
    let root = planner.node(&ast.root)?;
    Ok(Planned { root, slots: planner.slots, variables: planner.variables })
}

struct Planner<'a> {
    ast: &'a Ast,
    checked: &'a Checked,
    /// Loop variables by name; the index is the slot.
    scopes: Vec<String>,
    slots: usize,
    variables: Vec<String>,
}

type Result<T> = std::result::Result<T, Issue>;

impl Planner<'_> {
    fn boxed(&mut self, expr: &Expr) -> Result<Box<Node>> {
        Ok(Box::new(self.node(expr)?))
    }

    fn node(&mut self, expr: &Expr) -> Result<Node> {
        if let Some(named) = self.named(expr) {
            return Ok(named);
        }
        match &expr.kind {
            Kind::Literal(literal) => Ok(Node::Constant(constant(literal))),
            Kind::Ident(name) => Ok(self.variable(name)),
            Kind::Select(select) => self.select(select),
            Kind::Call(_) => self.call(expr),
            Kind::List(elements) => {
                let element = |e: &crate::ast::Element| Ok((self.node(&e.value)?, e.optional));
                let elements = elements.iter().map(element).collect::<Result<Vec<_>>>()?;
                Ok(fold_constant(
                    elements.iter().all(|(e, optional)| is_constant(e) && !optional),
                    Node::List(elements),
                ))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Struct(message) => {
                let field =
                    |f: &crate::ast::FieldInit| Ok((Arc::from(f.name.as_str()), self.node(&f.value)?, f.optional));
                let fields = message.fields.iter().map(field).collect::<Result<Vec<_>>>()?;
                Ok(Node::Message { name: message.name.trim_start_matches('.').into(), fields })
            }
            Kind::Fold(fold) => self.fold(fold),
        }
    }

    /// What the checker resolved as a name.
    fn named(&mut self, expr: &Expr) -> Option<Node> {
        match self.checked.references.get(&expr.id)? {
            Reference::Variable(name) => Some(self.variable(name)),
            Reference::Local(name) => Some(
                self.scopes.iter().rposition(|known| known == name).map_or_else(|| self.variable(name), Node::Local),
            ),
            Reference::Type(name) => Some(Node::Constant(Value::Type(Arc::from(name.as_str())))),
            Reference::Function(..) => None,
        }
    }

    fn variable(&mut self, name: &str) -> Node {
        if !self.variables.iter().any(|known| known == name) {
            self.variables.push(name.to_string());
        }
        Node::Variable(name.into())
    }

    fn select(&mut self, select: &Select) -> Result<Node> {
        let operand = self.boxed(&select.operand)?;
        let field = Arc::from(select.field.as_str());
        if select.test_only {
            return Ok(Node::Test { operand, field });
        }
        let cost = 2 - u64::from(operand.is_path());
        Ok(Node::Select { operand, field, cost })
    }

    fn map(&mut self, entries: &[Entry]) -> Result<Node> {
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, value) = (self.node(&entry.key)?, self.node(&entry.value)?);
            out.push(MapEntry { key, value, optional: entry.optional });
        }
        let all_constant = out.iter().all(|e| is_constant(&e.key) && is_constant(&e.value) && !e.optional);
        Ok(fold_constant(all_constant, Node::Map(out)))
    }

    fn call(&mut self, expr: &Expr) -> Result<Node> {
        let call = expr.as_call().expect("the caller looked");
        if call.function == operator::OPTIONAL_SELECT {
            let operand = self.boxed(&call.arguments[0])?;
            let field = call.arguments[1].as_string().cloned().unwrap_or_default();
            let cost = 2 - u64::from(operand.is_path());
            return Ok(Node::OptionalSelect { operand, field, cost });
        }
        let Some(Reference::Function(function, overloads)) = self.checked.references.get(&expr.id) else {
            return Err(self.issue(expr, "unresolved function".to_string()));
        };
        // A namespaced function (`ip.isCanonical`) has no receiver, though it looks as if it had.
        let method = overloads.first().is_some_and(|o| o.method);
        let target = call.target.iter().filter(|_| method);
        let operands: Vec<&Expr> = target.chain(&call.arguments).collect();
        if let Some(node) = self.in_place(function, &operands)? {
            return Ok(node);
        }
        let mut nodes = operands.iter().map(|e| self.node(e)).collect::<Result<Vec<_>>>()?;
        Ok(match (*function, nodes.len()) {
            (operator::CONDITIONAL, 3) => {
                let (no, yes, condition) = (pop(&mut nodes), pop(&mut nodes), pop(&mut nodes));
                Node::Conditional(Box::new((condition, yes, no)))
            }
            (operator::NOT_STRICTLY_FALSE, 1) => Node::NotStrictlyFalse(Box::new(pop(&mut nodes))),
            (operator::AND, 2) => Node::And(pair(&mut nodes)),
            (operator::OR, 2) => Node::Or(pair(&mut nodes)),
            ("or", 2) => Node::OptionalOr { operands: pair(&mut nodes), unwrap: false },
            ("orValue", 2) => Node::OptionalOr { operands: pair(&mut nodes), unwrap: true },
            (operator::INDEX | operator::OPTIONAL_INDEX, 2) => {
                let (index, operand) = (pop(&mut nodes), pop(&mut nodes));
                let cost = 2 - u64::from(operand.is_path());
                let optional = *function == operator::OPTIONAL_INDEX;
                Node::Index { operand: Box::new(operand), index: Box::new(index), optional, cost }
            }
            (operator::IN, 2) if is_constant_list(&nodes[1]) => {
                let Node::Constant(list) = pop(&mut nodes) else { unreachable!("just looked") };
                Node::InConstants { value: Box::new(pop(&mut nodes)), list }
            }
            _ => return self.plain_call(expr, Call { function, overloads: overloads.clone(), operands: nodes }),
        })
    }

    fn plain_call(&self, expr: &Expr, call: Call) -> Result<Node> {
        if regexes::takes_pattern(call.function)
            && let Some(Node::Constant(Value::String(pattern))) = call.operands.get(1)
        {
            let regex = regexes::compile(pattern).map_err(|error| self.issue(expr, error.to_string()))?;
            return Ok(Node::Pattern { call, regex: Box::new(regex) });
        }
        let conversion = CONVERSIONS.contains(&call.function);
        let foldable = conversion && matches!(call.operands.as_slice(), [operand] if is_constant(operand));
        let node = Node::Call(call);
        if !foldable {
            return Ok(node);
        }
        match evaluate_constant(&node) {
            Ok(value) => Ok(Node::Constant(value)),
            Err(error) => Err(self.issue(expr, error.to_string())),
        }
    }

    /// Additions to the accumulator of the loop around, which need no copy of it.
    fn in_place(&mut self, function: &str, operands: &[&Expr]) -> Result<Option<Node>> {
        let accumulator = |expr: &Expr| match expr.as_ident() {
            Some(operator::ACCUMULATOR) => self.scopes.iter().rposition(|known| known == operator::ACCUMULATOR),
            _ => None,
        };
        let Some(slot) = operands.first().and_then(|first| accumulator(first)) else { return Ok(None) };
        match (function, operands) {
            (operator::ADD, [_, added]) => {
                let Kind::List(elements) = &added.kind else { return Ok(None) };
                let [element] = elements.as_slice() else { return Ok(None) };
                if element.optional {
                    return Ok(None);
                }
                let element = self.boxed(&element.value)?;
                let constant = is_constant(&element);
                Ok(Some(Node::Append { slot, element, constant }))
            }
            (operator::MAP_INSERT, [_, rest @ ..]) => {
                let operands = rest.iter().map(|e| self.node(e)).collect::<Result<Vec<_>>>()?;
                Ok(Some(Node::Insert { slot, operands }))
            }
            _ => Ok(None),
        }
    }

    fn fold(&mut self, fold: &crate::ast::Fold) -> Result<Node> {
        let range = self.node(&fold.range)?;
        let start = self.node(&fold.start)?;
        let slot = self.scopes.len();
        self.scopes.push(fold.accumulator.clone());
        self.scopes.push(fold.variable.clone());
        self.scopes.extend(fold.second.clone());
        self.slots = self.slots.max(self.scopes.len());
        let condition = self.node(&fold.condition)?;
        let step = self.node(&fold.step)?;
        self.scopes.truncate(slot + 1);
        let result = self.node(&fold.result)?;
        self.scopes.truncate(slot);
        let two = fold.second.is_some();
        Ok(Node::Fold(Box::new(Fold { range, start, condition, step, result, slot, two })))
    }

    fn issue(&self, expr: &Expr, message: String) -> Issue {
        Issue { position: self.ast.positions.get(expr.id as usize).copied(), message }
    }
}

fn pop(nodes: &mut Vec<Node>) -> Node {
    nodes.pop().expect("the number of operands was looked at")
}

fn pair(nodes: &mut Vec<Node>) -> Box<(Node, Node)> {
    let second = pop(nodes);
    Box::new((pop(nodes), second))
}

fn constant(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::String(Text::Shared(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

fn is_constant(node: &Node) -> bool {
    matches!(node, Node::Constant(_))
}

/// A list of constants that can be looked through without cost.
fn is_constant_list(node: &Node) -> bool {
    let scalar = |value: crate::error::EvalError| drop(value);
    match node {
        Node::Constant(Value::List(list)) => list.iter().all(|item| {
            let item = item.map_err(scalar);
            matches!(item, Ok(Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_)))
        }),
        _ => false,
    }
}

fn evaluate_constant(node: &Node) -> std::result::Result<Value<'static>, crate::error::EvalError> {
    run::run(node, 0, &Variables::new(), PER_CALL_LIMIT).result
}

/// A literal of constants, evaluated once. One that fails (a key twice) is left to fail when it is evaluated.
fn fold_constant(all_constant: bool, node: Node) -> Node {
    match all_constant.then(|| evaluate_constant(&node)) {
        Some(Ok(value)) => Node::Constant(value),
        _ => node,
    }
}
