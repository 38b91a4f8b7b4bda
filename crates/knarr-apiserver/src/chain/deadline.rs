//! How long a request may take: upstream's 60 seconds, or less where the client says `timeout=`.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use knarr_api::StatusError;
use knarr_api::status::Reason;
use tokio::time::Instant;

use super::Handler;
use super::request_info::RequestInfo;
use crate::http::{Body, respond};
use crate::registry::options::Query;

/// When a request must have been answered; only in requests that ask for less than the server allows.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    pub fn remaining(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Ends requests that take too long, except those that are meant to last.
pub struct Timeout<H> {
    pub inner: H,
    pub limit: Duration,
}

impl<H: Handler> Handler for Timeout<H> {
    async fn handle(&self, mut request: Request<Body>) -> Response<Body> {
        let lasts = request.extensions().get::<Arc<RequestInfo>>().is_some_and(|info| info.long_running);
        if lasts {
            return self.inner.handle(request).await;
        }
        let limit = match asked(request.uri().query().unwrap_or_default()) {
            Ok(Some(asked)) if asked < self.limit => {
                request.extensions_mut().insert(Deadline(Instant::now() + asked));
                asked
            }
            Ok(_) => self.limit,
            Err(why) => return respond::from_error(&StatusError::bad_request(why)),
        };
        match tokio::time::timeout(limit, self.inner.handle(request)).await {
            Ok(response) => response,
            Err(_) => respond::from_error(&StatusError::new(
                Reason::Timeout,
                "Timeout: request did not complete within the allotted timeout",
            )),
        }
    }
}

/// The time in `timeout=`; 0 asks for none, as upstream.
fn asked(query: &str) -> Result<Option<Duration>, String> {
    if !query.contains("timeout=") {
        return Ok(None);
    }
    match Query::parse(query).get("timeout") {
        "" => Ok(None),
        text => match parse_go_duration(text) {
            Ok(nanos) => Ok(u64::try_from(nanos).ok().filter(|n| *n > 0).map(Duration::from_nanos)),
            Err(why) => Err(format!("invalid timeout specified in the request URL - {why}")),
        },
    }
}

const UNITS: &[(&str, f64)] =
    &[("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Nanoseconds of a duration as Go writes it (`1m30s`, `-1.5h`), or what Go says is wrong with it.
pub fn parse_go_duration(text: &str) -> Result<i64, String> {
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
    let mut nanos = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if unit == 0 {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let name = &rest[..unit];
        let found = UNITS.iter().find(|(unit, _)| *unit == name);
        let (_, scale) = found.ok_or_else(|| format!("time: unknown unit {name:?} in duration {text:?}"))?;
        nanos += number * scale;
        rest = &rest[unit..];
    }
    if nanos > i64::MAX as f64 {
        return Err(invalid());
    }
    Ok(if negative { -(nanos as i64) } else { nanos as i64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let cases: &[(&str, Result<i64, &str>)] = &[
            ("30s", Ok(30_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("1.5ms", Ok(1_500_000)),
            ("-2us", Ok(-2_000)),
            ("0", Ok(0)),
            ("5", Err(r#"time: missing unit in duration "5""#)),
            ("5x", Err(r#"time: unknown unit "x" in duration "5x""#)),
            ("s", Err(r#"time: invalid duration "s""#)),
            ("", Err(r#"time: invalid duration """#)),
        ];
        for (text, expected) in cases {
            assert_eq!(
                parse_go_duration(text).as_ref().map_err(String::as_str),
                expected.as_ref().map_err(|e| *e),
                "{text}"
            );
        }
    }
}
