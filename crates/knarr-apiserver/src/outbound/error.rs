//! What can go wrong with a call, in upstream's words.

use std::error::Error as StdError;
use std::io;

use knarr_api::StatusError;
use knarr_api::status::{Cause, Details, Reason};

/// A target that cannot be called at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("webhook configuration must have either service or URL")]
    Nowhere,
    #[error("Unparsable URL: {0}")]
    Url(String),
    #[error("unable to load root certificates: {0}")]
    Authorities(String),
    #[error("tls: {0}")]
    Identity(String),
    #[error("{0}")]
    Kubeconfig(String),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// No such service, port or endpoint.
    #[error("{0}")]
    Service(#[from] StatusError),
    #[error("dial tcp: lookup {0}: no such host")]
    Name(String),
    #[error("dial tcp {0}: {text}", text = io_text(.1))]
    Connect(String, io::Error),
    #[error("{}", tls_text(.0))]
    Tls(io::Error),
}

/// A call without a usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Not reached, or the connection broke.
    #[error("{method} \"{url}\": {why}")]
    Transport { method: &'static str, url: String, why: String, transient: bool },
    /// No answer in time.
    #[error("{method} \"{url}\": context deadline exceeded")]
    Timeout { method: &'static str, url: String },
    /// An answer other than success.
    #[error("{0}")]
    Status(#[from] StatusError),
    /// More than the caller wants to read.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// No JSON.
    #[error("couldn't get version/kind; json parse error: {0}")]
    Json(String),
    #[error("could not get REST client: {0}")]
    Open(#[from] OpenError),
}

impl CallError {
    /// The failure without the request that failed.
    pub fn cause(&self) -> String {
        match self {
            CallError::Transport { why, .. } => why.clone(),
            CallError::Timeout { .. } => "context deadline exceeded".into(),
            other => other.to_string(),
        }
    }

    /// Whether another try may succeed, as upstream's `DefaultShouldRetry` sees it.
    pub fn is_transient(&self) -> bool {
        match self {
            CallError::Transport { transient, .. } => *transient,
            CallError::Status(status) => {
                matches!(status.reason, Reason::InternalError | Reason::Timeout | Reason::TooManyRequests)
                    || status.details.as_ref().is_some_and(|d| d.retry_after_seconds > 0)
            }
            _ => false,
        }
    }
}

/// `failed calling webhook "x": why`
#[derive(Debug, thiserror::Error)]
#[error("failed calling webhook \"{name}\": {why}")]
pub struct CallingWebhook {
    pub name: String,
    pub why: String,
}

impl CallingWebhook {
    pub fn new(name: &str, why: impl std::fmt::Display) -> Self {
        CallingWebhook { name: name.into(), why: why.to_string() }
    }
}

/// An error of the client as a failure of the transport: the innermost cause that says something.
pub(super) fn transport(method: &'static str, url: &str, error: &hyper_util::client::legacy::Error) -> CallError {
    let mut why = error.to_string();
    let mut transient = false;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(unreachable) = current.downcast_ref::<Unreachable>() {
            why = unreachable.to_string();
            break;
        }
        if let Some(io) = current.downcast_ref::<io::Error>() {
            transient = io.kind() == io::ErrorKind::ConnectionReset;
            why = io_text(io);
        } else if let Some(hyper) = current.downcast_ref::<hyper::Error>() {
            transient = hyper.is_incomplete_message() || hyper.is_canceled();
            why = if hyper.is_incomplete_message() { "EOF".into() } else { hyper.to_string() };
        }
        cause = current.source();
    }
    CallError::Transport { method, url: url.into(), why, transient }
}

fn io_text(error: &io::Error) -> String {
    use io::ErrorKind::*;
    match error.kind() {
        ConnectionRefused => "connect: connection refused".into(),
        ConnectionReset => "read: connection reset by peer".into(),
        HostUnreachable => "connect: no route to host".into(),
        NetworkUnreachable => "connect: network is unreachable".into(),
        TimedOut => "i/o timeout".into(),
        UnexpectedEof => "EOF".into(),
        _ => error.to_string(),
    }
}

fn tls_text(error: &io::Error) -> String {
    use rustls::CertificateError::*;
    const FAILED: &str = "tls: failed to verify certificate: x509:";
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer)) => {
            format!("{FAILED} certificate signed by unknown authority")
        }
        Some(rustls::Error::InvalidCertificate(NotValidForNameContext { expected, presented })) => {
            let presented: Vec<&str> = presented.iter().map(|name| bare_name(name)).collect();
            format!("{FAILED} certificate is valid for {}, not {}", presented.join(", "), expected.to_str())
        }
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => format!("{FAILED} certificate has expired or is not yet valid"),
        Some(other) => format!("tls: {other}"),
        None => io_text(error),
    }
}

/// The library writes names as `DnsName("x")` and `IpAddress(x)`.
fn bare_name(name: &str) -> &str {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"')
}

/// What upstream's client makes of an answer that is neither success nor a `Status`.
pub(super) fn generic_status(code: u16, body: &str, retry_after: u32) -> StatusError {
    let said = if body.is_empty() { "unknown" } else { body };
    let (reason, message) = match code {
        400 => (Reason::BadRequest, "the server rejected our request for an unknown reason"),
        401 => (Reason::Unauthorized, "the server has asked for the client to provide credentials"),
        403 => (Reason::Forbidden, said),
        404 => (Reason::NotFound, "the server could not find the requested resource"),
        405 => (Reason::MethodNotAllowed, "the server does not allow this method on the requested resource"),
        406 => (Reason::NotAcceptable, "the server was unable to respond with a content type that the client supports"),
        409 => (Reason::AlreadyExists, "the server reported a conflict"),
        415 => (Reason::UnsupportedMediaType, said),
        422 => (Reason::Invalid, "the server rejected our request due to an error in our request"),
        429 => {
            (Reason::TooManyRequests, "the server has received too many requests and has asked us to try again later")
        }
        503 => (Reason::ServiceUnavailable, "the server is currently unable to handle the request"),
        504 => (
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        500.. => (Reason::InternalError, ""),
        _ => (Reason::Unknown, ""),
    };
    let message = match (reason, message) {
        (Reason::InternalError, _) => {
            format!("an error on the server ({said:?}) has prevented the request from succeeding")
        }
        (Reason::Unknown, _) => {
            format!("the server responded with the status code {code} but did not return more information")
        }
        (_, message) => message.to_string(),
    };
    let cause = Cause { reason: "UnexpectedServerResponse".into(), message: said.into(), field: String::new() };
    let details = Details { causes: vec![cause], retry_after_seconds: retry_after, ..Details::default() };
    StatusError { code, details: Some(Box::new(details)), ..StatusError::new(reason, message) }
}
