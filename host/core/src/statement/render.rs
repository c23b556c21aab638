//! Folded tokens → the text for the grammar, and the text for people.
//!
//! The *skeleton* is what is parsed: every literal is empty or 1, every list of literals has one element or row, and
//! comments are gone. So it is short whatever the literals hold, it holds nobody's data, the string syntax of the
//! session does not matter to the parser, and texts with one fingerprint have one skeleton (up to the case of words
//! and white space). The *normalized* text has a parameter for each literal instead.

use super::StringSyntax;
use super::fingerprint::Reading;
use super::fold::{self, Cut, Literal, What};
use super::lexer::{Kind, Lexer};
use super::shape::Incomplete;
use crate::limits::{NORMALIZED_BYTES_MAX, SHAPE_PARSE_BYTES_MAX};

/// Both texts.
pub(super) struct Rendered<'a> {
    pub skeleton: Result<&'a str, Incomplete>,
    pub normalized: Box<str>,
}

/// Where texts are rendered, one after the other; as large as the largest so far, so within the bounds of both.
#[derive(Default)]
pub(super) struct Canvas {
    skeleton: Vec<u8>,
    normalized: Vec<u8>,
}

/// Renders a text that has a fingerprint, as its reading says.
pub(super) fn render<'a>(
    text: &[u8],
    strings: StringSyntax,
    reading: &Reading,
    cuts: &[Cut],
    canvas: &'a mut Canvas,
) -> Rendered<'a> {
    let mut renderer = Renderer {
        text,
        strings,
        at: reading.begin,
        gap: false,
        number: u32::from(reading.parameters),
        skeleton: Output::new(&mut canvas.skeleton, text.len(), SHAPE_PARSE_BYTES_MAX),
        normalized: Output::new(&mut canvas.normalized, text.len(), NORMALIZED_BYTES_MAX),
    };
    for cut in cuts {
        renderer.cut(*cut);
    }
    renderer.copy(reading.end);
    let Renderer { skeleton, normalized, .. } = renderer;
    if normalized.full {
        normalized.bytes.extend_from_slice(" …".as_bytes());
    }
    let skeleton = match skeleton.full {
        true => Err(Incomplete::TooLarge),
        false => std::str::from_utf8(skeleton.bytes).map_err(|_| Incomplete::Encoding),
    };
    let normalized = match std::str::from_utf8(normalized.bytes) {
        Ok(text) => text.into(),
        Err(_) => String::from_utf8_lossy(normalized.bytes).into(),
    };
    Rendered { skeleton, normalized }
}

/// A text under construction, with its bound.
struct Output<'a> {
    bytes: &'a mut Vec<u8>,
    bytes_max: usize,
    /// Something did not fit: nothing more is added.
    full: bool,
}

impl<'a> Output<'a> {
    fn new(bytes: &'a mut Vec<u8>, length: usize, bytes_max: usize) -> Self {
        bytes.clear();
        bytes.reserve(length.min(bytes_max) + 16);
        Self { bytes, bytes_max, full: false }
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

struct Renderer<'text, 'canvas> {
    text: &'text [u8],
    strings: StringSyntax,
    /// Up to here the text is rendered.
    at: usize,
    /// There shall be a blank before what comes next.
    gap: bool,
    /// The number of the last parameter in the normalized text.
    number: u32,
    skeleton: Output<'canvas>,
    normalized: Output<'canvas>,
}

impl Renderer<'_, '_> {
    fn cut(&mut self, cut: Cut) {
        let (start, end) = (cut.start as usize, cut.end as usize);
        self.copy(start);
        match cut.what {
            What::Gap => self.gap = true,
            What::Literal(literal) => self.literal(literal, end),
            What::List { first_end } => self.list(start, first_end as usize, end),
            What::Semicolon => {
                self.skeleton.push(b";", false);
                self.normalized.push(b";", false);
                self.gap = true;
            }
        }
        self.at = end;
    }

    /// Copies the text up to a position, but for a blank before that, which belongs to what comes next.
    fn copy(&mut self, end: usize) {
        let piece = self.text.get(self.at..end).unwrap_or_default();
        let stripped = piece.strip_suffix(b" ");
        let piece = stripped.unwrap_or(piece);
        if !piece.is_empty() {
            self.skeleton.push(piece, self.gap);
            self.normalized.push(piece, self.gap);
            self.gap = false;
        }
        self.gap |= stripped.is_some();
        self.at = self.at.max(end);
    }

    fn literal(&mut self, literal: Literal, end: usize) {
        let empty: &[u8] = match literal {
            Literal::Text => b"''",
            Literal::National => b"n''",
            Literal::Integer => b"1",
            Literal::Decimal => b"1.0",
            Literal::Bits => b"b''",
            Literal::Hexadecimal => b"x''",
            Literal::Word | Literal::Parameter => return self.copy(end),
        };
        let gap = std::mem::take(&mut self.gap);
        self.skeleton.push(empty, gap);
        self.number += 1;
        self.normalized.push(numbered(self.number, &mut [0; 11]), gap);
    }

    /// Renders the first element or row of a list.
    fn list(&mut self, start: usize, first_end: usize, list_end: usize) {
        let mut lexer = Lexer::behind(self.text, self.strings, start);
        let mut end = start;
        loop {
            let first = lexer.next();
            if first.start() >= first_end || matches!(first.kind, Kind::End | Kind::Broken) {
                break;
            }
            if lexer.gap {
                self.cut(Cut::new(What::Gap, end, first.start()));
            }
            if first.kind == Kind::Operator {
                lexer.advance(); // the number of which this is the sign
            }
            lexer.whole_literal();
            let token = lexer.token.from(first);
            end = token.end();
            if !matches!(token.kind, Kind::Word | Kind::Comma | Kind::Open | Kind::Close) {
                let literal = fold::literal(self.text, lexer.token);
                self.cut(Cut::new(What::Literal(literal), token.start(), end));
            }
        }
        self.copy(first_end);
        if list_end > first_end {
            self.normalized.push(b"/*, ... */", true);
        }
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
