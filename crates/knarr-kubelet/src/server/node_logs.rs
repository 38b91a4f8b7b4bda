//! `/logs/`: the machine's own logs, as files and listings of directories.

use std::io;
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio_util::io::ReaderStream;

use super::respond::{Body, BoxError, Failure, text, with_type};

const ROOT: &str = "/var/log";

/// What lies at `path` below the machine's logs. Links that lead out of them are refused: whoever may read logs may not read the machine.
pub(super) async fn serve(path: &str) -> Result<Response<Body>, Failure> {
    serve_below(Path::new(ROOT), path).await
}

async fn serve_below(root: &Path, path: &str) -> Result<Response<Body>, Failure> {
    let missing = || Failure::not_found("404 page not found\n");
    let found = resolve(root, path).await.ok_or_else(missing)?;
    let metadata = tokio::fs::metadata(&found).await.map_err(failed)?;
    match (metadata.is_dir(), path.is_empty() || path.ends_with('/')) {
        (true, true) => list(&found).await,
        (true, false) => Ok(redirect(path)),
        (false, false) if metadata.is_file() => send(&found).await,
        _ => Err(missing()),
    }
}

async fn resolve(root: &Path, path: &str) -> Option<PathBuf> {
    // A file's URL knows escapes and dots, and never leaves its root by them.
    let below = url::Url::parse(&format!("file:///{path}")).ok()?.to_file_path().ok()?;
    let root = tokio::fs::canonicalize(root).await.ok()?;
    let found = tokio::fs::canonicalize(root.join(below.strip_prefix("/").ok()?)).await.ok()?;
    found.starts_with(&root).then_some(found)
}

async fn list(directory: &Path) -> Result<Response<Body>, Failure> {
    let mut entries = tokio::fs::read_dir(directory).await.map_err(failed)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        let slash = if entry.file_type().await.is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort_unstable();
    let lines: String = names.iter().map(|name| line(name)).collect();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    Ok(with_type(StatusCode::OK, html, format!("<pre>\n{lines}</pre>\n").into()))
}

fn line(name: &str) -> String {
    let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    // The serializer of forms writes blanks as `+`, which a path does not know.
    let link: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    format!("<a href=\"./{}\">{shown}</a>\n", link.replace('+', "%20").replace("%2F", "/"))
}

/// Relative links in a listing need the slash.
fn redirect(path: &str) -> Response<Body> {
    let last = path.rsplit('/').next().unwrap_or_default();
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
    if let Ok(to) = HeaderValue::from_str(&format!("{last}/")) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

async fn send(file: &Path) -> Result<Response<Body>, Failure> {
    let file = tokio::fs::File::open(file).await.map_err(failed)?;
    let chunks = ReaderStream::new(file).map_ok(Frame::data).map_err(BoxError::from);
    let mut response = Response::new(StreamBody::new(chunks).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::not_found("404 page not found\n"),
        io::ErrorKind::PermissionDenied => Failure::new(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        _ => Failure::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answer(root: &Path, path: &str) -> (u16, String) {
        match serve_below(root, path).await {
            Ok(response) => {
                let code = response.status().as_u16();
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                (code, String::from_utf8_lossy(&body).into_owned())
            }
            Err(failure) => (failure.code.as_u16(), failure.message),
        }
    }

    #[tokio::test]
    async fn files_and_listings_are_served_and_nothing_outside() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("log");
        std::fs::create_dir_all(root.join("apt")).expect("made");
        std::fs::write(root.join("a <b>.log"), "words").expect("written");
        std::fs::write(directory.path().join("secret"), "secret").expect("written");
        std::os::unix::fs::symlink("../secret", root.join("out")).expect("a link");
        let (code, listing) = answer(&root, "").await;
        assert_eq!(code, 200);
        assert!(listing.contains("<a href=\"./a%20%3Cb%3E.log\">a &lt;b&gt;.log</a>"), "{listing}");
        assert!(listing.contains("<a href=\"./apt/\">apt/</a>"), "{listing}");
        assert_eq!(answer(&root, "a%20%3Cb%3E.log").await, (200, "words".to_owned()));
        assert_eq!(answer(&root, "apt").await.0, 301);
        for outside in ["out", "../secret", "%2e%2e/secret", "..%2Fsecret", "none", "a%20%3Cb%3E.log/"] {
            assert_eq!(answer(&root, outside).await.0, 404, "{outside}");
        }
    }
}
