//! Continue tokens, in upstream's form.

use base64::DecodeError;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::NO_PAD;
use base64::engine::{Engine, GeneralPurpose};
use knarr_api::{StatusError, decode, patch};
use serde::Serialize;
use serde_json::Value;

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The revision the list is as of; `None` for one that accepts what stands now.
    pub revision: Option<u64>,
    /// The last key that was sent, within the namespace that is listed.
    pub after: String,
}

#[derive(Serialize)]
struct Token {
    v: &'static str,
    rv: i64,
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

const ALPHABET: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

impl Continuation {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |r| r as i64);
        // The first key that may follow is the last one and a zero byte.
        let token = Token { v: VERSION, rv, start: format!("{}\0", self.after) };
        ALPHABET.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, StatusError> {
        Self::read(text).map_err(|why| {
            StatusError::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        let bytes = ALPHABET.decode(text).map_err(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(length) => length - length % 4,
                DecodeError::InvalidPadding => text.len(),
            };
            format!("illegal base64 data at input byte {at}")
        })?;
        decode::check_syntax(&bytes)?;
        let token: Value = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
        if !matches!(token, Value::Object(_) | Value::Null) {
            return Err(format!(
                "json: cannot unmarshal {} into Go value of type storage.continueToken",
                patch::go_kind(&token)
            ));
        }
        let version = text_of(&token, "v")?;
        let revision = number_of(&token, "rv")?;
        let start = text_of(&token, "start")?;
        match version {
            VERSION if revision == 0 => Err(format!("incorrect encoded start resourceVersion (version {VERSION})")),
            VERSION if start.is_empty() => Err(format!("encoded start key empty (version {VERSION})")),
            VERSION if !is_clean(start) => Err(start.to_string()),
            VERSION => {
                let after = start.strip_prefix('/').unwrap_or(start);
                let after = after.strip_suffix('\0').unwrap_or(after).to_string();
                Ok(Continuation { revision: u64::try_from(revision).ok(), after })
            }
            other => Err(format!("server does not recognize this encoded version {other}")),
        }
    }
}

/// Whether a path has no other way to be written.
fn is_clean(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn text_of<'t>(token: &'t Value, field: &str) -> Result<&'t str, String> {
    match &token[field] {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        other => Err(wrong_type(other, field, "string")),
    }
}

fn number_of(token: &Value, field: &str) -> Result<i64, String> {
    match &token[field] {
        Value::Null => Ok(0),
        other => other.as_i64().ok_or_else(|| wrong_type(other, field, "int64")),
    }
}

fn wrong_type(value: &Value, field: &str, wanted: &str) -> String {
    let shown = match value {
        Value::Number(number) if wanted != "string" => format!("number {number}"),
        other => patch::go_kind(other).to_string(),
    };
    format!("json: cannot unmarshal {shown} into Go struct field continueToken.{field} of type {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for revision in [Some(7), None] {
            let token = Continuation { revision, after: "ns/a".into() };
            assert_eq!(Continuation::decode(&token.encode()), Ok(token));
        }
    }

    #[test]
    fn forged_tokens_are_refused() {
        let forged = |json: &str| ALPHABET.encode(json);
        for (text, why) in [
            ("%%%".to_string(), "illegal base64 data at input byte 0"),
            ("a".to_string(), "illegal base64 data at input byte 0"),
            ("abc".to_string(), "invalid character 'i' looking for beginning of value"),
            (forged("{}"), "server does not recognize this encoded version "),
            (forged("[]"), "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (
                forged(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                forged(r#"{"v":"meta.k8s.io/v1","rv":1.5,"start":"a"}"#),
                "json: cannot unmarshal number 1.5 into Go struct field continueToken.rv of type int64",
            ),
            (forged(r#"{"v":"meta.k8s.io/v1","rv":3,"start":"../a"}"#), "../a"),
            (forged(r#"{"v":"meta.k8s.io/v1","rv":3}"#), "encoded start key empty (version meta.k8s.io/v1)"),
            (forged(r#"{"v":"v0","rv":3,"start":"a"}"#), "server does not recognize this encoded version v0"),
        ] {
            let error = Continuation::decode(&text).expect_err(&text);
            assert_eq!(
                (error.code, error.message),
                (400, format!("invalid continue token: continue key is not valid: {why}"))
            );
        }
    }
}
