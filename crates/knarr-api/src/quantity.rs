//! Resource quantities: `100m`, `1.5Gi`, `3e6`.
//!
//! A quantity is kept as an integer number of billionths, which is as fine as the API goes, beside the notation it was
//! written in, which decides its canonical text.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Neg, Sub};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
/// The largest quantity there is; larger ones are capped to it.
const MAX: i128 = i64::MAX as i128 * NANO;

/// The notation a quantity was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notation {
    /// `1Ki`
    Binary,
    /// `1k`
    Decimal,
    /// `1e3`
    Exponent,
}

/// A parsed quantity. Equality and order are of the value: `1000m` equals `1`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    notation: Notation,
}

/// Why a text is not a quantity; the texts are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Number,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, notation: Notation::Decimal };

    /// A whole number.
    pub fn from_i64(value: i64) -> Self {
        Quantity { nanos: i128::from(value) * NANO, notation: Notation::Decimal }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_millis(value: i64) -> Self {
        Quantity { nanos: i128::from(value) * (NANO / 1000), notation: Notation::Decimal }
    }

    /// The value rounded up to a whole number.
    pub fn to_i64(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// The value in thousandths, rounded up.
    pub fn to_millis(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero.
fn ceil_div(value: i128, by: i128) -> i128 {
    let (quotient, rest) = (value / by, value % by);
    if rest == 0 { quotient } else { quotient + rest.signum() }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;
    /// The sum, in the notation of the left side unless that is zero.
    fn add(self, other: Quantity) -> Quantity {
        let notation = if self.nanos == 0 { other.notation } else { self.notation };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), notation }
    }
}

impl Neg for Quantity {
    type Output = Quantity;
    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, notation: self.notation }
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    fn sub(self, other: Quantity) -> Quantity {
        self + -other
    }
}

/// The suffixes with their powers: of ten for the decimal ones, of two for the binary ones.
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Splits into sign, digits with at most one point, and suffix.
fn split(text: &str) -> Result<(bool, &str, &str, &str), QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        None => return Err(QuantityError::Format),
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) => (false, text),
    };
    let whole_end = rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let (whole, mut rest) = rest.split_at(whole_end);
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(after.len());
        (fraction, rest) = after.split_at(end);
    }
    if whole.is_empty() && fraction.is_empty() {
        return Err(QuantityError::Format);
    }
    check_suffix_form(rest)?;
    Ok((negative, whole, fraction, rest))
}

/// The suffix must be letters of the known set, then a sign, then digits.
fn check_suffix_form(suffix: &str) -> Result<(), QuantityError> {
    let letters = suffix.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let mut rest = &suffix.as_bytes()[letters..];
    if let [b'+' | b'-', tail @ ..] = rest {
        rest = tail;
    }
    if rest.iter().all(u8::is_ascii_digit) { Ok(()) } else { Err(QuantityError::Format) }
}

fn notation_of(suffix: &str) -> Result<(Notation, i32, u32), QuantityError> {
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Notation::Decimal, *power, 0));
    }
    if let Some((_, power)) = BINARY.iter().find(|(s, _)| *s == suffix) {
        return Ok((Notation::Binary, 0, *power));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Notation::Exponent, exponent, 0))
}

/// Digits times 10^`power` times 2^`twos`, in billionths, rounded up, capped.
fn scale(whole: &str, fraction: &str, power: i32, twos: u32) -> i128 {
    let digits = || whole.bytes().chain(fraction.bytes()).skip_while(|b| *b == b'0');
    if digits().next().is_none() {
        return 0;
    }
    let mut shift = i64::from(power) + 9 - fraction.len() as i64;
    let mut mantissa: i128 = 0;
    let mut lost = false;
    for digit in digits() {
        if mantissa > MAX * 16 {
            // Already beyond the cap's digits: further ones only count as places.
            lost |= digit != b'0';
            shift += 1;
        } else {
            mantissa = mantissa * 10 + i128::from(digit - b'0');
        }
    }
    for _ in 0..twos {
        if mantissa > MAX * 16 {
            return MAX;
        }
        mantissa *= 2;
    }
    while shift > 0 {
        if mantissa > MAX {
            return MAX;
        }
        mantissa *= 10;
        shift -= 1;
    }
    while shift < 0 && mantissa != 0 {
        lost |= mantissa % 10 != 0;
        mantissa /= 10;
        shift += 1;
    }
    (mantissa + i128::from(lost)).min(MAX)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        if text == "0" {
            return Ok(Quantity::ZERO);
        }
        let (negative, whole, fraction, suffix) = split(text)?;
        let (mut notation, power, twos) = notation_of(suffix)?;
        let nanos = scale(whole, fraction, power, twos);
        if notation == Notation::Binary && nanos > 0 && nanos < NANO {
            notation = Notation::Decimal;
        }
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, notation })
    }
}

impl fmt::Display for Quantity {
    /// The canonical text: no fraction, the largest suffix that allows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let small = self.nanos.abs() < 1024 * NANO;
        match self.notation {
            Notation::Binary if !small => self.fmt_binary(f),
            Notation::Exponent => self.fmt_decimal(f, true),
            _ => self.fmt_decimal(f, false),
        }
    }
}

impl Quantity {
    fn fmt_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = ceil_div(self.nanos, NANO);
        let mut step = 0;
        while value % 1024 == 0 && step < BINARY.len() {
            value /= 1024;
            step += 1;
        }
        write!(f, "{value}{}", if step == 0 { "" } else { BINARY[step - 1].0 })
    }

    fn fmt_decimal(self, f: &mut fmt::Formatter<'_>, exponent: bool) -> fmt::Result {
        let mut value = self.nanos;
        let mut step = 0;
        while value % 1000 == 0 && step + 1 < DECIMAL.len() {
            value /= 1000;
            step += 1;
        }
        let (suffix, power) = DECIMAL[step];
        match (exponent, power) {
            (true, 0) => write!(f, "{value}"),
            (true, power) => write!(f, "{value}e{power}"),
            (false, _) => write!(f, "{value}{suffix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().map_or_else(|e| e.to_string(), |q| q.to_string())
    }

    #[test]
    fn canonical_texts_are_upstreams() {
        for (given, wanted) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1e3", "1e3"),
            ("100e6", "100e6"),
            ("1000k", "1M"),
            ("0.0000000001", "1n"),
            ("-5", "-5"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.1Ki", "1127"),
            ("9223372036854775808", "9223372036854775807"),
            ("1E", "1E"),
            ("100E", "9223372036854775807"),
        ] {
            assert_eq!(canonical(given), wanted, "{given}");
        }
    }

    #[test]
    fn wrong_texts_are_refused_with_upstreams_reasons() {
        for text in ["", "a", "1 ", "--1", "1.2.3", ".", "1x", "{\"a\":1}"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Format), "{text}");
        }
        for text in ["1kk", "1eE", "1K", "1i", "1e"] {
            assert_eq!(text.parse::<Quantity>(), Err(QuantityError::Suffix), "{text}");
        }
    }

    #[test]
    fn arithmetic_keeps_value_and_notation() {
        let a: Quantity = "1Gi".parse().expect("a quantity");
        let b: Quantity = "512Mi".parse().expect("a quantity");
        assert_eq!((a - b).to_string(), "512Mi");
        assert_eq!((a + b).to_string(), "1536Mi");
        assert!(b < a);
        let milli: Quantity = "1500m".parse().expect("a quantity");
        assert_eq!((milli.to_i64(), milli.to_millis()), (2, 1500));
    }
}
