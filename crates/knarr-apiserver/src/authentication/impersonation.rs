//! Acting as somebody else: `Impersonate-User`, `-Uid`, `-Group`, `-Extra-KEY`, each of which must be allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use knarr_api::StatusError;
use percent_encoding::percent_decode_str;

use super::{ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, User};
use crate::authorization::{Attributes, Chain, Decision, forbidden};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";

/// What the headers ask to be.
#[derive(Default)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    /// `None` if there is no impersonation header at all.
    fn read(headers: &HeaderMap) -> Result<Option<Self>, StatusError> {
        let mut wanted = Wanted::default();
        for (name, value) in headers {
            let value = || String::from_utf8_lossy(value.as_bytes()).into_owned();
            match name.as_str() {
                USER => wanted.user = value(),
                UID => wanted.uid = value(),
                GROUP => wanted.groups.push(value()),
                other => {
                    let Some(key) = other.strip_prefix(EXTRA_PREFIX) else { continue };
                    let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
                    wanted.extra.entry(key).or_default().push(value());
                }
            }
        }
        let others = !wanted.uid.is_empty() || !wanted.groups.is_empty() || !wanted.extra.is_empty();
        match (wanted.user.is_empty(), others) {
            (true, false) => Ok(None),
            (true, true) => {
                let asked = format!("{:?} {:?} {:?}", wanted.uid, wanted.groups, wanted.extra);
                Err(StatusError::internal(format!("requested {asked} without impersonating a user")))
            }
            (false, _) => Ok(Some(wanted)),
        }
    }

    /// Every (group, resource, subresource, namespace, name) that must be allowed.
    fn checks(&self) -> Vec<[&str; 5]> {
        let account = self.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let mut checks = vec![match account {
            Some((namespace, name)) => ["", "serviceaccounts", "", namespace, name],
            None => ["", "users", "", "", &self.user],
        }];
        checks.extend(self.groups.iter().map(|g| ["", "groups", "", "", g.as_str()]));
        for (key, values) in &self.extra {
            checks.extend(values.iter().map(|v| ["authentication.k8s.io", "userextras", key.as_str(), "", v.as_str()]));
        }
        if !self.uid.is_empty() {
            checks.push(["authentication.k8s.io", "uids", "", "", &self.uid]);
        }
        checks
    }

    fn into_user(self) -> User {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) =
                self.user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'))
        {
            groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        let everyone = if self.user == ANONYMOUS { ALL_UNAUTHENTICATED } else { ALL_AUTHENTICATED };
        if !groups.iter().any(|g| g == ALL_AUTHENTICATED || g == ALL_UNAUTHENTICATED) {
            groups.push(everyone.into());
        }
        User { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

/// The user that the request is to be treated as: `user` itself where nothing is impersonated.
///
/// The caller must remove the headers before it passes the request on.
pub async fn impersonate(headers: &HeaderMap, user: &Arc<User>, authorizer: &Chain) -> Result<Arc<User>, StatusError> {
    let Some(wanted) = Wanted::read(headers)? else { return Ok(user.clone()) };
    for [group, resource, subresource, namespace, name] in wanted.checks() {
        let attributes = Attributes {
            user,
            verb: "impersonate",
            is_resource: true,
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        match authorizer.authorize(&attributes).await {
            Decision::Allow { .. } => {}
            Decision::Deny { reason } | Decision::NoOpinion { reason } => return Err(forbidden(&attributes, &reason)),
        }
    }
    Ok(Arc::new(wanted.into_user()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    #[tokio::test]
    async fn masters_become_whom_they_ask_for() {
        let admin = Arc::new(User::new("admin", &["system:masters"]));
        let asked = headers(&[("Impersonate-User", "system:serviceaccount:a:b"), ("Impersonate-Extra-a%2Fb", "c")]);
        let user = impersonate(&asked, &admin, &Chain::default()).await.unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", ALL_AUTHENTICATED]);
        assert_eq!(user.extra["a/b"], ["c"]);
    }

    #[tokio::test]
    async fn others_are_refused_in_upstreams_words() {
        let user = Arc::new(User::new("x", &[]));
        let error = impersonate(&headers(&[("Impersonate-User", "y")]), &user, &Chain::default()).await.unwrap_err();
        assert_eq!(
            error.message,
            r#"users "y" is forbidden: User "x" cannot impersonate resource "users" in API group "" at the cluster scope"#
        );
        assert_eq!(
            impersonate(&headers(&[("Impersonate-Group", "g")]), &user, &Chain::default()).await.unwrap_err().code,
            500
        );
        assert_eq!(impersonate(&HeaderMap::new(), &user, &Chain::default()).await.unwrap(), user);
    }
}
