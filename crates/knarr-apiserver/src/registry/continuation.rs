//! Continue tokens, in upstream's form.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use knarr_api::StatusError;
use serde::{Deserialize, Serialize};

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The revision the list is as of; `None` for one that accepts what stands now.
    pub revision: Option<u64>,
    /// The last key that was sent.
    pub after: String,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    #[serde(default)]
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

impl Continuation {
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |r| r as i64);
        // The first key that may follow is the last one and a zero byte.
        let token = Token { v: VERSION.into(), rv, start: format!("{}\0", self.after) };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    pub fn decode(text: &str) -> Result<Self, StatusError> {
        let bad = |why: String| StatusError::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| bad(e.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        if token.v != VERSION {
            return Err(bad(format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
        }
        let after = token.start.strip_suffix('\0').unwrap_or(&token.start).to_string();
        if after.is_empty() || after.split('/').any(|part| part == "." || part == "..") {
            return Err(bad("encoded start key is not valid".into()));
        }
        Ok(Continuation { revision: u64::try_from(token.rv).ok(), after })
    }
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
        let forged = |json: &str| URL_SAFE_NO_PAD.encode(json);
        for text in [
            "%%%".to_string(),
            forged("{}"),
            forged(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            forged(r#"{"v":"meta.k8s.io/v1","rv":3,"start":"../a"}"#),
            forged(r#"{"v":"v0","rv":3,"start":"a"}"#),
        ] {
            assert_eq!(Continuation::decode(&text).map_err(|e| e.code), Err(400), "{text}");
        }
    }
}
