//! Folded tokens → the text for the grammar, and the text for people.
//!
//! The *skeleton* is what is parsed: every literal is empty or 1, every list of literals has one element or row, and
//! comments are gone. So it is short whatever the literals hold, it holds nobody's data, the string syntax of the
//! session does not matter to the parser, and texts with one fingerprint have one skeleton (up to the case of words
//! and white space). The *normalized* text has a parameter for each literal instead.

use super::StringSyntax;
use super::fold::{List, Literal, Parameters, Sink, fold};
use super::lexer::{Kind, Lexer, Token};
use super::shape::Incomplete;
use crate::limits::{NORMALIZED_BYTES_MAX, SHAPE_PARSE_BYTES_MAX, SHAPE_TOKENS_MAX};
use std::fmt::Write;

/// Both texts.
pub(super) struct Rendered {
    pub skeleton: Result<String, Incomplete>,
    pub normalized: Box<str>,
}

/// Renders a text that has a fingerprint; `parameters` is its highest `$n`.
pub(super) fn render(text: &[u8], strings: StringSyntax, parameters: u16) -> Rendered {
    let (skeleton, normalized) =
        (Output::new(SHAPE_PARSE_BYTES_MAX), Output::new(NORMALIZED_BYTES_MAX));
    let number = u32::from(parameters);
    let mut renderer = Renderer { text, strings, before: 0, number, skeleton, normalized };
    // A text with a fingerprint folds without a stop.
    let _ = fold(text, strings, Parameters::Exact, SHAPE_TOKENS_MAX, &mut renderer);
    let Renderer { skeleton, mut normalized, .. } = renderer;
    if normalized.full {
        normalized.bytes.extend_from_slice(" …".as_bytes());
    }
    let skeleton = match skeleton.full {
        true => Err(Incomplete::TooLarge),
        false => String::from_utf8(skeleton.bytes).map_err(|_| Incomplete::Encoding),
    };
    let normalized = String::from_utf8(normalized.bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Rendered { skeleton, normalized: normalized.into_boxed_str() }
}

/// A text under construction, with its bound.
struct Output {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// Something did not fit: nothing more is added.
    full: bool,
}

impl Output {
    fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, full: false }
    }

    /// Adds a piece, behind a blank if there was one or the pieces would run together.
    fn push(&mut self, piece: &[u8], gap: bool) {
        if self.full || self.bytes.len() + piece.len() >= self.bytes_max {
            self.full = true;
            return;
        }
        let joins = |byte: Option<&u8>| {
            byte.is_some_and(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'\'' | b'"' | 0x80..)
            })
        };
        let apart = gap && !self.bytes.is_empty();
        // `u &'…'` is no `U&'…'`.
        let unicode = self.bytes.last() == Some(&b'&') && piece.first() == Some(&b'\'');
        if apart || unicode || joins(self.bytes.last()) && joins(piece.first()) {
            self.bytes.push(b' ');
        }
        self.bytes.extend_from_slice(piece);
    }
}

struct Renderer<'a> {
    text: &'a [u8],
    strings: StringSyntax,
    /// Where the token rendered last ends in the text.
    before: usize,
    /// The number of the last parameter in the normalized text.
    number: u32,
    skeleton: Output,
    normalized: Output,
}

impl Renderer<'_> {
    fn gap(&mut self, token: Token) -> bool {
        let gap = token.start() > self.before;
        self.before = token.end();
        gap
    }

    fn verbatim(&mut self, token: Token) {
        let gap = self.gap(token);
        let piece = &self.text[token.start()..token.end()];
        self.skeleton.push(piece, gap);
        self.normalized.push(piece, gap);
    }
}

impl Sink for Renderer<'_> {
    fn word(&mut self, token: Token) {
        self.verbatim(token);
    }

    fn quoted(&mut self, token: Token) {
        self.verbatim(token);
    }

    fn mark(&mut self, token: Token) {
        self.verbatim(token);
    }

    fn token(&mut self, token: Token) {
        self.verbatim(token);
    }

    fn literal(&mut self, literal: Literal, token: Token) {
        let empty: &[u8] = match literal {
            Literal::Text => b"''",
            Literal::National => b"n''",
            Literal::Integer => b"1",
            Literal::Decimal => b"1.0",
            Literal::Bits => b"b''",
            Literal::Hexadecimal => b"x''",
            Literal::Word | Literal::Parameter => return self.verbatim(token),
        };
        let gap = self.gap(token);
        self.skeleton.push(empty, gap);
        self.number += 1;
        let mut parameter = String::new();
        // Writing to a string cannot fail.
        let _ = write!(parameter, "${}", self.number);
        self.normalized.push(parameter.as_bytes(), gap);
    }

    fn list(&mut self, list: &List) {
        let mut lexer = Lexer::behind(self.text, self.strings, list.start);
        loop {
            let start = lexer.next();
            if start.start() >= list.first_end || matches!(start.kind, Kind::End | Kind::Broken) {
                break;
            }
            if start.kind == Kind::Operator {
                lexer.advance(); // the sign of the number that follows
            }
            lexer.whole_literal();
            let token = lexer.token.from(start);
            match token.kind {
                Kind::Word => self.word(token),
                Kind::Comma | Kind::Open | Kind::Close => self.mark(token),
                _ => self.literal(super::fold::literal(self.text, lexer.token), token),
            }
        }
        if list.end > list.first_end {
            self.normalized.push(b"/*, ... */", true);
        }
        self.before = list.end;
    }

    fn semicolon(&mut self) {
        self.skeleton.push(b";", false);
        self.normalized.push(b";", false);
    }
}
