//! What a statement's comments say about it: sqlcommenter's tags, in its three spellings.
//!
//! `/*key='url%20encoded',traceparent='00-…'*/` is sqlcommenter's own; `/*key=value*/` and `/*key:value*/`
//! (marginalia, Rails, Hasura) are as common. They lead or trail the statement. Optimizer hints (`/*+ … */`) are no tags.

use crate::limits::{TAGS_BYTES_MAX, TAGS_MAX};
use std::borrow::Cow;

/// Tags of one text, in its order. They belong to an execution, not to the shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Tags<'a> {
    /// Reads the comments before `begin` and behind `end`, as a `Known` or a `Reading` has them. Without comments it
    /// costs nothing. What is no tag is passed over.
    pub fn read(text: &'a [u8], begin: usize, end: usize) -> Tags<'a> {
        let mut tags = Tags::default();
        let leading = text.get(..begin).unwrap_or_default();
        let trailing = text.get(end..).unwrap_or_default();
        for margin in [leading, trailing] {
            tags.margin(margin.get(..TAGS_BYTES_MAX).unwrap_or(margin));
        }
        tags
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// All pairs, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (&**key, &**value))
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Reads what lies outside the tokens: white space, semicolons and comments.
    fn margin(&mut self, mut text: &'a [u8]) {
        while let Some(&first) = text.first() {
            let length = match (first, text.get(1)) {
                (b'/', Some(b'*')) => {
                    let Some(length) = comment_length(text) else { return };
                    let inner = text.get(2..length - 2).unwrap_or_default();
                    if let Ok(inner) = std::str::from_utf8(inner)
                        && !inner.starts_with('+')
                    {
                        self.comment(inner);
                    }
                    length
                }
                (b'-', Some(b'-')) => {
                    text.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(text.len())
                }
                _ => 1,
            };
            text = text.get(length..).unwrap_or_default();
        }
    }

    /// Reads one comment's inside: pairs with commas between.
    fn comment(&mut self, mut rest: &'a str) {
        while !rest.is_empty() && self.pairs.len() < TAGS_MAX {
            let (pair, after) = pair(rest);
            self.pairs.extend(pair);
            rest = after;
        }
    }
}

/// The length of the comment that a text begins with, with the comments nested in it.
fn comment_length(text: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0_u32, 0);
    while let Some(two) = text.get(at..at + 2) {
        match two {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Reads up to the next comma that is in no quotes: the pair, if it is one, and what follows the comma.
fn pair(text: &str) -> (Option<Pair<'_>>, &str) {
    let separator = text.find([',', '=', ':']);
    let Some(separator) = separator.filter(|&at| text.as_bytes().get(at) != Some(&b',')) else {
        return (None, text.split_once(',').map_or("", |(_, after)| after));
    };
    let (key, value) = (text[..separator].trim(), text[separator + 1..].trim_start());
    let (value, after) = match value.strip_prefix('\'') {
        Some(quoted) => match closing_quote(quoted) {
            Some(end) => {
                let after = quoted[end + 1..].split_once(',').map_or("", |(_, after)| after);
                (Some(unescaped(&quoted[..end])), after)
            }
            None => (None, ""),
        },
        None => {
            let (bare, after) = value.split_once(',').unwrap_or((value, ""));
            let bare = bare.trim();
            // Words with blanks between are prose.
            let is_value = !bare.is_empty() && !bare.contains(char::is_whitespace);
            (is_value.then(|| decoded(Cow::Borrowed(bare))), after)
        }
    };
    let is_key = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'%'));
    (value.filter(|_| is_key).map(|value| (decoded(Cow::Borrowed(key)), value)), after)
}

/// The position of the quote that ends a value: not behind a backslash.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|b| {
        let closes = b == b'\'' && !escaped;
        escaped = b == b'\\' && !escaped;
        closes
    })
}

fn unescaped(value: &str) -> Cow<'_, str> {
    match value.contains("\\'") {
        true => decoded(Cow::Owned(value.replace("\\'", "'"))),
        false => decoded(Cow::Borrowed(value)),
    }
}

/// Decodes `%2F`, and `%%2F` as drivers leave it that take `%` for a parameter's mark.
fn decoded(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains('%') {
        return text;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = match (first, after.first()) {
            (b'%', Some(b'%')) => after.get(1..3),
            (b'%', _) => after.get(..2),
            _ => None,
        };
        match digits.and_then(hexadecimal) {
            Some(byte) => {
                out.push(byte);
                let length = if after.first() == Some(&b'%') { 3 } else { 2 };
                rest = after.get(length..).unwrap_or_default();
            }
            None => {
                out.push(first);
                rest = after;
            }
        }
    }
    match String::from_utf8(out) {
        Ok(decoded) => Cow::Owned(decoded),
        Err(_) => text,
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16).map(|d| d as u8);
    match digits {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    }
}
