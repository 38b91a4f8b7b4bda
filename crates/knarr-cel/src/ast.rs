//! The syntax tree, with macros already expanded, as cel-go shapes it: costs and messages depend on that shape.

use std::sync::Arc;

/// Index of a node in the side tables of its tree ([`Ast::positions`], the checker's types).
pub type Id = u32;

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Ast {
    pub root: Expr,
    /// Where each node begins in the source, in characters.
    pub positions: Vec<u32>,
}

#[derive(Clone, Debug)]
pub struct Expr {
    pub id: Id,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    Select(Box<Select>),
    Call(Box<Call>),
    List(Vec<Element>),
    Map(Vec<Entry>),
    Struct(Box<Struct>),
    Fold(Box<Fold>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// `operand.field`, or `has(operand.field)`.
#[derive(Clone, Debug)]
pub struct Select {
    pub operand: Expr,
    pub field: String,
    pub test_only: bool,
}

/// A function, an operator (`_+_`) or a method.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: String,
    pub target: Option<Expr>,
    pub arguments: Vec<Expr>,
}

impl Call {
    /// The receiver, if any, and then the arguments.
    pub fn operands(&self) -> impl Iterator<Item = &Expr> {
        self.target.iter().chain(&self.arguments)
    }
}

/// An element of a list literal; an optional one (`[?x]`) is left out when it holds nothing.
#[derive(Clone, Debug)]
pub struct Element {
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: Id,
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// `Object.spec{field: value}`
#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    pub fields: Vec<FieldInit>,
}

#[derive(Clone, Debug)]
pub struct FieldInit {
    pub id: Id,
    pub name: String,
    pub value: Expr,
    pub optional: bool,
}

/// A comprehension: what every loop macro becomes.
#[derive(Clone, Debug)]
pub struct Fold {
    pub range: Expr,
    pub variable: String,
    /// The second variable of two-variable loops.
    pub second: Option<String>,
    pub accumulator: String,
    pub start: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Fold {
    /// A fold over nothing only names a value (`optMap`, `sortBy`).
    pub fn is_binding(&self) -> bool {
        matches!(&self.range.kind, Kind::List(elements) if elements.is_empty())
            && matches!(self.condition.kind, Kind::Literal(Literal::Bool(false)))
            && self.accumulator != operator::ACCUMULATOR
    }
}

impl Expr {
    pub fn as_call(&self) -> Option<&Call> {
        match &self.kind {
            Kind::Call(call) => Some(call),
            _ => None,
        }
    }

    pub fn as_string(&self) -> Option<&Arc<str>> {
        match &self.kind {
            Kind::Literal(Literal::String(text)) => Some(text),
            _ => None,
        }
    }

    pub fn as_ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// `a.b.c` as one dotted name, where it is nothing but names.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select(select) if !select.test_only => {
                Some(format!("{}.{}", select.operand.qualified_name()?, select.field))
            }
            _ => None,
        }
    }

    /// The direct children.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => Vec::new(),
            Kind::Select(select) => vec![&select.operand],
            Kind::Call(call) => call.operands().collect(),
            Kind::List(elements) => elements.iter().map(|e| &e.value).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|e| [&e.key, &e.value]).collect(),
            Kind::Struct(message) => message.fields.iter().map(|f| &f.value).collect(),
            Kind::Fold(fold) => vec![&fold.range, &fold.start, &fold.condition, &fold.step, &fold.result],
        }
    }

    /// Calls `see` on this node and everything below it.
    pub fn visit<'a>(&'a self, see: &mut dyn FnMut(&'a Expr)) {
        see(self);
        for child in self.children() {
            child.visit(see);
        }
    }
}

/// The names that operators have as functions.
pub mod operator {
    pub const ACCUMULATOR: &str = "@result";
    pub const ADD: &str = "_+_";
    pub const AND: &str = "_&&_";
    pub const CONDITIONAL: &str = "_?_:_";
    pub const EQUALS: &str = "_==_";
    pub const IN: &str = "@in";
    pub const INDEX: &str = "_[_]";
    pub const MAP_INSERT: &str = "cel.@mapInsert";
    pub const NEGATE: &str = "-_";
    pub const NOT: &str = "!_";
    pub const NOT_EQUALS: &str = "_!=_";
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub const OPTIONAL_INDEX: &str = "_[?_]";
    pub const OPTIONAL_SELECT: &str = "_?._";
    pub const OR: &str = "_||_";
}
