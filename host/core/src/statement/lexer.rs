//! PostgreSQL's lexical rules (`scan.l`), as far as they decide where a token begins and ends.

mod number; // where numbers end

use super::StringSyntax;
use super::words::{self, key_of};

/// What a token is. As wide as a position: a token with padding is copied in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    /// The text is over.
    End,
    /// Unterminated literal or comment, or a null byte: nothing after it can be trusted.
    Broken,
    Semicolon,
    Open,
    Close,
    Dot,
    Comma,
    /// `::`
    Cast,
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"`
    Quoted,
    /// `U&"…"`
    UnicodeQuoted,
    /// `'…'` or `N'…'` without escapes beyond `''`.
    Plain,
    /// `E'…'`, and `'…'` where a backslash escapes.
    Escape,
    /// `U&'…'`
    Unicode,
    /// `B'…'` and `X'…'`
    Bits,
    /// `$tag$…$tag$`
    Dollar,
    /// A number without point or exponent, in any base.
    Integer,
    Decimal,
    /// `$1`
    Parameter,
    Operator,
    /// `:=`
    Assign,
    /// Any other character.
    Other,
}

/// A token; its text is `Lexer::text[start..end]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    start: u32,
    end: u32,
}

impl Token {
    #[inline]
    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    #[inline]
    pub(super) fn end(self) -> usize {
        self.end as usize
    }

    /// From the start of an earlier token to the end of this one.
    pub(super) fn from(self, earlier: Token) -> Token {
        Token { start: earlier.start, ..self }
    }

    /// As if a closing parenthesis had ended it at the given position.
    pub(super) fn closed_at(self, end: usize) -> Token {
        Token { kind: Kind::Close, end: end as u32, ..self }
    }

    /// A quoted identifier without its quotes. A doubled quote stays doubled: no name we know has one.
    pub(super) fn inner(self) -> Token {
        Token { start: self.start + 1, end: self.end - 1, ..self }
    }
}

/// Byte classes, so that one look-up decides what begins.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Null,
    Space,
    Word,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Semicolon,
    Open,
    Close,
    Dot,
    Comma,
    Colon,
    Operator,
    Other,
}

const CLASS: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut table = [Class::Other; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            0 => Class::Null,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b';' => Class::Semicolon,
            b'(' => Class::Open,
            b')' => Class::Close,
            b'.' => Class::Dot,
            b',' => Class::Comma,
            b':' => Class::Colon,
            b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*'
            | b'/' | b'%' | b'<' | b'>' | b'=' => Class::Operator,
            _ => Class::Other,
        };
        byte += 1;
    }
    table
}

/// May the byte continue an identifier? (`ident_cont`)
const CONTINUES: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(CLASS[byte], Class::Word | Class::Digit | Class::Dollar);
        byte += 1;
    }
    table
};

