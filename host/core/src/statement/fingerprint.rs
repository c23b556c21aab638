//! Folded tokens → 128 bits.
//!
//! Tokens are written one behind the other in a form from which they could be read again, so different tokens are
//! different bytes, and XXH3 with a secret of this process makes the hash of them.

use super::fold::{Cut, Folded, List, Literal, Parameters, Sink, Stop, What, fold};
use super::lexer::{Kind, Token};
use super::words::sixteen;
use super::{Family, Fingerprint, StringSyntax};
use crate::limits::{SHAPE_TEXT_BYTES_MAX, SHAPE_TOKENS_MAX};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Bytes that are hashed at a time; what is longer is chained.
const BLOCK: usize = 2048;
/// Room behind a block, so that words are copied 16 bytes at a time without looking.
const SLACK: usize = 32;
/// The least that XXH3 takes is 136 bytes; its own default has this many.
const SECRET: usize = 192;

// What a token begins with. No token's first byte is one that an earlier token's last part may hold.
const WORD: u8 = b' ';
const QUOTED: u8 = 1;
const UNICODE_QUOTED: u8 = 2;
const OPERATOR: u8 = 3;
const VERBATIM: u8 = 4;
const OTHER: u8 = 5;
const CAST: u8 = 6;
const PARAMETER: u8 = 7;
const LITERAL: u8 = 8;
const LIST: u8 = 9;

/// What a text's tokens are, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub fingerprint: Fingerprint,
    /// Position of the first token: what lies before is white space and comments.
    pub begin: usize,
    /// Position behind the last token.
    pub end: usize,
    /// The highest n of `$n`.
    pub parameters: u16,
    /// A list that may hold parameters: the family is not the fingerprint.
    pub(super) open_list: bool,
}

/// Why a text has no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    TooLarge,
    TooManyTokens,
    /// A literal or a comment does not end, or there is a null byte.
    Broken,
}

/// Makes fingerprints.
pub struct Fingerprinter {
    secret: Box<[u8; SECRET]>,
    buffer: Box<[u8; BLOCK + SLACK]>,
    /// Of the text read last: at most two for each of its tokens.
    cuts: Vec<Cut>,
}

impl Fingerprinter {
    /// `seed` is drawn once for each process, from the system's randomness.
    pub fn new(seed: u128) -> Self {
        let mut secret = Box::new([0; SECRET]);
        let (mut low, high) = (seed as u64, (seed >> 64) as u64);
        for eight in secret.chunks_exact_mut(8) {
            low = low.wrapping_add(0x9e37_79b9_7f4a_7c15);
            eight.copy_from_slice(&mix(low ^ mix(high ^ mix(low))).to_le_bytes());
        }
        Self { secret, buffer: Box::new([0; BLOCK + SLACK]), cuts: Vec::new() }
    }

    /// The fingerprint of a text as a session with the given string syntax reads it. About a nanosecond a byte.
    #[inline]
    pub fn read(&mut self, text: &[u8], strings: StringSyntax) -> Result<Reading, Unreadable> {
        let (hash, folded, parameters) = self.hash(text, strings, Parameters::Exact)?;
        let Folded { begin, end, open_list, .. } = folded;
        Ok(Reading { fingerprint: Fingerprint(hash), begin, end, parameters, open_list })
    }

    /// The family of a text with this reading; see [`Family`].
    pub fn family(&mut self, text: &[u8], strings: StringSyntax, reading: &Reading) -> Family {
        let own = Family(reading.fingerprint.0);
        if !reading.open_list || reading.parameters == 0 {
            return own;
        }
        let cuts = std::mem::take(&mut self.cuts);
        // What folded with all its parameters folds without them.
        let hash = self.hash(text, strings, Parameters::Alike);
        self.cuts = cuts;
        hash.map_or(own, |(hash, ..)| Family(hash))
    }

    /// Where the text read last is rendered otherwise than it stands, in its order.
    pub(super) fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    #[inline]
    fn hash(
        &mut self,
        text: &[u8],
        strings: StringSyntax,
        parameters: Parameters,
    ) -> Result<(u128, Folded, u16), Unreadable> {
        if text.len() > SHAPE_TEXT_BYTES_MAX {
            return Err(Unreadable::TooLarge);
        }
        let (secret, buffer, cuts) = (&self.secret, &mut self.buffer, &mut self.cuts);
        cuts.clear();
        let mut writer = Writer { text, secret, buffer, cuts, length: 0, parameters: 0 };
        match fold(text, strings, parameters, SHAPE_TOKENS_MAX, &mut writer) {
            Ok(folded) => Ok((writer.digest(), folded, writer.parameters)),
            Err(Stop::TooManyTokens) => Err(Unreadable::TooManyTokens),
            Err(Stop::Broken) => Err(Unreadable::Broken),
        }
    }
}

/// Writes tokens into the buffer, and hashes it whenever it is full.
struct Writer<'a> {
    text: &'a [u8],
    secret: &'a [u8; SECRET],
    buffer: &'a mut [u8; BLOCK + SLACK],
    cuts: &'a mut Vec<Cut>,
    length: usize,
    parameters: u16,
}

