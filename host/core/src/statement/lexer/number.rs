//! Where numbers end.

use super::{Kind, Lexer};

impl Lexer<'_> {
    /// A number without its sign. What PostgreSQL calls junk after it (`1a`) is the next token.
    pub(super) fn number(&mut self) -> Kind {
        let start = self.at;
        let digits: fn(u8) -> bool = match (self.byte(start), self.byte(start + 1) | 0x20) {
            (b'0', b'x') => |b| b.is_ascii_hexdigit(),
            (b'0', b'o') => |b| matches!(b, b'0'..=b'7'),
            (b'0', b'b') => |b| matches!(b, b'0' | b'1'),
            _ => return self.decimal(),
        };
        let end = self.digits(start + 2, digits);
        if end == start + 2 {
            return self.decimal();
        }
        self.at = end;
        Kind::Integer
    }

    pub(super) fn decimal(&mut self) -> Kind {
        let mut kind = Kind::Integer;
        let mut at = self.whole(self.at);
        // `1..2` is a range: two points belong to no number.
        if self.byte(at) == b'.' && self.byte(at + 1) != b'.' {
            kind = Kind::Decimal;
            at = self.whole(at + 1);
        }
        if self.byte(at) | 0x20 == b'e' {
            let sign = matches!(self.byte(at + 1), b'+' | b'-') as usize;
            let end = self.whole(at + 1 + sign);
            if end > at + 1 + sign {
                (kind, at) = (Kind::Decimal, end);
            }
        }
        self.at = at;
        kind
    }

    /// The end of decimal digits with single underscores between them.
    fn whole(&self, at: usize) -> usize {
        if !self.byte(at).is_ascii_digit() {
            return at;
        }
        self.digits(at + 1, |b| b.is_ascii_digit())
    }

    /// The end of digits, each of which may follow one underscore.
    fn digits(&self, mut at: usize, is_digit: impl Fn(u8) -> bool) -> usize {
        loop {
            let underscore = (self.byte(at) == b'_') as usize;
            if !is_digit(self.byte(at + underscore)) {
                return at;
            }
            at += underscore + 1;
        }
    }
}
