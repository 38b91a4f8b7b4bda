//! What operators stand between: members, calls, lists, maps and messages.

use super::lexer::{Lexeme, Token};
use super::{Parsed, Parser, RESERVED, STARTS};
use crate::ast::{Call, Element, Entry, Expr, FieldInit, Kind, Literal, Select, Struct, operator};

impl<'s> Parser<'s> {
    pub(super) fn member(&mut self) -> Parsed<Expr> {
        let outer = self.depth;
        self.deeper(|d| &mut d.member)?;
        let mut operand = self.primary()?;
        loop {
            let op = self.peek();
            if op.is(".") {
                self.advance();
                self.deeper(|d| &mut d.member)?;
                operand = self.after_dot(operand, op)?;
            } else if op.is("[") {
                self.advance();
                self.deeper(|d| &mut d.member)?;
                let optional = self.take("?").is_some();
                let index = self.expression()?;
                self.expect("]")?;
                let function = if optional { operator::OPTIONAL_INDEX } else { operator::INDEX };
                operand = self.global_call(op.position, function, vec![operand, index]);
            } else {
                break;
            }
        }
        self.depth = outer;
        Ok(operand)
    }

    pub(super) fn after_dot(&mut self, operand: Expr, dot: Lexeme<'s>) -> Parsed<Expr> {
        let optional = self.take("?").is_some();
        let name = self.peek();
        match name.token {
            Token::EscapedIdent => {
                let message = "unsupported syntax: '`'".to_string();
                self.error(Some(name.position), message);
            }
            Token::Ident => {}
            Token::True | Token::False | Token::Null => {
                return self.lost(name, &format!("mismatched input '{}' expecting IDENTIFIER", name.text));
            }
            _ => {
                let seen = if name.token == Token::End { "" } else { name.text };
                let dot = if optional { ".?" } else { "." };
                return self.lost(name, &format!("no viable alternative at input '{dot}{seen}'"));
            }
        }
        self.advance();
        if optional {
            let field = self.node(name.position, Kind::Literal(Literal::String(name.text.into())));
            let call =
                Call { function: operator::OPTIONAL_SELECT.to_string(), target: None, arguments: vec![operand, field] };
            return Ok(self.node(dot.position, Kind::Call(Box::new(call))));
        }
        if let Some(open) = self.take("(") {
            let arguments = self.arguments()?;
            return Ok(self.call(open.position, name.text, Some(operand), arguments));
        }
        let select = Select { operand, field: name.text.to_string(), test_only: false };
        Ok(self.node(dot.position, Kind::Select(Box::new(select))))
    }

    /// What stands between `(` and `)`.
    pub(super) fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        let mut out = Vec::new();
        if self.take(")").is_some() {
            return Ok(out);
        }
        loop {
            out.push(self.expression()?);
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect(")")?;
        Ok(out)
    }

    pub(super) fn primary(&mut self) -> Parsed<Expr> {
        let first = self.peek();
        match first.token {
            Token::Ident => self.name(""),
            Token::Symbol => match first.text {
                "." => {
                    self.advance();
                    let next = self.peek();
                    if next.token == Token::Ident {
                        return self.name(".");
                    }
                    self.lost(next, &format!("mismatched input '{}' expecting IDENTIFIER", next.shown()))
                }
                "(" => {
                    self.advance();
                    let inner = self.expression()?;
                    self.expect(")")?;
                    Ok(inner)
                }
                "[" => self.list(),
                "{" => self.map(),
                "-" if self.literal_follows() => {
                    self.advance();
                    let number = self.advance();
                    Ok(self.number(number, first))
                }
                _ => self.unexpected(first),
            },
            Token::End | Token::In | Token::EscapedIdent => self.unexpected(first),
            _ => {
                self.advance();
                Ok(self.literal(first))
            }
        }
    }