impl Writer<'_> {
    fn digest(&self) -> u128 {
        xxh3_128_with_secret(&self.buffer[..self.length], self.secret)
    }

    /// Makes room for a few bytes: a full block is replaced by its hash.
    #[inline]
    fn room(&mut self) {
        if self.length >= BLOCK {
            self.chain();
        }
    }

    #[cold]
    fn chain(&mut self) {
        let digest = self.digest();
        self.buffer[..16].copy_from_slice(&digest.to_le_bytes());
        self.length = 16;
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.buffer[self.length] = byte;
        self.length += 1;
    }

    /// Copies `text[start..end]`, with ASCII letters in lower case if asked.
    #[inline]
    fn copy<const LOWER: bool>(&mut self, mut start: usize, end: usize) {
        // Room for one copy has been made.
        loop {
            let bytes = sixteen(self.text, start);
            let bytes = if LOWER { lower(&bytes) } else { bytes };
            if let Some(room) = self.buffer[self.length..].first_chunk_mut() {
                *room = bytes;
            }
            if end - start <= 16 {
                self.length += end - start;
                return;
            }
            self.length += 16;
            start += 16;
            self.room();
        }
    }
}

impl Sink for Writer<'_> {
    #[inline]
    fn word(&mut self, token: Token) {
        self.room();
        self.byte(WORD);
        self.copy::<true>(token.start(), token.end());
    }

    #[inline]
    fn quoted(&mut self, token: Token) {
        self.room();
        self.byte(QUOTED);
        self.copy::<false>(token.start(), token.end());
    }

    #[inline]
    fn mark(&mut self, token: Token) {
        self.room();
        self.byte(self.text[token.start()]);
    }

    fn token(&mut self, token: Token) {
        self.room();
        let (start, end) = (token.start(), token.end());
        match token.kind {
            Kind::UnicodeQuoted => {
                self.byte(UNICODE_QUOTED);
                self.copy::<false>(start + 2, end);
            }
            Kind::Operator => {
                self.byte(OPERATOR);
                self.copy::<false>(start, end);
            }
            Kind::Cast => self.byte(CAST),
            Kind::Parameter => {
                let digits = self.text[start + 1..end].iter().map(|b| u16::from(b - b'0'));
                let number =
                    digits.fold(0_u16, |n, digit| n.saturating_mul(10).saturating_add(digit));
                self.parameters = self.parameters.max(number);
                self.byte(PARAMETER);
                self.copy::<false>(start + 1, end);
            }
            Kind::Other | Kind::Assign => {
                self.byte(OTHER);
                self.byte((end - start) as u8);
                self.copy::<false>(start, end);
            }
            _ => {
                self.byte(VERBATIM);
                for byte in (end - start).to_le_bytes() {
                    self.byte(byte);
                }
                self.copy::<false>(start, end);
            }
        }
    }

    #[inline]
    fn literal(&mut self, literal: Literal, token: Token) {
        self.cuts.push(Cut::new(What::Literal(literal), token.start(), token.end()));
        self.room();
        self.byte(LITERAL);
        self.byte(literal as u16 as u8);
    }

    fn list(&mut self, list: &List) {
        let what = What::List { first_end: list.first_end as u32 };
        self.cuts.push(Cut::new(what, list.start, list.end));
        self.room();
        self.byte(LIST);
        for byte in list.kinds.to_le_bytes().into_iter().chain(list.width.to_le_bytes()) {
            self.byte(byte);
        }
    }

    fn semicolon(&mut self, start: usize, next: usize) {
        self.cuts.push(Cut::new(What::Semicolon, start, next));
        self.room();
        self.byte(b';');
    }

    fn gap(&mut self, end: usize, start: usize) {
        self.cuts.push(Cut::new(What::Gap, end, start));
    }
}

/// SplitMix64's finisher: every bit of the input reaches every bit of the result.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Makes ASCII capitals small and leaves all other bytes alone.
#[inline]
fn lower(bytes: &[u8; 16]) -> [u8; 16] {
    let mut small = [0; 16];
    for (small, &byte) in small.iter_mut().zip(bytes) {
        *small = if byte.wrapping_sub(b'A') < 26 { byte | 0x20 } else { byte };
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_is_ascii_lower() {
        for byte in 0..=255_u8 {
            let mut bytes =
                [b'A', byte, b'Z', b'@', b'[', b'a', b'z', 0xc1, 0, 1, 2, 3, 4, 5, 6, byte];
            let folded = lower(&bytes);
            bytes.make_ascii_lowercase();
            assert_eq!(folded, bytes);
        }
    }

    #[test]
    fn a_seed_changes_every_fingerprint_and_every_byte_of_the_secret() {
        let text = b"SELECT 1";
        let read = |seed| Fingerprinter::new(seed).read(text, StringSyntax::Standard);
        assert_ne!(read(0), read(1));
        assert_ne!(read(0), read(1 << 127));
        assert_eq!(read(7), read(7));
        let (zero, one) = (Fingerprinter::new(0), Fingerprinter::new(1 << 127));
        let words =
            |of: &Fingerprinter| of.secret.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert!(words(&zero).iter().zip(words(&one)).all(|(a, b)| *a != b));
    }
}
