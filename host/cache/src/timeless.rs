//! Words that PostgreSQL's input of dates reads as of now: `'now'`, `'today'`, `'tomorrow'`, `'yesterday'`.
//!
//! A literal or a parameter of any type may become a date, so all are looked at. It errs on the side of finding one: the word
//! in any place, and any way to write a letter otherwise.

const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];

/// Does nothing in the text or the parameters mean another moment at another time, as far as its letters tell?
///
/// A text that could spell such a word without its letters is not timeless either: one with escapes (`\x74`, `U&'\0074'`), or
/// with a literal that goes on in another line.
pub fn is_timeless(text: &[u8], bound: &[u8]) -> bool {
    let is_free = |bytes| !has_word(bytes) && !has_mark_in_word(bytes);
    let is_text_free =
        !has_literal(text) || !text.contains(&b'\\') && !goes_on(text) && is_free(text);
    is_text_free && is_free(bound)
}

/// May there be a literal that is no number: a quote, or a dollar that no number follows?
fn has_literal(text: &[u8]) -> bool {
    text.contains(&b'\'')
        || text.windows(2).any(|two| matches!(two, [b'$', next] if !next.is_ascii_digit()))
}

/// Is there a quote or backslash within a word? In elements of arrays and bounds of ranges neither counts: `[to"d"ay,)`.
fn has_mark_in_word(bytes: &[u8]) -> bool {
    bytes.windows(3).any(|three| {
        matches!(three, [before, b'"' | b'\\', behind] if before.is_ascii_alphabetic() && behind.is_ascii_alphabetic())
    })
}

/// Is one of the words there, with no letter before or behind?
fn has_word(text: &[u8]) -> bool {
    let is_first = |byte: &u8| matches!(byte | 0x20, b'n' | b't' | b'y');
    let mut at = 0;
    while let Some(next) = text[at..].iter().position(is_first) {
        at += next;
        let starts = at == 0 || !text[at - 1].is_ascii_alphabetic();
        let is_here = |word: &&[u8]| {
            let end = at + word.len();
            text.get(at..end).is_some_and(|found| found.eq_ignore_ascii_case(word))
                && !text.get(end).is_some_and(u8::is_ascii_alphabetic)
        };
        if starts && WORDS.iter().any(is_here) {
            return true;
        }
        at += 1;
    }
    false
}

/// Is there a quote, then a line's end among white space and comments, then a quote: perhaps one literal in two pieces?
fn goes_on(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(quote) = rest.iter().position(|byte| *byte == b'\'') {
        rest = &rest[quote + 1..];
        let (mut at, mut lines) = (0, 0);
        loop {
            match rest.get(at) {
                Some(b'\n' | b'\r') => lines += 1,
                Some(b' ' | b'\t' | 0x0b | 0x0c) => {}
                Some(b'-') if rest.get(at + 1) == Some(&b'-') => {
                    let end = rest[at..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    at += end.unwrap_or(rest.len() - at).saturating_sub(1);
                }
                _ => break,
            }
            at += 1;
        }
        if lines > 0 && rest.get(at) == Some(&b'\'') {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn words_of_dates_are_found_however_they_stand() {
        for text in [
            "select * from t where d = 'today'",
            "select 'Now'::timestamptz",
            "select * from t where d in ('2020-01-01', ' YESTERDAY ')",
            "select 'tomorrow 12:00'",
            "select '[today,]'::daterange",
            "select E'tod\\x61y'",
            "select U&'tod\\0061y'",
            "select 'to'\n'day'",
            "select 'to' -- a comment\n  'day'",
            "select $$today$$",
        ] {
            assert!(!is_timeless(text.as_bytes(), b""), "{text}");
        }
        for bound in ["\0\0\0\x05today", "{tod\\ay}", "[to\"d\"ay,)"] {
            assert!(!is_timeless(b"select $1", bound.as_bytes()), "{bound}");
        }
        for text in [
            "select 'snow', 'knows', 'todays', name from nowhere",
            "select 'a', 'b'",
            "select 'a'\n, 'b'",
            // Without a literal, they are names.
            "select now, \"today\", yesterday from t where n = $1",
        ] {
            assert!(is_timeless(text.as_bytes(), b"\0\0\0\x04snow"), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 17: a parameter that PostgreSQL would read as a moment of today is always found.
        #[test]
        fn no_word_hides_among_others(
            before in "[^a-zA-Z]{0,6}", word in proptest::sample::select(&WORDS[..]), behind in "[^a-zA-Z]{0,6}",
            upper in any::<u16>(),
        ) {
            let mut bytes = before.into_bytes();
            bytes.extend(word.iter().enumerate().map(|(index, byte)| {
                if upper >> index & 1 == 1 { byte.to_ascii_uppercase() } else { *byte }
            }));
            bytes.extend(behind.into_bytes());
            prop_assert!(!is_timeless(b"select $1", &bytes));
            for quote in [&b"'"[..], b"$$", b"$a$"] {
                prop_assert!(!is_timeless(&[quote, &bytes, quote].concat(), b""));
            }
        }
    }
}
