//! YAML bodies, turned into JSON before anything else looks at them.

use std::borrow::Cow;
use std::collections::HashSet;

use granit_parser::{Event, Parser};

/// A YAML document as JSON.
pub struct Json<'b> {
    pub text: Cow<'b, [u8]>,
    /// Of the keys that stand more than once in one map, the last counts; the others are told here, as upstream's parser does.
    pub repeated: Vec<String>,
}

/// The JSON of a YAML document (of the first, where there are several).
pub fn to_json(bytes: &[u8]) -> Result<Json<'_>, String> {
    if looks_like_json(bytes) {
        return Ok(Json { text: bytes.into(), repeated: Vec::new() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "yaml: invalid UTF-8".to_string())?;
    let value =
        crate::yaml::parse_last_wins(text).map_err(|error| format!("error converting YAML to JSON: yaml: {error}"))?;
    let json = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    Ok(Json { text: json.into(), repeated: repeated_keys(bytes) })
}

/// JSON is YAML too; it is passed through so that the JSON decoder sees its duplicates and depth.
fn looks_like_json(bytes: &[u8]) -> bool {
    bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{') && super::syntax::check(bytes).is_ok()
}

/// A list or map that the scan is in.
#[derive(Default)]
struct Level {
    /// `None` in a list.
    keys: Option<HashSet<String>>,
    /// The key whose value comes next: `Some(None)` where it is no text, which nothing tells of.
    awaited: Option<Option<String>>,
    /// What this level is in the one above it, told once it ends.
    line: usize,
}

impl Level {
    /// A whole node: a key, or the value of one. Answers the key if it was there before.
    fn node(&mut self, text: Option<&str>) -> Option<String> {
        let keys = self.keys.as_mut()?;
        match self.awaited.take() {
            None => {
                self.awaited = Some(text.map(str::to_string));
                None
            }
            Some(key) => key.filter(|key| !keys.insert(key.clone())),
        }
    }
}

/// A walk through a document's nodes.
#[derive(Default)]
struct Scan {
    levels: Vec<Level>,
    repeated: Vec<String>,
}

impl Scan {
    fn node(&mut self, text: Option<&str>, line: usize) {
        let key = self.levels.last_mut().and_then(|level| level.node(text));
        self.repeated.extend(key.map(|key| format!("line {line}: key {key:?} already set in map")));
    }

    fn end(&mut self) {
        let line = self.levels.pop().map_or(0, |level| level.line);
        self.node(None, line);
    }
}

/// At most so many keys are told.
const MAX_REPEATED: usize = 1_000;

/// The keys of a YAML text that stand more than once in one map, with the lines of their values: `line 5: key "name" already set
/// in map`. Empty for what is no YAML.
pub fn repeated_keys(bytes: &[u8]) -> Vec<String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Vec::new() };
    let mut scan = Scan::default();
    for event in Parser::new_from_str(text) {
        let Ok((event, span)) = event else { break };
        let line = span.start.line();
        match event {
            Event::Scalar(text, ..) => scan.node(Some(&text), line),
            Event::Alias(_) => scan.node(None, line),
            Event::MappingStart(..) => scan.levels.push(Level { keys: Some(HashSet::new()), line, ..Level::default() }),
            Event::SequenceStart(..) => scan.levels.push(Level { line, ..Level::default() }),
            Event::MappingEnd | Event::SequenceEnd => scan.end(),
            Event::DocumentEnd => break,
            _ => {}
        }
        if scan.repeated.len() >= MAX_REPEATED {
            break;
        }
    }
    scan.repeated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_repeated_keys_the_last_counts_and_the_lines_are_told() {
        let text = "a: 1\nb:\n  c: [{d: 1, d: 2}]\n  c: 3\na: 4\n\"a\": 5\n";
        let json = to_json(text.as_bytes()).expect("well-formed");
        assert_eq!(&*json.text, br#"{"a":5,"b":{"c":3}}"#);
        let told = ["3: key \"d\"", "4: key \"c\"", "5: key \"a\"", "6: key \"a\""];
        assert_eq!(json.repeated, told.map(|told| format!("line {told} already set in map")));
    }

    #[test]
    fn json_is_left_as_it_is() {
        let json = to_json(b"{\"a\": 1, \"a\": 2}").expect("well-formed");
        assert_eq!((&*json.text, json.repeated.len()), (&b"{\"a\": 1, \"a\": 2}"[..], 0));
        assert_eq!(repeated_keys(b"{\"a\": 1,\n\"a\": 2}"), ["line 2: key \"a\" already set in map"]);
    }
}
