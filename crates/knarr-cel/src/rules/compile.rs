//! Rules from schema to programs, with upstream's errors.

use std::collections::BTreeMap;

use knarr_api::field::{ErrorKind, FieldError, Path};
use serde_json::{Value as Json, json};

use super::{Node, RULE_COST_LIMIT, Rule, Rules, SCHEMA_COST_LIMIT, field_path};
use crate::environment::Environment;
use crate::evaluate::Program;
use crate::schema::{self, Declaration, MAX_REQUEST_SIZE};
use crate::source::CompileError;
use crate::types::Type;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub fn compile(schema: &Json, path: &Path<'_>) -> (Rules, Vec<FieldError>) {
    let mut compiler = Compiler::default();
    let place = Place { root: true, cardinality: Some(1), uncorrelatable: None };
    let root = compiler.node(schema, path, &place);
    if compiler.total > SCHEMA_COST_LIMIT {
        compiler.report_total(path);
    }
    (Rules { root }, compiler.errors)
}

/// Where in the schema something stands.
#[derive(Clone)]
struct Place {
    /// The schema describes a resource: the custom one, or an embedded one.
    root: bool,
    /// How often it may occur in one object; `None` where nothing bounds it.
    cardinality: Option<u64>,
    /// The path of the list or map around it whose items of before and after cannot be matched.
    uncorrelatable: Option<String>,
}

#[derive(Default)]
struct Compiler {
    errors: Vec<FieldError>,
    total: u64,
    /// The paths of the rules that cost most, with their costs.
    expensive: Vec<(String, u64)>,
}

impl Compiler {
    fn report(&mut self, kind: ErrorKind, path: &Path<'_>, value: Option<String>, detail: impl Into<String>) {
        self.errors.push(FieldError { kind, path: path.to_string(), value, detail: detail.into() });
    }

