use std::fmt;

use super::SelectorError;

/// `field=value` or `field!=value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldTerm {
    pub field: String,
    pub value: String,
    /// `!=`
    pub negated: bool,
}

/// All terms must hold. Shown in upstream's canonical form, values escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    pub fn everything() -> Self {
        FieldSelector::default()
    }

    /// The selector of one object by name, as a watch of a single object uses.
    pub fn equals(field: &str, value: &str) -> Self {
        let term = FieldTerm { field: field.to_string(), value: value.to_string(), negated: false };
        FieldSelector { terms: vec![term] }
    }

    /// Parses `a=b,c!=d`; `\` escapes itself, commas and equals signs in values.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, negated, value) = split_term(part)
                .ok_or_else(|| SelectorError::new(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            terms.push(FieldTerm { field: field.to_string(), value: unescape(value)?, negated });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether all terms hold of the fields that `value_of` answers; a field it does not know is empty.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (value_of(&t.field).unwrap_or_default() == t.value) != t.negated)
    }

    /// The same selector where fields have other names.
    pub fn renamed(mut self, name_of: impl Fn(&str) -> Option<&'static str>) -> Self {
        for term in &mut self.terms {
            if let Some(name) = name_of(&term.field) {
                term.field = name.to_string();
            }
        }
        self
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that a field must have exactly, where the selector says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.field == field && !t.negated).map(|t| t.value.as_str())
    }

    /// The first field that the kind cannot be selected by.
    pub fn find_unknown(&self, selects_by: impl Fn(&str) -> bool) -> Option<&str> {
        self.terms.iter().map(|term| term.field.as_str()).find(|field| !selects_by(field))
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

/// (field, negated, value) at the first operator.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find(['!', '=']).and_then(|first| {
        term[first..].char_indices().map(|(i, _)| first + i).find(|&i| {
            let rest = &term[i..];
            rest.starts_with('=') || rest.starts_with("!=")
        })
    })?;
    let (field, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, true, value));
    }
    Some((field, false, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?))
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let invalid =
        |sequence: &str| SelectorError::new(format!("invalid field selector: invalid escape sequence: {sequence}"));
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => return Err(invalid(&format!("\\{other}"))),
                None => return Err(invalid("\\")),
            },
            // Upstream prints the rune as a number.
            ',' | '=' => {
                return Err(SelectorError::new(format!(
                    "invalid field selector: unescaped character in value: {}",
                    u32::from(c)
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(&term.field)?;
            f.write_str(if term.negated { "!=" } else { "=" })?;
            for c in term.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_parsed_and_shown_in_canonical_form() {
        for (text, canonical) in [
            ("", ""),
            ("spec.nodeName=", "spec.nodeName="),
            ("b!=c,a==d", "a=d,b!=c"),
            ("a=x\\,y\\=z\\\\", "a=x\\,y\\=z\\\\"),
            (",,a=b,", "a=b"),
        ] {
            assert_eq!(FieldSelector::parse(text).expect(text).to_string(), canonical);
        }
    }

    #[test]
    fn bad_text_is_refused_in_upstreams_words() {
        for (text, error) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            ("a=\\b", "invalid field selector: invalid escape sequence: \\b"),
        ] {
            assert_eq!(FieldSelector::parse(text).expect_err(text).to_string(), error);
        }
    }

    #[test]
    fn a_missing_field_is_empty() {
        let fields = |name: &str| (name == "status.phase").then_some("Running");
        for (text, matches) in [("status.phase=Running", true), ("status.phase!=Running", false), ("x=", true)] {
            assert_eq!(FieldSelector::parse(text).expect(text).matches(fields), matches);
        }
    }

    #[test]
    fn unknown_fields_are_found() {
        let selector = FieldSelector::parse("spec.x=1").expect("valid");
        assert_eq!(selector.find_unknown(|field| field == "spec.y"), Some("spec.x"));
        assert_eq!(selector.find_unknown(|field| field == "spec.x"), None);
    }
}
