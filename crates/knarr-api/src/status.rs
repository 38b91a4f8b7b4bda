//! Kubernetes `Status` errors: the one shape in which the API says no.

use serde_json::{Value, json};

use crate::field::{ErrorList, FieldError};
use crate::resource::{GroupResource, GroupVersionKind};

/// `metav1.StatusReason`, with the HTTP code that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
    Unknown,
}

impl Reason {
    /// The HTTP status code upstream sends with this reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Gone | Reason::Expired => 410,
            Reason::Invalid => 422,
            Reason::Timeout => 504,
            Reason::TooManyRequests => 429,
            Reason::BadRequest => 400,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::ServiceUnavailable => 503,
            Reason::ServerTimeout | Reason::StoreReadError | Reason::InternalError | Reason::Unknown => 500,
        }
    }

    /// The reason of this word; [`Reason::Unknown`] where it is none of the API's.
    pub fn parse(word: &str) -> Reason {
        use Reason::*;
        let all = [
            Unauthorized,
            Forbidden,
            NotFound,
            AlreadyExists,
            Conflict,
            Gone,
            Invalid,
            ServerTimeout,
            StoreReadError,
            Timeout,
            TooManyRequests,
            BadRequest,
            MethodNotAllowed,
            NotAcceptable,
            RequestEntityTooLarge,
            UnsupportedMediaType,
            InternalError,
            Expired,
            ServiceUnavailable,
        ];
        all.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Unknown)
    }

    /// The word in `status.reason`; empty for [`Reason::Unknown`].
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unauthorized => "Unauthorized",
            Reason::Forbidden => "Forbidden",
            Reason::NotFound => "NotFound",
            Reason::AlreadyExists => "AlreadyExists",
            Reason::Conflict => "Conflict",
            Reason::Gone => "Gone",
            Reason::Invalid => "Invalid",
            Reason::ServerTimeout => "ServerTimeout",
            Reason::StoreReadError => "StorageReadError",
            Reason::Timeout => "Timeout",
            Reason::TooManyRequests => "TooManyRequests",
            Reason::BadRequest => "BadRequest",
            Reason::MethodNotAllowed => "MethodNotAllowed",
            Reason::NotAcceptable => "NotAcceptable",
            Reason::RequestEntityTooLarge => "RequestEntityTooLarge",
            Reason::UnsupportedMediaType => "UnsupportedMediaType",
            Reason::InternalError => "InternalError",
            Reason::Expired => "Expired",
            Reason::ServiceUnavailable => "ServiceUnavailable",
            Reason::Unknown => "",
        }
    }
}

/// `metav1.StatusCause`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// `metav1.StatusDetails`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource (plural) for most reasons, the kind for `Invalid`, as upstream does.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

/// A failed request's answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct StatusError {
    pub reason: Reason,
    /// Overrides [`Reason::code`] where upstream answers with another code.
    pub code: u16,
    pub message: String,
    pub details: Option<Box<Details>>,
    /// What another server said, shown as it is: its reason may be none of ours.
    pub verbatim: Option<Box<Value>>,
}

fn details(resource: &GroupResource, name: &str) -> Option<Box<Details>> {
    Some(Box::new(Details {
        name: name.into(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        ..Details::default()
    }))
}

impl StatusError {
    /// An answer with this reason and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        StatusError { reason, code: reason.code(), message: message.into(), details: None, verbatim: None }
    }

    /// What upstream's router refuses before any handler sees it: with details that say nothing.
    pub fn unrouted(reason: Reason, message: impl Into<String>) -> Self {
        StatusError { details: Some(Box::default()), ..Self::new(reason, message) }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let mut error = Self::new(Reason::InternalError, format!("Internal error occurred: {message}"));
        error.details = Some(Box::new(Details {
            causes: vec![Cause { reason: String::new(), message, field: String::new() }],
            ..Details::default()
        }));
        error
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        StatusError {
            details: details(resource, name),
            ..Self::new(Reason::NotFound, format!("{resource} \"{name}\" not found"))
        }
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        StatusError {
            details: details(resource, name),
            ..Self::new(Reason::AlreadyExists, format!("{resource} \"{name}\" already exists"))
        }
    }

    /// `Operation cannot be fulfilled on pods "x": why`
    pub fn conflict(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        StatusError {
            details: details(resource, name),
            ..Self::new(Reason::Conflict, format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"))
        }
    }

    /// `pods "x" is forbidden: why`
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        StatusError { details: details(resource, name), ..Self::new(Reason::Forbidden, message) }
    }

    /// The 422 that carries every field error as a cause.
    pub fn invalid(kind: &GroupVersionKind, name: &str, errors: ErrorList) -> Self {
        let texts: Vec<String> = dedup(errors.iter().map(FieldError::to_string));
        let all = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
        // Events of the newer group are kept, and called, as the core group's.
        let of_core = kind.group == "events.k8s.io" && kind.kind == "Event";
        let group = if of_core { "" } else { kind.group.as_ref() };
        let shown = if group.is_empty() { kind.kind.to_string() } else { format!("{}.{group}", kind.kind) };
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.cause().into(), message: e.body(), field: e.path.clone() })
            .collect();
        StatusError {
            details: Some(Box::new(Details {
                name: name.into(),
                group: group.to_string(),
                kind: kind.kind.to_string(),
                causes,
                ..Details::default()
            })),
            ..Self::new(Reason::Invalid, format!("{shown} \"{name}\" is invalid: {all}"))
        }
    }

    /// A `v1.Status` of another server. Its code and reason are taken as they are; whoever passes it on has checked them.
    pub fn of_value(status: &Value) -> Self {
        let text = |field: &str| status[field].as_str().unwrap_or_default();
        let reason = Reason::parse(text("reason"));
        let code = status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 100);
        let details = &status["details"];
        let retry_after = details["retryAfterSeconds"].as_u64().and_then(|s| u32::try_from(s).ok());
        let details = Details { retry_after_seconds: retry_after.unwrap_or_default(), ..Details::default() };
        StatusError {
            reason,
            code: code.unwrap_or(reason.code()),
            message: text("message").to_string(),
            details: Some(Box::new(details)),
            verbatim: Some(Box::new(status.clone())),
        }
    }

    /// The answer as a `v1.Status` object.
    pub fn to_value(&self) -> Value {
        if let Some(verbatim) = &self.verbatim {
            return Value::clone(verbatim);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.as_str().is_empty() {
            status["reason"] = self.reason.as_str().into();
        }
        if let Some(d) = &self.details {
            status["details"] = details_value(d);
        }
        status
    }
}

fn dedup(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for text in texts {
        if !out.contains(&text) {
            out.push(text);
        }
    }
    out
}

fn details_value(d: &Details) -> Value {
    let mut out = serde_json::Map::new();
    for (key, value) in [("name", &d.name), ("group", &d.group), ("kind", &d.kind), ("uid", &d.uid)] {
        if !value.is_empty() {
            out.insert(key.into(), value.clone().into());
        }
    }
    if !d.causes.is_empty() {
        out.insert("causes".into(), d.causes.iter().map(cause_value).collect());
    }
    if d.retry_after_seconds > 0 {
        out.insert("retryAfterSeconds".into(), d.retry_after_seconds.into());
    }
    Value::Object(out)
}

fn cause_value(cause: &Cause) -> Value {
    let mut out = serde_json::Map::new();
    for (key, value) in [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)] {
        if !value.is_empty() {
            out.insert(key.into(), value.clone().into());
        }
    }
    Value::Object(out)
}
