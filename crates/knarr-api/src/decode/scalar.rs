//! The scalars of the API's JSON: strings, numbers, base64 and times.

use std::borrow::Cow;

use base64::Engine;
use jiff::Timestamp;
use serde_json::{Number, Value};

/// An integer where it is one that fits, else a double; `None` where it fits neither.
pub fn number(text: &str) -> Option<Number> {
    if !text.contains('.')
        && let Ok(integer) = text.parse::<i64>()
    {
        return Some(integer.into());
    }
    Number::from_f64(text.parse().ok()?)
}

/// Decodes standard base64 as Go does, which passes over line breaks; the error is the offending byte's place.
pub fn base64(text: &str) -> Result<Vec<u8>, usize> {
    use base64::engine::general_purpose::STANDARD;
    if let Ok(bytes) = STANDARD.decode(text) {
        return Ok(bytes);
    }
    let joined: String = text.chars().filter(|c| *c != '\n' && *c != '\r').collect();
    STANDARD.decode(&joined).map_err(|_| bad_base64_byte(text))
}

/// Where Go's decoder stops: at the first byte outside the alphabet, else at the end of what is whole.
fn bad_base64_byte(text: &str) -> usize {
    let alphabet = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'\n' | b'\r');
    let bytes = text.as_bytes();
    if let Some(at) = bytes.iter().position(|b| !alphabet(b)) {
        return at;
    }
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) if at % 4 < 2 => at,
        Some(at) => (at / 4 * 4 + 4).min(bytes.len()),
        None => bytes.len() / 4 * 4,
    }
}

/// The text between the quotes of a JSON string. Lone surrogates and broken UTF-8 become U+FFFD, as in Go.
pub fn unquote(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(byte) = raw.get(at).copied() {
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escape = raw.get(at).copied().unwrap_or_default();
        at += 1;
        match escape {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => at = unquote_unicode(raw, at, &mut out),
            other => out.push(other),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn hex4(raw: &[u8], at: usize) -> Option<u32> {
    let digits = std::str::from_utf8(raw.get(at..at + 4)?).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

/// Reads the four digits at `at` (and a following low surrogate), returns where to go on.
fn unquote_unicode(raw: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let first = hex4(raw, at).unwrap_or(0xfffd);
    let mut next = at + 4;
    let mut code = first;
    if (0xd800..0xdc00).contains(&first)
        && raw.get(next..next + 2) == Some(b"\\u")
        && let Some(low @ 0xdc00..0xe000) = hex4(raw, next + 2)
    {
        code = 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00);
        next += 6;
    }
    let decoded = char::from_u32(code).unwrap_or('\u{fffd}');
    out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
    next
}

/// `metav1.Time`: RFC 3339, shown in UTC with whole seconds.
pub fn time(text: &str) -> Result<Value, String> {
    let stamp = timestamp(text, "2006-01-02T15:04:05Z07:00")?;
    Ok(Value::String(stamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
}

/// `metav1.MicroTime`: RFC 3339 with six decimals, neither more nor less; shown in UTC.
pub fn micro_time(text: &str) -> Result<Value, String> {
    const LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";
    let stamp = timestamp(text, LAYOUT)?;
    let fraction = &text[SECONDS_END..];
    let decimals = fraction.strip_prefix('.').and_then(|digits| digits.get(..6));
    if !decimals.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {fraction:?} as \".000000\""));
    }
    let zone = &fraction[7..];
    if zone.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {zone:?} as \"Z07:00\""));
    }
    Ok(Value::String(stamp.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()))
}

/// Where the fraction of a second, or else the zone, begins.
const SECONDS_END: usize = "2006-01-02T15:04:05".len();

fn timestamp(text: &str, layout: &str) -> Result<Timestamp, String> {
    let strict = text.len() > SECONDS_END && text.as_bytes()[10] == b'T' && text.is_ascii();
    match text.parse::<Timestamp>() {
        Ok(stamp) if strict => Ok(stamp),
        _ => Err(time_error(text, layout)),
    }
}

/// Go names the first layout element that does not match and the text left at that point.
fn time_error(text: &str, layout: &str) -> String {
    const PARTS: [(&str, usize); 11] = [
        ("2006", 4),
        ("-", 1),
        ("01", 2),
        ("-", 1),
        ("02", 2),
        ("T", 1),
        ("15", 2),
        (":", 1),
        ("04", 2),
        (":", 1),
        ("05", 2),
    ];
    let mut rest = text;
    for (part, width) in PARTS {
        let digits = part.as_bytes()[0].is_ascii_digit();
        let fits = rest
            .get(..width)
            .is_some_and(|head| if digits { head.bytes().all(|b| b.is_ascii_digit()) } else { head == part });
        if !fits {
            return format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}");
        }
        rest = &rest[width..];
    }
    format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as \"Z07:00\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_unquoted_as_go_does() {
        assert_eq!(unquote(br#"a\u00e9\n\ud83d\ude00\ud83dx"#), "aé\n😀\u{fffd}x");
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(time("2024-01-02T03:04:05+01:00"), Ok("2024-01-02T02:04:05Z".into()));
        assert_eq!(micro_time("2024-01-02T03:04:05.100000+01:00"), Ok("2024-01-02T02:04:05.100000Z".into()));
        for (text, rest, part) in
            [("05Z", "Z", ".000000"), ("05.1Z", ".1Z", ".000000"), ("05.1234567Z", "7Z", "Z07:00")]
        {
            let why = format!(
                "parsing time \"2024-01-02T03:04:{text}\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {rest:?} as {part:?}"
            );
            assert_eq!(micro_time(&format!("2024-01-02T03:04:{text}")), Err(why));
        }
        let why = "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"";
        assert_eq!(time("x"), Err(why.to_string()));
    }

    #[test]
    fn base64_errors_name_the_byte() {
        assert_eq!(base64("aGk="), Ok(b"hi".to_vec()));
        assert_eq!(base64("Bad_Value!"), Err(3));
        assert_eq!(base64(" a b "), Err(0));
    }
}
