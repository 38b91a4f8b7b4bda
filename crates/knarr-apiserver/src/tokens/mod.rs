//! Service-account tokens: signed JWTs bound to the objects they are for.

mod claims;
mod discovery;
mod issuer;
mod request;

pub use claims::{BoundObject, Claims, KubernetesClaims};
pub use discovery::Discovery;
pub use issuer::{Issuer, TokenError};
pub use request::TokenRequestHandler;

/// Seconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// An issuer with a key of its own.
#[cfg(test)]
pub(crate) fn test_issuer() -> Issuer {
    issuer::tests::issuer()
}
