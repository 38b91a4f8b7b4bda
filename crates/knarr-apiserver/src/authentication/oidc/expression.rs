//! CEL over claims and users.

use knarr_cel::{Budget, Environment, Program, Type, Value as Cel, Variables};
use serde_json::Value;

/// A compiled expression.
pub(super) struct Expression {
    text: String,
    variable: &'static str,
    program: Program,
}

impl Expression {
    /// Over `claims`, of which anything may be asked.
    pub fn of_claims(text: &str) -> Result<Self, String> {
        Self::compile(text, "claims", Type::map(Type::String, Type::Dyn))
    }

    /// Over `user`, as upstream's `UserInfo`.
    pub fn of_user(text: &str) -> Result<Self, String> {
        let strings = || Type::list(Type::String);
        let fields = [
            ("extra", Type::map(Type::String, strings())),
            ("groups", strings()),
            ("uid", Type::String),
            ("username", Type::String),
        ];
        let fields = fields.map(|(name, declared)| (name.to_string(), declared));
        Self::compile(text, "user", Type::object("kubernetes.UserInfo", fields))
    }

    fn compile(text: &str, variable: &'static str, declared: Type) -> Result<Self, String> {
        let program = Environment::new().declare(variable, declared).compile(text);
        let program = program.map_err(|e| format!("compilation failed: {e}"))?;
        Ok(Expression { text: text.into(), variable, program })
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn evaluate(&self, value: &Value) -> Result<Value, String> {
        let variables = Variables::new().bind(self.variable, Cel::from_json(value));
        let evaluated = self.program.evaluate(&variables, &mut Budget::default()).map_err(|e| e.to_string())?;
        evaluated.to_json().map_err(|e| e.to_string())
    }
}