    /// Leaves one wrong token out where the next one goes on well.
    pub(super) fn unexpected(&mut self, at: Lexeme<'s>) -> Parsed<Expr> {
        let starts = |t: &Lexeme<'_>| match t.token {
            Token::Symbol => matches!(t.text, "[" | "{" | "(" | "." | "-" | "!"),
            Token::End | Token::In | Token::EscapedIdent => false,
            _ => true,
        };
        if self.tokens.get(self.at + 1).is_some_and(starts) {
            self.syntax_error(at, &format!("extraneous input '{}' expecting {{{STARTS}}}", at.shown()));
            self.advance();
            return self.primary();
        }
        self.lost(at, &format!("mismatched input '{}' expecting {{{STARTS}}}", at.shown()))
    }

    /// An identifier, a call or a struct, `.` before it already taken.
    pub(super) fn name(&mut self, dot: &str) -> Parsed<Expr> {
        let first = self.advance();
        if let Some(length) = self.struct_name_length() {
            let mut name = format!("{dot}{}", first.text);
            for _ in 0..length {
                name.push_str(self.advance().text);
            }
            return self.message(name);
        }
        if RESERVED.contains(&first.text) {
            self.error(Some(first.position), format!("reserved identifier: {}", first.text));
        }
        let name = format!("{dot}{}", first.text);
        if let Some(open) = self.take("(") {
            let arguments = self.arguments()?;
            return Ok(self.call(open.position, &name, None, arguments));
        }
        Ok(self.node(first.position, Kind::Ident(name)))
    }

    /// How many tokens of `.b.c` come before a `{`; `None` where no struct begins here.
    pub(super) fn struct_name_length(&self) -> Option<usize> {
        let mut length = 0;
        loop {
            let next = self.tokens.get(self.at + length)?;
            if next.is("{") {
                return Some(length);
            }
            let named = self.tokens.get(self.at + length + 1).is_some_and(|t| t.token == Token::Ident);
            if !next.is(".") || !named {
                return None;
            }
            length += 2;
        }
    }

    pub(super) fn message(&mut self, name: String) -> Parsed<Expr> {
        let open = self.expect("{")?;
        let id = self.id(open.position);
        let mut fields = Vec::new();
        while !self.peek().is("}") {
            let optional = self.take("?").is_some();
            let field = self.peek();
            if !matches!(field.token, Token::Ident | Token::EscapedIdent) {
                let text = format!(
                    "mismatched input '{}' expecting {{'}}', ',', '?', IDENTIFIER, ESC_IDENTIFIER}}",
                    field.shown()
                );
                return self.lost(field, &text);
            }
            if field.token == Token::EscapedIdent {
                self.error(Some(open.position), "unsupported syntax: '`'".to_string());
            }
            self.advance();
            let colon = self.expect(":")?;
            let id = self.id(colon.position);
            let value = self.expression()?;
            fields.push(FieldInit { id, name: field.text.to_string(), value, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { id, kind: Kind::Struct(Box::new(Struct { name, fields })) })
    }

    pub(super) fn list(&mut self) -> Parsed<Expr> {
        let open = self.advance();
        let id = self.id(open.position);
        let mut elements = Vec::new();
        while !self.peek().is("]") {
            let optional = self.take("?").is_some();
            elements.push(Element { value: self.expression()?, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("]")?;
        Ok(Expr { id, kind: Kind::List(elements) })
    }

    pub(super) fn map(&mut self) -> Parsed<Expr> {
        let open = self.advance();
        let id = self.id(open.position);
        let mut entries = Vec::new();
        while !self.peek().is("}") {
            let optional = self.take("?").is_some();
            let key = self.expression()?;
            let colon = self.expect(":")?;
            let id = self.id(colon.position);
            entries.push(Entry { id, key, value: self.expression()?, optional });
            if self.take(",").is_none() {
                break;
            }
        }
        self.expect("}")?;
        Ok(Expr { id, kind: Kind::Map(entries) })
    }
}
