//! Errors at a place in the text, shown as cel-go shows them.

use std::fmt;

/// One thing wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// In characters from the start; `None` where no place is to blame.
    pub position: Option<u32>,
    pub message: String,
}

/// Why a text is not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.render())]
pub struct CompileError {
    text: String,
    /// In the order of their places.
    pub issues: Vec<Issue>,
}

/// Texts longer than this are not shown below their error.
const SNIPPET_LIMIT: usize = 16_384;
/// More errors than this are only counted.
const SHOWN: usize = 100;

impl CompileError {
    pub(crate) fn new(source: &str, mut issues: Vec<Issue>) -> Self {
        let place = |issue: &Issue| issue.position.map_or((-1, -1), |p| line_and_column(source, p));
        issues.sort_by_key(place);
        CompileError { text: source.to_string(), issues }
    }

    fn render(&self) -> String {
        let mut shown: Vec<String> = self.issues.iter().take(SHOWN).map(|i| self.render_issue(i)).collect();
        if self.issues.len() > SHOWN {
            shown.push(format!("{} more errors were truncated", self.issues.len() - SHOWN));
        }
        shown.join("\n")
    }

    fn render_issue(&self, issue: &Issue) -> String {
        let (line, column) = issue.position.map_or((-1, -1), |p| line_and_column(&self.text, p));
        let mut out = format!("ERROR: <input>:{line}:{}: {}", column + 1, issue.message);
        let snippet = usize::try_from(line - 1).ok().and_then(|l| self.text.split('\n').nth(l));
        if let Some(snippet) = snippet.filter(|s| s.len() <= SNIPPET_LIMIT) {
            let snippet = snippet.replace('\t', " ");
            let pointer = Pointer { snippet: &snippet, column: usize::try_from(column).unwrap_or(0) };
            out.push_str(&format!("\n | {snippet}\n | {pointer}"));
        }
        out
    }
}

/// Dots up to a column, then a caret; wide ones below characters that are not ASCII.
struct Pointer<'a> {
    snippet: &'a str,
    column: usize,
}

impl fmt::Display for Pointer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.snippet.chars();
        for c in chars.by_ref().take(self.column) {
            f.write_str(if c.is_ascii() { "." } else { "\u{ff0e}" })?;
        }
        f.write_str(if chars.next().is_none_or(|c| c.is_ascii()) { "^" } else { "\u{ff3e}" })
    }
}

/// The line (from 1) and column (from 0) of a place in characters.
fn line_and_column(source: &str, position: u32) -> (i64, i64) {
    let (mut line, mut column) = (1, 0);
    for c in source.chars().take(position as usize) {
        if c == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    (line, column)
}
