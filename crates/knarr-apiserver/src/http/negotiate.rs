//! Media types: what the client sends and what it would like back.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use knarr_api::StatusError;
use knarr_api::status::Reason;

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

impl Encoding {
    pub fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn parse(media_type: &str) -> Option<Self> {
        match media_type {
            "application/json" | "*/*" | "application/*" => Some(Encoding::Json),
            "application/yaml" => Some(Encoding::Yaml),
            "application/vnd.kubernetes.protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }
}

/// What an object is shown as (`as=` of the media type).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    Object,
    Table,
    PartialMetadata,
}

/// What the client will get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub encoding: Encoding,
    pub form: Form,
}

impl Wanted {
    pub const JSON: Wanted = Wanted { encoding: Encoding::Json, form: Form::Object };
}

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// One clause of an `Accept` header.
pub struct Clause<'a> {
    pub media_type: &'a str,
    quality: u16,
    parameters: &'a str,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let (media_type, parameters) = text.split_once(';').unwrap_or((text, ""));
        let mut clause = Clause { media_type: media_type.trim(), quality: 1000, parameters };
        clause.quality =
            clause.parameter("q").and_then(|q| q.parse::<f32>().ok()).map_or(1000, |q| (q * 1000.0) as u16);
        clause
    }

    pub fn parameter(&self, name: &str) -> Option<&'a str> {
        self.parameters.split(';').find_map(|p| p.trim().strip_prefix(name)?.strip_prefix('='))
    }

    fn form(&self) -> Option<Form> {
        match (self.parameter("as"), self.parameter("g"), self.parameter("v")) {
            (None, ..) => Some(Form::Object),
            (Some("Table"), Some("meta.k8s.io"), Some("v1" | "v1beta1")) => Some(Form::Table),
            (
                Some("PartialObjectMetadata" | "PartialObjectMetadataList"),
                Some("meta.k8s.io"),
                Some("v1" | "v1beta1"),
            ) => Some(Form::PartialMetadata),
            _ => None,
        }
    }
}

/// The clauses of `Accept`, the most wanted first; none where there is no such header.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses: Vec<Clause> =
        texts.flat_map(|t| t.split(',')).map(Clause::parse).filter(|c| !c.media_type.is_empty()).collect();
    clauses.sort_by_key(|c| std::cmp::Reverse(c.quality));
    clauses
}

/// As [`accept`], for objects that have no protobuf form.
pub fn accept_without_protobuf(headers: &HeaderMap) -> Result<Wanted, StatusError> {
    pick(headers, true, |encoding| encoding != Encoding::Protobuf)
}

/// What to answer in; `forms` says whether `as=` makes sense here. Upstream's 406 where nothing fits.
pub fn accept(headers: &HeaderMap, forms: bool) -> Result<Wanted, StatusError> {
    pick(headers, forms, |_| true)
}

fn pick(headers: &HeaderMap, forms: bool, written: impl Fn(Encoding) -> bool) -> Result<Wanted, StatusError> {
    match headers.get(ACCEPT).map(|v| v.as_bytes()) {
        None | Some(b"application/json" | b"*/*" | b"") => return Ok(Wanted::JSON),
        Some(_) => {}
    }
    let fits = |c: &Clause| {
        let encoding = Encoding::parse(c.media_type).filter(|e| written(*e))?;
        let form = c.form()?;
        (forms || form == Form::Object).then_some(Wanted { encoding, form })
    };
    clauses(headers).iter().find_map(fits).ok_or_else(|| {
        StatusError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {ACCEPTED}"))
    })
}

/// The media type of a request's body without its parameters; JSON where the client says nothing.
pub fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim() {
        "" => "application/json",
        media_type => media_type,
    }
}

/// How the body of a create or an update is written; upstream's 415 for anything else.
pub fn body_encoding(headers: &HeaderMap) -> Result<Encoding, StatusError> {
    let media_type = content_type(headers);
    Encoding::parse(media_type).filter(|_| !media_type.contains('*')).ok_or_else(|| unsupported(ACCEPTED))
}

/// Upstream's 415.
pub fn unsupported(supported: &str) -> StatusError {
    StatusError::new(
        Reason::UnsupportedMediaType,
        format!("the body of the request was in an unknown format - accepted media types include: {supported}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept_header: &str) -> Result<Wanted, StatusError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept_header.parse().expect("a header value"));
        accept(&headers, true)
    }

    #[test]
    fn the_first_clause_that_fits_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(wanted(kubectl).map(|w| w.form), Ok(Form::Table));
        assert_eq!(wanted("application/json;q=0.5, application/yaml").map(|w| w.encoding), Ok(Encoding::Yaml));
        assert_eq!(wanted("application/cbor, */*;q=0.1"), Ok(Wanted::JSON));
        assert_eq!(wanted("text/html").map_err(|e| e.code), Err(406));
    }
}
