//! Named formats: `format.dns1123Label().validate(text)`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::names;

use super::Row;
use super::strings::text;
use super::{time, url};
use crate::error::EvalError;
use crate::value::Value;

type Answer<'a> = Result<Value<'a>, EvalError>;

/// A format that texts are checked against.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    /// What is wrong with a text.
    check: fn(&str) -> Vec<String>,
    /// The length of its regular expression, which costs are estimated from.
    pub regex_size: u64,
}

const FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", Format { name: "DNS1123Label", check: names::dns_label, regex_size: 30 }),
    ("dns1123Subdomain", Format { name: "DNS1123Subdomain", check: names::dns_subdomain, regex_size: 60 }),
    ("dns1035Label", Format { name: "DNS1035Label", check: names::dns_1035_label, regex_size: 30 }),
    ("qualifiedName", Format { name: "QualifiedName", check: names::qualified_name, regex_size: 60 }),
    (
        "dns1123LabelPrefix",
        Format { name: "DNS1123LabelPrefix", check: |t| names::dns_label(&prefix(t)), regex_size: 30 },
    ),
    (
        "dns1123SubdomainPrefix",
        Format { name: "DNS1123SubdomainPrefix", check: |t| names::dns_subdomain(&prefix(t)), regex_size: 60 },
    ),
    (
        "dns1035LabelPrefix",
        Format { name: "DNS1035LabelPrefix", check: |t| names::dns_1035_label(&prefix(t)), regex_size: 30 },
    ),
    ("labelValue", Format { name: "LabelValue", check: names::label_value, regex_size: 40 }),
    ("uri", Format { name: "URI", check: |t| url::parse(t).err().into_iter().collect(), regex_size: 1024 }),
    ("uuid", Format { name: "uuid", check: |t| unless(is_uuid(t), "does not match the UUID format"), regex_size: 65 }),
    ("byte", Format { name: "byte", check: |t| unless(STANDARD.decode(t).is_ok(), "invalid base64"), regex_size: 84 }),
    ("date", Format { name: "date", check: |t| unless(is_date(t), "invalid date"), regex_size: 133 }),
    (
        "datetime",
        Format {
            name: "datetime",
            check: |t| unless(time::parse_timestamp(t).is_some(), "invalid datetime"),
            regex_size: 133,
        },
    ),
];

/// The formats must stand at one place, since values point to them.
static TABLE: [(&str, Format); 13] = FORMATS;

pub const ROWS: &[Row] = &[
    ("format.named(string) -> optional(kubernetes.NamedFormat)", |v| {
        Ok(find(text(v, 0)?).map_or(Value::Optional(None), Value::some))
    }),
    ("kubernetes.NamedFormat::validate(string) -> optional(list(string))", validate),
    ("format.dns1123Label() -> kubernetes.NamedFormat", |_| named("dns1123Label")),
    ("format.dns1123Subdomain() -> kubernetes.NamedFormat", |_| named("dns1123Subdomain")),
    ("format.dns1035Label() -> kubernetes.NamedFormat", |_| named("dns1035Label")),
    ("format.qualifiedName() -> kubernetes.NamedFormat", |_| named("qualifiedName")),
    ("format.dns1123LabelPrefix() -> kubernetes.NamedFormat", |_| named("dns1123LabelPrefix")),
    ("format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat", |_| named("dns1123SubdomainPrefix")),
    ("format.dns1035LabelPrefix() -> kubernetes.NamedFormat", |_| named("dns1035LabelPrefix")),
    ("format.labelValue() -> kubernetes.NamedFormat", |_| named("labelValue")),
    ("format.uri() -> kubernetes.NamedFormat", |_| named("uri")),
    ("format.uuid() -> kubernetes.NamedFormat", |_| named("uuid")),
    ("format.byte() -> kubernetes.NamedFormat", |_| named("byte")),
    ("format.date() -> kubernetes.NamedFormat", |_| named("date")),
    ("format.datetime() -> kubernetes.NamedFormat", |_| named("datetime")),
];

fn find<'a>(name: &str) -> Option<Value<'a>> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, format)| Value::Format(format))
}

fn named<'a>(name: &str) -> Answer<'a> {
    find(name).ok_or_else(EvalError::overload)
}

fn validate<'a>(values: &[Value<'a>]) -> Answer<'a> {
    let Value::Format(format) = &values[0] else { return Err(EvalError::overload()) };
    let wrong = (format.check)(text(values, 1)?);
    Ok(if wrong.is_empty() { Value::Optional(None) } else { Value::some(Value::strings(wrong)) })
}

/// A prefix may end in a dash: something will follow it.
fn prefix(text: &str) -> String {
    names::mask_trailing_dash(text)
}

fn unless(fine: bool, wrong: &str) -> Vec<String> {
    if fine { Vec::new() } else { vec![wrong.to_string()] }
}

fn is_uuid(text: &str) -> bool {
    let digits: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = digits.iter().map(|part| part.len()).collect();
    (lengths == [8, 4, 4, 4, 12] || lengths == [32]) && digits.concat().bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}
