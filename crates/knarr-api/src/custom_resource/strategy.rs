//! What the registry knows of a custom kind.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Value, json};

use super::definition::Scale;
use super::structural::Structural;
use super::{embedded, lists, validate};
use crate::field::{ErrorKind, ErrorList, FieldError, Path};
use crate::names;
use crate::object::{Object, ObjectExt};
use crate::strategy::{Context, Strategy};

/// The `x-kubernetes-validations` of a schema, compiled.
pub trait Rules: Send + Sync {
    /// Every rule that an object breaks; `old` is what it was before this update.
    fn validate(&self, object: &Object, old: Option<&Object>) -> ErrorList;
}

/// The strategy of one version of a custom kind.
pub struct CustomStrategy {
    pub schema: Arc<Structural>,
    pub has_status: bool,
    pub scale: Option<Scale>,
    /// Of this version, as field selectors name them.
    pub selectable: Vec<String>,
    /// `None` where the schema has none.
    pub rules: Option<Box<dyn Rules>>,
}

impl CustomStrategy {
    /// Everything wrong with an object, its metadata aside; `old` is what it was before this update.
    fn validate(&self, object: &Object, old: Option<&Object>) -> ErrorList {
        let mut errors = validate::validate(object, old, &self.schema);
        if let Some(scale) = &self.scale {
            errors.extend(replicas(object, &scale.spec_replicas));
            errors.extend(scale_status(object, scale));
        }
        errors.extend(embedded::validate(object, &self.schema));
        errors.extend(self.repeated(object, old));
        self.apply_rules(object, old, errors)
    }

    /// Lists that had repetitions before may keep them.
    fn repeated(&self, object: &Object, old: Option<&Object>) -> ErrorList {
        match old {
            Some(old) if !lists::validate(old, &self.schema).is_empty() => ErrorList::new(),
            _ => lists::validate(object, &self.schema),
        }
    }

    /// Rules see only objects whose shape is right, and which have a name.
    fn apply_rules(&self, object: &Object, old: Option<&Object>, mut errors: ErrorList) -> ErrorList {
        let Some(rules) = &self.rules else { return errors };
        if object.name().is_empty() || errors.iter().any(blocks_rules) {
            errors.push(rules_not_checked());
        } else {
            errors.extend(rules.validate(object, old));
        }
        errors
    }
}

/// The number at a simple JSON path, or what is wrong with it.
fn replicas(object: &Object, path: &str) -> Option<FieldError> {
    const MAX: i64 = i32::MAX as i64;
    let found = at(object, path)?;
    let error = |value: &Value, detail: String| FieldError {
        kind: ErrorKind::Invalid,
        path: path.to_string(),
        value: Some(value.to_string()),
        detail,
    };
    match found.as_i64() {
        None => {
            let accessor = path.trim_start_matches('.').split('.').map(|p| format!(".{p}")).collect::<String>();
            let (shown, kind) = go_value(found);
            Some(error(&json!(0), format!("{accessor} accessor error: {shown} is of the type {kind}, expected int64")))
        }
        Some(n) if n < 0 => Some(error(found, "should be a non-negative integer".into())),
        Some(n) if n > MAX => Some(error(found, format!("should be less than or equal to {MAX}"))),
        Some(_) => None,
    }
}

fn scale_status(object: &Object, scale: &Scale) -> ErrorList {
    let mut errors: ErrorList = replicas(object, &scale.status_replicas).into_iter().collect();
    if let Some(path) = &scale.label_selector
        && let Some(found) = at(object, path)
        && !found.is_string()
    {
        let (shown, kind) = go_value(found);
        let detail = format!("{path} accessor error: {shown} is of the type {kind}, expected string");
        let value = Some("\"\"".to_string());
        errors.push(FieldError { kind: ErrorKind::Invalid, path: path.clone(), value, detail });
    }
    errors
}

/// How Go shows a value and names its type.
fn go_value(value: &Value) -> (String, &'static str) {
    match value {
        Value::Null => ("<nil>".into(), "<nil>"),
        Value::Bool(b) => (b.to_string(), "bool"),
        Value::Number(n) if n.is_f64() => (n.to_string(), "float64"),
        Value::Number(n) => (n.to_string(), "int64"),
        Value::String(s) => (s.clone(), "string"),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| go_value(item).0).collect();
            (format!("[{}]", items.join(" ")), "[]interface {}")
        }
        Value::Object(fields) => {
            let mut fields: Vec<String> = fields.iter().map(|(k, v)| format!("{k}:{}", go_value(v).0)).collect();
            fields.sort_unstable();
            (format!("map[{}]", fields.join(" ")), "map[string]interface {}")
        }
    }
}

