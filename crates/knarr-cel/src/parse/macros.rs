//! The macros: calls that become other expressions while parsing.

use super::Parser;
use crate::ast::{Call, Element, Expr, Fold, Id, Kind, Literal, Select, operator};

/// What a macro says when its arguments do not fit, and which of them.
type Refused = (Id, &'static str);
type Expander = fn(&mut Builder<'_, '_>, Option<Expr>, Vec<Expr>) -> Result<Expr, Refused>;

/// Name, as a method, number of arguments, what it becomes.
const MACROS: &[(&str, bool, usize, Expander)] = &[
    ("has", false, 1, has),
    ("all", true, 2, |b, t, a| quantifier(b, t, a, all)),
    ("exists", true, 2, |b, t, a| quantifier(b, t, a, exists)),
    ("exists_one", true, 2, |b, t, a| quantifier(b, t, a, exists_one)),
    ("existsOne", true, 2, |b, t, a| quantifier(b, t, a, exists_one)),
    ("map", true, 2, map),
    ("map", true, 3, map),
    ("filter", true, 2, filter),
    ("all", true, 3, |b, t, a| quantifier(b, t, a, all)),
    ("exists", true, 3, |b, t, a| quantifier(b, t, a, exists)),
    ("exists_one", true, 3, |b, t, a| quantifier(b, t, a, exists_one)),
    ("existsOne", true, 3, |b, t, a| quantifier(b, t, a, exists_one)),
    ("transformList", true, 3, |b, t, a| transform(b, t, a, into_list)),
    ("transformList", true, 4, |b, t, a| transform(b, t, a, into_list)),
    ("transformMap", true, 3, |b, t, a| transform(b, t, a, into_map)),
    ("transformMap", true, 4, |b, t, a| transform(b, t, a, into_map)),
    ("transformMapEntry", true, 3, |b, t, a| transform(b, t, a, into_map_entry)),
    ("transformMapEntry", true, 4, |b, t, a| transform(b, t, a, into_map_entry)),
    ("optMap", true, 2, |b, t, a| optional_map(b, t, a, false)),
    ("optFlatMap", true, 2, |b, t, a| optional_map(b, t, a, true)),
    ("sortBy", true, 2, sort_by),
];

/// The macro for a call, if there is one.
pub fn find(name: &str, method: bool, arguments: usize) -> Option<Expander> {
    let row = MACROS.iter().find(|row| row.0 == name && row.1 == method && row.2 == arguments);
    row.map(|row| row.3)
}

/// Makes nodes that stand where the macro was called.
pub struct Builder<'p, 's> {
    pub parser: &'p mut Parser<'s>,
    pub position: u32,
}

impl Builder<'_, '_> {
    fn node(&mut self, kind: Kind) -> Expr {
        self.parser.node(self.position, kind)
    }

    fn literal(&mut self, literal: Literal) -> Expr {
        self.node(Kind::Literal(literal))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.node(Kind::Ident(name.to_string()))
    }

    fn accumulator(&mut self) -> Expr {
        self.ident(operator::ACCUMULATOR)
    }

    fn call(&mut self, function: &str, arguments: Vec<Expr>) -> Expr {
        self.node(Kind::Call(Box::new(Call { function: function.to_string(), target: None, arguments })))
    }

    fn method(&mut self, function: &str, target: Expr, arguments: Vec<Expr>) -> Expr {
        let call = Call { function: function.to_string(), target: Some(target), arguments };
        self.node(Kind::Call(Box::new(call)))
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        let elements = elements.into_iter().map(|value| Element { value, optional: false }).collect();
        self.node(Kind::List(elements))
    }

    /// A value under a name: a fold over nothing whose start is the value.
    fn binding(&mut self, name: &str, value: Expr, result: Expr) -> Expr {
        let (range, condition, step) = (self.list(Vec::new()), self.literal(Literal::Bool(false)), self.ident(name));
        let fold = Fold {
            range,
            variable: "#unused".to_string(),
            second: None,
            accumulator: name.to_string(),
            start: value,
            condition,
            step,
            result,
        };
        self.node(Kind::Fold(Box::new(fold)))
    }

    /// A fold with the hidden accumulator.
    fn fold(&mut self, range: Expr, names: Names, plan: Plan) -> Expr {
        let fold = Fold {
            range,
            variable: names.first,
            second: names.second,
            accumulator: operator::ACCUMULATOR.to_string(),
            start: plan.start,
            condition: plan.condition,
            step: plan.step,
            result: plan.result,
        };
        self.node(Kind::Fold(Box::new(fold)))
    }
}

/// The variables of a loop.
struct Names {
    first: String,
    second: Option<String>,
}

/// What a loop does.
struct Plan {
    start: Expr,
    condition: Expr,
    step: Expr,
    result: Expr,
}

fn variable(argument: &Expr, otherwise: &'static str) -> Result<String, Refused> {
    let name = argument.as_ident().ok_or((argument.id, otherwise))?;
    if name == operator::ACCUMULATOR || name == "__result__" {
        return Err((argument.id, "iteration variable overwrites accumulator variable"));
    }
    Ok(name.to_string())
}

/// The loop variables, which are all arguments but the last `rest`.
fn variables(arguments: &[Expr], two: bool) -> Result<Names, Refused> {
    const WHY: &str = "argument must be a simple name";
    let first = variable(&arguments[0], WHY)?;
    if !two {
        return Ok(Names { first, second: None });
    }
    let second = variable(&arguments[1], WHY)?;
    if first == second {
        return Err((arguments[1].id, "duplicate variable name"));
    }
    Ok(Names { first, second: Some(second) })
}

fn target_of(target: Option<Expr>) -> Expr {
    target.expect("the table says that this macro is a method")
}

fn last(arguments: &mut Vec<Expr>) -> Expr {
    arguments.pop().expect("the table says how many arguments there are")
}

fn has(b: &mut Builder<'_, '_>, _: Option<Expr>, mut arguments: Vec<Expr>) -> Result<Expr, Refused> {
    let argument = last(&mut arguments);
    match argument.kind {
        Kind::Select(select) => Ok(b.node(Kind::Select(Box::new(Select { test_only: true, ..*select })))),
        _ => Err((argument.id, "invalid argument to has() macro")),
    }
}

fn quantifier(
    b: &mut Builder<'_, '_>,
    target: Option<Expr>,
    mut arguments: Vec<Expr>,
    plan: fn(&mut Builder<'_, '_>, Expr) -> Plan,
) -> Result<Expr, Refused> {
    let names = variables(&arguments, arguments.len() == 3)?;
    let predicate = last(&mut arguments);
    let plan = plan(b, predicate);
    Ok(b.fold(target_of(target), names, plan))
}

fn all(b: &mut Builder<'_, '_>, predicate: Expr) -> Plan {
    let start = b.literal(Literal::Bool(true));
    let so_far = b.accumulator();
    let condition = b.call(operator::NOT_STRICTLY_FALSE, vec![so_far]);
    let so_far = b.accumulator();
    let step = b.call(operator::AND, vec![so_far, predicate]);
    Plan { start, condition, step, result: b.accumulator() }
}

fn exists(b: &mut Builder<'_, '_>, predicate: Expr) -> Plan {
    let start = b.literal(Literal::Bool(false));
    let so_far = b.accumulator();
    let not_yet = b.call(operator::NOT, vec![so_far]);
    let condition = b.call(operator::NOT_STRICTLY_FALSE, vec![not_yet]);
    let so_far = b.accumulator();
    let step = b.call(operator::OR, vec![so_far, predicate]);
    Plan { start, condition, step, result: b.accumulator() }
}

fn exists_one(b: &mut Builder<'_, '_>, predicate: Expr) -> Plan {
    let start = b.literal(Literal::Int(0));
    let condition = b.literal(Literal::Bool(true));
    let (so_far, one) = (b.accumulator(), b.literal(Literal::Int(1)));
    let more = b.call(operator::ADD, vec![so_far, one]);
    let so_far = b.accumulator();
    let step = b.call(operator::CONDITIONAL, vec![predicate, more, so_far]);
    let (found, one) = (b.accumulator(), b.literal(Literal::Int(1)));
    Plan { start, condition, step, result: b.call(operator::EQUALS, vec![found, one]) }
}

/// A loop that adds to a list or map, where `keep` says so.
fn collecting(b: &mut Builder<'_, '_>, start: Expr, add: Expr, keep: Option<Expr>) -> Plan {
    let condition = b.literal(Literal::Bool(true));
    let step = match keep {
        None => add,
        Some(keep) => {
            let so_far = b.accumulator();
            b.call(operator::CONDITIONAL, vec![keep, add, so_far])
        }
    };
    Plan { start, condition, step, result: b.accumulator() }
}

fn append(b: &mut Builder<'_, '_>, element: Expr) -> Expr {
    let (so_far, one) = (b.accumulator(), b.list(vec![element]));
    b.call(operator::ADD, vec![so_far, one])
}

fn map(b: &mut Builder<'_, '_>, target: Option<Expr>, mut arguments: Vec<Expr>) -> Result<Expr, Refused> {
    let first = variable(&arguments[0], "argument is not an identifier")?;
    let element = last(&mut arguments);
    let keep = (arguments.len() == 2).then(|| last(&mut arguments));
    let (start, add) = (b.list(Vec::new()), append(b, element));
    let plan = collecting(b, start, add, keep);
    Ok(b.fold(target_of(target), Names { first, second: None }, plan))
}

fn filter(b: &mut Builder<'_, '_>, target: Option<Expr>, mut arguments: Vec<Expr>) -> Result<Expr, Refused> {
    let first = variable(&arguments[0], "argument is not an identifier")?;
    let keep = last(&mut arguments);
    let element = last(&mut arguments);
    let (start, add) = (b.list(Vec::new()), append(b, element));
    let plan = collecting(b, start, add, Some(keep));
    Ok(b.fold(target_of(target), Names { first, second: None }, plan))
}

fn transform(
    b: &mut Builder<'_, '_>,
    target: Option<Expr>,
    mut arguments: Vec<Expr>,
    into: fn(&mut Builder<'_, '_>, &Names, Expr) -> (Expr, Expr),
) -> Result<Expr, Refused> {
    let names = variables(&arguments, true)?;
    let element = last(&mut arguments);
    let keep = (arguments.len() == 3).then(|| last(&mut arguments));
    let (start, add) = into(b, &names, element);
    let plan = collecting(b, start, add, keep);
    Ok(b.fold(target_of(target), names, plan))
}

fn into_list(b: &mut Builder<'_, '_>, _: &Names, element: Expr) -> (Expr, Expr) {
    (b.list(Vec::new()), append(b, element))
}

fn into_map(b: &mut Builder<'_, '_>, names: &Names, value: Expr) -> (Expr, Expr) {
    let (start, so_far, key) = (b.node(Kind::Map(Vec::new())), b.accumulator(), b.ident(&names.first));
    (start, b.call(operator::MAP_INSERT, vec![so_far, key, value]))
}

fn into_map_entry(b: &mut Builder<'_, '_>, _: &Names, entry: Expr) -> (Expr, Expr) {
    let (start, so_far) = (b.node(Kind::Map(Vec::new())), b.accumulator());
    (start, b.call(operator::MAP_INSERT, vec![so_far, entry]))
}

fn optional_map(
    b: &mut Builder<'_, '_>,
    target: Option<Expr>,
    mut arguments: Vec<Expr>,
    flat: bool,
) -> Result<Expr, Refused> {
    const WHY: &str = "optMap() variable name must be a simple identifier";
    const WHY_FLAT: &str = "optFlatMap() variable name must be a simple identifier";
    let result = last(&mut arguments);
    let name = arguments[0].as_ident().ok_or((arguments[0].id, if flat { WHY_FLAT } else { WHY }))?.to_string();
    let target = target_of(target);
    let copy = b.parser.copy(&target);
    let held = b.method("value", copy, Vec::new());
    let mapped = b.binding(&name, held, result);
    let some = if flat { mapped } else { b.call("optional.of", vec![mapped]) };
    let condition = b.method("hasValue", target, Vec::new());
    let none = b.call("optional.none", Vec::new());
    Ok(b.call(operator::CONDITIONAL, vec![condition, some, none]))
}

fn sort_by(b: &mut Builder<'_, '_>, target: Option<Expr>, arguments: Vec<Expr>) -> Result<Expr, Refused> {
    const INPUT: &str = "@__sortBy_input__";
    let target = target_of(target);
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_) | Kind::Struct(_)) {
        let why = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err((target.id, why));
    }
    let input = b.ident(INPUT);
    let keys = map(b, Some(input), arguments)?;
    let input = b.ident(INPUT);
    let sorted = b.method("@sortByAssociatedKeys", input, vec![keys]);
    Ok(b.binding(INPUT, target, sorted))
}
