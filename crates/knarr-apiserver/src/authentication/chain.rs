use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use http::request::Parts;
use knarr_api::StatusError;
use knarr_api::status::Reason;

use super::{Authenticator, TransportIdentity, User};
use crate::chain::request_info::RequestInfo;

pub const ALL_AUTHENTICATED: &str = "system:authenticated";
pub const ALL_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const ANONYMOUS: &str = "system:anonymous";

static ANONYMOUS_USER: LazyLock<Arc<User>> = LazyLock::new(|| Arc::new(User::new(ANONYMOUS, &[ALL_UNAUTHENTICATED])));

/// The authenticators in order, with the transport's own identity before them and anonymity after them.
#[derive(Clone, Default)]
pub struct Chain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    anonymous: Arc<ArcSwap<Anonymous>>,
}

/// Where requests without credentials may go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Nowhere,
    Everywhere,
    /// To exactly these paths.
    Paths(Vec<String>),
}

impl Anonymous {
    fn allows(&self, request: &Parts) -> bool {
        match self {
            Anonymous::Nowhere => false,
            Anonymous::Everywhere => true,
            Anonymous::Paths(paths) => {
                let info = request.extensions.get::<Arc<RequestInfo>>();
                let path = info.map_or(request.uri.path(), |info| &info.path);
                paths.iter().any(|p| p == path)
            }
        }
    }
}

impl Chain {
    /// What `anonymous` holds may change at any time.
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>, anonymous: Arc<ArcSwap<Anonymous>>) -> Self {
        Chain { authenticators, anonymous }
    }

    /// Who sent this request. Credentials that nobody accepts are a 401 even where anonymous requests are allowed.
    pub async fn authenticate(&self, request: &Parts) -> Result<Arc<User>, StatusError> {
        if let Some(TransportIdentity(user)) = request.extensions.get::<TransportIdentity>() {
            return Ok(user.clone());
        }
        let mut rejected = false;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(request).await {
                Ok(Some(user)) => return Ok(authenticated(user)),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "credentials rejected");
                    rejected = true;
                }
            }
        }
        if rejected || !self.anonymous.load().allows(request) {
            return Err(unauthorized());
        }
        Ok(ANONYMOUS_USER.clone())
    }
}

/// The one answer to credentials that are missing or wrong: it says nothing about why.
pub fn unauthorized() -> StatusError {
    StatusError::new(Reason::Unauthorized, "Unauthorized")
}

/// Adds the group of everyone who is known, unless the identity says that it is not (anonymous through a proxy).
fn authenticated(user: Arc<User>) -> Arc<User> {
    if user.in_group(ALL_AUTHENTICATED) || user.in_group(ALL_UNAUTHENTICATED) {
        return user;
    }
    let mut user = Arc::unwrap_or_clone(user);
    let group = if user.name == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
    user.groups.push(group.into());
    Arc::new(user)
}
