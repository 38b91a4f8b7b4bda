//! Links in HTML that comes through a proxy: those that stay on the proxied server are led back through the proxy, as upstream does.
//!
//! A page is read whole, since its length changes; one of more than [`MAX_PAGE`] passes as it is. What is no link is passed on byte for byte.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use futures::StreamExt;
use html5gum::emitters::callback::{CallbackEmitter, CallbackEvent};
use html5gum::{Span, Tokenizer};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::http::Body;

/// The largest page whose links are rewritten, plain or compressed, in bytes.
const MAX_PAGE: usize = 4 << 20;

/// Elements, and those of their attributes that hold one URL (HTML 4.01 and the living standard, their indexes of attributes).
const LINKS: &[(&[u8], &[&[u8]])] = &[
    (b"a", &[b"href"]),
    (b"applet", &[b"codebase"]),
    (b"area", &[b"href"]),
    (b"audio", &[b"src"]),
    (b"base", &[b"href"]),
    (b"blockquote", &[b"cite"]),
    (b"body", &[b"background"]),
    (b"button", &[b"formaction"]),
    (b"command", &[b"icon"]),
    (b"del", &[b"cite"]),
    (b"embed", &[b"src"]),
    (b"form", &[b"action"]),
    (b"frame", &[b"longdesc", b"src"]),
    (b"head", &[b"profile"]),
    (b"html", &[b"manifest"]),
    (b"iframe", &[b"longdesc", b"src"]),
    (b"img", &[b"longdesc", b"src", b"usemap"]),
    (b"input", &[b"src", b"usemap", b"formaction"]),
    (b"ins", &[b"cite"]),
    (b"link", &[b"href"]),
    (b"object", &[b"classid", b"codebase", b"data", b"usemap"]),
    (b"q", &[b"cite"]),
    (b"script", &[b"src"]),
    (b"source", &[b"src"]),
    (b"video", &[b"poster", b"src"]),
];

/// How the proxied server is reached from outside.
pub(super) struct Proxied {
    /// The path up to and with `/proxy`.
    pub prefix: String,
    /// The names by which the server may call itself.
    pub hosts: [String; 2],
}

impl Proxied {
    /// Leads a redirect within the proxied server back through the proxy.
    pub fn lead_redirect_back(&self, headers: &mut HeaderMap) {
        let Some(location) = headers.get(LOCATION).and_then(|v| v.to_str().ok()) else { return };
        if let Some(rewritten) = self.through(location)
            && let Ok(value) = HeaderValue::from_str(&rewritten)
        {
            headers.insert(LOCATION, value);
        }
    }

    /// The reference as the proxy's client must use it; `None` where it stays as it is: relative ones, and those to other hosts.
    fn through(&self, reference: &str) -> Option<String> {
        let path = match reference.split_once("://").or_else(|| reference.strip_prefix("//").map(|rest| ("", rest))) {
            Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                if !self.hosts.iter().any(|own| own == host) {
                    return None;
                }
                path
            }
            _ => reference,
        };
        if !path.starts_with('/') {
            return None;
        }
        let rest = path.strip_prefix(&self.prefix);
        let inside = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']));
        match inside {
            true => (path != reference).then(|| path.to_owned()),
            false => Some(format!("{}{path}", self.prefix)),
        }
    }
}

#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// `None`: one that is not known here.
    fn of(headers: &HeaderMap) -> Option<Coding> {
        match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"") => Some(Coding::Identity),
            Some(b"gzip") => Some(Coding::Gzip),
            Some(b"deflate") => Some(Coding::Deflate),
            Some(_) => None,
        }
    }

    /// The plain page, unless it is too large or not so encoded.
    fn decode(self, body: Bytes) -> Option<Bytes> {
        let mut plain = Vec::new();
        let most = MAX_PAGE as u64 + 1;
        match self {
            Coding::Identity => return Some(body),
            Coding::Gzip => MultiGzDecoder::new(&*body).take(most).read_to_end(&mut plain).ok()?,
            Coding::Deflate => DeflateDecoder::new(&*body).take(most).read_to_end(&mut plain).ok()?,
        };
        (plain.len() <= MAX_PAGE).then(|| plain.into())
    }

    fn encode(self, page: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self {
            Coding::Identity => Ok(page),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&page).and_then(|()| encoder.finish())
            }
            Coding::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&page).and_then(|()| encoder.finish())
            }
        }
    }
}

/// The answer to a request of that method as it passes to the client.
pub(super) async fn led_back(method: &Method, response: Response<Incoming>, proxied: &Proxied) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    let coding = Coding::of(&head.headers).filter(|_| is_html(&head.headers) && !head.headers.contains_key(LOCATION));
    let Some(coding) = coding else { return Response::from_parts(head, Body::from(body)) };
    if method == Method::HEAD {
        // The length of the page as it would come is not known.
        head.headers.remove(CONTENT_LENGTH);
        return Response::from_parts(head, Body::from(body));
    }
    let page = match whole(body).await {
        Ok(page) => page,
        Err(passed_on) => return Response::from_parts(head, passed_on),
    };
    let changed = coding.decode(page.clone()).map(|plain| rewritten(&plain, proxied));
    let body = match changed.map(|changed| coding.encode(changed)) {
        Some(Ok(changed)) => {
            head.headers.remove(CONTENT_LENGTH);
            Body::from(changed)
        }
        Some(Err(_)) | None => Body::from(page),
    };
    Response::from_parts(head, body)
}

