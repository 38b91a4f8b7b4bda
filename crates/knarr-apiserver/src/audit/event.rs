//! One audit event, as it stands in the log.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use http::request::Parts;
use serde::Serialize;
use serde_json::Value;

use super::policy::{Level, Stage};
use crate::authentication::User;
use crate::chain::request_info::RequestInfo;
use crate::http::PeerAddress;

/// A user agent longer than this is cut.
const LONGEST_USER_AGENT: usize = 1024;

/// `audit.k8s.io/v1 Event`, in the order of upstream's fields.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    kind: &'static str,
    api_version: &'static str,
    pub level: Level,
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: String,
    verb: String,
    user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    pub request_received_timestamp: String,
    pub stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// `authentication.k8s.io/v1 UserInfo`
#[derive(Clone, Debug, Default, Serialize)]
pub struct UserInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&User> for UserInfo {
    fn from(user: &User) -> Self {
        UserInfo {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

/// What the request is about.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl Event {
    /// What is known before the request is served.
    pub fn received(level: Level, id: &str, parts: &Parts, info: &RequestInfo, user: Option<&User>) -> Self {
        let now = now_text();
        let object_ref = info.is_resource.then(|| ObjectReference {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: info.version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectReference::default()
        });
        let uri = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level,
            audit_id: id.to_string(),
            stage: Stage::RequestReceived,
            request_uri: uri.to_string(),
            verb: info.verb.clone(),
            user: user.map(UserInfo::from).unwrap_or_default(),
            impersonated_user: None,
            source_ips: source_ips(parts),
            user_agent: user_agent(&parts.headers),
            object_ref,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: now.clone(),
            stage_timestamp: now,
            annotations: BTreeMap::new(),
        }
    }

    /// The fields of a request's object that its path did not say.
    pub fn refer_to(&mut self, object: &Value) {
        let Some(reference) = &mut self.object_ref else { return };
        let metadata = object.get("metadata");
        let text = |field: &str| metadata.and_then(|m| m.get(field)).and_then(Value::as_str).unwrap_or_default();
        for (known, field) in [
            (&mut reference.namespace, "namespace"),
            (&mut reference.name, "name"),
            (&mut reference.uid, "uid"),
            (&mut reference.resource_version, "resourceVersion"),
        ] {
            if known.is_empty() {
                *known = text(field).to_string();
            }
        }
    }
}

/// The present as `metav1.MicroTime` writes it.
pub fn now_text() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Cow<'a, str> {
    headers.get(name).map_or(Cow::Borrowed(""), |v| String::from_utf8_lossy(v.as_bytes()))
}

fn user_agent(headers: &HeaderMap) -> String {
    let agent = header(headers, "user-agent");
    if agent.len() <= LONGEST_USER_AGENT {
        return agent.into_owned();
    }
    let mut end = LONGEST_USER_AGENT;
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...TRUNCATED", &agent[..end])
}

/// Where the request came from: proxies' headers first, the peer of the connection last. All but the last may be lies.
fn source_ips(parts: &Parts) -> Vec<String> {
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let forwarded = header(&parts.headers, "x-forwarded-for");
    let mut ips: Vec<std::net::IpAddr> = forwarded.split(',').filter_map(address).collect();
    if let Some(real) = address(&header(&parts.headers, "x-real-ip")).filter(|ip| !ips.contains(ip)) {
        ips.push(real);
    }
    if let Some(PeerAddress(peer)) = parts.extensions.get::<PeerAddress>()
        && ips.last() != Some(&peer.ip().to_canonical())
    {
        ips.push(peer.ip().to_canonical());
    }
    ips.iter().map(ToString::to_string).collect()
}
