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
    Table(MetaVersion),
    PartialMetadata(MetaVersion),
    PartialMetadataList(MetaVersion),
}

/// The version of `meta.k8s.io` that a form is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaVersion {
    V1,
    V1beta1,
}

impl MetaVersion {
    pub fn api_version(self) -> &'static str {
        match self {
            MetaVersion::V1 => "meta.k8s.io/v1",
            MetaVersion::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
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
/// How a refusal begins where the client accepts nothing that there is.
pub const NONE_OF: &str = "406: Not Acceptable\n\nAvailable representations: ";
const ACCEPTED_WITHOUT_PROTOBUF: &str = "application/json, application/yaml";

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

    /// `None` for a form that nobody knows; a group or a version alone asks for one, too.
    fn form(&self) -> Option<Form> {
        let (form, group, version) = (self.parameter("as"), self.parameter("g"), self.parameter("v"));
        if (form, group, version) == (None, None, None) {
            return Some(Form::Object);
        }
        let version = match (group, version) {
            (Some("meta.k8s.io"), Some("v1")) => MetaVersion::V1,
            (Some("meta.k8s.io"), Some("v1beta1")) => MetaVersion::V1beta1,
            _ => return None,
        };
        match form {
            Some("Table") => Some(Form::Table(version)),
            Some("PartialObjectMetadata") => Some(Form::PartialMetadata(version)),
            Some("PartialObjectMetadataList") => Some(Form::PartialMetadataList(version)),
            _ => None,
        }
    }

    /// What this clause asks for, as far as it can be had.
    fn wanted(&self, forms: bool, written: &impl Fn(Encoding) -> bool) -> Option<Wanted> {
        let form = self.form().filter(|form| forms || *form == Form::Object)?;
        // Metadata is written alike for every kind.
        let metadata = matches!(form, Form::PartialMetadata(_) | Form::PartialMetadataList(_));
        let encoding = Encoding::parse(self.media_type).filter(|e| metadata || written(*e))?;
        // YAML cannot be streamed, and a table holds JSON.
        let stream = self.parameter("stream").unwrap_or_default();
        let streams = stream.is_empty() || (stream == "watch" && encoding != Encoding::Yaml);
        let fits = !(encoding == Encoding::Protobuf && matches!(form, Form::Table(_)));
        (streams && fits).then_some(Wanted { encoding, form })
    }

    /// How closely it names a type: one that leaves something open comes after one of the same quality that does not.
    fn openness(&self) -> u8 {
        let (kind, subtype) = self.media_type.split_once('/').unwrap_or((self.media_type, ""));
        u8::from(kind == "*") + u8::from(subtype == "*")
    }
}

/// The clauses of `Accept`, the most wanted first; none where there is no such header.
pub fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses: Vec<Clause> =
        texts.flat_map(|t| t.split(',')).map(Clause::parse).filter(|c| !c.media_type.is_empty()).collect();
    clauses.sort_by_key(|c| (std::cmp::Reverse(c.quality), c.openness()));
    clauses
}

/// As [`accept`], for objects that have no protobuf form.
pub fn accept_without_protobuf(headers: &HeaderMap) -> Result<Wanted, StatusError> {
    if wants_plain_json(headers) {
        Ok(Wanted::JSON)
    } else {
        pick(&clauses(headers), true, |e| e != Encoding::Protobuf)
    }
}

/// What to answer in; `forms` says whether `as=` makes sense here. Upstream's 406 where nothing fits.
pub fn accept(headers: &HeaderMap, forms: bool) -> Result<Wanted, StatusError> {
    if wants_plain_json(headers) {
        return Ok(Wanted::JSON);
    }
    let clauses = clauses(headers);
    check_routed(&clauses, &[Encoding::Json, Encoding::Yaml, Encoding::Protobuf].map(Encoding::media_type))?;
    pick(&clauses, forms, |_| true)
}

/// As [`accept`], where upstream has no router before its handler.
pub fn accept_unrouted(headers: &HeaderMap) -> Result<Wanted, StatusError> {
    if wants_plain_json(headers) { Ok(Wanted::JSON) } else { pick(&clauses(headers), false, |_| true) }
}

/// What upstream's router refuses before its handlers see it: headers that name none of the types that there are.
fn check_routed(clauses: &[Clause<'_>], types: &[&str]) -> Result<(), StatusError> {
    let known = |clause: &Clause<'_>| clause.media_type == "*/*" || types.contains(&clause.media_type);
    if clauses.is_empty() || clauses.iter().any(known) {
        return Ok(());
    }
    Err(StatusError::unrouted(Reason::NotAcceptable, format!("{NONE_OF}{}", types.join(", "))))
}

/// Refuses whoever cannot read what is written as JSON only.
pub fn require_json(headers: &HeaderMap) -> Result<(), StatusError> {
    if wants_plain_json(headers) { Ok(()) } else { check_routed(&clauses(headers), &["application/json"]) }
}

fn wants_plain_json(headers: &HeaderMap) -> bool {
    matches!(headers.get(ACCEPT).map(|v| v.as_bytes()), None | Some(b"application/json" | b"*/*" | b""))
}

fn pick(clauses: &[Clause<'_>], forms: bool, written: impl Fn(Encoding) -> bool) -> Result<Wanted, StatusError> {
    clauses.iter().find_map(|clause| clause.wanted(forms, &written)).ok_or_else(|| {
        let accepted = if written(Encoding::Protobuf) { ACCEPTED } else { ACCEPTED_WITHOUT_PROTOBUF };
        StatusError::new(Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
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
        assert_eq!(wanted(kubectl).map(|w| w.form), Ok(Form::Table(MetaVersion::V1)));
        assert_eq!(wanted("application/json;q=0.5, application/yaml").map(|w| w.encoding), Ok(Encoding::Yaml));
        assert_eq!(wanted("application/cbor, */*;q=0.1"), Ok(Wanted::JSON));
        assert_eq!(wanted("*/*, application/yaml").map(|w| w.encoding), Ok(Encoding::Yaml));
        let older = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1";
        assert_eq!(wanted(older).map(|w| w.form), Ok(Form::PartialMetadata(MetaVersion::V1beta1)));
        for refused in [
            "text/html",
            "application/json;as=Table",
            "application/json;as=Table;g=meta.k8s.io;v=v2",
            "application/json;g=meta.k8s.io;v=v1",
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
            "application/yaml;stream=watch",
        ] {
            assert_eq!(wanted(refused).map_err(|e| e.code), Err(406), "{refused}");
        }
    }
}
