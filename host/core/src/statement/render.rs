//! Folded tokens → the text for the grammar, and the text for people.
//!
//! The *skeleton* is what is parsed: every literal is empty or 1, every list of literals has one element or row, and
//! comments are gone. So it is short whatever the literals hold, it holds nobody's data, the string syntax of the
//! session does not matter to the parser, and texts with one fingerprint have one skeleton (up to the case of words
//! and white space). The *normalized* text has a parameter for each literal instead.

use super::StringSyntax;
use super::fingerprint::Reading;
use super::fold::{List, Literal, Parameters, Sink, fold};
use super::lexer::{Kind, Lexer, Token};
use super::shape::Incomplete;
use crate::limits::{NORMALIZED_BYTES_MAX, SHAPE_PARSE_BYTES_MAX, SHAPE_TOKENS_MAX};

/// Both texts.
pub(super) struct Rendered {
    pub skeleton: Result<String, Incomplete>,
    pub normalized: Box<str>,
}

/// Renders a text that has a fingerprint, as its reading says.
pub(super) fn render(text: &[u8], strings: StringSyntax, reading: &Reading) -> Rendered {
    let length = text.len();
    let mut renderer = Renderer {
        text,
        strings,
        start: reading.begin,
        end: reading.begin,
        gap: false,
        number: u32::from(reading.parameters),
        skeleton: Output::new(length, SHAPE_PARSE_BYTES_MAX),
        normalized: Output::new(length, NORMALIZED_BYTES_MAX),
    };
    // A text with a fingerprint folds without a stop.
    let _ = fold(text, strings, Parameters::Exact, SHAPE_TOKENS_MAX, &mut renderer);
    renderer.copy();
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
    fn new(bytes: usize, bytes_max: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes.min(bytes_max) + 16), bytes_max, full: false }
    }

    /// Adds a piece, behind a blank if there was one or the pieces would run together.
    fn push(&mut self, piece: &[u8], gap: bool) {
        if self.full {
            return;
        }
        let room = self.bytes_max.saturating_sub(self.bytes.len() + 1);
        self.full = piece.len() > room;
        let piece = piece.get(..room).unwrap_or(piece);
        let (last, first) = (self.bytes.last().copied(), piece.first().copied());
        // `u &'…'` is no `U&'…'`.
        let unicode = last == Some(b'&') && first == Some(b'\'');
        if gap && last.is_some() || unicode || joins(last) && joins(first) {
            self.bytes.push(b' ');
        }
        self.bytes.extend_from_slice(piece);
    }
}

/// Would the byte, beside another like it, be part of one token?
fn joins(byte: Option<u8>) -> bool {
    byte.is_some_and(|b| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'\'' | b'"' | 0x80..)
    })
}

struct Renderer<'a> {
    text: &'a [u8],
    strings: StringSyntax,
    /// Tokens that stand in the text as they shall in both outputs, and are not copied yet.
    start: usize,
    end: usize,
    /// There is white space before `start`, and there shall be a blank.
    gap: bool,
    /// The number of the last parameter in the normalized text.
    number: u32,
    skeleton: Output,
    normalized: Output,
}

impl Renderer<'_> {
    #[inline]
    fn verbatim(&mut self, token: Token) {
        let (start, end) = (token.start(), token.end());
        let follows = start == self.end || start == self.end + 1 && self.text[self.end] == b' ';
        if !follows {
            self.copy();
            (self.start, self.gap) = (start, start > self.end);
        }
        self.end = end;
    }

    /// Copies what stands as it shall.
    fn copy(&mut self) {
        let piece = self.text.get(self.start..self.end).unwrap_or_default();
        if !piece.is_empty() {
            self.skeleton.push(piece, self.gap);
            self.normalized.push(piece, self.gap);
        }
    }

    /// Goes on behind what was written otherwise.
    fn skip_to(&mut self, end: usize) {
        (self.start, self.end, self.gap) = (end, end, false);
    }
}

impl Sink for Renderer<'_> {
    #[inline]
    fn word(&mut self, token: Token) {
        self.verbatim(token);
    }

    #[inline]
    fn quoted(&mut self, token: Token) {
        self.verbatim(token);
    }

    #[inline]
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
        self.copy();
        let gap = token.start() > self.end;
        self.skip_to(token.end());
        self.skeleton.push(empty, gap);
        self.number += 1;
        self.normalized.push(numbered(self.number, &mut [0; 11]), gap);
    }

    fn list(&mut self, list: &List) {
        let mut lexer = Lexer::behind(self.text, self.strings, list.start);
        loop {
            let start = lexer.next();
            if start.start() >= list.first_end || matches!(start.kind, Kind::End | Kind::Broken) {
                break;
            }
            if start.kind == Kind::Operator {
                lexer.advance(); // the number of which this is the sign
            }
            lexer.whole_literal();
            let token = lexer.token.from(start);
            match token.kind {
                Kind::Word => self.word(token),
                Kind::Comma | Kind::Open | Kind::Close => self.mark(token),
                _ => self.literal(super::fold::literal(self.text, lexer.token), token),
            }
        }
        self.copy();
        self.skip_to(list.end);
        if list.end > list.first_end {
            self.normalized.push(b"/*, ... */", true);
        }
    }

    fn semicolon(&mut self) {
        self.copy();
        self.skip_to(self.end);
        self.skeleton.push(b";", false);
        self.normalized.push(b";", false);
    }
}

/// `$` and the number.
fn numbered(mut number: u32, digits: &mut [u8; 11]) -> &[u8] {
    let mut at = digits.len();
    for digit in digits.iter_mut().skip(1).rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    digits[at - 1] = b'$';
    &digits[at - 1..]
}
