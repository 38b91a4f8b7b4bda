//! ConfigMaps and Secrets.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::check::{Checker, entries, flag, has, same, text};
use crate::decode::syntax;
use crate::names;
use crate::object::Object;

/// Both hold at most so many bytes.
const MAX_SIZE: usize = 1024 * 1024;

fn decoded_size(value: &Value) -> usize {
    let encoded = value.as_str().unwrap_or_default();
    let padding = encoded.bytes().rev().take_while(|b| *b == b'=').count();
    (encoded.len() / 4 * 3).saturating_sub(padding)
}

pub fn config_map(c: &mut Checker, object: &Value) {
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        c.within(&format!("data[{key}]"), |c| c.rule("", key, names::config_map_key));
        if object["binaryData"].get(key).is_some() {
            c.invalid_text(&format!("data[{key}]"), key, "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (key, value) in entries(object, "binaryData") {
        c.within(&format!("binaryData[{key}]"), |c| c.rule("", key, names::config_map_key));
        size += decoded_size(value);
    }
    if size > MAX_SIZE {
        c.too_long("", MAX_SIZE);
    }
}

pub fn config_map_update(c: &mut Checker, object: &Value, old: &Value) {
    if flag(old, "immutable") {
        const WHY: &str = "field is immutable when `immutable` is set";
        if !flag(object, "immutable") {
            c.forbidden("immutable", WHY);
        }
        for field in ["data", "binaryData"] {
            if !same(object, old, field) {
                c.forbidden(field, WHY);
            }
        }
    }
    config_map(c, object);
}

/// `stringData` is a way to write `data`; it is never stored.
pub fn merge_string_data(secret: &mut Object) {
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|s| s.remove("stringData")) else { return };
    if !secret["data"].is_object() {
        secret["data"] = json!({});
    }
    for (key, value) in texts {
        secret["data"][key] = STANDARD.encode(value.as_str().unwrap_or_default()).into();
    }
}

pub fn prepare_secret_update(secret: &mut Object, old: &Object) {
    merge_string_data(secret);
    if text(secret, "type").is_empty() {
        secret["type"] = old["type"].clone();
    }
}

pub fn secret(c: &mut Checker, object: &Value) {
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        c.within(&format!("data[{key}]"), |c| c.rule("", key, names::config_map_key));
        size += decoded_size(value);
    }
    if size > MAX_SIZE {
        c.too_long("data", MAX_SIZE);
    }
    validate_type(c, object);
}

fn validate_type(c: &mut Checker, object: &Value) {
    let needs = |c: &mut Checker, key: &str| {
        if object["data"].get(key).is_none() {
            c.required(&format!("data[{key}]"), "");
        }
    };
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            const ACCOUNT: &str = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"], ACCOUNT).is_empty() {
                c.required(&format!("metadata.annotations[{ACCOUNT}]"), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(c, object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker_config(c, object, ".dockerconfigjson"),
        "kubernetes.io/basic-auth"
            if object["data"].get("username").is_none() && object["data"].get("password").is_none() =>
        {
            needs(c, "username");
            needs(c, "password");
        }
        "kubernetes.io/ssh-auth" if text(&object["data"], "ssh-privatekey").is_empty() => {
            c.required("data[ssh-privatekey]", "");
        }
        "kubernetes.io/tls" => {
            needs(c, "tls.crt");
            needs(c, "tls.key");
        }
        _ => {}
    }
}

fn docker_config(c: &mut Checker, object: &Value, key: &str) {
    let field = format!("data[{key}]");
    match object["data"].get(key).and_then(Value::as_str) {
        None => c.required(&field, ""),
        Some(encoded) => {
            let bytes = STANDARD.decode(encoded).unwrap_or_default();
            if serde_json::from_slice::<serde_json::Map<_, Value>>(&bytes).is_err() {
                let why = syntax::check(&bytes).err().unwrap_or_else(|| "invalid character".into());
                c.invalid_text(&field, "<secret contents redacted>", why);
            }
        }
    }
}

pub fn secret_update(c: &mut Checker, object: &Value, old: &Value) {
    if has(old, "type") && !same(object, old, "type") {
        c.invalid("type", &object["type"], "field is immutable");
    }
    if flag(old, "immutable") {
        const WHY: &str = "field is immutable when `immutable` is set";
        if !flag(object, "immutable") {
            c.forbidden("immutable", WHY);
        }
        if !same(object, old, "data") {
            c.forbidden("data", WHY);
        }
    }
    secret(c, object);
}
