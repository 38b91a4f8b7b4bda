//! `x-kubernetes-validations`: the rules of a schema in the Common Expression Language.

use knarr_api::custom_resource::Definition;
use knarr_api::custom_resource::strategy::Rules;
use knarr_api::field::{ErrorList, FieldError};
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

/// What is wrong with the rules of a definition that is right otherwise; `old` is what it was before this update: rules that
/// stood already stay.
pub fn check_definition(object: &Object, old: Option<&Object>, errors: &mut ErrorList) {
    if !errors.is_empty() {
        return;
    }
    let schemas: Vec<(&str, &Value)> = Definition(object).versions().map(|v| (v.name, v.schema)).collect();
    let before = |name: &str| {
        let old = old.map(Definition)?;
        old.versions().find(|v| v.name == name).map(|v| v.schema)
    };
    let shared = schemas.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let shown = if shared { &schemas[..schemas.len().min(1)] } else { &schemas[..] };
    for (index, (name, schema)) in shown.iter().enumerate() {
        if schema.is_null() || before(name) == Some(*schema) {
            continue;
        }
        let place = match shared {
            true => "spec.validation.openAPIV3Schema".to_string(),
            false => format!("spec.versions[{index}].schema.openAPIV3Schema"),
        };
        let wrong = rules::Rules::compile(schema, &Path::ROOT.child(&place)).1;
        if wrong.is_empty() {
            check_defaults(schema, &Path::ROOT.child(&place), errors);
        }
        errors.extend(wrong);
    }
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
