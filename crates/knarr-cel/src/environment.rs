//! What an expression may speak of, and the way from its text to a program.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Kind, Literal};
use crate::check;
use crate::evaluate::{self, Program};
use crate::parse;
use crate::source::CompileError;
use crate::types::{Fields, StructType, Type};

/// The variables and types that expressions may use. Cheap to clone and extend.
///
/// ```
/// use knarr_cel::{Budget, Environment, Type, Value, Variables};
///
/// let environment = Environment::new().declare("name", Type::String);
/// let program = environment.compile("name.startsWith('k')")?;
/// let variables = Variables::new().bind("name", Value::from("knarr"));
/// let answer = program.evaluate(&variables, &mut Budget::default())?;
/// assert_eq!(answer.as_bool(), Some(true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: Arc<BTreeMap<String, Type>>,
    mutation: bool,
}

impl Environment {
    /// Every function of Kubernetes v1.36 and no variables.
    pub fn new() -> Self {
        Environment::default()
    }

    /// With a variable more. The name may be dotted (`variables.name`), where only the whole of it is a variable.
    #[must_use]
    pub fn declare(mut self, name: &str, declared: Type) -> Self {
        Arc::make_mut(&mut self.variables).insert(name.to_string(), declared);
        self
    }

    /// With the types that mutations build: `Object`, `Object.spec` and so on, and `JSONPatch`.
    #[must_use]
    pub fn with_mutation_types(mut self) -> Self {
        self.mutation = true;
        self
    }

    /// Compiles an expression. Fails with everything that is wrong with it.
    pub fn compile(&self, text: &str) -> Result<Program, CompileError> {
        let refuse = |issues| CompileError::new(text, issues);
        let ast = parse::parse(text).map_err(refuse)?;
        let checked = check::check(&ast, self).map_err(refuse)?;
        evaluate::plan(ast, checked).map_err(|issue| CompileError::new(text, vec![issue]))
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Type> {
        self.variables.get(name)
    }

    /// Whether a function may be called here.
    pub(crate) fn allows(&self, function: &str) -> bool {
        self.mutation || !function.starts_with("jsonpatch.")
    }

    /// The type that a name in an expression means.
    pub(crate) fn type_named(&self, name: &str) -> Option<Type> {
        Some(match name {
            "bool" => Type::Bool,
            "bytes" => Type::Bytes,
            "double" => Type::Double,
            "google.protobuf.Duration" => Type::Duration,
            "google.protobuf.Timestamp" => Type::Timestamp,
            "int" => Type::Int,
            "list" => Type::list(Type::Dyn),
            "map" => Type::map(Type::Dyn, Type::Dyn),
            "net.IP" | "net.CIDR" => Type::opaque(name),
            "null_type" => Type::Null,
            "optional_type" => Type::optional(Type::Dyn),
            "string" => Type::String,
            "type" => Type::Type(None),
            "uint" => Type::Uint,
            "JSONPatch" if self.mutation => json_patch_type(),
            "Object" if self.mutation => object_type(name),
            _ if self.mutation && name.starts_with("Object.") => object_type(name),
            _ => return None,
        })
    }
}

/// The type of the objects that an `ApplyConfiguration` builds: any field of any type.
pub fn object_type(name: &str) -> Type {
    Type::Struct(StructType::new(name, Fields::Any))
}

/// The type of one step of a JSON patch.
pub fn json_patch_type() -> Type {
    let text = |name: &str| (name.to_string(), Type::String);
    Type::object("JSONPatch", [text("op"), text("path"), text("from"), ("value".to_string(), Type::Dyn)])
}

impl Program {
    /// Whether the expression is nothing but a literal `true`.
    pub fn is_literally_true(&self) -> bool {
        matches!(self.ast().root.kind, Kind::Literal(Literal::Bool(true)))
    }
}
