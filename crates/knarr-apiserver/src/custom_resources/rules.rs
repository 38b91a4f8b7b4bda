//! `x-kubernetes-validations`: the rules of a schema in the Common Expression Language.

use knarr_api::custom_resource::Definition;
use knarr_api::custom_resource::strategy::Rules;
use knarr_api::field::{ErrorKind, ErrorList, FieldError};
use knarr_api::{Object, Path};
use knarr_cel::Budget;
use knarr_cel::rules;
use serde_json::Value;

struct SchemaRules(rules::Rules);

impl Rules for SchemaRules {
    fn validate(&self, object: &Object, old: Option<&Object>) -> ErrorList {
        let mut unchanged = Vec::new();
        let errors = self.0.validate(object, old, &Path::ROOT, &mut Budget::default(), &mut unchanged);
        errors.into_iter().map(at_some_path).collect()
    }
}

/// Upstream has a word for the path of a rule about the whole object.
fn at_some_path(error: FieldError) -> FieldError {
    match error.path.as_str() {
        "" => FieldError { path: "<nil>".into(), ..error },
        _ => error,
    }
}

/// The compiled rules of a schema; `None` where it has none.
pub(super) fn compile(schema: &Value) -> Option<Box<dyn Rules>> {
    let (rules, _) = rules::Rules::compile(schema, &Path::ROOT);
    (!rules.is_empty()).then(|| Box::new(SchemaRules(rules)) as Box<dyn Rules>)
}

/// What is wrong with the rules of a definition beside the `errors` it has already; `old` is what it was before this update: rules that
/// stood already stay.
pub fn check_definition(object: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    let schemas: Vec<(&str, &Value)> = Definition(object).versions().map(|v| (v.name, v.schema)).collect();
    let before = |name: &str| {
        let old = old.map(Definition)?;
        old.versions().find(|v| v.name == name).map(|v| v.schema)
    };
    let right = errors.is_empty();
    let shared = schemas.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let shown = if shared { &schemas[..schemas.len().min(1)] } else { &schemas[..] };
    for (index, (name, schema)) in shown.iter().enumerate() {
        if !schema.is_object() || before(name) == Some(*schema) {
            continue;
        }
        let place = match shared {
            true => "spec.validation.openAPIV3Schema".to_string(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        let mut wrong = rules::Rules::compile(schema, &Path::ROOT.child(&place)).1;
        let told = |error: &FieldError| errors.iter().any(|e| e.path == error.path && e.detail == error.detail);
        wrong.retain(|error| !is_beside_the_point(error, errors) && !told(error));
        if right && wrong.is_empty() {
            check_defaults(schema, &Path::ROOT.child(&place), errors);
        }
        let at = end_of_schema(errors, &place);
        errors.splice(at..at, wrong);
    }
}

/// Rules are not compiled for a schema that is itself wrong, there or deeper; what can be said without that is said.
fn is_beside_the_point(error: &FieldError, others: &[FieldError]) -> bool {
    let Some((schema, field)) = error.path.rsplit_once(".x-kubernetes-validations") else { return !others.is_empty() };
    let compiled = match error.kind {
        ErrorKind::Required => false,
        ErrorKind::Invalid => {
            [".rule", ".messageExpression", ".optionalOldSelf"].iter().any(|part| field.ends_with(part))
        }
        _ => !field.ends_with(".reason"),
    };
    compiled && others.iter().any(|other| other.path.strip_prefix(schema).is_some_and(|below| below.starts_with('.')))
}

/// Where the errors of a schema end among those of a definition.
fn end_of_schema(errors: &[FieldError], place: &str) -> usize {
    let last = errors.iter().rposition(|error| error.path.starts_with(place)).map(|at| at + 1);
    let holder = place.trim_end_matches(".schema.openAPIV3Schema").trim_end_matches(".validation.openAPIV3Schema");
    let after = |error: &FieldError| {
        let below = error.path.strip_prefix(holder).unwrap_or_default();
        ["subresources", "additionalPrinterColumns", "selectableFields"]
            .iter()
            .any(|f| below.starts_with(&format!(".{f}")))
    };
    last.or_else(|| errors.iter().position(after)).unwrap_or(errors.len())
}

/// What the rules of a schema have against its own defaults.
fn check_defaults(schema: &Value, path: &Path<'_>, errors: &mut ErrorList) {
    let default = &schema["default"];
    if !default.is_null() {
        let (rules, _) = rules::Rules::compile(schema, &Path::ROOT);
        let mut unchanged = Vec::new();
        errors.extend(rules.validate(default, None, &path.child("default"), &mut Budget::default(), &mut unchanged));
    }
    let properties = path.child("properties");
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_defaults(property, &properties.key(name), errors);
    }
    for below in ["items", "additionalProperties"] {
        if schema[below].is_object() {
            check_defaults(&schema[below], &path.child(below), errors);
        }
    }
}
