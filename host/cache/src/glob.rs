//! Patterns over names, as Redis has them: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a character that means itself.

use std::fmt;

/// A pattern's length, in bytes.
pub const PATTERN_BYTES_MAX: usize = 256;

/// A pattern that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any characters, or none.
    Any,
    /// One character, whichever.
    One,
    /// One of these, or one that is none of them.
    Among {
        ranges: Vec<(char, char)>,
        wanted: Wanted,
    },
    Exactly(char),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    In,
    Out,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadGlob {
    /// It is empty, which matches nothing that has a name.
    Empty,
    /// It is longer than [`PATTERN_BYTES_MAX`].
    TooLong,
    /// A `[` without `]`.
    Open,
    /// A `\` at the end.
    Escape,
}

impl fmt::Display for BadGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the pattern is empty"),
            Self::TooLong => write!(f, "the pattern is longer than {PATTERN_BYTES_MAX} bytes"),
            Self::Open => f.write_str("the pattern has a `[` without `]`"),
            Self::Escape => f.write_str("the pattern ends with a `\\`"),
        }
    }
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &str) -> Result<Self, BadGlob> {
        if text.is_empty() {
            return Err(BadGlob::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(BadGlob::TooLong);
        }
        let mut parts = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match c {
                // Several are one: so that matching stays quick.
                '*' if parts.last() == Some(&Part::Any) => {}
                '*' => parts.push(Part::Any),
                '?' => parts.push(Part::One),
                '\\' => parts.push(Part::Exactly(rest.next().ok_or(BadGlob::Escape)?)),
                '[' => parts.push(among(&mut rest)?),
                c => parts.push(Part::Exactly(c)),
            }
        }
        Ok(Self { parts })
    }

    /// Does the whole name match? The work is at most the product of the lengths.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where to go on when the last `*` has to take one more.
        let mut again: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), name.get(at)) {
                (None, None) => return true,
                (Some(Part::Any), _) => {
                    again = Some((part + 1, at));
                    part += 1;
                    continue;
                }
                (Some(wanted), Some(c)) if wanted.takes(*c) => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                _ => {}
            }
            match again {
                Some((after, from)) if from < name.len() => {
                    again = Some((after, from + 1));
                    (part, at) = (after, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Exactly(wanted) => *wanted == c,
            Self::Among { ranges, wanted } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
                    == (*wanted == Wanted::In)
            }
        }
    }
}

/// What stands behind `[`, its `]` included.
fn among(rest: &mut std::str::Chars<'_>) -> Result<Part, BadGlob> {
    let mut ranges: Vec<(char, char)> = Vec::new();
    let mut wanted = Wanted::In;
    if rest.as_str().starts_with('^') {
        rest.next();
        wanted = Wanted::Out;
    }
    loop {
        let low = match rest.next().ok_or(BadGlob::Open)? {
            ']' => return Ok(Part::Among { ranges, wanted }),
            '\\' => rest.next().ok_or(BadGlob::Open)?,
            c => c,
        };
        let mut ahead = rest.clone();
        let high = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) if high != ']' => {
                *rest = ahead;
                high
            }
            _ => low,
        };
        ranges.push((low.min(high), low.max(high)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn patterns_match_as_redis_has_them() {
        for (pattern, name) in [
            ("*", "x"),
            ("h?llo", "hello"),
            ("h*llo", "heeeello"),
            ("h*llo", "hllo"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("a\\*b", "a*b"),
            ("**a**", "bab"),
            ("?", "☃"),
            ("a[c-a]", "ab"),
            ("[\\]]", "]"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("h?llo", "hllo"),
            ("h[ae]llo", "hillo"),
            ("h[^e]llo", "hello"),
            ("a\\*b", "axb"),
            ("a", "ab"),
            ("[]", "a"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert_eq!(Glob::new(""), Err(BadGlob::Empty));
        assert_eq!(Glob::new("[a"), Err(BadGlob::Open));
        assert_eq!(Glob::new("a\\"), Err(BadGlob::Escape));
        assert_eq!(Glob::new(&"x".repeat(300)), Err(BadGlob::TooLong));
    }

    /// The plainest way to say it.
    fn slowly(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                slowly(rest, name) || !name.is_empty() && slowly(pattern, &name[1..])
            }
            (['?', rest @ ..], [_, after @ ..]) => slowly(rest, after),
            ([c, rest @ ..], [d, after @ ..]) => c == d && slowly(rest, after),
            _ => false,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 46: what matches is what a pattern says.
        #[test]
        fn stars_and_question_marks(pattern in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            prop_assert_eq!(matches(&pattern, &name), slowly(&chars(&pattern), &chars(&name)));
        }
    }
}
