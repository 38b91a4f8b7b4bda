//! Property names as expressions write them: `foo-bar` is `foo__dash__bar`, `namespace` is `__namespace__`.

/// Words that the language keeps for itself.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const ESCAPES: [(&str, &str); 4] = [("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")];

/// The name of a property in expressions; `None` where it has none and expressions cannot see it.
pub fn escape(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/');
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(allowed) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        match ESCAPES.iter().find(|(text, _)| rest.starts_with(text)) {
            Some((text, word)) => {
                out.push_str(&format!("__{word}__"));
                rest = &rest[text.len()..];
            }
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(out)
}

/// The property that an escaped name means; `None` for what [`escape`] never says.
pub fn unescape(name: &str) -> Option<String> {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(start) = rest.find("__") {
        let after = &rest[start + 2..];
        let Some(end) = after.find("__").filter(|end| *end > 0 && !after[..*end].contains('_')) else {
            out.push_str(&rest[..start + 1]);
            rest = &rest[start + 1..];
            continue;
        };
        out.push_str(&rest[..start]);
        let word = &after[..end];
        match ESCAPES.iter().find(|(_, known)| *known == word) {
            Some((text, _)) => out.push_str(text),
            None if RESERVED.contains(&word) && name.len() == word.len() + 4 => out.push_str(word),
            None => return None,
        }
        rest = &after[end + 2..];
    }
    out.push_str(rest);
    Some(out)
}
