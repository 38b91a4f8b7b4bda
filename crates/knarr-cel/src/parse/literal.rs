//! Literals.

use super::lexer::{Lexeme, Token};
use super::{Parser, unescape};
use crate::ast::{Expr, Kind, Literal};

impl<'s> Parser<'s> {
    pub(super) fn literal(&mut self, lexeme: Lexeme<'s>) -> Expr {
        let literal = match lexeme.token {
            Token::True => Literal::Bool(true),
            Token::False => Literal::Bool(false),
            Token::Null => Literal::Null,
            Token::String | Token::Bytes => return self.text(lexeme),
            _ => return self.number(lexeme, lexeme),
        };
        self.node(lexeme.position, Kind::Literal(literal))
    }

    pub(super) fn text(&mut self, lexeme: Lexeme<'s>) -> Expr {
        let bytes = lexeme.token == Token::Bytes;
        let quoted = if bytes { &lexeme.text[1..] } else { lexeme.text };
        let literal = match unescape::unescape(quoted, bytes) {
            Ok(unescape::Content::Text(text)) => Literal::String(text.into()),
            Ok(unescape::Content::Bytes(content)) => Literal::Bytes(content.into()),
            Err(message) => {
                self.error(Some(lexeme.position), message);
                Literal::Null
            }
        };
        self.node(lexeme.position, Kind::Literal(literal))
    }

    /// A number that begins at `first`: a minus, or itself.
    pub(super) fn number(&mut self, lexeme: Lexeme<'s>, first: Lexeme<'s>) -> Expr {
        let sign = if first.is("-") { "-" } else { "" };
        let digits = lexeme.text.trim_end_matches(['u', 'U']);
        let (digits, radix) = digits.strip_prefix("0x").map_or((digits, 10), |hex| (hex, 16));
        let (literal, name) = match lexeme.token {
            Token::Int => (i64::from_str_radix(&format!("{sign}{digits}"), radix).ok().map(Literal::Int), "int"),
            Token::Uint => (u64::from_str_radix(digits, radix).ok().map(Literal::Uint), "uint"),
            _ => {
                let number: Option<f64> = format!("{sign}{}", lexeme.text).parse().ok();
                (number.filter(|n| n.is_finite()).map(Literal::Double), "double")
            }
        };
        if literal.is_none() {
            self.error(Some(first.position), format!("invalid {name} literal"));
        }
        self.node(first.position, Kind::Literal(literal.unwrap_or(Literal::Null)))
    }
}
