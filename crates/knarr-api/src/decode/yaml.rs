//! YAML bodies, turned into JSON before anything else looks at them.

/// The JSON of a YAML document (of the first, where there are several).
pub fn to_json(bytes: &[u8]) -> Result<Vec<u8>, String> {
    if looks_like_json(bytes) {
        return Ok(bytes.to_vec());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_string())?;
    let value = crate::yaml::parse(text).map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    serde_json::to_vec(&value).map_err(|error| error.to_string())
}

/// JSON is YAML too; it is passed through so that the JSON decoder sees its duplicates and depth.
fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') && super::syntax::check(bytes).is_ok()
}
