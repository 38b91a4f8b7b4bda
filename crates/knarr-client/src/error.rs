//! Why a reconcile failed; the harness logs it and tries again.

/// A failure of one look at one key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API refused or could not be reached.
    #[error("{0}")]
    Api(#[from] kube::Error),
    /// The object itself cannot be worked with, or another part of the system is not ready for it.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// An [`Error::Other`] with this text.
    pub fn other(message: impl Into<String>) -> Self {
        Error::Other(message.into())
    }

    /// The `Status` the API answered with, if it did.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Error::Api(kube::Error::Api(status)) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.is_not_found())
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.is_conflict())
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(|s| s.is_already_exists())
    }
}

/// Turns "it is not there" into `None`, for deletes and updates that somebody else may have overtaken.
pub fn found<T>(result: kube::Result<T>) -> kube::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
