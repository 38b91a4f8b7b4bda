//! The formats of strings that are checked; all others are ignored.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use crate::{go_duration, names};

/// A check of one format.
type Matches = fn(&str) -> bool;

const FORMATS: &[(&str, Matches)] = &[
    ("bsonobjectid", |s| s.len() == 24 && s.bytes().all(|b| b.is_ascii_hexdigit())),
    ("uri", is_uri),
    ("email", is_email),
    ("hostname", is_hostname),
    ("ipv4", is_ipv4),
    ("ipv6", |s| s.parse::<Ipv6Addr>().is_ok()),
    ("cidr", is_cidr),
    ("mac", is_mac),
    ("uuid", |s| pattern(0).is_match(s)),
    ("uuid3", |s| pattern(1).is_match(s)),
    ("uuid4", |s| pattern(2).is_match(s)),
    ("uuid5", |s| pattern(3).is_match(s)),
    ("isbn", |s| is_isbn10(s) || is_isbn13(s)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("ssn", |s| pattern(4).is_match(s)),
    ("hexcolor", |s| pattern(5).is_match(s)),
    ("rgbcolor", |s| pattern(6).is_match(s)),
    ("byte", is_base64),
    ("password", |_| true),
    ("date", |s| s.parse::<jiff::civil::Date>().is_ok() && s.len() == 10),
    ("duration", is_duration),
    ("datetime", is_date_time),
    ("k8sshortname", |s| s.len() <= 63 && names::dns_label(s).is_empty()),
    ("k8slongname", |s| names::dns_subdomain(s).is_empty()),
];

const PATTERNS: [&str; 9] = [
    "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
    "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$",
    r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$",
    "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$",
    r"^rgb\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*\)$",
    r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$",
    r"([0-9]+)\s*([A-Za-zµ]+)",
];

/// A pattern of the list, compiled once.
fn pattern(index: usize) -> &'static Regex {
    static COMPILED: LazyLock<Vec<Regex>> =
        LazyLock::new(|| PATTERNS.iter().map(|p| Regex::new(p).expect("a test compiles them all")).collect());
    &COMPILED[index]
}

fn find(format: &str) -> Option<Matches> {
    let normalized = format.replace('-', "");
    FORMATS.iter().find(|(name, _)| *name == normalized).map(|(_, matches)| *matches)
}

/// Whether values of a type are checked for this format.
pub fn is_known(json_type: &str, format: &str) -> bool {
    match json_type {
        _ if format.is_empty() => false,
        "" | "string" => find(format).is_some(),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a text has a format; every text has an unknown one.
pub fn matches(format: &str, text: &str) -> bool {
    find(format).is_none_or(|matches| matches(text))
}

/// As Go's ParseRequestURI: with a scheme, or an absolute path.
fn is_uri(text: &str) -> bool {
    let scheme = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_alphabetic())
            && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    };
    let clean = !text.contains(|c: char| c.is_ascii_control() || c == ' ');
    clean && (text.starts_with('/') || text.split_once(':').is_some_and(|(s, rest)| scheme(s) && !rest.is_empty()))
}

fn is_email(text: &str) -> bool {
    let address = match (text.rfind('<'), text.ends_with('>')) {
        (Some(open), true) => &text[open + 1..text.len() - 1],
        (None, false) => text,
        _ => return false,
    };
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.contains("..")
            && part.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"()<>[]:;@\\,\"".contains(c))
    };
    address.rsplit_once('@').is_some_and(|(local, domain)| plain(local) && plain(domain))
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        label.len() <= 63
            && edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    text.len() <= 255 && text.split('.').all(label)
}

/// Leading zeros are let pass, as Go once did.
fn is_ipv4(text: &str) -> bool {
    let octet = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4 && parts.iter().all(|p| octet(p) && p.parse::<u32>().is_ok_and(|n| n < 256))
        || text.contains('.') && text.parse::<Ipv6Addr>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let length = length.parse::<u8>().ok();
    if address.parse::<Ipv4Addr>().is_ok() || is_ipv4(address) && !address.contains(':') {
        return length.is_some_and(|n| n <= 32);
    }
    address.parse::<Ipv6Addr>().is_ok() && length.is_some_and(|n| n <= 128)
}

fn is_mac(text: &str) -> bool {
    let grouped = |separator: char, digits: usize, sizes: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        sizes.contains(&parts.len())
            && parts.iter().all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    grouped(':', 2, &[6, 8, 20]) || grouped('-', 2, &[6, 8, 20]) || grouped('.', 4, &[3, 4, 10])
}

fn digits_of(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '-' | ' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = digits_of(text);
    let digit = |(i, c): (usize, char)| match c {
        'X' if i == 9 => Some(10),
        c => c.to_digit(10),
    };
    let digits: Option<Vec<u32>> = text.chars().enumerate().map(digit).collect();
    digits.is_some_and(|d| d.len() == 10 && (1..).zip(d).map(|(i, n)| i * n).sum::<u32>() % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let digits: Option<Vec<u32>> = digits_of(text).chars().map(|c| c.to_digit(10)).collect();
    digits.is_some_and(|d| d.len() == 13 && d.iter().enumerate().map(|(i, n)| n * [1, 3][i % 2]).sum::<u32>() % 10 == 0)
}

/// Thirteen to nineteen digits with a Luhn check digit.
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let doubled = |(i, n): (usize, &u32)| match i % 2 {
        1 if n * 2 > 9 => n * 2 - 9,
        1 => n * 2,
        _ => *n,
    };
    (13..=19).contains(&digits.len()) && digits.iter().rev().enumerate().map(doubled).sum::<u32>() % 10 == 0
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    !text.is_empty() && base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 21] = [
        "ns", "us", "µs", "ms", "s", "m", "h", "d", "w", "sec", "min", "hr", "wk", "nano", "micro", "milli", "hour",
        "day", "week", "seconds", "minutes",
    ];
    let known = |unit: &str| {
        let unit = unit.to_lowercase();
        UNITS.contains(&unit.as_str())
            || UNITS[13..19].iter().any(|u| unit.starts_with(u))
            || unit.starts_with("sec")
            || unit.starts_with("min")
    };
    go_duration::nanos(text).is_ok()
        || pattern(8).captures_iter(text).any(|c| c.get(2).is_some_and(|unit| known(unit.as_str())))
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((date, time)) = lower.split_once('t') else { return false };
    if date.parse::<jiff::civil::Date>().is_err() || date.len() != 10 {
        return false;
    }
    let found = pattern(7).captures(time);
    let part = |found: &regex::Captures<'_>, i: usize, max: &str| found.get(i).is_some_and(|m| m.as_str() <= max);
    found.is_some_and(|f| part(&f, 1, "23") && part(&f, 2, "59") && part(&f, 3, "59"))
}
