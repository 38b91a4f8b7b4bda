//! Text to syntax tree: cel-go's grammar, macros expanded on the way, and its error texts for the common mistakes.

mod lexer;
mod macros;
mod unescape;

use crate::ast::{Ast, Call, Element, Entry, Expr, FieldInit, Id, Kind, Literal, Select, Struct, operator};
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

    fn expression(&mut self) -> Parsed<Expr> {
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
    fn logical(&mut self, function: &'static str, symbol: &str) -> Parsed<Expr> {
        let mut terms = vec![self.logical_term(function)?];
        let mut operators = Vec::new();
        while let Some(op) = self.take(symbol) {
            terms.push(self.logical_term(function)?);
            operators.push(op.position);
        }
        let mut terms = terms.into_iter();
        Ok(self.balance(function, &mut terms, &operators))
    }

    fn logical_term(&mut self, function: &'static str) -> Parsed<Expr> {
        if function == operator::OR { self.logical(operator::AND, "&&") } else { self.relation() }
    }

    fn balance(&mut self, function: &'static str, terms: &mut std::vec::IntoIter<Expr>, operators: &[u32]) -> Expr {
        if operators.is_empty() {
            return terms.next().expect("a chain has one term more than operators");
        }
        let middle = operators.len() / 2;
        let left = self.balance(function, terms, &operators[..middle]);
        let right = self.balance(function, terms, &operators[middle + 1..]);
        self.global_call(operators[middle], function, vec![left, right])
    }

    fn relation(&mut self) -> Parsed<Expr> {
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
    fn calculation(&mut self, level: usize) -> Parsed<Expr> {
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

    fn unary(&mut self) -> Parsed<Expr> {
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
    fn literal_follows(&self) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|t| matches!(t.token, Token::Int | Token::Float))
    }

    fn member(&mut self) -> Parsed<Expr> {
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

    fn after_dot(&mut self, operand: Expr, dot: Lexeme<'s>) -> Parsed<Expr> {
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
    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
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

    fn primary(&mut self) -> Parsed<Expr> {
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
    fn unexpected(&mut self, at: Lexeme<'s>) -> Parsed<Expr> {
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
    fn name(&mut self, dot: &str) -> Parsed<Expr> {
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
    fn struct_name_length(&self) -> Option<usize> {
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

    fn message(&mut self, name: String) -> Parsed<Expr> {
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

    fn list(&mut self) -> Parsed<Expr> {
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

    fn map(&mut self) -> Parsed<Expr> {
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

    fn literal(&mut self, lexeme: Lexeme<'s>) -> Expr {
        let literal = match lexeme.token {
            Token::True => Literal::Bool(true),
            Token::False => Literal::Bool(false),
            Token::Null => Literal::Null,
            Token::String | Token::Bytes => return self.text(lexeme),
            _ => return self.number(lexeme, lexeme),
        };
        self.node(lexeme.position, Kind::Literal(literal))
    }

    fn text(&mut self, lexeme: Lexeme<'s>) -> Expr {
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
    fn number(&mut self, lexeme: Lexeme<'s>, first: Lexeme<'s>) -> Expr {
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

    fn global_call(&mut self, position: u32, function: &str, arguments: Vec<Expr>) -> Expr {
        self.call(position, function, None, arguments)
    }

    /// A call, or what the macro of that name makes of it.
    fn call(&mut self, position: u32, function: &str, target: Option<Expr>, arguments: Vec<Expr>) -> Expr {
        if let Some(expand) = macros::find(function, target.is_some(), arguments.len()) {
            let mut builder = macros::Builder { parser: self, position };
            return match expand(&mut builder, target, arguments) {
                Ok(expanded) => expanded,
                Err((id, message)) => {
                    let at = self.positions[id as usize];
                    self.error(Some(at), message.to_string());
                    self.node(position, Kind::Literal(Literal::Null))
                }
            };
        }
        let call = Call { function: function.to_string(), target, arguments };
        self.node(position, Kind::Call(Box::new(call)))
    }

    /// The same expression again. Macros that copy can nest: a tree past [`NODE_LIMIT`] is refused instead of grown.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let position = self.positions[expr.id as usize];
        if self.positions.len() > NODE_LIMIT {
            if !self.issues.iter().any(|i| i.message == TOO_LARGE) {
                self.error(None, TOO_LARGE.to_string());
            }
            return self.node(position, Kind::Literal(Literal::Null));
        }
        let kind = match &expr.kind {
            Kind::Literal(literal) => Kind::Literal(literal.clone()),
            Kind::Ident(name) => Kind::Ident(name.clone()),
            Kind::Select(s) => {
                let operand = self.copy(&s.operand);
                Kind::Select(Box::new(Select { operand, field: s.field.clone(), test_only: s.test_only }))
            }
            Kind::Call(c) => {
                let target = c.target.as_ref().map(|t| self.copy(t));
                let arguments = c.arguments.iter().map(|a| self.copy(a)).collect();
                Kind::Call(Box::new(Call { function: c.function.clone(), target, arguments }))
            }
            Kind::List(elements) => {
                let element = |e: &Element| Element { value: self.copy(&e.value), optional: e.optional };
                Kind::List(elements.iter().map(element).collect())
            }
            Kind::Map(entries) => Kind::Map(entries.iter().map(|e| self.copy_entry(e)).collect()),
            Kind::Struct(message) => {
                let fields = message.fields.iter().map(|f| self.copy_field(f)).collect();
                Kind::Struct(Box::new(Struct { name: message.name.clone(), fields }))
            }
            Kind::Fold(fold) => Kind::Fold(Box::new(self.copy_fold(fold))),
        };
        self.node(position, kind)
    }

    fn copy_entry(&mut self, entry: &Entry) -> Entry {
        let id = self.id(self.positions[entry.id as usize]);
        Entry { id, key: self.copy(&entry.key), value: self.copy(&entry.value), optional: entry.optional }
    }

    fn copy_field(&mut self, field: &FieldInit) -> FieldInit {
        let id = self.id(self.positions[field.id as usize]);
        FieldInit { id, name: field.name.clone(), value: self.copy(&field.value), optional: field.optional }
    }

    fn copy_fold(&mut self, fold: &crate::ast::Fold) -> crate::ast::Fold {
        crate::ast::Fold {
            range: self.copy(&fold.range),
            variable: fold.variable.clone(),
            second: fold.second.clone(),
            accumulator: fold.accumulator.clone(),
            start: self.copy(&fold.start),
            condition: self.copy(&fold.condition),
            step: self.copy(&fold.step),
            result: self.copy(&fold.result),
        }
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