    /// The rules at a place and below; `None` where there are none.
    fn node(&mut self, schema: &Json, path: &Path<'_>, place: &Place) -> Option<Node> {
        let inner = Place { root: false, cardinality: inner_cardinality(schema, place), ..place.clone() };
        let mut properties = BTreeMap::new();
        let properties_path = path.child("properties");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let inner = Place { root: schema::is_embedded(property), ..inner.clone() };
            if let Some(node) = self.node(property, &properties_path.key(name), &inner) {
                properties.insert(name.clone(), node);
            }
        }
        let values = schema.get("additionalProperties").filter(|values| values.is_object());
        let values = values.and_then(|values| {
            let inner = Place { root: schema::is_embedded(values), ..inner.clone() };
            self.node(values, &path.child("additionalProperties"), &inner).map(Box::new)
        });
        let items = schema.get("items").filter(|items| items.is_object());
        let keyed = schema["x-kubernetes-list-type"] == "map";
        let items = items.and_then(|items| {
            let uncorrelatable = inner.uncorrelatable.clone().or_else(|| (!keyed).then(|| path.to_string()));
            let inner = Place { root: schema::is_embedded(items), uncorrelatable, ..inner.clone() };
            self.node(items, &path.child("items"), &inner).map(Box::new)
        });
        let rules = self.rules(schema, path, place);
        let all_of = self.all_of(schema, schema, place.root);
        if rules.is_empty() && properties.is_empty() && values.is_none() && items.is_none() && all_of.is_empty() {
            return None;
        }
        let keys = keyed.then(|| texts(&schema["x-kubernetes-list-map-keys"]));
        let declaration = schema::declare(schema, place.root);
        let type_name = schema["type"].as_str().unwrap_or_default().to_string();
        Some(Node { type_name, declaration, rules, properties, values, items, all_of, keys })
    }

    /// Rules within `allOf`. Upstream does not check them when the definition is created.
    fn all_of(&mut self, validations: &Json, schema: &Json, root: bool) -> Vec<Node> {
        let branches = validations["allOf"].as_array().into_iter().flatten();
        branches.filter_map(|branch| branch_node(branch, schema, root)).collect()
    }

    fn rules(&mut self, schema: &Json, path: &Path<'_>, place: &Place) -> Vec<Rule> {
        let given = list(schema, "x-kubernetes-validations");
        if given.is_empty() {
            return Vec::new();
        }
        let all_path = path.child("x-kubernetes-validations");
        let errors_before = self.errors.len();
        for (i, rule) in given.iter().enumerate() {
            self.check_form(rule, schema, &all_path.index(i));
        }
        if self.errors.len() > errors_before {
            return Vec::new();
        }
        let Some(declaration) = schema::declare(schema, place.root) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            self.report(ErrorKind::InternalError, &all_path, None, why);
            return Vec::new();
        };
        let environments = Environments::new(&declaration);
        let compile = |(i, given): (usize, &Json)| {
            let rule = compile_rule(given, schema, &environments);
            self.check_rule(&rule, given, &declaration, &all_path.index(i), place);
            rule
        };
        given.iter().enumerate().map(compile).collect()
    }

    /// What can be said of a rule without compiling it.
    fn check_form(&mut self, rule: &Json, schema: &Json, path: &Path<'_>) {
        let (text, message, field) = (text(rule, "rule"), text(rule, "message"), text(rule, "fieldPath"));
        let message_expression = self::text(rule, "messageExpression");
        let quoted = |text: &str| Some(Json::from(text).to_string());
        let lines = |text: &str| text.contains(['\n', '\r']);
        let empty = |text: &str| !text.is_empty() && text.trim().is_empty();
        if text.trim().is_empty() {
            self.report(ErrorKind::Required, &path.child("rule"), None, "rule is not specified");
        } else if empty(message) {
            self.report(ErrorKind::Invalid, &path.child("message"), quoted(message), "must be non-empty if specified");
        } else if lines(message.trim()) {
            self.report(ErrorKind::Invalid, &path.child("message"), quoted(message), "must not contain line breaks");
        } else if lines(text.trim()) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            self.report(ErrorKind::Required, &path.child("message"), None, why);
        }
        if empty(message_expression) {
            let why = "messageExpression must be non-empty if specified";
            self.report(ErrorKind::Required, &path.child("messageExpression"), None, why);
        }
        if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
            self.errors.push(FieldError::not_supported(&path.child("reason"), &json!(reason), &REASONS));
        }
        let path = path.child("fieldPath");
        if empty(field) {
            self.report(ErrorKind::Invalid, &path, quoted(field), "must be non-empty if specified");
        }
        if lines(field) {
            self.report(ErrorKind::Invalid, &path, quoted(field), "must not contain line breaks");
        }
        if !field.is_empty() && field_path::normalize(field, schema).is_err() {
            self.report(ErrorKind::Invalid, &path, quoted(field), "must be a valid path");
        }
    }

    /// What is wrong with a compiled rule, and what it costs.
    fn check_rule(&mut self, rule: &Rule, given: &Json, declaration: &Declaration, path: &Path<'_>, place: &Place) {
        let unbounded = MAX_REQUEST_SIZE / (declaration.min_serialized_size + 1);
        let times = place.cardinality.unwrap_or(unbounded);
        let cost = |program: &Program| program.estimate(Some(declaration)).max;
        match &rule.program {
            Ok(program) => {
                let cost = cost(program).saturating_mul(times);
                self.count(&path.child("rule"), "estimated rule cost", cost);
            }
            Err(why) => self.report(ErrorKind::Invalid, &path.child("rule"), Some(shown(given)), why.clone()),
        }
        if let (true, Ok(_), Err(why)) =
            (!rule.message_text.is_empty(), &rule.program, message_of(rule, given, declaration))
        {
            self.report(ErrorKind::Invalid, &path.child("messageExpression"), Some(shown(given)), why);
        }
        if let Some(program) = &rule.message_program {
            self.count(&path.child("messageExpression"), "estimated messageExpression cost", cost(program));
        }
        match (&place.uncorrelatable, rule.uses_old_self) {
            (Some(around), true) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {around}");
                self.report(ErrorKind::Invalid, &path.child("rule"), Some(given["rule"].to_string()), why);
            }
            (_, false) if given["optionalOldSelf"].is_boolean() && rule.program.is_ok() => {
                let value = given["optionalOldSelf"].to_string();
                let why = "may not be set if oldSelf is not used in rule";
                self.report(ErrorKind::Invalid, &path.child("optionalOldSelf"), Some(value), why);
            }
            _ => {}
        }
    }

    fn count(&mut self, path: &Path<'_>, what: &str, cost: u64) {
        if cost > RULE_COST_LIMIT {
            self.report(ErrorKind::Forbidden, path, None, exceeded(what, cost, RULE_COST_LIMIT));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_COST_LIMIT / 100 {
            self.expensive.push((path.to_string(), cost));
        }
    }

    /// That all rules together cost too much, at the four that cost most and at the schema.
    fn report_total(&mut self, path: &Path<'_>) {
        self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in self.expensive.iter().take(4) {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema".to_string();
            self.errors.push(FieldError { kind: ErrorKind::Forbidden, path: path.clone(), value: None, detail });
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let detail = exceeded(what, self.total, SCHEMA_COST_LIMIT);
        self.report(ErrorKind::Forbidden, path, None, detail);
    }
}

fn branch_node(branch: &Json, schema: &Json, root: bool) -> Option<Node> {
    let declaration = schema::declare(schema, root)?;
    let environments = Environments::new(&declaration);
    let rules: Vec<Rule> =
        list(branch, "x-kubernetes-validations").iter().map(|rule| compile_rule(rule, schema, &environments)).collect();
    let mut properties = BTreeMap::new();
    for (name, inner) in branch["properties"].as_object().into_iter().flatten() {
        let Some(property) = schema["properties"].get(name) else { continue };
        if let Some(node) = branch_node(inner, property, schema::is_embedded(property)) {
            properties.insert(name.clone(), node);
        }
    }
    let below = |field: &str| {
        let (inner, node) = (branch.get(field)?, schema.get(field)?);
        branch_node(inner, node, schema::is_embedded(node)).map(Box::new)
    };
    let (values, items) = (below("additionalProperties"), below("items"));
    if rules.is_empty() && properties.is_empty() && values.is_none() && items.is_none() {
        return None;
    }
    let type_name = schema["type"].as_str().unwrap_or_default().to_string();
    let keys = (schema["x-kubernetes-list-type"] == "map").then(|| texts(&schema["x-kubernetes-list-map-keys"]));
    Some(Node { type_name, declaration: Some(declaration), rules, properties, values, items, all_of: Vec::new(), keys })
}

/// What rules may speak of: `oldSelf` is the value itself, or an optional of it.
struct Environments {
    plain: Environment,
    optional: Environment,
}

impl Environments {
    fn new(declaration: &Declaration) -> Self {
        let own = declaration.cel_type("object");
        let base = Environment::new().declare("self", own.clone());
        Environments {
            plain: base.clone().declare("oldSelf", own.clone()),
            optional: base.declare("oldSelf", Type::optional(own)),
        }
    }

    fn of(&self, given: &Json) -> &Environment {
        if given["optionalOldSelf"] == true { &self.optional } else { &self.plain }
    }
}

fn compile_rule(given: &Json, schema: &Json, environments: &Environments) -> Rule {
    let environment = environments.of(given);
    let program = match environment.compile(text(given, "rule")) {
        Ok(program) if matches!(program.output(), Type::Bool) => Ok(program),
        Ok(_) => Err("cel expression must evaluate to a bool".to_string()),
        Err(error) => Err(format!("compilation failed: {error}")),
    };
    let message_text = text(given, "messageExpression").to_string();
    let message_program = match message_text.as_str() {
        "" => None,
        expression => environment.compile(expression).ok().filter(|p| matches!(p.output(), Type::String)),
    };
    let field = text(given, "fieldPath");
    Rule {
        uses_old_self: program.as_ref().is_ok_and(|p| p.uses("oldSelf")),
        program,
        text: text(given, "rule").to_string(),
        message: text(given, "message").to_string(),
        message_program,
        message_text,
        reason: text(given, "reason").to_string(),
        field_path: (!field.is_empty()).then(|| field_path::normalize(field, schema).ok()).flatten(),
        optional_old_self: given["optionalOldSelf"] == true,
    }
}

/// Why a message expression did not compile.
fn message_of(rule: &Rule, given: &Json, declaration: &Declaration) -> Result<(), String> {
    if rule.message_program.is_some() {
        return Ok(());
    }
    let compiled: Result<Program, CompileError> = Environments::new(declaration).of(given).compile(&rule.message_text);
    Err(match compiled {
        Ok(_) => "messageExpression must evaluate to a string".to_string(),
        Err(error) => format!("messageExpression compilation failed: {error}"),
    })
}

/// How often what is below a schema may occur.
fn inner_cardinality(schema: &Json, place: &Place) -> Option<u64> {
    let bound = |name: &str| schema[name].as_i64().map(|max| max.max(0).unsigned_abs());
    let times = match schema["type"].as_str() {
        Some("object") if schema["additionalProperties"].is_object() => bound("maxProperties")?,
        Some("array") => bound("maxItems")?,
        _ => 1,
    };
    Some(place.cardinality?.saturating_mul(times))
}

fn exceeded(what: &str, cost: u64, limit: u64) -> String {
    let times = cost as f64 / limit as f64;
    let factor = match times {
        times if times > 100.0 => "more than 100x".to_string(),
        times if times < 1.5 => format!("{times:.6}x"),
        times => format!("{times:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// A rule as upstream shows it: Go's internal struct as JSON.
fn shown(rule: &Json) -> String {
    knarr_api::internal::show("apiextensions.ValidationRule", rule)
}

fn text<'a>(value: &'a Json, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn list<'a>(value: &'a Json, name: &str) -> &'a [Json] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Json) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_string).collect()
}
