//! `$(VAR)` in commands, arguments and values.

/// Replaces `$(NAME)` by what `lookup` knows; leaves unknown names as they are; `$$` is one `$`, so `$$(NAME)` is literal.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('$') {
        expanded.push_str(&rest[..position]);
        rest = &rest[position + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = reference(rest) {
            match lookup(name) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The first `$(NAME)` in `text` that `lookup` does not know.
pub fn first_unknown(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let unknown = std::cell::RefCell::new(None);
    expand(text, &|name| {
        let value = lookup(name);
        if value.is_none() {
            unknown.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        value
    });
    unknown.into_inner()
}

fn reference(after_dollar: &str) -> Option<(&str, &str)> {
    after_dollar.strip_prefix('(')?.split_once(')')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_and_escapes_stay() {
        let lookup = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expanded) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("100$", "100$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text, &lookup), expanded, "{text}");
        }
        assert_eq!(first_unknown("$(A)/$(B)", &lookup).as_deref(), Some("B"));
    }
}
