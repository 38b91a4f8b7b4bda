//! Durations and timestamps.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, Zoned};

use super::Row;
use super::strings::text;
use crate::error::EvalError;
use crate::value::{Duration, Value};

type Answer<'a> = Result<Value<'a>, EvalError>;

pub const ROWS: &[Row] = &[
    ("timestamp::getFullYear() -> int", |v| part(v, |t| i64::from(t.year()))),
    ("timestamp::getFullYear(string) -> int", |v| part(v, |t| i64::from(t.year()))),
    ("timestamp::getMonth() -> int", |v| part(v, |t| i64::from(t.month()) - 1)),
    ("timestamp::getMonth(string) -> int", |v| part(v, |t| i64::from(t.month()) - 1)),
    ("timestamp::getDayOfYear() -> int", |v| part(v, |t| i64::from(t.day_of_year()) - 1)),
    ("timestamp::getDayOfYear(string) -> int", |v| part(v, |t| i64::from(t.day_of_year()) - 1)),
    ("timestamp::getDayOfMonth() -> int", |v| part(v, |t| i64::from(t.day()) - 1)),
    ("timestamp::getDayOfMonth(string) -> int", |v| part(v, |t| i64::from(t.day()) - 1)),
    ("timestamp::getDate() -> int", |v| part(v, |t| i64::from(t.day()))),
    ("timestamp::getDate(string) -> int", |v| part(v, |t| i64::from(t.day()))),
    ("timestamp::getDayOfWeek() -> int", |v| part(v, |t| i64::from(t.weekday().to_sunday_zero_offset()))),
    ("timestamp::getDayOfWeek(string) -> int", |v| part(v, |t| i64::from(t.weekday().to_sunday_zero_offset()))),
    ("timestamp::getHours() -> int", |v| part(v, |t| i64::from(t.hour()))),
    ("timestamp::getHours(string) -> int", |v| part(v, |t| i64::from(t.hour()))),
    ("timestamp::getMinutes() -> int", |v| part(v, |t| i64::from(t.minute()))),
    ("timestamp::getMinutes(string) -> int", |v| part(v, |t| i64::from(t.minute()))),
    ("timestamp::getSeconds() -> int", |v| part(v, |t| i64::from(t.second()))),
    ("timestamp::getSeconds(string) -> int", |v| part(v, |t| i64::from(t.second()))),
    ("timestamp::getMilliseconds() -> int", |v| part(v, |t| i64::from(t.millisecond()))),
    ("timestamp::getMilliseconds(string) -> int", |v| part(v, |t| i64::from(t.millisecond()))),
    ("duration::getHours() -> int", |v| whole(v, 3_600_000_000_000)),
    ("duration::getMinutes() -> int", |v| whole(v, 60_000_000_000)),
    ("duration::getSeconds() -> int", |v| whole(v, 1_000_000_000)),
    ("duration::getMilliseconds() -> int", |v| whole(v, 1_000_000)),
];

/// CEL knows the years 1 to 9999.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

/// A part of a timestamp, in UTC or the zone that the second value names.
fn part<'a>(values: &[Value<'a>], of: fn(&Zoned) -> i64) -> Answer<'a> {
    let Value::Timestamp(at) = &values[0] else { return Err(EvalError::overload()) };
    let zone = if values.len() > 1 { zone(text(values, 1)?)? } else { TimeZone::UTC };
    Ok(Value::Int(of(&at.to_zoned(zone))))
}

/// A zone by name (`Europe/Berlin`) or offset (`+02:00`, `02:00`, `-08:30`).
fn zone(name: &str) -> Result<TimeZone, EvalError> {
    let unknown = || EvalError::failed(format!("unknown time zone {name}"));
    let Some((hours, minutes)) = name.split_once(':') else {
        return match name {
            "" | "UTC" => Ok(TimeZone::UTC),
            name => TimeZone::get(name).map_err(|_| unknown()),
        };
    };
    let (hours, minutes) =
        (hours.parse::<i32>().map_err(|_| unknown())?, minutes.parse::<i32>().map_err(|_| unknown())?);
    let sign = if name.starts_with('-') { -1 } else { 1 };
    let seconds = sign * (hours.abs().saturating_mul(3600).saturating_add(minutes.saturating_mul(60)));
    Offset::from_seconds(seconds).map(TimeZone::fixed).map_err(|_| unknown())
}

fn whole<'a>(values: &[Value<'a>], unit: i64) -> Answer<'a> {
    match &values[0] {
        Value::Duration(duration) => Ok(Value::Int(duration.0 / unit)),
        _ => Err(EvalError::overload()),
    }
}

pub(super) fn shift<'a>(at: Timestamp, by: SignedDuration) -> Answer<'a> {
    let moved = at.checked_add(by).ok().filter(|t| (FIRST_SECOND..=LAST_SECOND).contains(&t.as_second()));
    moved.map(Value::Timestamp).ok_or(EvalError::failed("timestamp overflow"))
}

pub(super) fn duration_between<'a>(a: Timestamp, b: Timestamp) -> Answer<'a> {
    let nanos = i64::try_from(a.as_nanosecond() - b.as_nanosecond());
    nanos.map(|nanos| Value::Duration(Duration(nanos))).map_err(|_| EvalError::failed("duration overflow"))
}

/// RFC 3339.
pub fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // The parser is more generous than RFC 3339: it takes spaces, basic formats and zone annotations too.
    let strict = bytes.len() >= 20 && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't');
    let closed = !text.contains('[') && bytes.get(13) == Some(&b':') && bytes.get(16) == Some(&b':');
    let parsed: Timestamp = (strict && closed).then(|| text.parse().ok())??;
    (FIRST_SECOND..=LAST_SECOND).contains(&parsed.as_second()).then_some(parsed)
}

/// Go's notation: `1h30m`, `-1.5s`, `250ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    knarr_api::go_duration::nanos(text).ok().map(Duration)
}

/// Seconds, as `string(duration)` says them: `5400s`, `1.5s`.
pub fn duration_text(duration: Duration) -> String {
    let nanos = duration.0.unsigned_abs();
    let sign = if duration.0 < 0 { "-" } else { "" };
    let fraction = format!("{:09}", nanos % 1_000_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{}s", nanos / 1_000_000_000),
        fraction => format!("{sign}{}.{fraction}s", nanos / 1_000_000_000),
    }
}
