//! Headers of proxied requests and of their answers.

use http::header::{AUTHORIZATION, CONNECTION, LOCATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers about one connection, not about the message.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
];

/// What a proxied server says of other origins is not said for the API server's.
const CROSS_ORIGIN: [&str; 4] = [
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
];

/// The client's headers without those of its connection and without its credentials.
pub(crate) fn onward(headers: &HeaderMap, keep_upgrade: bool) -> HeaderMap {
    let mut onward = headers.clone();
    for name in HOP_BY_HOP {
        onward.remove(name);
    }
    onward.remove(AUTHORIZATION);
    remove_identity(&mut onward);
    if keep_upgrade {
        onward.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    } else {
        onward.remove(UPGRADE);
    }
    onward
}

/// Impersonation is between the client and this server, and who the client is only this server says.
fn remove_identity(headers: &mut HeaderMap) {
    let about_identity = |name: &&HeaderName| {
        let name = name.as_str();
        name.starts_with("impersonate-") || name.starts_with("x-remote-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(about_identity).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Tells the server under which path its client knows it.
pub(crate) fn forwarded(headers: &mut HeaderMap, parts: &Parts) {
    if let Ok(path) = HeaderValue::from_str(parts.uri.path()) {
        headers.insert("x-forwarded-uri", path);
    }
}

/// Makes an answer's headers this server's own.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    for name in CROSS_ORIGIN {
        headers.remove(name);
    }
}

/// Leads a redirect within the proxied server back through the proxy: `prefix` is the path up to and with `/proxy`, `hosts` are the
/// names by which the proxied server may call itself.
pub(super) fn rewrite_location(headers: &mut HeaderMap, prefix: &str, hosts: &[&str]) {
    let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
    if let Some(rewritten) = through_proxy(location, prefix, hosts)
        && let Ok(value) = HeaderValue::from_str(&rewritten)
    {
        headers.insert(LOCATION, value);
    }
}

/// The reference as the proxy's client must use it; `None` where it stays as it is: relative ones, and those to other hosts.
pub(super) fn through_proxy(reference: &str, prefix: &str, hosts: &[&str]) -> Option<String> {
    let path = match reference.split_once("://").or_else(|| reference.strip_prefix("//").map(|rest| ("", rest))) {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if !hosts.contains(&host) {
                return None;
            }
            path
        }
        _ => reference,
    };
    if !path.starts_with('/') {
        return None;
    }
    let inside = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
    if inside { (path != reference).then(|| path.to_string()) } else { Some(format!("{prefix}{path}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_within_the_server_lead_through_the_proxy() {
        let prefix = "/api/v1/namespaces/ns/services/s/proxy";
        for (location, expected) in [
            ("/login?next=/", Some("/api/v1/namespaces/ns/services/s/proxy/login?next=/")),
            ("http://10.0.0.1:80/a/", Some("/api/v1/namespaces/ns/services/s/proxy/a/")),
            ("https://elsewhere/a", None),
            ("page2", None),
            ("/api/v1/namespaces/ns/services/s/proxy/a", None),
            ("//10.0.0.1:80/x", Some("/api/v1/namespaces/ns/services/s/proxy/x")),
        ] {
            assert_eq!(through_proxy(location, prefix, &["10.0.0.1:80"]).as_deref(), expected, "{location}");
        }
    }
}
