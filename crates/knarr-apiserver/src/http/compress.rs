//! gzip of large answers, for clients that ask.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue, VARY};
use http::{HeaderMap, Response};

use super::Body;

/// Smaller answers are not worth the work; upstream's limit.
const SMALLEST: u64 = 128 * 1024;
/// Upstream's level: most of the gain for little time.
const LEVEL: Compression = Compression::new(4);

/// Whether the request's headers accept gzip.
pub fn wanted(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).flat_map(|t| t.split(',')).any(|clause| {
        let (name, parameters) = clause.split_once(';').unwrap_or((clause, ""));
        name.trim() == "gzip" && parameters.trim() != "q=0"
    })
}

/// Compresses an answer that is large and whole; streams go out as they are.
pub fn compress(response: Response<Body>) -> Response<Body> {
    if response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let chunks = match body.into_chunks(SMALLEST) {
        Ok(chunks) => chunks,
        Err(body) => return Response::from_parts(parts, body),
    };
    let mut encoder = GzEncoder::new(Vec::with_capacity(64 * 1024), LEVEL);
    let written = chunks.iter().try_for_each(|chunk| encoder.write_all(chunk));
    let Ok(compressed) = written.and_then(|()| encoder.finish()) else {
        return Response::from_parts(parts, Body::chunks(chunks));
    };
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Response::from_parts(parts, Body::from(Bytes::from(compressed)))
}
