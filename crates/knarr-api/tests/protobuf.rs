//! Protobuf against upstream's own bytes, where the release's facts are at hand, and against hostile ones.

use std::fs;
use std::path::PathBuf;

use knarr_api::protobuf::{MAGIC, decode, encode};
use knarr_api::resource::GroupVersionKind;
use knarr_api::schema::schema;
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden() -> Vec<(String, Value, Vec<u8>)> {
    let facts =
        std::env::var("KNARR_FACTS").map(PathBuf::from).unwrap_or_else(|_| PathBuf::from("../../../shared/k8s"));
    let Ok(files) = fs::read_dir(facts.join("golden")) else {
        eprintln!("skipped: no facts of the release (set KNARR_FACTS)");
        return Vec::new();
    };
    let mut out = Vec::new();
    for path in files.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let json: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
        let Ok(bytes) = fs::read(path.with_extension("pb")) else { continue };
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let gvk = json["apiVersion"].as_str().map(|v| v.split_once('/').unwrap_or(("", v))).map(|(g, v)| {
            GroupVersionKind::new(g.to_string(), v.to_string(), json["kind"].as_str().unwrap_or_default().to_string())
        });
        if gvk.is_some_and(|gvk| schema().by_gvk(&gvk).is_some()) {
            out.push((name, json, bytes));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    eprintln!("{} kinds compared", out.len());
    assert!(out.len() > 90, "the facts hold every kind");
    out
}

#[test]
fn every_kind_encodes_to_upstreams_bytes() {
    let wrong: Vec<String> = golden()
        .iter()
        .filter(|(_, json, bytes)| encode(schema(), json).as_ref() != Ok(bytes))
        .map(|(name, json, bytes)| {
            let ours = encode(schema(), json).unwrap_or_default();
            let at = ours.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(ours.len().min(bytes.len()));
            let near = |b: &[u8]| String::from_utf8_lossy(&b[at.saturating_sub(30)..b.len().min(at + 30)]).into_owned();
            format!("{name} at {at}: ours {:?} upstream {:?}", near(&ours), near(bytes))
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_kind_decodes_to_upstreams_json() {
    let wrong: Vec<String> = golden()
        .iter()
        .filter(|(_, json, bytes)| decode(schema(), bytes, None).as_ref() != Ok(json))
        .map(|(name, json, bytes)| match decode(schema(), bytes, None) {
            Ok(ours) => format!("{name}: {}", difference("", &ours, json)),
            Err(error) => format!("{name}: {error}"),
        })
        .collect();
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The first place where two values differ.
fn difference(path: &str, ours: &Value, theirs: &Value) -> String {
    if let (Value::Object(a), Value::Object(b)) = (ours, theirs) {
        for key in a.keys().chain(b.keys()) {
            let (left, right) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
            if a.get(key) != b.get(key) {
                return difference(&format!("{path}.{key}"), left, right);
            }
        }
    }
    if let (Value::Array(a), Value::Array(b)) = (ours, theirs)
        && let Some((left, right)) = a.iter().zip(b).find(|(l, r)| l != r)
    {
        return difference(&format!("{path}[]"), left, right);
    }
    format!("{path}: ours {ours} upstream {theirs}")
}

#[test]
fn empty_fields_are_left_out_as_in_json() {
    let pod = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": ""}});
    let decoded = decode(schema(), &encode(schema(), &pod).expect("encodes"), None).expect("decodes");
    assert_eq!(decoded, pod);
}

#[test]
fn meta_kinds_are_known_in_every_group() {
    let options = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0});
    assert_eq!(decode(schema(), &encode(schema(), &options).expect("encodes"), None), Ok(options));
}

#[test]
fn what_is_no_object_is_refused() {
    for (bytes, error) in [
        (&b""[..], "empty data"),
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (b"k8s\0\x0a\xff", "unexpected EOF"),
        (b"k8s\0\x0f", "proto: illegal wireType 7"),
        (b"k8s\0\x00\x00", "proto: illegal tag 0"),
        (b"k8s\0", "no kind \"\" is registered for version \"\""),
    ] {
        assert_eq!(decode(schema(), bytes, None).expect_err("refused").to_string(), error);
    }
}

/// A schema in a schema in a schema...
#[test]
fn deep_messages_are_refused() {
    let mut message = Vec::new();
    for _ in 0..5_000 {
        let mut outer = vec![0xd2, 0x01]; // `not`, field 26
        let mut length = message.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(&message);
        message = outer;
    }
    let gvk = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let mut bytes = MAGIC.to_vec();
    bytes.push(0x12);
    bytes.extend([0x80, 0x80, 0x80, 0x80, 0x00]);
    assert!(decode(schema(), &bytes, Some(&gvk)).is_ok(), "an empty body is an empty object");
    // spec.versions[].schema.openAPIV3Schema
    for number in [1, 4, 7, 2] {
        let mut outer = vec![number << 3 | 2];
        let mut length = message.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(&message);
        message = outer;
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(&message);
    let _ = decode(schema(), &bytes, Some(&gvk));
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
        let kinds = [("", "Pod"), ("apps", "Deployment"), ("apiextensions.k8s.io", "CustomResourceDefinition")];
        let (group, kind) = kinds[kind];
        let gvk = GroupVersionKind::new(group, "v1", kind);
        let mut framed = MAGIC.to_vec();
        framed.push(0x12);
        framed.push((bytes.len() as u8) | 0x80);
        framed.push((bytes.len() >> 7) as u8);
        framed.extend(&bytes);
        let _ = decode(schema(), &framed, Some(&gvk));
        let _ = decode(schema(), &[&MAGIC[..], &bytes].concat(), Some(&gvk));
    }
}
