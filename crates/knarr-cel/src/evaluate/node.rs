//! The plan of an expression.

use std::sync::Arc;

use regex::Regex;

use crate::functions::Overload;
use crate::value::Value;

/// One step of a plan.
#[derive(Debug)]
pub enum Node {
    Constant(Value<'static>),
    Variable(Arc<str>),
    /// A loop's variable or accumulator, by its slot.
    Local(usize),
    Select {
        operand: Box<Node>,
        field: Arc<str>,
        cost: u64,
    },
    /// `has(operand.field)`
    Test {
        operand: Box<Node>,
        field: Arc<str>,
    },
    OptionalSelect {
        operand: Box<Node>,
        field: Arc<str>,
        cost: u64,
    },
    Index {
        operand: Box<Node>,
        index: Box<Node>,
        optional: bool,
        cost: u64,
    },
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    Conditional(Box<(Node, Node, Node)>),
    NotStrictlyFalse(Box<Node>),
    /// `a.or(b)`, `a.orValue(b)`: `b` is only looked at where `a` holds nothing.
    OptionalOr {
        operands: Box<(Node, Node)>,
        unwrap: bool,
    },
    /// Membership in a list of constants, which costs nothing.
    InConstants {
        value: Box<Node>,
        list: Value<'static>,
    },
    Call(Call),
    /// A call whose pattern is compiled already.
    Pattern {
        call: Call,
        regex: Box<Regex>,
    },
    List(Vec<(Node, bool)>),
    Map(Vec<MapEntry>),
    Message {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Node, bool)>,
    },
    Fold(Box<Fold>),
    /// `accumulator + [element]`, done in place.
    Append {
        slot: usize,
        element: Box<Node>,
        constant: bool,
    },
    /// An insertion into the map in the accumulator, done in place: of a key and a value, or of a whole map.
    Insert {
        slot: usize,
        operands: Vec<Node>,
    },
}

#[derive(Debug)]
pub struct Call {
    pub function: &'static str,
    pub overloads: Vec<&'static Overload>,
    pub operands: Vec<Node>,
}

#[derive(Debug)]
pub struct MapEntry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub struct Fold {
    pub range: Node,
    pub start: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
    /// The slot of the accumulator; the variables are in those after it.
    pub slot: usize,
    pub two: bool,
}

impl Node {
    /// Whether a field of it is looked up along one path with it, which costs one unit less.
    pub fn is_path(&self) -> bool {
        matches!(
            self,
            Node::Variable(_) | Node::Local(_) | Node::Select { .. } | Node::OptionalSelect { .. } | Node::Index { .. }
        )
    }
}
