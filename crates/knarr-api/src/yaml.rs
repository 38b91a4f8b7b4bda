//! YAML by way of JSON trees: its reader and writer are compiled here, once, and not again for every type that is read from a file.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::options::DuplicateKeyPolicy;

/// The first document of `text`. JSON is YAML too. Fails with what is wrong and where.
pub fn parse(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// As [`parse`], of bodies in which a key may stand twice: the last one counts.
pub fn parse_last_wins(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// A configuration file's `T`. Fails where `text` is no YAML or is not a `T`.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(parse(text)?).map_err(|error| error.to_string())
}

/// Fails where a number or a key has no YAML.
pub fn to_string(value: &Value) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}
