//! Running a plan.

use std::sync::Arc;

use super::node::{Call, Fold, MapEntry, Node};
use super::{Bindings, Evaluation};
use crate::cost::{self, LIST_CREATION, MAP_CREATION, STRUCT_CREATION};
use crate::error::EvalError;
use crate::functions::access::{index, insert_into, no_such_key, optional_index};
use crate::functions::{no_overload, regexes};
use crate::value::{List, Map, Message, Owned, Text, Value, equal};

type Answer<'a> = Result<Value<'a>, EvalError>;

/// Runs a plan over these bindings, up to a cost.
pub fn run<'a>(plan: &Node, slots: usize, bindings: &dyn Bindings<'a>, limit: u64) -> Evaluation<'a> {
    let locals = vec![Ok(Value::Null); slots];
    let mut run = Run { bindings, locals, cost: 0, limit };
    let result = run.node(plan);
    Evaluation { result, cost: run.cost }
}

struct Run<'r, 'a> {
    bindings: &'r dyn Bindings<'a>,
    /// Accumulators may hold errors, which `&&` and `||` can still absorb.
    locals: Vec<Answer<'a>>,
    cost: u64,
    limit: u64,
}

impl<'a> Run<'_, 'a> {
    fn pay(&mut self, cost: u64) -> Result<(), EvalError> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.limit { Err(EvalError::CostLimit) } else { Ok(()) }
    }

    fn node(&mut self, node: &Node) -> Answer<'a> {
        match node {
            Node::Constant(value) => Ok(value.clone()),
            Node::Variable(name) => self.variable(name),
            Node::Local(slot) => {
                self.pay(1)?;
                self.locals[*slot].clone()
            }
            Node::Select { operand, field, cost } => self.select(operand, field, *cost),
            Node::Test { operand, field } => self.test(operand, field),
            Node::OptionalSelect { operand, field, cost } => self.optional_select(operand, field, *cost),
            Node::Index { operand, index, optional, cost } => self.index(operand, index, *optional, *cost),
            Node::And(operands) => self.logic(&operands.0, &operands.1, false),
            Node::Or(operands) => self.logic(&operands.0, &operands.1, true),
            Node::Conditional(operands) => self.conditional(&operands.0, &operands.1, &operands.2),
            Node::NotStrictlyFalse(operand) => self.not_strictly_false(operand),
            Node::OptionalOr { operands, unwrap } => self.optional_or(&operands.0, &operands.1, *unwrap),
            Node::InConstants { value, list } => self.in_constants(value, list),
            Node::Call(call) => self.call(call),
            Node::Pattern { call, regex } => self.pattern(call, regex),
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Message { name, fields } => self.message(name, fields),
            Node::Fold(fold) => self.fold(fold),
            Node::Append { slot, element, constant } => self.append(*slot, element, *constant),
            Node::Insert { slot, operands } => self.insert(*slot, operands),
        }
    }

    fn variable(&mut self, name: &str) -> Answer<'a> {
        self.pay(1)?;
        let unknown = || Err(EvalError::failed(format!("no such attribute(s): {name}")));
        self.bindings.resolve(name).unwrap_or_else(unknown)
    }

    fn select(&mut self, operand: &Node, field: &Arc<str>, cost: u64) -> Answer<'a> {
        let operand = self.node(operand)?;
        self.pay(cost)?;
        match operand {
            Value::Optional(held) => held.map_or(Ok(Value::Optional(None)), |value| optional_field(&value, field)),
            operand => {
                self::field(&operand, field)?.ok_or_else(|| no_such_key(&Value::String(Text::Shared(field.clone()))))
            }
        }
    }

    fn test(&mut self, operand: &Node, field: &Arc<str>) -> Answer<'a> {
        match self.node(operand)? {
            Value::Optional(None) => Ok(Value::Bool(false)),
            Value::Optional(Some(value)) => Ok(Value::Bool(self::field(&value, field)?.is_some())),
            operand => Ok(Value::Bool(self::field(&operand, field)?.is_some())),
        }
    }

    fn optional_select(&mut self, operand: &Node, field: &Arc<str>, cost: u64) -> Answer<'a> {
        let operand = self.node(operand)?;
        self.pay(cost)?;
        match operand {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => optional_field(&value, field),
            operand => optional_field(&operand, field),
        }
    }

    fn index(&mut self, operand: &Node, key: &Node, optional: bool, cost: u64) -> Answer<'a> {
        let operand = self.node(operand)?;
        let key = self.node(key)?;
        self.pay(cost)?;
        if optional { optional_index(&operand, &key) } else { index(&operand, &key) }
    }

    /// `&&` and `||`: an operand that decides (`decisive`) does so whatever the other is, even an error.
    fn logic(&mut self, left: &Node, right: &Node, decisive: bool) -> Answer<'a> {
        let left = self.truth(left);
        if matches!(&left, Ok(truth) if *truth == decisive) || matches!(&left, Err(error) if error.is_final()) {
            return left.map(Value::Bool);
        }
        let right = self.truth(right);
        match (left, right) {
            (_, Ok(truth)) if truth == decisive => Ok(Value::Bool(truth)),
            (_, Err(error)) if error.is_final() => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(truth)) => Ok(Value::Bool(truth)),
        }
    }

    fn truth(&mut self, node: &Node) -> Result<bool, EvalError> {
        self.node(node)?.as_bool().ok_or_else(EvalError::overload)
    }

    fn conditional(&mut self, condition: &Node, yes: &Node, no: &Node) -> Answer<'a> {
        if self.truth(condition)? { self.node(yes) } else { self.node(no) }
    }

    fn not_strictly_false(&mut self, operand: &Node) -> Answer<'a> {
        let value = self.node(operand);
        self.pay(1)?;
        match value {
            Err(error) if error.is_final() => Err(error),
            Ok(Value::Bool(false)) => Ok(Value::Bool(false)),
            _ => Ok(Value::Bool(true)),
        }
    }

    fn optional_or(&mut self, left: &Node, right: &Node, unwrap: bool) -> Answer<'a> {
        match self.node(left)? {
            Value::Optional(Some(value)) if unwrap => Ok(value.as_ref().clone()),
            Value::Optional(None) => self.node(right),
            left => Ok(left),
        }
    }

    fn in_constants(&mut self, value: &Node, list: &Value<'static>) -> Answer<'a> {
        let value = self.node(value)?;
        let Value::List(list) = list else { return Err(EvalError::overload()) };
        Ok(Value::Bool(list.iter().flatten().any(|item| equal(&item, &value))))
    }

    fn operands(&mut self, nodes: &[Node]) -> Result<Vec<Value<'a>>, EvalError> {
        nodes.iter().map(|node| self.node(node)).collect()
    }

    fn call(&mut self, call: &Call) -> Answer<'a> {
        let values = self.operands(&call.operands)?;
        let overload = call.overloads.iter().find(|o| o.fits(&values));
        let result = match overload {
            Some(overload) => (overload.call)(&values),
            None => Err(no_overload(call.function, &values)),
        };
        self.pay(cost::of_call(call.function, &values, &result))?;
        result
    }

    fn pattern(&mut self, call: &Call, regex: &regex::Regex) -> Answer<'a> {
        let values = self.operands(&call.operands)?;
        let result = regexes::apply(call.function, regex, &values);
        self.pay(cost::of_call(call.function, &values, &result))?;
        result
    }

    fn list(&mut self, elements: &[(Node, bool)]) -> Answer<'a> {
        let mut out = Vec::with_capacity(elements.len());
        for (element, optional) in elements {
            out.extend(present(self.node(element)?, *optional)?);
        }
        self.pay(LIST_CREATION)?;
        Ok(Value::list(out))
    }

    fn map(&mut self, entries: &[MapEntry]) -> Answer<'a> {
        let mut out = Owned::default();
        for entry in entries {
            let (key, value) = (self.node(&entry.key)?, self.node(&entry.value)?);
            let Some(value) = present(value, entry.optional)? else { continue };
            if !crate::value::is_key(&key) {
                return Err(EvalError::failed(format!("unsupported key type: {}", key.type_name())));
            }
            let shown = format!("{key:?}");
            if !out.insert(key, value) {
                return Err(EvalError::failed(format!("Failed with repeated key: {shown}")));
            }
        }
        self.pay(MAP_CREATION)?;
        Ok(Value::Map(Map::Owned(Arc::new(out))))
    }

    fn message(&mut self, name: &Arc<str>, fields: &[(Arc<str>, Node, bool)]) -> Answer<'a> {
        let mut out = Vec::with_capacity(fields.len());
        for (field, node, optional) in fields {
            if let Some(value) = present(self.node(node)?, *optional)? {
                out.push((field.clone(), value));
            }
        }
        self.pay(STRUCT_CREATION)?;
        Ok(Value::Message(Arc::new(Message { type_name: name.clone(), fields: out })))
    }

    fn fold(&mut self, fold: &Fold) -> Answer<'a> {
        let range = self.node(&fold.range)?;
        let start = self.node(&fold.start);
        stop_if_final(&start)?;
        self.locals[fold.slot] = start;
        match range {
            Value::List(list) => self.fold_list(fold, &list)?,
            Value::Map(map) => self.fold_map(fold, &map)?,
            other => return Err(EvalError::failed(format!("got '{}', expected iterable type", other.type_name()))),
        }
        self.node(&fold.result)
    }

    fn fold_list(&mut self, fold: &Fold, list: &List<'a>) -> Result<(), EvalError> {
        for (at, item) in list.iter().enumerate() {
            if fold.two {
                self.locals[fold.slot + 1] = Ok(Value::Int(at as i64));
                self.locals[fold.slot + 2] = item;
            } else {
                self.locals[fold.slot + 1] = item;
            }
            if !self.step(fold)? {
                break;
            }
        }
        Ok(())
    }

    fn fold_map(&mut self, fold: &Fold, map: &Map<'a>) -> Result<(), EvalError> {
        for key in map.keys() {
            if fold.two {
                self.locals[fold.slot + 2] = map.get(&key).unwrap_or_else(|| Err(no_such_key(&key)));
            }
            self.locals[fold.slot + 1] = Ok(key);
            if !self.step(fold)? {
                break;
            }
        }
        Ok(())
    }

    /// One round of a loop; false where it is the last.
    fn step(&mut self, fold: &Fold) -> Result<bool, EvalError> {
        if !self.truth(&fold.condition)? {
            return Ok(false);
        }
        let next = self.node(&fold.step);
        stop_if_final(&next)?;
        self.locals[fold.slot] = next;
        Ok(true)
    }

    fn take(&mut self, slot: usize) -> Answer<'a> {
        self.pay(1)?;
        std::mem::replace(&mut self.locals[slot], Ok(Value::Null))
    }

    fn append(&mut self, slot: usize, element: &Node, constant: bool) -> Answer<'a> {
        let list = self.take(slot)?;
        let element = self.node(element)?;
        self.pay(1 + if constant { 0 } else { LIST_CREATION })?;
        let Value::List(list) = list else { return Err(EvalError::overload()) };
        let mut items = match list {
            List::Owned(items) => items,
            list => Arc::new(list.to_vec()?),
        };
        Arc::make_mut(&mut items).push(element);
        Ok(Value::List(List::Owned(items)))
    }

    fn insert(&mut self, slot: usize, operands: &[Node]) -> Answer<'a> {
        let map = self.take(slot)?;
        let mut values = self.operands(operands)?;
        self.pay(1)?;
        let Value::Map(map) = map else { return Err(EvalError::overload()) };
        let mut map = map.into_owned()?;
        match (values.pop(), values.pop()) {
            (Some(value), Some(key)) => insert_into(&mut map, key, value)?,
            (Some(Value::Map(entries)), None) => {
                for (key, value) in entries.entries()? {
                    insert_into(&mut map, key, value)?;
                }
            }
            _ => return Err(EvalError::overload()),
        }
        Ok(Value::Map(Map::Owned(Arc::new(map))))
    }
}

fn stop_if_final(answer: &Answer<'_>) -> Result<(), EvalError> {
    match answer {
        Err(error) if error.is_final() => Err(error.clone()),
        _ => Ok(()),
    }
}

/// An element as a literal takes it: an optional one may hold nothing.
fn present<'a>(value: Value<'a>, optional: bool) -> Result<Option<Value<'a>>, EvalError> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(held)) => Ok(held.map(|value| value.as_ref().clone())),
        (true, other) => {
            Err(EvalError::failed(format!("cannot initialize optional entry from non-optional value {other:?}")))
        }
    }
}

fn optional_field<'a>(value: &Value<'a>, field: &Arc<str>) -> Answer<'a> {
    Ok(Value::Optional(self::field(value, field)?.map(Arc::new)))
}

/// A field, if it is set.
fn field<'a>(value: &Value<'a>, field: &Arc<str>) -> Result<Option<Value<'a>>, EvalError> {
    match value {
        Value::Map(map) => map.field(field).transpose(),
        Value::Message(message) => Ok(message.fields.iter().find(|(name, _)| name == field).map(|(_, v)| v.clone())),
        Value::Null => Err(EvalError::failed(format!("no such key: {field}"))),
        _ => Err(EvalError::overload()),
    }
}
