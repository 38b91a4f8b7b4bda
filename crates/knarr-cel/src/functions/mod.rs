//! Every function that expressions may call: rows of a signature and what it does.
//!
//! A signature reads `receiver::name(arguments) -> result`; single capitals are type parameters. The checker resolves calls
//! against the signatures, and the evaluator takes the first row of the name whose parameters fit the values at hand.

pub mod access;
mod arithmetic;
mod comparison;
mod convert;
pub mod format;
mod format_text;
pub mod ip;
mod lists;
mod optional;
mod quantity;
pub mod regexes;
pub mod semver;
mod sets;
mod signature;
mod strings;
pub mod time;
pub mod url;

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::RandomState;

use crate::error::EvalError;
use crate::types::{OPTIONAL, Type};
use crate::value::Value;

pub(crate) use format_text::check_format;

/// What a function does with its receiver and arguments.
pub type Implementation = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, EvalError>;

/// A signature and what it does.
pub(crate) type Row = (&'static str, Implementation);

/// One way to call a function.
#[derive(Debug)]
pub struct Overload {
    /// Called as `receiver.name(...)`; the receiver is the first parameter.
    pub method: bool,
    pub parameters: Vec<Type>,
    pub result: Type,
    /// The signature has type parameters.
    pub generic: bool,
    pub call: Implementation,
}

/// All ways to call one name.
#[derive(Debug, Default)]
pub struct Function {
    pub overloads: Vec<Overload>,
}

static FUNCTIONS: LazyLock<HashMap<&'static str, Function, RandomState>> = LazyLock::new(|| {
    let libraries: [&[Row]; 16] = [
        arithmetic::ROWS,
        comparison::ROWS,
        access::ROWS,
        convert::ROWS,
        strings::ROWS,
        format_text::ROWS,
        lists::ROWS,
        sets::ROWS,
        regexes::ROWS,
        time::ROWS,
        optional::ROWS,
        quantity::ROWS,
        ip::ROWS,
        url::ROWS,
        semver::ROWS,
        format::ROWS,
    ];
    let mut functions: HashMap<&'static str, Function, RandomState> = HashMap::default();
    let rows = libraries.into_iter().flatten().chain(crate::authorizer::ROWS);
    for (text, call) in rows {
        let (name, overload) = signature::parse(text, *call);
        functions.entry(name).or_default().overloads.push(overload);
    }
    functions
});

/// The function of this name.
pub fn find(name: &str) -> Option<(&'static str, &'static Function)> {
    FUNCTIONS.get_key_value(name).map(|(name, function)| (*name, function))
}

impl Overload {
    /// Whether these values may be passed.
    pub fn fits(&self, values: &[Value<'_>]) -> bool {
        self.parameters.len() == values.len()
            && self.parameters.iter().zip(values).all(|(parameter, value)| fits(parameter, value))
    }
}

fn fits(parameter: &Type, value: &Value<'_>) -> bool {
    match (parameter, value) {
        (Type::Dyn | Type::Named(_) | Type::Variable(_), _) => true,
        (Type::Bool, Value::Bool(_))
        | (Type::Int, Value::Int(_))
        | (Type::Uint, Value::Uint(_))
        | (Type::Double, Value::Double(_))
        | (Type::String, Value::String(_))
        | (Type::Bytes, Value::Bytes(_))
        | (Type::Duration, Value::Duration(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::List(_), Value::List(_))
        | (Type::Map(_), Value::Map(_) | Value::Message(_))
        | (Type::Null, Value::Null)
        | (Type::Type(_), Value::Type(_)) => true,
        (Type::Opaque(name, _), Value::Optional(_)) => **name == *OPTIONAL,
        (Type::Opaque(name, _), value) => **name == *value.type_name(),
        (Type::Struct(declared), value) => *declared.name == *value.type_name(),
        _ => false,
    }
}

/// The error of a call that nothing fits.
pub(crate) fn no_overload(name: &str, values: &[Value<'_>]) -> EvalError {
    if name.contains(['_', '@']) {
        return EvalError::overload();
    }
    let types: Vec<&str> = values.iter().map(Value::type_name).collect();
    EvalError::NoSuchOverload(format!(": {name}({})", types.join(", ")))
}
