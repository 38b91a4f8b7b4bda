//! `matchConditions`: which requests a webhook is asked about.

use std::sync::LazyLock;

use knarr_cel::{Budget, Environment, Program, Type, Value as Cel, Variables};
use serde_json::Value;

/// Compiled conditions; all must hold.
#[derive(Default)]
pub struct MatchConditions {
    conditions: Vec<(String, Program)>,
}

/// `request`: the spec of a SubjectAccessReview.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let object = |name: &str, fields: Vec<(&str, Type)>| {
        Type::object(name, fields.into_iter().map(|(field, declared)| (field.to_string(), declared)))
    };
    let strings = || Type::list(Type::String);
    let text = |names: &[&'static str]| names.iter().map(|name| (*name, Type::String)).collect::<Vec<_>>();
    let selector = |name: &str, requirement: &str| {
        let mut fields = text(&["key", "operator"]);
        fields.push(("values", strings()));
        object(name, vec![("rawSelector", Type::String), ("requirements", Type::list(object(requirement, fields)))])
    };
    let mut resource = text(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    resource
        .push(("fieldSelector", selector("kubernetes.FieldSelectorAttributes", "kubernetes.FieldSelectorRequirement")));
    resource
        .push(("labelSelector", selector("kubernetes.LabelSelectorAttributes", "kubernetes.LabelSelectorRequirement")));
    let spec = vec![
        ("resourceAttributes", object("kubernetes.ResourceAttributes", resource)),
        ("nonResourceAttributes", object("kubernetes.NonResourceAttributes", text(&["path", "verb"]))),
        ("user", Type::String),
        ("groups", strings()),
        ("extra", Type::map(Type::String, strings())),
        ("uid", Type::String),
    ];
    Environment::new().declare("request", object("kubernetes.SubjectAccessReviewSpec", spec))
});

impl MatchConditions {
    /// Compiles; the error is of the first that cannot be, or that is no condition.
    pub fn compile(expressions: &[String]) -> Result<Self, String> {
        let compile = |text: &String| {
            let program = ENVIRONMENT.compile(text).map_err(|e| format!("compilation failed: {e}"))?;
            match program.output() {
                Type::Bool | Type::Dyn => Ok((text.clone(), program)),
                _ => Err("must evaluate to bool".to_string()),
            }
        };
        Ok(MatchConditions { conditions: expressions.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether the review's spec satisfies all. An error of one counts only where no other is false.
    pub fn matches(&self, spec: &Value) -> Result<bool, String> {
        let mut errors = Vec::new();
        for (text, program) in &self.conditions {
            let variables = Variables::new().bind("request", Cel::from_json(spec));
            match program.evaluate(&variables, &mut Budget::default()).map(|value| value.as_bool()) {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Ok(false),
                Ok(None) => errors.push(format!("cel evaluation error: expression '{text}' is no bool")),
                Err(error) => {
                    errors.push(format!("cel evaluation error: expression '{text}' resulted in error: {error}"))
                }
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            more => Err(format!("[{}]", more.join(", "))),
        }
    }
}
