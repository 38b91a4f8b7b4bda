//! What a body says it is, before it is decoded.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// `apiVersion` and `kind`, empty where not said.
#[derive(Debug, Default)]
pub struct TypeMeta {
    pub api_version: String,
    pub kind: String,
}

#[derive(Deserialize)]
struct Root<'a> {
    #[serde(borrow, rename = "apiVersion")]
    api_version: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
}

/// Reads `apiVersion` and `kind` of well-formed JSON; the error is Go's.
pub fn type_meta(json: &[u8]) -> Result<TypeMeta, String> {
    let first = json.iter().copied().find(|b| !b.is_ascii_whitespace()).unwrap_or_default();
    if first == b'n' {
        return Ok(TypeMeta::default());
    }
    if first != b'{' {
        return Err(format!("json: cannot unmarshal {} into Go value of type {GO_TYPE}", kind_of(first)));
    }
    // Twice the same key, which serde refuses, is for the decoder to report: then nothing is said here.
    let root: Root<'_> = match std::str::from_utf8(json).ok().and_then(|text| serde_json::from_str(text).ok()) {
        Some(root) => root,
        None => return Ok(TypeMeta::default()),
    };
    Ok(TypeMeta { api_version: text(root.api_version, "apiVersion")?, kind: text(root.kind, "kind")? })
}

const GO_TYPE: &str =
    "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";

fn kind_of(first: u8) -> &'static str {
    match first {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        _ => "number",
    }
}

fn text(raw: Option<&RawValue>, field: &str) -> Result<String, String> {
    let Some(raw) = raw else { return Ok(String::new()) };
    let first = raw.get().bytes().next().unwrap_or_default();
    match first {
        b'n' => Ok(String::new()),
        b'"' => Ok(serde_json::from_str::<Cow<'_, str>>(raw.get()).unwrap_or_default().into_owned()),
        _ => Err(format!("json: cannot unmarshal {} into Go struct field .{field} of type string", kind_of(first))),
    }
}

/// The beginning of a body, as upstream shows one that it does not recognise.
pub fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let head = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".to_string(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            let hex: String = head.iter().map(|b| format!("{b:02x}")).collect();
            format!("{hex}{more}")
        }
    }
}
