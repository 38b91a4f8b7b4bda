//! One line of a log in CRI format: `TIMESTAMP stdout|stderr F|P CONTENT`.

use jiff::Timestamp;

/// Which of the two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Output {
    Stdout,
    Stderr,
}

#[derive(Debug, PartialEq)]
pub(super) struct Line<'a> {
    pub timestamp: Timestamp,
    /// As written: its digits are shown unchanged.
    pub timestamp_text: &'a str,
    pub output: Output,
    /// The rest of the line follows in another entry (the runtime splits long lines).
    pub partial: bool,
    pub content: &'a [u8],
}

impl<'a> Line<'a> {
    /// Reads a line without its line feed; `None` for what no runtime writes.
    pub(super) fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let timestamp_text = std::str::from_utf8(fields.next()?).ok()?;
        let timestamp = timestamp_text.parse().ok()?;
        let output = match fields.next()? {
            b"stdout" => Output::Stdout,
            b"stderr" => Output::Stderr,
            _ => return None,
        };
        let tags = fields.next()?;
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Line { timestamp, timestamp_text, output, partial, content: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_runtime_are_read() {
        let line = Line::parse(b"2026-01-02T03:04:05.678901234Z stderr P a b ").unwrap();
        assert_eq!((line.output, line.partial, line.content), (Output::Stderr, true, &b"a b "[..]));
        let empty = Line::parse(b"2026-01-02T03:04:05+02:00 stdout F ").unwrap();
        assert_eq!((empty.content, empty.partial), (&b""[..], false));
        for broken in [&b""[..], b"x", b"2026-01-02T03:04:05Z", b"2026-01-02T03:04:05Z stdin F x", b"now stdout F x"] {
            assert_eq!(Line::parse(broken), None);
        }
    }
}
