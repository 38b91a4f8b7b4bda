//! Durations as Go writes them: in requests, objects, expressions, configuration files and flags.

use std::time::Duration;

/// Digits of a fraction that can matter to any unit.
const FRACTION_DIGITS: usize = 18;

/// Reads a duration that is not negative. `None` for anything else.
pub fn parse(text: &str) -> Option<Duration> {
    nanos(text).ok().and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos)
}

/// The nanoseconds of `1h30m`, `-1.5s`, `250ms`; or what Go says is wrong with it.
pub fn nanos(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = Number::read(rest).ok_or_else(invalid)?;
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (name, next) = after.split_at(end);
        if name.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let unit = unit(name).ok_or_else(|| format!("time: unknown unit {name:?} in duration {text:?}"))?;
        total = number.times(unit).and_then(|nanos| total.checked_add(nanos)).ok_or_else(invalid)?;
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// A unit in nanoseconds.
fn unit(name: &str) -> Option<i128> {
    Some(match name {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The digits before and after the point.
struct Number<'a> {
    whole: &'a str,
    fraction: &'a str,
}

impl<'a> Number<'a> {
    /// The number that a text begins with, and what follows; `None` if it does not.
    fn read(text: &'a str) -> Option<(Number<'a>, &'a str)> {
        let (whole, rest) = split_digits(text);
        let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
        (!whole.is_empty() || !fraction.is_empty()).then_some((Number { whole, fraction }, rest))
    }

    fn times(&self, unit: i128) -> Option<i128> {
        let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        let fraction = &self.fraction[..self.fraction.len().min(FRACTION_DIGITS)];
        let scale = 10i128.pow(fraction.len() as u32);
        parse(self.whole)?.checked_mul(unit)?.checked_add(parse(fraction)?.checked_mul(unit)? / scale)
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let cases: &[(&str, Result<i64, &str>)] = &[
            ("30s", Ok(30_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1h30m", Ok(5_400_000_000_000)),
            ("1.5ms", Ok(1_500_000)),
            (".5s", Ok(500_000_000)),
            ("1.s", Ok(1_000_000_000)),
            ("+1s", Ok(1_000_000_000)),
            ("-2us", Ok(-2_000)),
            ("0", Ok(0)),
            ("9223372036854775807ns", Ok(i64::MAX)),
            ("-9223372036854775808ns", Ok(i64::MIN)),
            ("9223372036854775808ns", Err(r#"time: invalid duration "9223372036854775808ns""#)),
            ("5", Err(r#"time: missing unit in duration "5""#)),
            ("1.2.3s", Err(r#"time: missing unit in duration "1.2.3s""#)),
            ("5x", Err(r#"time: unknown unit "x" in duration "5x""#)),
            ("1e400h", Err(r#"time: unknown unit "e" in duration "1e400h""#)),
            ("s", Err(r#"time: invalid duration "s""#)),
            (".s", Err(r#"time: invalid duration ".s""#)),
            ("-", Err(r#"time: invalid duration "-""#)),
            ("", Err(r#"time: invalid duration """#)),
        ];
        for (text, expected) in cases {
            assert_eq!(nanos(text).as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{text}");
        }
        assert_eq!(parse("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!((parse("-5s"), parse("soon")), (None, None));
    }
}
