//! Headers of proxied requests and of their answers.

use http::header::{AUTHORIZATION, CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
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
