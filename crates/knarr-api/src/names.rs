//! The rules for names, labels and keys, hand-written: they run on every create. Each returns what is wrong, in upstream's
//! words; nothing means valid.

/// A rule for a whole text.
pub type Rule = fn(&str) -> Vec<String>;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn with_examples(message: &str, examples: &[&str], pattern: &str) -> String {
    let mut out = message.to_string();
    out.push_str(" (");
    if !examples.is_empty() {
        out.push_str("e.g. ");
    }
    for (i, example) in examples.iter().enumerate() {
        out.push_str(if i > 0 { " or " } else { "" });
        out.push_str(&format!("'{example}', "));
    }
    out.push_str(&format!("regex used for validation is '{pattern}')"));
    out
}

fn too_long(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| format!("must be no more than {max} characters"))
}

/// Nothing is wrong with any text.
pub fn anything(_text: &str) -> Vec<String> {
    Vec::new()
}

/// As [`dns_subdomain`], of kinds that declare it of their names: a name that is too long is told of in other words.
pub fn declared_subdomain(text: &str) -> Vec<String> {
    let words =
        |message: String| message.replace("must be no more than 253 characters", "must be no more than 253 bytes");
    dns_subdomain(text).into_iter().map(words).collect()
}

/// `metadata.name` of most kinds: an RFC 1123 subdomain.
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 253).into_iter().collect();
    if !is_subdomain(text) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        errors.push(with_examples(message, &["example.com"], &format!("{LABEL}(\\.{LABEL})*")));
    }
    errors
}

/// As [`dns_subdomain`], upper case allowed.
pub fn dns_subdomain_caseless(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 253).into_iter().collect();
    if !is_subdomain(&text.to_ascii_lowercase()) {
        let message = "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        errors.push(with_examples(message, &["Example.com"], &format!("{LABEL}(\\.{LABEL})*")));
    }
    errors
}

/// As [`dns_subdomain`], underscores allowed.
pub fn dns_subdomain_with_underscore(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 253).into_iter().collect();
    let label = |l: &str| is_label(&l.strip_prefix('_').unwrap_or(l).replace('_', "-"));
    if !text.split('.').all(label) {
        let part = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        errors.push(with_examples(message, &["example.com"], &format!("{part}(\\.{part})*")));
    }
    errors
}

/// A subdomain that may begin with `*.`.
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 253).into_iter().collect();
    if !text.strip_prefix("*.").is_some_and(is_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        errors.push(with_examples(message, &["*.example.com"], &format!("\\*\\.{LABEL}(\\.{LABEL})*")));
    }
    errors
}

/// An RFC 1123 label.
pub fn dns_label(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 63).into_iter().collect();
    if is_label(text) {
        return errors;
    }
    if is_subdomain(text) {
        errors.push("must not contain dots".to_string());
    } else {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
        errors.push(with_examples(message, &["my-name", "123-abc"], LABEL));
    }
    errors
}

/// An RFC 1035 label: as [`dns_label`], starting with a letter.
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 63).into_iter().collect();
    if !(is_label(text) && text.as_bytes()[0].is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        errors.push(with_examples(message, &["my-name", "abc-123"], "[a-z]([-a-z0-9]*[a-z0-9])?"));
    }
    errors
}

/// A name that is one segment of a URL path (RBAC kinds and the like).
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    let bad = |c: &str| text.contains(c).then(|| format!("may not contain '{c}'"));
    ["/", "%"].into_iter().filter_map(bad).collect()
}

fn is_name_part(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let inner = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(inner)
}

/// A label key, finalizer, condition type: `name` or `prefix/name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    let mut errors = Vec::new();
    let (prefix, name) = match text.split_once('/') {
        None => (None, text),
        Some((_, name)) if name.contains('/') => {
            let full = format!("a valid label key {MESSAGE}");
            let examples = with_examples(&full, &["MyName", "my.name", "123-abc"], PATTERN);
            return vec![format!(
                "{examples} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some((prefix, name)) => (Some(prefix), name),
    };
    match prefix {
        Some("") => errors.push("prefix part must be non-empty".to_string()),
        Some(prefix) => errors.extend(dns_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}"))),
        None => {}
    }
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_string());
    }
    if !is_name_part(name) {
        let full = format!("name part {MESSAGE}");
        errors.push(with_examples(&full, &["MyName", "my.name", "123-abc"], PATTERN));
    }
    errors
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !text.is_empty() && !is_name_part(text) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        let pattern = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
        errors.push(with_examples(message, &["MyValue", "my_value", "12345"], pattern));
    }
    errors
}

/// A named port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 15).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_string());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_string());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_string());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_string());
    }
    errors
}

/// An environment variable: printable ASCII without `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".to_string()];
    }
    if text.chars().all(|c| matches!(c, ' '..='~') && c != '=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_string()]
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut errors: Vec<String> = too_long(text, 253).into_iter().collect();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(with_examples(message, &["key.name", "KEY_NAME", "key-name"], "[-._a-zA-Z0-9]+"));
    }
    match text {
        "." | ".." => errors.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => errors.push("must not start with '..'".to_string()),
        _ => {}
    }
    errors
}

/// An HTTP header's name.
pub fn http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![with_examples(message, &["X-Header-Name"], "[-A-Za-z0-9]+")]
}

/// The reason of a condition.
pub fn condition_reason(text: &str) -> Vec<String> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    let edges = bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.last().is_some_and(|b| word(*b));
    if edges && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':')) {
        return Vec::new();
    }
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![with_examples(message, &examples, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")]
}

/// `50%`
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![with_examples(message, &["1%", "93%"], "[0-9]+%")]
}

/// A C identifier.
pub fn c_identifier(text: &str) -> Vec<String> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    if text.bytes().next().is_some_and(first) && text.bytes().all(|b| first(b) || b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![with_examples(message, &["my_name", "MY_NAME", "MyName"], "[A-Za-z_][A-Za-z0-9_]*")]
}

/// A system FlowSchema-like name rule is [`dns_subdomain`]; this one masks the dash that `generateName` may end with.
pub fn mask_trailing_dash(name: &str) -> String {
    match name.strip_suffix('-') {
        Some(head) if !head.is_empty() && head.is_char_boundary(head.len() - 1) => {
            format!("{}a", &head[..head.len() - 1])
        }
        _ => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!(
            dns_subdomain("a.b-c.1").is_empty() && !dns_subdomain("A").is_empty() && !dns_subdomain("a..b").is_empty()
        );
        assert!(dns_label("1a").is_empty() && dns_label("a.b") == ["must not contain dots"]);
        assert!(dns_1035_label("a1").is_empty() && !dns_1035_label("1a").is_empty());
        assert!(qualified_name("example.com/My_Name").is_empty() && !qualified_name("a/b/c").is_empty());
        assert!(label_value("").is_empty() && !label_value("-").is_empty());
        assert!(port_name("http").is_empty() && !port_name("80").is_empty());
        assert_eq!(path_segment("a/b"), ["may not contain '/'"]);
    }

    #[test]
    fn messages_are_upstreams() {
        let message = &dns_label("A")[0];
        assert!(message.ends_with(
            "(e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ));
    }
}
