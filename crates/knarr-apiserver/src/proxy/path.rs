//! The path behind `/proxy`, exactly as the client wrote it.

use http::header::LOCATION;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use crate::http::Body;

/// What follows `/proxy` in the path of a proxy request, with its leading slash; empty if nothing does.
pub(super) fn after_proxy(path: &str) -> &str {
    // `/api/v1/nodes/N/proxy` or `/api/v1/namespaces/NS/RESOURCE/N/proxy`: a name may itself be "proxy", so segments count.
    let namespaced = path.starts_with("/api/v1/namespaces/");
    let segments = if namespaced { 7 } else { 5 };
    match path.match_indices('/').nth(segments) {
        Some((at, _)) => &path[at..],
        None => "",
    }
}

/// The path up to and with `/proxy`.
pub(super) fn up_to_proxy(path: &str) -> &str {
    path.strip_suffix(after_proxy(path)).unwrap_or(path)
}

/// Upstream sends a browser that asks for `…/proxy` to `…/proxy/`, so that relative links work.
pub(super) fn redirect_to_root(parts: &Parts) -> Option<Response<Body>> {
    let reading = matches!(parts.method, Method::GET | Method::HEAD);
    if !reading || !after_proxy(parts.uri.path()).is_empty() {
        return None;
    }
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{}/{query}", parts.uri.path())).ok()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}