/// What stands at a simple JSON path (`.spec.replicas`).
pub fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').filter(|name| !name.is_empty()).try_fold(object, |value, name| value.get(name))
}

/// The value of a selectable field as selectors compare it.
pub fn selectable_value(object: &Value, path: &str) -> String {
    match at(object, path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// What may be better about new finalizers.
fn finalizer_warnings(object: &Object, old: Option<&Object>) -> Vec<String> {
    let known = old.map(Object::finalizers).unwrap_or_default();
    let mut added: Vec<&str> = object.finalizers().into_iter().filter(|f| !known.contains(f)).collect();
    added.sort_unstable();
    let mut warnings = Vec::new();
    for finalizer in added {
        let say = |what: &str| format!("metadata.finalizers: {finalizer:?}: {what}");
        warnings.extend(names::qualified_name(finalizer).iter().map(|why| say(why)));
        if finalizer.contains('/') || STANDARD_FINALIZERS.contains(&finalizer) {
            continue;
        }
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        warnings.push(say(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        )));
    }
    warnings
}

impl Strategy for CustomStrategy {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        if prefix { names::dns_subdomain(&names::mask_trailing_dash(name)) } else { names::dns_subdomain(name) }
    }

    fn validate_create(&self, _ctx: &Context, object: &Object) -> ErrorList {
        self.validate(object, None)
    }

    fn validate_update(&self, _ctx: &Context, object: &Object, old: &Object) -> ErrorList {
        self.validate(object, Some(old))
    }

    /// An update of the status takes nothing else but the record of who owns what.
    fn prepare_subresource_update(&self, _ctx: &Context, name: &str, object: &mut Object, old: &Object) {
        if name != "status" {
            return;
        }
        let status = object.get("status").cloned();
        let managed = object.metadata().and_then(|m| m.get("managedFields")).cloned();
        *object = old.clone();
        if let Some(root) = object.as_object_mut() {
            match status {
                Some(status) => root.insert("status".into(), status),
                None => root.remove("status"),
            };
        }
        match managed {
            Some(managed) => object.metadata_mut().insert("managedFields".into(), managed),
            None => object.metadata_mut().remove("managedFields"),
        };
    }

    fn validate_subresource_update(&self, _ctx: &Context, name: &str, object: &Object, old: &Object) -> ErrorList {
        if name != "status" {
            return self.validate(object, Some(old));
        }
        let mut errors = ErrorList::new();
        if let (Some(status), Some(schema)) = (object.get("status"), self.schema.properties.get("status")) {
            errors.extend(validate::validate_status(status, old.get("status"), schema));
        }
        errors.extend(self.scale.iter().flat_map(|scale| scale_status(object, scale)));
        errors.extend(self.repeated(object, Some(old)));
        self.apply_rules(object, Some(old), errors)
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        finalizer_warnings(object, old)
    }

    /// Every change outside of the metadata counts.
    fn counts(&self, object: &Object, old: &Object) -> Option<bool> {
        fn rest(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
            object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata")
        }
        Some(!rest(object).eq(rest(old)))
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(Cow<'static, str>, String)> {
        let field = |path: &String| (Cow::Owned(path.clone()), selectable_value(object, path));
        self.selectable.iter().map(field).collect()
    }

    fn selects_by(&self, field: &str) -> bool {
        self.selectable.iter().any(|path| path == field)
    }

    fn has_selectable_fields(&self) -> bool {
        !self.selectable.is_empty()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

/// The error that says why rules were not run, where the object's shape is wrong.
fn rules_not_checked() -> FieldError {
    let why = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
    FieldError { path: "<nil>".into(), ..FieldError::invalid(&Path::ROOT, &Value::Null, why) }
}

/// Whether an error keeps rules from being run.
fn blocks_rules(error: &FieldError) -> bool {
    matches!(
        error.kind,
        ErrorKind::NotSupported
            | ErrorKind::Required
            | ErrorKind::TooLong
            | ErrorKind::TooMany
            | ErrorKind::TypeInvalid
    )
}
