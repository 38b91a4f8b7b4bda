//! Who may use the kubelet's API. The kubelet decides nothing itself: it asks the API server.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use parking_lot::Mutex;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Upstream's `authentication.webhook.cacheTTL`.
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// Upstream's `authorization.webhook.cacheAuthorizedTTL` and `cacheUnauthorizedTTL`.
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
const CACHE_SIZE: usize = 1024;

/// What a request proves its sender with.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// DER of a client certificate that the handshake verified.
    pub certificate: Option<Vec<u8>>,
    pub bearer_token: Option<String>,
}

impl Credentials {
    pub(super) fn of(headers: &HeaderMap, certificate: Option<Vec<u8>>) -> Credentials {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer_token = header
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim().to_owned());
        Credentials { certificate, bearer_token }
    }
}

/// An authenticated sender.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User(pub UserInfo);

impl User {
    pub fn username(&self) -> &str {
        self.0.username.as_deref().unwrap_or_default()
    }
}

/// Why a question could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("asking the API server: {0}")]
    Api(#[from] kube::Error),
    #[error("the client's certificate cannot be read")]
    Certificate,
}

/// Authentication and authorization of the kubelet's API.
#[async_trait]
pub trait Access: Send + Sync + 'static {
    /// `None`: nobody (anonymous requests are refused).
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, AccessError>;

    /// Whether the user may `verb` the subresource of this node.
    async fn authorize(&self, user: &User, node: &str, verb: &str, subresource: &str) -> Result<bool, AccessError>;
}

/// Asks the API server by TokenReview and SubjectAccessReview, and remembers its answers for a while.
pub struct DelegatedAccess {
    client: kube::Client,
    tokens: Cache<String, Option<User>>,
    decisions: Cache<(String, String, String), bool>,
}

impl DelegatedAccess {
    pub fn new(client: kube::Client) -> DelegatedAccess {
        DelegatedAccess { client, tokens: Cache::default(), decisions: Cache::default() }
    }

    async fn review_token(&self, token: &str) -> Result<Option<User>, AccessError> {
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let status = answer.status.unwrap_or_default();
        Ok(status.user.filter(|_| status.authenticated == Some(true)).map(User))
    }

    async fn review_access(&self, user: &User, node: &str, verb: &str, sub: &str) -> Result<bool, AccessError> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(sub.to_owned()),
            name: Some(node.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: user.0.username.clone(),
                uid: user.0.uid.clone(),
                groups: user.0.groups.clone(),
                extra: user.0.extra.clone(),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer =
            Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

#[async_trait]
impl Access for DelegatedAccess {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<User>, AccessError> {
        if let Some(certificate) = &credentials.certificate {
            return user_of_certificate(certificate).map(Some);
        }
        let Some(token) = &credentials.bearer_token else { return Ok(None) };
        if let Some(known) = self.tokens.get(token) {
            return Ok(known);
        }
        let user = self.review_token(token).await?;
        let ttl = if user.is_some() { TOKEN_TTL } else { Duration::from_secs(10) };
        self.tokens.put(token.clone(), user.clone(), ttl);
        Ok(user)
    }

    async fn authorize(&self, user: &User, node: &str, verb: &str, subresource: &str) -> Result<bool, AccessError> {
        // The answer depends on all of the user, not on the name alone.
        let who = serde_json::to_string(&user.0).unwrap_or_default();
        let question = (who, verb.to_owned(), subresource.to_owned());
        if let Some(known) = self.decisions.get(&question) {
            return Ok(known);
        }
        let allowed = self.review_access(user, node, verb, subresource).await?;
        self.decisions.put(question, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
        Ok(allowed)
    }
}

/// The common name is the user, the organizations are the groups.
fn user_of_certificate(der: &[u8]) -> Result<User, AccessError> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| AccessError::Certificate)?;
    let subject = certificate.subject();
    let username = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    groups.push("system:authenticated".to_owned());
    let username = username.filter(|name| !name.is_empty()).ok_or(AccessError::Certificate)?;
    Ok(User(UserInfo { username: Some(username), groups: Some(groups), ..UserInfo::default() }))
}

/// The API's verb for a method.
pub(super) fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

/// The subresources of the node of which any one lets a request to this path in, the narrower first.
pub(super) fn subresources_of(path: &str) -> Vec<&'static str> {
    let below = |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else {
        vec!["proxy"]
    }
}

/// Answers with a time to live. When full it forgets what expired, or else everything.
struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Cache(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let entries = self.0.lock();
        entries.get(key).filter(|(expiry, _)| *expiry > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.0.lock();
        if entries.len() >= CACHE_SIZE {
            let now = Instant::now();
            entries.retain(|_, (expiry, _)| *expiry > now);
        }
        if entries.len() >= CACHE_SIZE {
            entries.clear();
        }
        entries.insert(key, (Instant::now() + ttl, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_need_the_subresource_upstream_asks_for() {
        assert_eq!(subresources_of("/stats/summary"), ["stats"]);
        assert_eq!(subresources_of("/metrics/resource"), ["metrics"]);
        assert_eq!(subresources_of("/metricsx"), ["proxy"]);
        assert_eq!(subresources_of("/exec/ns/pod/c"), ["proxy"]);
        assert_eq!(subresources_of("/pods"), ["pods", "proxy"]);
    }
}
