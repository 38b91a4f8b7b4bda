//! Whether bytes are JSON at all, said in the words of Go's scanner.
//!
//! This pass runs before any tree is built, so that the decoder behind it may take well-formed input for granted, and it
//! needs no recursion, so that depth costs a bit a level.

use crate::tree::MAX_DEPTH;

struct Scanner<'a> {
    src: &'a [u8],
    pos: usize,
    /// One entry an open container: whether it is an object.
    open: Vec<bool>,
}

/// Checks one JSON document with nothing behind it.
pub fn check(src: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner { src, pos: 0, open: Vec::new() };
    scanner.document()?;
    scanner.space();
    match scanner.peek() {
        None => Ok(()),
        Some(byte) => Err(invalid(byte, "after top-level value")),
    }
}

fn invalid(byte: u8, place: &str) -> String {
    let shown = match byte {
        b'\'' => "'\\''".to_string(),
        b'"' => "'\"'".to_string(),
        b'\n' => "'\\n'".to_string(),
        b'\t' => "'\\t'".to_string(),
        b'\r' => "'\\r'".to_string(),
        b'\\' => "'\\\\'".to_string(),
        0x07 => "'\\a'".to_string(),
        0x08 => "'\\b'".to_string(),
        0x0b => "'\\v'".to_string(),
        0x0c => "'\\f'".to_string(),
        0x20..0x7f => format!("'{}'", byte as char),
        0x00..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..0xa1 | 0xad => format!("'\\u{:04x}'", u32::from(byte)),
        _ => format!("'{}'", byte as char),
    };
    format!("invalid character {shown} {place}")
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.src.get(self.pos).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.pos += 1;
        }
    }

    /// The next byte that is not space.
    fn next_token(&mut self) -> Result<u8, String> {
        self.space();
        self.peek().ok_or_else(end)
    }

    fn document(&mut self) -> Result<(), String> {
        loop {
            let opened = self.value()?;
            if !opened && self.after_value()? {
                return Ok(());
            }
        }
    }

    /// Consumes a scalar, an empty container, or the opening of a container up to its first value (then `true`).
    fn value(&mut self) -> Result<bool, String> {
        let byte = self.next_token()?;
        match byte {
            b'{' => {
                self.push(true, byte)?;
                if self.next_token()? == b'}' {
                    self.pop();
                    return Ok(false);
                }
                self.key("looking for beginning of object key string")?;
                Ok(true)
            }
            b'[' => {
                self.push(false, byte)?;
                if self.next_token()? == b']' {
                    self.pop();
                    return Ok(false);
                }
                Ok(true)
            }
            b'"' => self.string().map(|()| false),
            b't' => self.literal("true").map(|()| false),
            b'f' => self.literal("false").map(|()| false),
            b'n' => self.literal("null").map(|()| false),
            b'-' | b'0'..=b'9' => self.number().map(|()| false),
            _ => Err(invalid(byte, "looking for beginning of value")),
        }
    }

    fn push(&mut self, object: bool, byte: u8) -> Result<(), String> {
        if self.open.len() >= MAX_DEPTH {
            return Err(invalid(byte, "exceeded max depth"));
        }
        self.open.push(object);
        self.pos += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.open.pop();
        self.pos += 1;
    }

    fn key(&mut self, place: &str) -> Result<(), String> {
        let byte = self.next_token()?;
        if byte != b'"' {
            return Err(invalid(byte, place));
        }
        self.string()?;
        let byte = self.next_token()?;
        if byte != b':' {
            return Err(invalid(byte, "after object key"));
        }
        self.pos += 1;
        Ok(())
    }

    /// Closes what ends here and moves to the next value; `true` at the end of the document.
    fn after_value(&mut self) -> Result<bool, String> {
        while let Some(object) = self.open.last().copied() {
            let byte = self.next_token()?;
            match (byte, object) {
                (b',', true) => {
                    self.pos += 1;
                    self.key("looking for beginning of object key string")?;
                    return Ok(false);
                }
                (b',', false) => {
                    self.pos += 1;
                    return Ok(false);
                }
                (b'}', true) | (b']', false) => self.pop(),
                (_, true) => return Err(invalid(byte, "after object key:value pair")),
                (_, false) => return Err(invalid(byte, "after array element")),
            }
        }
        Ok(true)
    }

    fn string(&mut self) -> Result<(), String> {
        self.pos += 1;
        loop {
            let byte = self.peek().ok_or_else(end)?;
            self.pos += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..0x20 => return Err(invalid(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        let byte = self.peek().ok_or_else(end)?;
        self.pos += 1;
        match byte {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    let byte = self.peek().ok_or_else(end)?;
                    self.pos += 1;
                    if !byte.is_ascii_hexdigit() {
                        return Err(invalid(byte, "in \\u hexadecimal character escape"));
                    }
                }
                Ok(())
            }
            _ => Err(invalid(byte, "in string escape code")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for (i, wanted) in word.bytes().enumerate() {
            let byte = self.peek().ok_or_else(end)?;
            if byte != wanted {
                return Err(invalid(byte, &format!("in literal {word} (expecting '{}')", &word[i..=i])));
            }
            self.pos += 1;
        }
        Ok(())
    }

    fn digits(&mut self, place: &str) -> Result<(), String> {
        let byte = self.peek().ok_or_else(end)?;
        if !byte.is_ascii_digit() {
            return Err(invalid(byte, place));
        }
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.pos += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.pos += 1;
        }
        if self.peek() == Some(b'0') {
            self.pos += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.pos += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.pos += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }
}

fn end() -> String {
    "unexpected end of JSON input".to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_formed_documents_pass() {
        for text in ["{}", " [1, -2.5e+3, true, null, \"a\\u00e9\\n\"] ", "{\"a\":{\"b\":[{}]}}", "0"] {
            assert_eq!(check(text.as_bytes()), Ok(()), "{text}");
        }
    }

    #[test]
    fn broken_documents_are_refused_in_gos_words() {
        for (text, why) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[tru]", "invalid character ']' in literal true (expecting 'e')"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("[1.]", "invalid character ']' after decimal point in numeric literal"),
        ] {
            assert_eq!(check(text.as_bytes()), Err(why.to_string()), "{text}");
        }
    }

    #[test]
    fn depth_is_limited_without_recursion() {
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert_eq!(check(&deep(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&deep(MAX_DEPTH + 1)), Err("invalid character '[' exceeded max depth".to_string()));
    }
}
