//! The expressions that select devices, of claims and device classes (dynamic resource allocation).

use crate::environment::Environment;
use crate::evaluate::Program;
use crate::types::Type;

/// What a selector sees: `device`, by its driver, attributes and capacities.
pub fn environment() -> Environment {
    let by_domain = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    let fields = [
        ("driver", Type::String),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::hidden("kubernetes.Quantity"))),
        ("allowMultipleAllocations", Type::Bool),
    ];
    let fields = fields.map(|(name, declared)| (name.to_string(), declared));
    Environment::new().declare("device", Type::object("kubernetes.DRADevice", fields))
}

/// Compiles a selector; fails in upstream's words.
pub fn compile(environment: &Environment, expression: &str) -> Result<Program, String> {
    let program = environment.compile(expression).map_err(|error| format!("compilation failed: {error}"))?;
    match program.output() {
        Type::Bool | Type::Dyn => Ok(program),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_conditions_about_a_device() {
        let environment = environment();
        for (expression, refused) in [
            ("device.driver == 'd'", ""),
            ("device.attributes['d'].size > 3 && device.capacity['d'].memory.isGreaterThan(quantity('1Gi'))", ""),
            ("device.attributes['d'].anything", ""),
            ("device.drive == 'd'", "undefined field 'drive'"),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
            ("device.driver == 1", "found no matching overload"),
        ] {
            let error = compile(&environment, expression).err().unwrap_or_default();
            assert_eq!(error.is_empty(), refused.is_empty(), "{expression}: {error}");
            assert!(error.contains(refused), "{expression}: {error}");
        }
    }
}
