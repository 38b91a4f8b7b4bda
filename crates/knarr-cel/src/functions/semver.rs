//! Semantic versions (semver.org 2.0.0).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Row;
use super::strings::text;
use crate::error::EvalError;
use crate::value::Value;

pub const ROWS: &[Row] = &[
    ("semver(string) -> kubernetes.Semver", |v| Ok(Value::Semver(Arc::new(read(v)?)))),
    ("semver(string, bool) -> kubernetes.Semver", |v| Ok(Value::Semver(Arc::new(read(v)?)))),
    ("isSemver(string) -> bool", |v| Ok(Value::Bool(read(v).is_ok()))),
    ("isSemver(string, bool) -> bool", |v| Ok(Value::Bool(read(v).is_ok()))),
    ("kubernetes.Semver::isGreaterThan(kubernetes.Semver) -> bool", |v| Ok(Value::Bool(order(v)?.is_gt()))),
    ("kubernetes.Semver::isLessThan(kubernetes.Semver) -> bool", |v| Ok(Value::Bool(order(v)?.is_lt()))),
    ("kubernetes.Semver::compareTo(kubernetes.Semver) -> int", |v| Ok(Value::Int(order(v)? as i64))),
    ("kubernetes.Semver::major() -> int", |v| Ok(Value::Int(version(v, 0)?.numbers[0] as i64))),
    ("kubernetes.Semver::minor() -> int", |v| Ok(Value::Int(version(v, 0)?.numbers[1] as i64))),
    ("kubernetes.Semver::patch() -> int", |v| Ok(Value::Int(version(v, 0)?.numbers[2] as i64))),
];

/// A version; what comes after `+` is shown but does not count.
#[derive(Clone, Debug)]
pub struct Version {
    numbers: [u64; 3],
    pre_release: Vec<String>,
    build: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.pre_release.is_empty() {
            write!(f, "-{}", self.pre_release.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

impl Version {
    /// The precedence of two versions: a pre-release comes before its release.
    pub fn compare(&self, other: &Version) -> Ordering {
        let by_numbers = self.numbers.cmp(&other.numbers);
        by_numbers.then_with(|| match (self.pre_release.is_empty(), other.pre_release.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre_releases(&self.pre_release, &other.pre_release),
        })
    }
}

fn compare_pre_releases(a: &[String], b: &[String]) -> Ordering {
    let pairs = a.iter().zip(b).map(|(a, b)| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    });
    pairs.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
}

fn version<'v>(values: &'v [Value<'_>], at: usize) -> Result<&'v Version, EvalError> {
    match values.get(at) {
        Some(Value::Semver(version)) => Ok(version),
        _ => Err(EvalError::overload()),
    }
}

fn order(values: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(version(values, 0)?.compare(version(values, 1)?))
}

/// Reads the first value, made regular before where the second one says so.
fn read(values: &[Value<'_>]) -> Result<Version, EvalError> {
    let text = text(values, 0)?;
    match values.get(1) {
        Some(Value::Bool(true)) => parse(&normalize(text)?),
        _ => parse(text),
    }
}

/// `v1.02` becomes `1.2.0`.
fn normalize(text: &str) -> Result<String, EvalError> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text.splitn(3, '.').map(without_leading_zeros).collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err(EvalError::failed("short version cannot contain PreRelease/Build meta data"));
    }
    parts.resize(3, "0".to_string());
    Ok(parts.join("."))
}

fn without_leading_zeros(part: &str) -> String {
    let trimmed = if part.len() > 1 { part.trim_start_matches('0') } else { part };
    let numeric = trimmed.starts_with(|c: char| c.is_ascii_digit()) || part.len() <= 1;
    if numeric { trimmed.to_string() } else { format!("0{trimmed}") }
}

fn parse(text: &str) -> Result<Version, EvalError> {
    if text.is_empty() {
        return Err(EvalError::failed("Version string empty"));
    }
    let mut parts = text.splitn(3, '.');
    let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(EvalError::failed("No Major.Minor.Patch elements found"));
    };
    let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
    let (patch, pre_release) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
    let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
    let pre_release: Vec<String> = pre_release.into_iter().flat_map(|pre| pre.split('.')).map(str::to_string).collect();
    for part in &pre_release {
        check_identifier(part, "Prerelease")?;
        if part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(EvalError::failed(format!(
                "Numeric PreRelease version must not contain leading zeroes {part:?}"
            )));
        }
    }
    for part in build.into_iter().flat_map(|build| build.split('.')) {
        check_identifier(part, "Build meta data")?;
    }
    Ok(Version { numbers, pre_release, build: build.unwrap_or_default().to_string() })
}

fn check_identifier(part: &str, what: &str) -> Result<(), EvalError> {
    if part.is_empty() {
        return Err(EvalError::failed(format!("{what} is empty")));
    }
    if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(EvalError::failed(format!("Invalid character(s) found in {} {part:?}", what.to_lowercase())));
    }
    Ok(())
}

fn number(text: &str, what: &str) -> Result<u64, EvalError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EvalError::failed(format!("Invalid character(s) found in {what} number {text:?}")));
    }
    if text.len() > 1 && text.starts_with('0') {
        let capital = format!("{}{}", what[..1].to_uppercase(), &what[1..]);
        return Err(EvalError::failed(format!("{capital} number must not contain leading zeroes {text:?}")));
    }
    text.parse().map_err(|_| EvalError::failed(format!("strconv.ParseUint: parsing {text:?}: value out of range")))
}
