//! What a container said at its end: its termination message file, or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Longest message, and longest piece of a log that stands in for one.
const MESSAGE_LIMIT: u64 = 4096;
const LOG_LIMIT: usize = 2048;
const LOG_LINES: usize = 80;

/// The message of a container that ended with `exit_code`; empty if it said nothing.
pub fn message(file: &Path, log: &Path, from_logs: bool, exit_code: i32) -> String {
    let written = read_start(file).unwrap_or_default();
    if written.is_empty() && from_logs && exit_code != 0 {
        return log_tail(log).unwrap_or_default();
    }
    written
}

fn read_start(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MESSAGE_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log in the runtime's format (`time stream tag text`).
fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // Every line carries some fifty bytes of its own, so read well more than is kept.
    let start = length.saturating_sub((LOG_LIMIT + LOG_LINES * 64) as u64);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.split_inclusive('\n').skip(usize::from(start > 0)).collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    let tail: String = last.iter().map(|line| content(line)).collect();
    let mut from = tail.len().saturating_sub(LOG_LIMIT);
    while !tail.is_char_boundary(from) {
        from += 1;
    }
    Ok(tail[from..].to_owned())
}

fn content(line: &str) -> String {
    let mut parts = line.splitn(4, ' ');
    let (_, _, tag, text) = (parts.next(), parts.next(), parts.next(), parts.next());
    let text = text.unwrap_or_default();
    if tag == Some("P") { text.trim_end_matches('\n').to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_stands_in_for_a_missing_message_of_a_failure() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, log) = (directory.path().join("message"), directory.path().join("0.log"));
        std::fs::write(&file, "").expect("written");
        std::fs::write(
            &log,
            "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P tw\n2026-01-01T00:00:00Z stderr F o\n",
        )
        .expect("written");
        assert_eq!(message(&file, &log, true, 1), "one\ntwo\n");
        assert_eq!(message(&file, &log, true, 0), "");
        assert_eq!(message(&file, &log, false, 1), "");
        std::fs::write(&file, "bye").expect("written");
        assert_eq!(message(&file, &log, true, 1), "bye");
    }
}
