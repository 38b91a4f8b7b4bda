//! Operators, by their binding power.

use super::lexer::{Lexeme, Token};
use super::{Parsed, Parser};
use crate::ast::{Expr, operator};

impl<'s> Parser<'s> {
    pub(super) fn expression(&mut self) -> Parsed<Expr> {
        let outer = self.depth;
        self.deeper(|d| &mut d.expression)?;
        let condition = self.logical(operator::OR, "||")?;
        let Some(op) = self.take("?") else {
            self.depth = outer;
            return Ok(condition);
        };
        let yes = self.logical(operator::OR, "||")?;
        self.expect(":")?;
        let no = self.expression()?;
        self.depth = outer;
        Ok(self.global_call(op.position, operator::CONDITIONAL, vec![condition, yes, no]))
    }

    /// A chain of `||` or `&&`, built as a balanced tree so that long chains are not deep.
    pub(super) fn logical(&mut self, function: &'static str, symbol: &str) -> Parsed<Expr> {
        let mut terms = vec![self.logical_term(function)?];
        let mut operators = Vec::new();
        while let Some(op) = self.take(symbol) {
            terms.push(self.logical_term(function)?);
            operators.push(op.position);
        }
        let mut terms = terms.into_iter();
        Ok(self.balance(function, &mut terms, &operators))
    }

    pub(super) fn logical_term(&mut self, function: &'static str) -> Parsed<Expr> {
        if function == operator::OR { self.logical(operator::AND, "&&") } else { self.relation() }
    }

    pub(super) fn balance(
        &mut self,
        function: &'static str,
        terms: &mut std::vec::IntoIter<Expr>,
        operators: &[u32],
    ) -> Expr {
        if operators.is_empty() {
            return terms.next().expect("a chain has one term more than operators");
        }
        let middle = operators.len() / 2;
        let left = self.balance(function, terms, &operators[..middle]);
        let right = self.balance(function, terms, &operators[middle + 1..]);
        self.global_call(operators[middle], function, vec![left, right])
    }

    pub(super) fn relation(&mut self) -> Parsed<Expr> {
        let outer = self.depth;
        self.deeper(|d| &mut d.relation)?;
        let mut left = self.calculation(0)?;
        loop {
            let op = self.peek();
            let Some(function) = relation_operator(op) else { break };
            self.advance();
            self.deeper(|d| &mut d.relation)?;
            let right = self.calculation(0)?;
            left = self.global_call(op.position, function, vec![left, right]);
        }
        self.depth = outer;
        Ok(left)
    }

    /// Sums (level 0) of products (level 1).
    pub(super) fn calculation(&mut self, level: usize) -> Parsed<Expr> {
        let outer = self.depth;
        self.deeper(|d| &mut d.calculation)?;
        let operand = |p: &mut Self| if level == 0 { p.calculation(1) } else { p.unary() };
        let mut left = operand(self)?;
        loop {
            let op = self.peek();
            let Some(function) = calculation_operator(op, level) else { break };
            self.advance();
            self.deeper(|d| &mut d.calculation)?;
            let right = operand(self)?;
            left = self.global_call(op.position, function, vec![left, right]);
        }
        self.depth = outer;
        Ok(left)
    }

    pub(super) fn unary(&mut self) -> Parsed<Expr> {
        let first = self.peek();
        for (symbol, function) in [("!", operator::NOT), ("-", operator::NEGATE)] {
            if !first.is(symbol) || (symbol == "-" && self.literal_follows()) {
                continue;
            }
            let mut count = 0;
            while self.peek().is(symbol) && !(symbol == "-" && self.literal_follows()) {
                self.advance();
                count += 1;
            }
            let operand = self.member()?;
            return Ok(match count % 2 {
                0 => operand,
                _ => self.global_call(first.position, function, vec![operand]),
            });
        }
        self.member()
    }

    /// A minus right before a number is part of it.
    pub(super) fn literal_follows(&self) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|t| matches!(t.token, Token::Int | Token::Float))
    }
}

fn relation_operator(lexeme: Lexeme<'_>) -> Option<&'static str> {
    if lexeme.token == Token::In {
        return Some(operator::IN);
    }
    if lexeme.token != Token::Symbol {
        return None;
    }
    Some(match lexeme.text {
        "<" => "_<_",
        "<=" => "_<=_",
        ">=" => "_>=_",
        ">" => "_>_",
        "==" => operator::EQUALS,
        "!=" => operator::NOT_EQUALS,
        _ => return None,
    })
}

fn calculation_operator(lexeme: Lexeme<'_>, level: usize) -> Option<&'static str> {
    if lexeme.token != Token::Symbol {
        return None;
    }
    Some(match (lexeme.text, level) {
        ("+", 0) => operator::ADD,
        ("-", 0) => "_-_",
        ("*", 1) => "_*_",
        ("/", 1) => "_/_",
        ("%", 1) => "_%_",
        _ => return None,
    })
}
