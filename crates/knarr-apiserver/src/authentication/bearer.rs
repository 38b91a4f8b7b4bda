//! Bearer tokens: whoever of the token authenticators knows one says whose it is.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use knarr_api::StatusError;

use super::token::{TokenAuthenticator, TokenIdentity};
use super::{Authenticator, User, unauthorized};

/// How a browser, which cannot set headers of a WebSocket, sends its token: as the name of a protocol.
const WEBSOCKET_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// The token of a request: of its `Authorization: Bearer` header, or of its WebSocket protocols.
///
/// As upstream: the scheme is case-insensitive, and what follows a second space is not looked at.
pub fn bearer_token(request: &Parts) -> Option<Cow<'_, str>> {
    let header = request.headers.get(AUTHORIZATION).and_then(|h| h.to_str().ok());
    if let Some(header) = header {
        let mut words = header.trim().splitn(3, ' ');
        let scheme = words.next().unwrap_or_default();
        let token = words.next().unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
            return Some(Cow::Borrowed(token));
        }
    }
    websocket_token(request).map(Cow::Owned)
}

fn websocket_token(request: &Parts) -> Option<String> {
    let upgrades = request.headers.get(UPGRADE)?.to_str().ok()?;
    if !upgrades.eq_ignore_ascii_case("websocket") {
        return None;
    }
    let headers = request.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|h| h.to_str().ok());
    let (mut token, mut others) = (None, false);
    for protocol in headers.flat_map(|h| h.split(',')).map(str::trim) {
        match protocol.strip_prefix(WEBSOCKET_PREFIX) {
            // Two tokens are none.
            Some(_) if token.is_some() => return None,
            Some(encoded) => token = Some(encoded),
            None => others = true,
        }
    }
    // The server must choose a protocol, and never this one.
    let bytes = URL_SAFE_NO_PAD.decode(token.filter(|_| others)?).ok()?;
    String::from_utf8(bytes).ok().filter(|token| !token.is_empty())
}

/// The token authenticators in order.
pub struct Bearer {
    pub authenticators: Vec<Arc<dyn TokenAuthenticator>>,
    /// What a token that comes with a request must be meant for.
    pub audiences: Vec<String>,
}

/// What the authenticators said, each in turn: somebody's, nobody's, or the errors of those whose it would be.
fn summed(errors: Vec<String>) -> Result<Option<TokenIdentity>, String> {
    match errors.as_slice() {
        [] => Ok(None),
        [one] => Err(one.clone()),
        more => Err(format!("[{}]", more.join(", "))),
    }
}

#[async_trait]
impl TokenAuthenticator for Bearer {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let mut errors = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        summed(errors)
    }

    async fn authenticate_request(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let mut errors = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate_request(token, audiences).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => errors.push(error),
            }
        }
        summed(errors)
    }
}

#[async_trait]
impl Authenticator for Bearer {
    async fn authenticate(&self, request: &Parts) -> Result<Option<Arc<User>>, StatusError> {
        let Some(token) = bearer_token(request) else { return Ok(None) };
        match self.authenticate_request(&token, &self.audiences).await {
            Ok(Some(identity)) => Ok(Some(identity.user)),
            Ok(None) => Err(unauthorized()),
            Err(error) => {
                tracing::debug!(error, "bearer token rejected");
                Err(unauthorized())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(headers: &[(&str, &str)]) -> Option<String> {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        bearer_token(&request.body(()).unwrap().into_parts().0).map(Cow::into_owned)
    }

    #[test]
    fn tokens_come_in_a_header_or_as_a_websocket_protocol() {
        let encoded = format!("{WEBSOCKET_PREFIX}{}", URL_SAFE_NO_PAD.encode("secret"));
        let both = format!("{encoded}, v5.channel.k8s.io");
        let twice = format!("{encoded}, {encoded}, v5.channel.k8s.io");
        let bad = format!("{WEBSOCKET_PREFIX}!!, v5.channel.k8s.io");
        let upgrade = ("Upgrade", "websocket");
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);
        let cases: &[Case<'_>] = &[
            (&[("Authorization", "Bearer secret")], Some("secret")),
            (&[("Authorization", " bEARER secret trailing words ")], Some("secret")),
            (&[("Authorization", "Bearer")], None),
            (&[("Authorization", "Bearer  secret")], None),
            (&[("Authorization", "Basic secret")], None),
            (&[upgrade, ("Sec-WebSocket-Protocol", &both)], Some("secret")),
            (&[("Sec-WebSocket-Protocol", &both)], None),
            (&[upgrade, ("Sec-WebSocket-Protocol", &encoded)], None),
            (&[upgrade, ("Sec-WebSocket-Protocol", &twice)], None),
            (&[upgrade, ("Sec-WebSocket-Protocol", &bad)], None),
        ];
        for (headers, want) in cases {
            assert_eq!(token(headers).as_deref(), *want, "{headers:?}");
        }
    }
}
