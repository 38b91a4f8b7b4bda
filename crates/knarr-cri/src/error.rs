//! What a runtime call may answer instead of its result.

use tonic::Code;

/// The result of a runtime call.
pub type Result<T> = std::result::Result<T, Error>;

/// A runtime call that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The runtime answered with a status that is not OK. Shown as gRPC clients show it, since the text reaches pod events.
    #[error("rpc error: code = {code:?} desc = {message}")]
    Status { call: &'static str, code: Code, message: String },
    /// The runtime could not be reached at the start.
    #[error("runtime endpoint {endpoint}: {message}")]
    Endpoint { endpoint: String, message: String },
    /// The runtime answered OK but left out what the protocol says must be there.
    #[error("{call}: the runtime's answer lacks {what}")]
    Incomplete { call: &'static str, what: &'static str },
}

impl Error {
    pub(crate) fn status(call: &'static str, status: &tonic::Status) -> Error {
        Error::Status { call, code: status.code(), message: status.message().to_owned() }
    }

    /// A status with a given code, for runtimes in this process and for tests.
    pub fn with_code(call: &'static str, code: Code, message: impl Into<String>) -> Error {
        Error::Status { call, code, message: message.into() }
    }

    /// The gRPC code of the runtime's answer, if it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The runtime's own words, without the code.
    pub fn message(&self) -> String {
        match self {
            Error::Status { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }

    /// The container, sandbox or image named in the call does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// The runtime does not have this call (an older runtime, or an optional part of the protocol).
    pub fn is_unimplemented(&self) -> bool {
        self.code() == Some(Code::Unimplemented)
    }

    /// The call did not end within its time limit.
    pub fn is_timeout(&self) -> bool {
        matches!(self.code(), Some(Code::DeadlineExceeded | Code::Cancelled))
    }
}
