//! What hostile bytes reach, one entry a decoder: the bodies of `fuzz/fuzz_targets`, and of the seeded run beside this file.
//! An entry must return, whatever it is given; where there is an algebra it holds it.

use knarr_api::apply::{Scope, apply, reset_fields, update_managed_fields};
use knarr_api::decode::{Encoding, FieldValidation, decode_object, read_configuration};
use knarr_api::patch::{json, merge, strategic};
use knarr_api::quantity::Quantity;
use knarr_api::resource::{GroupVersionKind, built_in};
use knarr_api::schema::schema;
use knarr_api::selector::{FieldSelector, LabelSelector};
use knarr_api::strategy::{Context, strategy};
use knarr_api::{Object, default, protobuf};
use serde_json::Value;

/// One entry: its name and what it does with bytes.
pub type Entry = (&'static str, fn(&[u8]));

/// Every entry, by the name of its fuzz target.
pub const ENTRIES: &[Entry] = &[
    ("decode_json", decode_json),
    ("decode_yaml", decode_yaml),
    ("decode_protobuf", decode_protobuf),
    ("json_patch", json_patch),
    ("merge_patch", merge_patch),
    ("strategic_patch", strategic_patch),
    ("server_side_apply", server_side_apply),
    ("selectors", selectors),
    ("quantity", quantity),
];

/// The kind that the first byte picks, and the rest.
fn kind_of(data: &[u8]) -> Option<(GroupVersionKind, &[u8])> {
    let (first, rest) = data.split_first()?;
    let rows = &built_in().resources;
    Some((rows[usize::from(*first) % rows.len()].gvk(), rest))
}

/// The byte that picks this kind.
pub fn index_of(kind: &str) -> u8 {
    built_in().resources.iter().position(|r| r.kind.kind == kind).unwrap_or_default() as u8
}

/// A decoded object goes on to be defaulted, checked and written back.
fn live(kind: &GroupVersionKind, mut object: Object) {
    default::apply_defaults(kind, &mut object);
    let row = built_in().resources.iter().find(|r| r.gvk() == *kind).expect("picked from the rows");
    let plan = strategy(&row.group_resource(), kind);
    let context = Context::default();
    plan.prepare_create(&context, &mut object);
    let _ = plan.validate_create(&context, &object);
    let _ = plan.validate_update(&context, &object, &object);
    let _ = plan.validate_subresource_update(&context, "status", &object, &object);
    let _ = plan.warnings(&object, None);
    let _ = plan.selectable_fields(&object);
    let _ = protobuf::encode(schema(), &object);
}

fn decode(data: &[u8], encoding: Encoding) {
    let Some((kind, body)) = kind_of(data) else { return };
    for validation in [FieldValidation::Ignore, FieldValidation::Warn, FieldValidation::Strict] {
        if let Ok(decoded) = decode_object(body, encoding, &kind, validation) {
            live(&kind, decoded.object);
        }
    }
}

pub fn decode_json(data: &[u8]) {
    decode(data, Encoding::Json);
}

pub fn decode_yaml(data: &[u8]) {
    decode(data, Encoding::Yaml);
}

/// What decodes, encodes; and what was encoded, decodes to the same.
pub fn decode_protobuf(data: &[u8]) {
    let Some((kind, body)) = kind_of(data) else { return };
    let Ok(object) = protobuf::decode(schema(), body, Some(&kind)) else { return };
    let Ok(bytes) = protobuf::encode(schema(), &object) else { return };
    let again = protobuf::decode(schema(), &bytes, Some(&kind)).expect("its own encoding");
    assert_eq!(again, object);
}

/// An object and a patch, split at the first zero byte.
fn halves(data: &[u8]) -> Option<(Object, &[u8])> {
    let at = data.iter().position(|b| *b == 0)?;
    let object: Value = serde_json::from_slice(&data[..at]).ok()?;
    object.is_object().then_some((object, &data[at + 1..]))
}

pub fn json_patch(data: &[u8]) {
    if let Some((object, patch)) = halves(data) {
        let _ = json::apply(object, patch);
    }
}

/// A merge patch applied twice is applied once.
pub fn merge_patch(data: &[u8]) {
    let Some((object, patch)) = halves(data) else { return };
    if let Ok(once) = merge::apply(object, patch) {
        assert_eq!(merge::apply(once.clone(), patch), Ok(once));
    }
}

fn deployment() -> GroupVersionKind {
    GroupVersionKind::new("apps", "v1", "Deployment")
}

pub fn strategic_patch(data: &[u8]) {
    let Some((object, patch)) = halves(data) else { return };
    let id = schema().by_gvk(&deployment()).expect("a built-in kind");
    let _ = strategic::apply(schema(), id, object, patch);
}

/// A forced apply succeeds twice with the same result, where it succeeds.
pub fn server_side_apply(data: &[u8]) {
    let Some((mut object, config)) = halves(data) else { return };
    let settled = |object: &Object| {
        let text = object.to_string();
        decode_object(text.as_bytes(), Encoding::Json, &deployment(), FieldValidation::Ignore).map(|d| d.object)
    };
    let Ok((applied, _)) = read_configuration(config, &deployment()) else { return };
    let scope = Scope {
        schema: schema(),
        ty: schema().by_gvk(&deployment()).expect("a built-in kind"),
        api_version: "apps/v1",
        kind: "Deployment",
        subresource: "",
        reset: reset_fields("Deployment", true, ""),
    };
    update_managed_fields(&scope, None, &mut object, "before", 0);
    let Ok(once) = apply(&scope, Some(&object), &applied, "manager", true, 1) else { return };
    // What is stored has been decoded again.
    let Ok(once) = settled(&once) else { return };
    let twice = apply(&scope, Some(&once), &applied, "manager", true, 2).expect("applied just before");
    assert!(settled(&twice).is_ok_and(|twice| twice == once), "{applied}");
}

pub fn selectors(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = FieldSelector::parse(&text);
    if let Ok(selector) = LabelSelector::parse(&text) {
        let _ = selector.is_nothing();
        let _ = selector.requirements().len();
    }
}

/// A quantity's canonical text is of the same quantity.
pub fn quantity(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(parsed) = text.parse::<Quantity>() {
        assert_eq!(parsed.to_string().parse::<Quantity>().ok(), Some(parsed), "{text}");
        let _ = (parsed.to_i64(), parsed.to_millis(), parsed + parsed, Quantity::ZERO - parsed);
    }
}
