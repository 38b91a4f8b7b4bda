//! String and bytes literals: quotes, escapes, raw texts.

/// What stands between the quotes of a literal, `r` and `b` already known.
pub enum Content {
    Text(String),
    Bytes(Vec<u8>),
}

/// Takes a literal's source (with `r` and quotes, without `b`) apart.
pub fn unescape(literal: &str, bytes: bool) -> Result<Content, String> {
    let raw = literal.starts_with(['r', 'R']);
    let quoted = if raw { &literal[1..] } else { literal };
    let width = if quoted.len() >= 6 && (quoted.starts_with("\"\"\"") || quoted.starts_with("'''")) { 3 } else { 1 };
    let inner = quoted.get(width..quoted.len() - width).ok_or("unable to unescape string")?;
    let inner = inner.replace("\r\n", "\n").replace('\r', "\n");
    if raw {
        return Ok(if bytes { Content::Bytes(inner.into_bytes()) } else { Content::Text(inner) });
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => escape(&mut chars, bytes, &mut out)?,
            c => push(c, &mut out),
        }
    }
    if bytes {
        return Ok(Content::Bytes(out));
    }
    String::from_utf8(out).map(Content::Text).map_err(|_| "invalid unicode code point".to_string())
}

fn push(c: char, out: &mut Vec<u8>) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn escape(chars: &mut std::str::Chars<'_>, bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
    let c = chars.next().ok_or("unable to unescape string, found '\\' as last character")?;
    let simple = match c {
        'a' => Some('\x07'),
        'b' => Some('\x08'),
        'f' => Some('\x0c'),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        'v' => Some('\x0b'),
        '\\' | '\'' | '"' | '`' | '?' => Some(c),
        _ => None,
    };
    if let Some(simple) = simple {
        push(simple, out);
        return Ok(());
    }
    let code = match c {
        'x' | 'X' => number(chars, 2, 16, 0)?,
        'u' | 'U' if bytes => return Err("unable to unescape string".to_string()),
        'u' => number(chars, 4, 16, 0)?,
        'U' => number(chars, 8, 16, 0)?,
        '0'..='3' => number(chars, 2, 8, u32::from(c) - u32::from('0'))?,
        _ => return Err("unable to unescape string".to_string()),
    };
    if bytes {
        out.push(u8::try_from(code).map_err(|_| "unable to unescape string")?);
    } else {
        push(char::from_u32(code).ok_or("invalid unicode code point")?, out);
    }
    Ok(())
}

fn number(chars: &mut std::str::Chars<'_>, digits: usize, radix: u32, start: u32) -> Result<u32, String> {
    (0..digits).try_fold(start, |sum, _| {
        let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or("unable to unescape string")?;
        Ok(sum.wrapping_mul(radix).wrapping_add(digit))
    })
}
