use std::path::{Path, PathBuf};

/// Why a key or certificate could not be had. Each says which file, where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{what}: {source}")]
    Certificate { what: String, source: rcgen::Error },
    #[error("{what}: not a usable key or certificate")]
    Unusable { what: String },
    #[error("TLS configuration: {0}")]
    Tls(#[from] rustls::Error),
    #[error("client certificate verification: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Error {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_path_buf(), source }
    }

    pub(crate) fn certificate(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> Error {
        let what = what.into();
        move |source| Error::Certificate { what, source }
    }

    pub(crate) fn unusable(what: impl Into<String>) -> Error {
        Error::Unusable { what: what.into() }
    }
}
