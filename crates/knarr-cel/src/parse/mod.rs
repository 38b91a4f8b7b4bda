//! Text to syntax tree: cel-go's grammar, macros expanded on the way, and its error texts for the common mistakes.

mod call;
mod lexer;
mod literal;
mod macros;
mod operators;
mod primary;
mod unescape;

use crate::ast::{Ast, Expr, Id, Kind};
use crate::source::Issue;
use lexer::{Lexeme, Token};

/// Expressions longer than this are refused, in characters.
const LENGTH_LIMIT: usize = 100_000;
/// How deep one kind of thing may stand in itself.
const DEPTH_LIMIT: u32 = 250;
/// Nodes that macros may copy.
const NODE_LIMIT: usize = 200_000;
const TOO_LARGE: &str = "expression is too large once its macros are expanded";
/// Names that the language keeps for itself.
const RESERVED: [&str; 17] = [
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
const STARTS: &str =
    "'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER";

/// Reads an expression. The errors are all that are found before the parser loses its way.
pub fn parse(source: &str) -> Result<Ast, Vec<Issue>> {
    let length = source.chars().count();
    if length > LENGTH_LIMIT {
        let message = format!("expression code point size exceeds limit: size: {length}, limit {LENGTH_LIMIT}");
        return Err(vec![Issue { position: None, message }]);
    }
    let mut issues = Vec::new();
    let tokens = lexer::lex(source, &mut issues);
    let mut parser = Parser { tokens, at: 0, positions: Vec::new(), issues, depth: Depth::default() };
    let root = parser.start();
    if !parser.issues.is_empty() {
        return Err(parser.issues);
    }
    match root {
        Ok(root) => Ok(Ast { root, positions: parser.positions }),
        Err(Lost) => Err(parser.issues),
    }
}

/// The parser cannot go on; why is among its issues.
struct Lost;

type Parsed<T> = Result<T, Lost>;

/// How deep each rule of the grammar stands in itself now.
#[derive(Clone, Copy, Default)]
struct Depth {
    expression: u32,
    relation: u32,
    calculation: u32,
    member: u32,
}

struct Parser<'s> {
    tokens: Vec<Lexeme<'s>>,
    at: usize,
    positions: Vec<u32>,
    issues: Vec<Issue>,
    depth: Depth,
}

impl<'s> Parser<'s> {
    fn start(&mut self) -> Parsed<Expr> {
        let root = self.expression()?;
        let next = self.peek();
        if next.token != Token::End {
            let last = self.tokens.get(self.at + 1).is_none_or(|t| t.token == Token::End);
            let word = if last { "extraneous" } else { "mismatched" };
            self.syntax_error(next, &format!("{word} input '{}' expecting <EOF>", next.shown()));
        }
        Ok(root)
    }

    fn peek(&self) -> Lexeme<'s> {
        self.tokens[self.at]
    }

    fn advance(&mut self) -> Lexeme<'s> {
        let lexeme = self.peek();
        if lexeme.token != Token::End {
            self.at += 1;
        }
        lexeme
    }

    /// Takes the next token if it is this symbol.
    fn take(&mut self, symbol: &str) -> Option<Lexeme<'s>> {
        self.peek().is(symbol).then(|| self.advance())
    }

    fn expect(&mut self, symbol: &str) -> Parsed<Lexeme<'s>> {
        if let Some(lexeme) = self.take(symbol) {
            return Ok(lexeme);
        }
        let next = self.peek();
        let closing = matches!(symbol, ")" | "]" | "}");
        let text = match closing && next.token == Token::End {
            true => format!("missing '{symbol}' at '{}'", next.shown()),
            false => format!("mismatched input '{}' expecting '{symbol}'", next.shown()),
        };
        self.lost(next, &text)
    }

    fn syntax_error(&mut self, at: Lexeme<'_>, text: &str) {
        self.error(Some(at.position), format!("Syntax error: {text}"));
    }

    fn lost<T>(&mut self, at: Lexeme<'_>, text: &str) -> Parsed<T> {
        self.syntax_error(at, text);
        Err(Lost)
    }

    fn error(&mut self, position: Option<u32>, message: String) {
        self.issues.push(Issue { position, message });
    }

    fn id(&mut self, position: u32) -> Id {
        self.positions.push(position);
        (self.positions.len() - 1) as Id
    }

    fn node(&mut self, position: u32, kind: Kind) -> Expr {
        Expr { id: self.id(position), kind }
    }

    /// Goes one deeper in a rule; the caller goes back up by restoring [`Parser::depth`].
    fn deeper(&mut self, rule: fn(&mut Depth) -> &mut u32) -> Parsed<()> {
        let depth = rule(&mut self.depth);
        *depth += 1;
        if *depth > DEPTH_LIMIT {
            self.error(None, format!("expression recursion limit exceeded: {DEPTH_LIMIT}"));
            return Err(Lost);
        }
        Ok(())
    }
}