/// A cursor over a text. Copy it to look ahead.
#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    pub text: &'a [u8],
    /// The token read last. Written field by field in place: a token returned and stored as one value costs
    /// a store-forwarding stall, a third of the time for a statement.
    pub token: Token,
    /// White space or comments lie before the token, and more than a single blank.
    pub gap: bool,
    at: usize,
    pub strings: StringSyntax,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8], strings: StringSyntax) -> Self {
        let token = Token { kind: Kind::End, start: 0, end: 0 };
        Self { text, token, gap: false, at: 0, strings }
    }

    /// A lexer on a token that begins at the given position, which it has not read yet.
    pub(super) fn behind(text: &'a [u8], strings: StringSyntax, at: usize) -> Self {
        Self { at, ..Self::new(text, strings) }
    }

    /// The byte at `position`; the end of the text reads as a null byte.
    #[inline]
    fn byte(&self, position: usize) -> u8 {
        self.text.get(position).copied().unwrap_or(0)
    }

    /// Reads a token and returns it: for looking ahead.
    pub(super) fn next(&mut self) -> Token {
        self.advance();
        self.token
    }

    /// Reads the next token into `token`.
    #[inline]
    pub(super) fn advance(&mut self) {
        self.at += usize::from(self.byte(self.at) == b' ');
        self.gap = false;
        loop {
            let start = self.at;
            let byte = self.byte(start);
            let kind = match CLASS[byte as usize] {
                Class::Space => {
                    self.at += 1;
                    self.gap = true;
                    continue;
                }
                Class::Word => self.word(),
                Class::Comma => self.one(Kind::Comma),
                Class::Open => self.one(Kind::Open),
                Class::Close => self.one(Kind::Close),
                Class::Dot if self.byte(start + 1).is_ascii_digit() => self.decimal(),
                Class::Dot if self.byte(start + 1) == b'.' => {
                    self.at += 2;
                    Kind::Other
                }
                Class::Dot => self.one(Kind::Dot),
                Class::Semicolon => self.one(Kind::Semicolon),
                Class::Other => self.one(Kind::Other),
                Class::Operator => match (byte, self.byte(start + 1)) {
                    (b'-', b'-') => {
                        self.line_comment();
                        self.gap = true;
                        continue;
                    }
                    (b'/', b'*') => {
                        if self.block_comment() {
                            self.gap = true;
                            continue;
                        }
                        Kind::Broken
                    }
                    _ => self.operator(),
                },
                Class::Digit => self.number(),
                Class::Quote => self.plain(start),
                Class::DoubleQuote => self.quoted(start, Kind::Quoted),
                Class::Dollar => self.dollar(),
                Class::Colon if self.byte(start + 1) == b':' => {
                    self.at += 2;
                    Kind::Cast
                }
                Class::Colon if self.byte(start + 1) == b'=' => {
                    self.at += 2;
                    Kind::Assign
                }
                Class::Colon => self.one(Kind::Other),
                Class::Null if start >= self.text.len() => Kind::End,
                Class::Null => Kind::Broken,
            };
            self.token.kind = kind;
            self.token.start = start as u32;
            self.token.end = self.at as u32;
            return;
        }
    }

    #[inline]
    fn one(&mut self, kind: Kind) -> Kind {
        self.at += 1;
        kind
    }

    /// A word, or the literal that a one-letter word introduces when a quote follows at once.
    #[inline]
    fn word(&mut self) -> Kind {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.iter().position(|&b| !CONTINUES[b as usize]).unwrap_or(rest.len());
        self.at = start + length;
        if length == 1 && matches!(self.byte(self.at), b'\'' | b'&') {
            return self.introduced(rest[0] | 0x20);
        }
        Kind::Word
    }

    fn introduced(&mut self, letter: u8) -> Kind {
        let quote = self.at;
        match (letter, self.byte(quote), self.byte(quote + 1)) {
            (b'e', b'\'', _) => self.escape(quote),
            (b'n', b'\'', _) => self.plain(quote),
            (b'b' | b'x', b'\'', _) => self.quoted_by(quote, b'\'', Kind::Bits),
            (b'u', b'&', b'\'') => self.quoted_by(quote + 1, b'\'', Kind::Unicode),
            (b'u', b'&', b'"') => self.quoted(quote + 1, Kind::UnicodeQuoted),
            _ => Kind::Word,
        }
    }

    fn plain(&mut self, quote: usize) -> Kind {
        match self.strings {
            StringSyntax::Standard => self.quoted_by(quote, b'\'', Kind::Plain),
            StringSyntax::Backslash => self.escape(quote),
        }
    }

    fn quoted(&mut self, quote: usize, kind: Kind) -> Kind {
        self.quoted_by(quote, b'"', kind)
    }

    /// Skips a literal whose only escape is its own mark, doubled.
    fn quoted_by(&mut self, quote: usize, mark: u8, kind: Kind) -> Kind {
        let mut at = quote + 1;
        loop {
            at = mark_or_null(self.text, at, mark);
            // The end of the text reads as a null byte.
            if self.byte(at) == 0 {
                return self.broken();
            }
            at += 1;
            if self.byte(at) != mark {
                self.at = at;
                return kind;
            }
            at += 1;
        }
    }

    /// Skips a literal with backslash escapes, and its continuations on later lines, which inherit them.
    fn escape(&mut self, quote: usize) -> Kind {
        let mut at = quote + 1;
        loop {
            let stop = |b| matches!(b, b'\'' | b'\\' | 0);
            let Some(length) = find(&self.text[at..], stop) else {
                return self.broken();
            };
            at += length + 1;
            match (self.text[at - 1], self.byte(at)) {
                (0, _) => return self.broken(),
                (b'\\', _) | (_, b'\'') => at += 1,
                _ => {
                    self.at = at;
                    match self.continuation() {
                        Some(next) => at = next + 1,
                        None => return Kind::Escape,
                    }
                }
            }
            if at > self.text.len() {
                return self.broken();
            }
        }
    }

    /// The position of a quote that continues the literal just ended: only white space with at least one
    /// line break, and line comments, may lie between (`quotecontinue`).
    fn continuation(&self) -> Option<usize> {
        let mut ahead = *self;
        let mut lines = 0;
        loop {
            match (ahead.byte(ahead.at), ahead.byte(ahead.at + 1)) {
                (b'\n' | b'\r', _) => lines += 1,
                (b' ' | b'\t' | 0x0b | 0x0c, _) => {}
                (b'-', b'-') => {
                    ahead.line_comment();
                    continue;
                }
                (b'\'', _) if lines > 0 => return Some(ahead.at),
                _ => return None,
            }
            ahead.at += 1;
        }
    }

    /// With the lexer on a literal: takes in its continuations on later lines, and the `UESCAPE '!'` of a `U&'…'`. The
    /// continuations of a literal with backslashes belong to its token already.
    pub(super) fn whole_literal(&mut self) {
        match self.token.kind {
            Kind::Plain | Kind::Bits => self.join_continuation(),
            Kind::Unicode => {
                self.join_continuation();
                let mut ahead = *self;
                let word = ahead.next();
                if word.kind == Kind::Word
                    && key_of(self.text, word.start(), word.end()) == words::UESCAPE
                    && matches!(ahead.next().kind, Kind::Plain | Kind::Escape)
                {
                    ahead.token = Token { kind: Kind::Unicode, ..ahead.token.from(self.token) };
                    *self = ahead;
                }
            }
            _ => {}
        }
    }

    fn join_continuation(&mut self) {
        while let Some(quote) = self.continuation() {
            let kind = self.quoted_by(quote, b'\'', self.token.kind);
            self.token.kind = kind;
            self.token.end = self.at as u32;
        }
    }

    fn dollar(&mut self) -> Kind {
        let start = self.at;
        let rest = &self.text[start + 1..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits > 0 {
            self.at = start + 1 + digits;
            return Kind::Parameter;
        }
        let tag = find(rest, |b| b == b'$' || !CONTINUES[b as usize]);
        let Some(tag) = tag.filter(|&length| rest[length] == b'$') else {
            return self.one(Kind::Other);
        };
        let delimiter = &self.text[start..start + tag + 2];
        let mut at = start + delimiter.len();
        // A tag holds no `$`, so no comparison reaches past the next one: linear.
        while let Some(length) = find(&self.text[at..], |b| b == b'$' || b == 0) {
            at += length;
            if self.text[at] == 0 {
                break;
            }
            if self.text[at..].starts_with(delimiter) {
                self.at = at + delimiter.len();
                return Kind::Dollar;
            }
            at += 1;
        }
        self.broken()
    }

    /// A run of operator characters, cut where a comment begins. Only an operator with a character that no operator of
    /// the standard has may end in a sign: `a @- b`, but `a = -1` without its blank.
    fn operator(&mut self) -> Kind {
        let start = self.at;
        loop {
            self.at += 1;
            let byte = self.byte(self.at);
            let comment = matches!((byte, self.byte(self.at + 1)), (b'-', b'-') | (b'/', b'*'));
            if CLASS[byte as usize] != Class::Operator || comment {
                break;
            }
        }
        let text = &self.text[start..self.at];
        if text.len() > 1 && matches!(text[text.len() - 1], b'+' | b'-') {
            let special = |b: &u8| {
                matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%')
            };
            if !text.iter().any(special) {
                let signs = text.iter().rev().take_while(|b| matches!(b, b'+' | b'-')).count();
                self.at -= signs.min(text.len() - 1);
            }
        }
        Kind::Operator
    }

    fn line_comment(&mut self) {
        let rest = &self.text[self.at..];
        // A null byte stays for `next` to refuse.
        let length = find(rest, |b| matches!(b, b'\n' | b'\r' | 0));
        self.at += length.unwrap_or(rest.len());
    }

    /// Skips a comment with the comments nested in it; false when it is not terminated.
    fn block_comment(&mut self) -> bool {
        let mut depth = 1_u32;
        let mut at = self.at + 2;
        while let Some(length) = find(&self.text[at..], |b| matches!(b, b'*' | b'/' | 0)) {
            at += length;
            match (self.text[at], self.byte(at + 1)) {
                (0, _) => break,
                (b'/', b'*') => {
                    depth += 1;
                    at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        self.at = at;
                        return true;
                    }
                }
                _ => at += 1,
            }
        }
        self.broken();
        false
    }

    fn broken(&mut self) -> Kind {
        self.at = self.text.len();
        Kind::Broken
    }
}

/// The position of the first `mark` or null byte from `at` on, or the end of the text; eight bytes at a time.
#[inline]
fn mark_or_null(text: &[u8], mut at: usize, mark: u8) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The lowest byte whose high bit is set in the result is the first that was null.
    let nulls = |eight: u64| eight.wrapping_sub(ONES) & !eight & (ONES << 7);
    let marks = u64::from(mark) * ONES;
    while let Some(eight) = text.get(at..).and_then(<[u8]>::first_chunk) {
        let eight = u64::from_le_bytes(*eight);
        let found = nulls(eight) | nulls(eight ^ marks);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = text.get(at..).unwrap_or_default();
    at + find(rest, |b| b == mark || b == 0).unwrap_or(rest.len())
}

#[inline]
fn find(bytes: &[u8], stop: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().position(|&b| stop(b))
}
