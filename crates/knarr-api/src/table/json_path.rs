//! The part of JSONPath that printer columns use: fields, quoted fields, indices, wildcards and simple filters.

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// `[?(@.type=="Ready")]`; equal or, negated, not equal.
    Filter {
        field: Vec<String>,
        value: Value,
        negated: bool,
    },
    /// `[?(@.type)]`
    Has(Vec<String>),
}

impl JsonPath {
    /// `None` where the text is no path that this understands.
    pub fn parse(text: &str) -> Option<JsonPath> {
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}').trim();
        rest = rest.strip_prefix('$').unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = match rest.strip_prefix('[') {
                Some(bracket) => {
                    let end = closing(bracket)?;
                    steps.push(bracketed(bracket[..end].trim())?);
                    &bracket[end + 1..]
                }
                None => {
                    let (name, after) = field(rest.strip_prefix('.').unwrap_or(rest));
                    match name.as_str() {
                        "" if steps.is_empty() || after.starts_with('[') => {}
                        "" => return None,
                        "*" => steps.push(Step::All),
                        _ => steps.push(Step::Field(name)),
                    }
                    after
                }
            };
        }
        Some(JsonPath(steps))
    }

    /// Every value that the path leads to.
    pub fn find<'v>(&self, root: &'v Value) -> Vec<&'v Value> {
        self.0.iter().fold(vec![root], |found, step| found.into_iter().flat_map(|value| follow(step, value)).collect())
    }
}

/// Reads a field up to the next separator; `\.` is a dot inside it.
fn field(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => return (name, &text[at..]),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket that was opened closes, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracketed(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return filter(condition.trim());
    }
    match unquoted(text) {
        Some(name) => Some(Step::Field(name.replace("\\.", "."))),
        None => text.parse().ok().map(Step::Index),
    }
}

fn filter(condition: &str) -> Option<Step> {
    let operators = [("==", false), ("!=", true)];
    let found = operators.iter().find_map(|(op, negated)| condition.split_once(op).map(|parts| (parts, *negated)));
    let Some(((left, right), negated)) = found else {
        return Some(Step::Has(fields(condition)?));
    };
    let right = right.trim();
    let value = match unquoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Filter { field: fields(left)?, value, negated })
}

fn fields(text: &str) -> Option<Vec<String>> {
    let path = text.trim().strip_prefix('@')?;
    Some(path.split('.').filter(|name| !name.is_empty()).map(str::to_string).collect())
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].into_iter().find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote))
}

fn follow<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let items = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    let at = |item: &'v Value, path: &[String]| path.iter().try_fold(item, |value, name| value.get(name.as_str()));
    match step {
        Step::Field(name) => value.get(name.as_str()).into_iter().collect(),
        Step::Index(index) => {
            let index = if *index < 0 { index + items().len() as i64 } else { *index };
            usize::try_from(index).ok().and_then(|i| items().get(i)).into_iter().collect()
        }
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            _ => items().iter().collect(),
        },
        Step::Filter { field, value, negated } => {
            items().iter().filter(|item| at(item, field).is_some_and(|v| (v == value) != *negated)).collect()
        }
        Step::Has(field) => items().iter().filter(|item| at(item, field).is_some()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({"spec": {"a.b": 1, "list": [{"type": "Ready", "status": "True"}, {"type": "X", "n": 2}]}});
        for (path, found) in [
            (".spec.list[0].status", json!(["True"])),
            ("{.spec.list[-1].n}", json!([2])),
            (".spec['a.b']", json!([1])),
            (".spec.a\\.b", json!([1])),
            (".spec.list[*].type", json!(["Ready", "X"])),
            (".spec.list[?(@.type==\"Ready\")].status", json!(["True"])),
            (".spec.list[?(@.type!='Ready')].n", json!([2])),
            (".spec.list[?(@.n)].type", json!(["X"])),
            (".spec.none.x", json!([])),
        ] {
            let values = JsonPath::parse(path).expect(path);
            assert_eq!(json!(values.find(&object)), found, "{path}");
        }
        assert_eq!(JsonPath::parse(".a[").map(|_| ()), None);
    }
}
