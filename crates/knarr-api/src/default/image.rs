//! Just enough of image references to tell the default pull policy.

/// `Always` for the tag `latest`, said or implied; `IfNotPresent` for everything else, also for what is no reference.
pub fn default_pull_policy(image: &str) -> &'static str {
    if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" }
}

/// The tag, `latest` where neither tag nor digest is said; `None` for a digest alone or no valid reference.
fn tag(image: &str) -> Option<&str> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match name[slash..].find(':') {
        Some(colon) => (&name[..slash + colon], Some(&name[slash + colon + 1..])),
        None => (name, None),
    };
    if !valid_name(path) || tag.is_some_and(|t| !valid_tag(t)) {
        return None;
    }
    match (tag, digest) {
        (Some(tag), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128 && tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// An optional registry host, then path components of lower-case words.
fn valid_name(name: &str) -> bool {
    let mut parts: Vec<&str> = name.split('/').collect();
    let host = parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost");
    if host {
        let host = parts.remove(0);
        if !valid_host(host) {
            return false;
        }
    }
    // Sixty-four hexadecimal digits are an image's identity, and no name.
    let hexadecimal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let identity = name.len() == 64 && name.bytes().all(hexadecimal);
    !identity && name.len() <= 255 && parts.iter().all(|part| valid_component(part))
}

/// A domain or an address, and perhaps a port.
fn valid_host(host: &str) -> bool {
    if let Some((address, port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let digits = |b: u8| b.is_ascii_hexdigit() || b == b':';
        return address.bytes().all(digits) && (port.is_empty() || port.strip_prefix(':').is_some_and(is_number));
    }
    let (domain, port) = host.split_once(':').map_or((host, None), |(domain, port)| (domain, Some(port)));
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    domain.split('.').all(label) && port.is_none_or(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Lower-case words with a dot, one or two underscores or any number of dashes between them.
fn valid_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let between = |separator: &str| matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    let starts_and_ends = part.starts_with(alphanumeric) && part.ends_with(alphanumeric);
    starts_and_ends && part.split(alphanumeric).filter(|separator| !separator.is_empty()).all(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("r.example:5000/a/b", "Always"),
            ("nginx:1.0", "IfNotPresent"),
            ("r.example:5000/a/b:x", "IfNotPresent"),
            ("nginx@sha256:0000", "IfNotPresent"),
            ("Bad_Value!", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("../a", "IfNotPresent"),
            ("a..b", "IfNotPresent"),
            ("a__b--c.d", "Always"),
            ("[::1]:5000/a", "Always"),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "IfNotPresent"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }
}
