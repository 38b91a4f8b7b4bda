//! `authorizer.group('apps').resource('deployments').check('create').allowed()`: questions to whoever authorizes.

use std::sync::Arc;

use crate::error::EvalError;
use crate::functions::Row;
use crate::types::Type;
use crate::value::Value;

/// Who answers. Calls happen during an evaluation: an implementation must not wait long.
pub trait Authorizer: Send + Sync {
    fn authorize(&self, question: &Question) -> Decision;
}

/// What an expression asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Namespace and name of the service account to ask for instead of the request's user.
    pub service_account: Option<(String, String)>,
    /// Set for questions about a path; the fields of resources are then empty.
    pub path: Option<String>,
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    /// Why there is no answer.
    pub error: Option<String>,
}

/// A question being put together, or its answer.
#[derive(Clone)]
pub enum Authorization<'a> {
    Authorizer(Arc<dyn Authorizer + 'a>, Question),
    Path(Arc<dyn Authorizer + 'a>, Question),
    Group(Arc<dyn Authorizer + 'a>, Question),
    Resource(Arc<dyn Authorizer + 'a>, Question),
    Decision(Decision),
}

impl Authorization<'_> {
    pub fn type_name(&self) -> &'static str {
        match self {
            Authorization::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Authorization::Path(..) => "kubernetes.authorization.PathCheck",
            Authorization::Group(..) => "kubernetes.authorization.GroupCheck",
            Authorization::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Authorization::Decision(_) => "kubernetes.authorization.Decision",
        }
    }
}

/// The type of the variable `authorizer`.
pub fn authorizer_type() -> Type {
    Type::hidden("kubernetes.authorization.Authorizer")
}

/// The type of `authorizer.requestResource`.
pub fn resource_check_type() -> Type {
    Type::hidden("kubernetes.authorization.ResourceCheck")
}

/// The value of the variable `authorizer`.
pub fn authorizer_value<'a>(authorizer: Arc<dyn Authorizer + 'a>) -> Value<'a> {
    value(Authorization::Authorizer(authorizer, Question::default()))
}

/// The value of `authorizer.requestResource`.
pub fn resource_check_value<'a>(authorizer: Arc<dyn Authorizer + 'a>, question: Question) -> Value<'a> {
    value(Authorization::Resource(authorizer, question))
}

type Answer<'a> = Result<Value<'a>, EvalError>;

pub(crate) const ROWS: &[Row] = &[
    ("kubernetes.authorization.Authorizer::path(string) -> kubernetes.authorization.PathCheck", path),
    ("kubernetes.authorization.Authorizer::group(string) -> kubernetes.authorization.GroupCheck", group),
    (
        "kubernetes.authorization.Authorizer::serviceAccount(string, string) -> kubernetes.authorization.Authorizer",
        service_account,
    ),
    ("kubernetes.authorization.GroupCheck::resource(string) -> kubernetes.authorization.ResourceCheck", resource),
    ("kubernetes.authorization.ResourceCheck::subresource(string) -> kubernetes.authorization.ResourceCheck", |v| {
        with(v, |q, text| q.subresource = text)
    }),
    ("kubernetes.authorization.ResourceCheck::namespace(string) -> kubernetes.authorization.ResourceCheck", |v| {
        with(v, |q, text| q.namespace = text)
    }),
    ("kubernetes.authorization.ResourceCheck::name(string) -> kubernetes.authorization.ResourceCheck", |v| {
        with(v, |q, text| q.name = text)
    }),
    ("kubernetes.authorization.ResourceCheck::fieldSelector(string) -> kubernetes.authorization.ResourceCheck", |v| {
        with(v, |q, text| q.field_selector = text)
    }),
    ("kubernetes.authorization.ResourceCheck::labelSelector(string) -> kubernetes.authorization.ResourceCheck", |v| {
        with(v, |q, text| q.label_selector = text)
    }),
    ("kubernetes.authorization.PathCheck::check(string) -> kubernetes.authorization.Decision", check),
    ("kubernetes.authorization.ResourceCheck::check(string) -> kubernetes.authorization.Decision", check),
    ("kubernetes.authorization.Decision::errored() -> bool", |v| Ok(Value::Bool(decision(v)?.error.is_some()))),
    ("kubernetes.authorization.Decision::error() -> string", |v| {
        Ok(Value::string(decision(v)?.error.clone().unwrap_or_default()))
    }),
    ("kubernetes.authorization.Decision::allowed() -> bool", |v| Ok(Value::Bool(decision(v)?.allowed))),
    ("kubernetes.authorization.Decision::reason() -> string", |v| Ok(Value::string(decision(v)?.reason.clone()))),
];

fn value(authorization: Authorization<'_>) -> Value<'_> {
    Value::Authorization(Arc::new(authorization))
}

fn text(values: &[Value<'_>], at: usize) -> Result<String, EvalError> {
    values.get(at).and_then(Value::as_str).map(str::to_string).ok_or_else(EvalError::overload)
}

fn receiver<'a>(values: &[Value<'a>]) -> Result<Authorization<'a>, EvalError> {
    match values.first() {
        Some(Value::Authorization(authorization)) => Ok(authorization.as_ref().clone()),
        _ => Err(EvalError::overload()),
    }
}

fn path<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Authorization::Authorizer(source, question) = receiver(values)? else { return Err(EvalError::overload()) };
    let path = text(values, 1)?;
    if path.is_empty() {
        return Err(EvalError::failed("path must not be empty"));
    }
    Ok(value(Authorization::Path(source, Question { path: Some(path), ..question })))
}

fn group<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Authorization::Authorizer(source, question) = receiver(values)? else { return Err(EvalError::overload()) };
    Ok(value(Authorization::Group(source, Question { group: text(values, 1)?, ..question })))
}

fn service_account<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Authorization::Authorizer(source, question) = receiver(values)? else { return Err(EvalError::overload()) };
    let (namespace, name) = (text(values, 1)?, text(values, 2)?);
    if !knarr_api::names::dns_subdomain(&name).is_empty() {
        return Err(EvalError::failed("Invalid service account name"));
    }
    if !knarr_api::names::dns_label(&namespace).is_empty() {
        return Err(EvalError::failed("Invalid service account namespace"));
    }
    let question = Question { service_account: Some((namespace, name)), ..question };
    Ok(value(Authorization::Authorizer(source, question)))
}

fn resource<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Authorization::Group(source, question) = receiver(values)? else { return Err(EvalError::overload()) };
    let resource = text(values, 1)?;
    if resource.is_empty() {
        return Err(EvalError::failed("resource must not be empty"));
    }
    Ok(value(Authorization::Resource(source, Question { resource, ..question })))
}

fn with<'a>(values: &[Value<'a>], set: fn(&mut Question, String)) -> Answer<'a> {
    let Authorization::Resource(source, mut question) = receiver(values)? else { return Err(EvalError::overload()) };
    set(&mut question, text(values, 1)?);
    Ok(value(Authorization::Resource(source, question)))
}

fn check<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let (Authorization::Path(source, question) | Authorization::Resource(source, question)) = receiver(values)? else {
        return Err(EvalError::overload());
    };
    let decision = source.authorize(&Question { verb: text(values, 1)?, ..question });
    Ok(value(Authorization::Decision(decision)))
}

fn decision<'v>(values: &'v [Value<'_>]) -> Result<&'v Decision, EvalError> {
    match values.first() {
        Some(Value::Authorization(authorization)) => match authorization.as_ref() {
            Authorization::Decision(decision) => Ok(decision),
            _ => Err(EvalError::overload()),
        },
        _ => Err(EvalError::overload()),
    }
}
