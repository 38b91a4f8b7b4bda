//! Acting as somebody else: `Impersonate-User`, `-Uid`, `-Group`, `-Extra-KEY`.
//!
//! [`modes`] are upstream's: the constrained ones, in which a requester is allowed to do certain things as certain users, are tried
//! first; then the old one, in which who may be somebody may do everything as them. The first that allows it decides; if none does,
//! the first refusal is the answer.

mod modes;

use std::sync::Arc;

use http::HeaderMap;
use knarr_api::StatusError;
use percent_encoding::percent_decode_str;

use super::User;
use crate::authorization::{Attributes, Chain};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// What the headers ask to be; `None` if there is no impersonation header at all.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, StatusError> {
    let mut wanted = User::default();
    for (name, value) in headers {
        let value = || String::from_utf8_lossy(value.as_bytes()).into_owned();
        match name.as_str() {
            USER if wanted.name.is_empty() => wanted.name = value(),
            UID if wanted.uid.is_empty() => wanted.uid = value(),
            GROUP => wanted.groups.push(value()),
            other => {
                let Some(key) = other.strip_prefix(EXTRA_PREFIX) else { continue };
                // What cannot be decoded is a key as it stands.
                let decoded = percent_decode_str(key).decode_utf8();
                let key = decoded.map_or_else(|_| key.to_string(), |key| key.to_lowercase());
                wanted.extra.entry(key).or_default().push(value());
            }
        }
    }
    let something = !wanted.uid.is_empty() || !wanted.groups.is_empty() || !wanted.extra.is_empty();
    match (wanted.name.is_empty(), something) {
        (true, true) => {
            let shown = format!("{:?} {:?} {:?}", wanted.uid, wanted.groups, wanted.extra);
            Err(StatusError::bad_request(format!("requested {shown} without impersonating a user name")))
        }
        (true, false) => Ok(None),
        (false, _) => Ok(Some(wanted)),
    }
}

/// The user that the request is to be treated as: that of `request` itself where nothing is impersonated.
///
/// The caller must remove the headers before it passes the request on.
pub async fn impersonate(
    headers: &HeaderMap,
    user: &Arc<User>,
    request: &Attributes<'_>,
    authorizer: &Chain,
) -> Result<Arc<User>, StatusError> {
    let Some(wanted) = wanted(headers)? else { return Ok(user.clone()) };
    Box::pin(modes::impersonated(&wanted, request, authorizer)).await.map(Arc::new)
}

#[cfg(test)]
mod tests;
