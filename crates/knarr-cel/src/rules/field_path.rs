//! The `fieldPath` of a rule: `.spec.replicas`, `.map['key']`.

use serde_json::Value as Json;

/// The path as error messages show it; the error says what is wrong with it.
pub fn normalize(text: &str, schema: &Json) -> Result<String, String> {
    let mut out = String::new();
    let mut at = schema;
    let mut rest = text;
    while !rest.is_empty() {
        let (name, after) = if let Some(after) = rest.strip_prefix("['") {
            quoted(after)?
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            if end == 0 {
                return Err("unexpected end of JSON path".to_string());
            }
            (after[..end].to_string(), &after[end..])
        } else {
            let end = rest.find(['.', '[', ']']).filter(|end| *end > 0).unwrap_or(rest.len().min(1));
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        at = step(at, &name, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn step<'a>(schema: &'a Json, name: &str, out: &mut String) -> Result<&'a Json, String> {
    const WRONG: &str = "does not refer to a valid field";
    if let Some(properties) = schema["properties"].as_object() {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
        return properties.get(name).ok_or_else(|| WRONG.to_string());
    }
    let values = schema.get("additionalProperties").filter(|values| values.is_object()).ok_or(WRONG)?;
    out.push_str(&format!("[{name}]"));
    Ok(values)
}

/// A name in single quotes, up to its `']`.
fn quoted(after: &str) -> Result<(String, &str), String> {
    let mut out = String::new();
    let mut chars = after.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let rest = after[at + 1..].strip_prefix(']').ok_or("unexpected end of JSON path")?;
                return Ok((out, rest));
            }
            '\\' => match chars.next() {
                Some((_, c @ ('\'' | '\\'))) => out.push(c),
                Some((_, 'n')) => out.push('\n'),
                Some((_, 't')) => out.push('\t'),
                other => {
                    let shown = other.map_or(String::new(), |(_, c)| c.to_string());
                    return Err(format!("invalid string literal: invalid escape char \\{shown}"));
                }
            },
            c => out.push(c),
        }
    }
    Err("unexpected end of JSON path".to_string())
}