fn is_html(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim() == "text/html")
}

/// The whole body; one that is too large, or breaks off, as it is.
async fn whole(body: Incoming) -> Result<Bytes, Body> {
    let mut data = body.into_data_stream();
    let mut page = BytesMut::new();
    while let Some(chunk) = data.next().await {
        match chunk {
            Ok(chunk) => page.extend_from_slice(&chunk),
            Err(error) => {
                let end = futures::stream::iter([Ok(page.freeze()), Err(error.into())]);
                return Err(Body::stream(end));
            }
        }
        if page.len() > MAX_PAGE {
            let begun = futures::stream::iter([Ok(page.freeze())]);
            return Err(Body::stream(begun.chain(data.map(|chunk| chunk.map_err(Into::into)))));
        }
    }
    Ok(page.freeze())
}

/// The page with its links led back.
fn rewritten(page: &[u8], proxied: &Proxied) -> Vec<u8> {
    let mut result = Vec::with_capacity(page.len() + page.len() / 8);
    let mut kept = 0;
    for Span { start, end } in links(page) {
        let Some(link) = page.get(start..end).and_then(|link| std::str::from_utf8(link).ok()) else { continue };
        let (Some(led), true) = (proxied.through(link), start >= kept) else { continue };
        result.extend_from_slice(&page[kept..start]);
        result.extend_from_slice(led.as_bytes());
        kept = end;
    }
    result.extend_from_slice(&page[kept..]);
    result
}

/// Where the URLs of the page stand, in order.
fn links(page: &[u8]) -> Vec<Span<usize>> {
    let mut attributes: &[&[u8]] = &[];
    let mut is_link = false;
    let mut emitter = CallbackEmitter::new(move |event: CallbackEvent<'_>, span: Span<usize>| match event {
        CallbackEvent::OpenStartTag { name } => {
            attributes = LINKS.iter().find(|(element, _)| *element == name).map_or(&[], |(_, attributes)| attributes);
            None
        }
        CallbackEvent::AttributeName { name } => {
            is_link = attributes.contains(&name);
            None
        }
        CallbackEvent::AttributeValue { .. } if is_link => Some(span),
        CallbackEvent::CloseStartTag { .. } => {
            attributes = &[];
            None
        }
        _ => None,
    });
    emitter.naively_switch_states(true);
    let Ok(found) = Tokenizer::new_with_emitter(page, emitter).collect::<Result<Vec<_>, _>>();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied() -> Proxied {
        Proxied { prefix: "/p/proxy".into(), hosts: ["10.0.0.1:80".into(), "localhost:8001".into()] }
    }

    fn page(text: &str) -> String {
        String::from_utf8(rewritten(text.as_bytes(), &proxied())).unwrap()
    }

    #[test]
    fn redirects_within_the_server_lead_through_the_proxy() {
        for (location, expected) in [
            ("/login?next=/", Some("/p/proxy/login?next=/")),
            ("http://10.0.0.1:80/a/", Some("/p/proxy/a/")),
            ("https://elsewhere/a", None),
            ("page2", None),
            ("/p/proxy/a", None),
            ("//10.0.0.1:80/x", Some("/p/proxy/x")),
        ] {
            assert_eq!(proxied().through(location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn links_within_the_server_lead_through_the_proxy_and_all_else_stays() {
        for (given, expected) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/proxy/rewriteme">test</a>"#),
            ("<A\r\n HREF='/x?a=1&amp;b=2#c' title=\"/t\">", "<A\r\n HREF='/p/proxy/x?a=1&amp;b=2#c' title=\"/t\">"),
            ("<img src=/a.png usemap=#m><p cite=/no>", "<img src=/p/proxy/a.png usemap=#m><p cite=/no>"),
            (r#"<a href="http://10.0.0.1:80/x">"#, r#"<a href="/p/proxy/x">"#),
            (
                r#"<a href="http://elsewhere/x"><a href="page2"><a href="">"#,
                r#"<a href="http://elsewhere/x"><a href="page2"><a href="">"#,
            ),
            (r#"<a href="/p/proxy/x">"#, r#"<a href="/p/proxy/x">"#),
            (
                r#"<script>var a = '<a href="/x">'</script><!-- <a href="/x"> -->"#,
                r#"<script>var a = '<a href="/x">'</script><!-- <a href="/x"> -->"#,
            ),
            ("é\r\n<form action='/é'>\0<a href='/x", "é\r\n<form action='/p/proxy/é'>\0<a href='/x"),
            ("<svg><a href='/x'/><link href=/y>", "<svg><a href='/p/proxy/x'/><link href=/p/proxy/y>"),
        ] {
            assert_eq!(page(given), expected);
        }
    }

    #[test]
    fn encoded_pages_are_decoded_and_encoded_again_but_never_without_bound() {
        for coding in [Coding::Gzip, Coding::Deflate] {
            let encoded = coding.encode(b"<a href=/x>".to_vec()).unwrap();
            assert_eq!(coding.decode(encoded.into()).unwrap(), "<a href=/x>");
            let bomb = coding.encode(vec![0; MAX_PAGE + 1]).unwrap();
            assert!(coding.decode(bomb.into()).is_none());
            assert!(coding.decode("no".into()).is_none());
        }
    }
}
