//! The cache: what it asks the grammar, what it keeps, and that it keeps within its bounds.

use super::*;
use crate::limits::{SHAPE_REFUSED_TIME, SHAPE_TEXT_BYTES_MAX};
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Knows SELECT alone, lists its words as tables, and counts how often it is asked.
#[derive(Default)]
struct Words {
    asked: usize,
}

impl Grammar for Words {
    fn parse(&mut self, skeleton: &str) -> Parsed {
        self.asked += 1;
        let Some(rest) = skeleton.strip_prefix("select ") else {
            return Parsed::unknown(Incomplete::Unparseable);
        };
        let table = |name: &str| TableUse {
            schema: None,
            name: name.into(),
            access: Access::Reads,
            columns: Vec::new(),
        };
        Parsed {
            kind: ShapeKind::Select,
            access: Access::Reads,
            tables: rest.split(' ').map(table).collect(),
            ..Parsed::default()
        }
    }
}

fn cache(bytes_max: usize) -> ShapeCache<Words> {
    ShapeCache::new(Words::default(), 7, bytes_max)
}

fn utf8() -> TextSettings {
    TextSettings::default()
}

#[test]
fn the_grammar_is_asked_once_for_each_fingerprint() {
    let (mut cache, now) = (cache(1 << 20), Instant::now());
    let first = cache.shape_of(b"select a 1", utf8(), now).shape;
    let second = cache.shape_of(b"SELECT  A /* x */ 2;", utf8(), now).shape;
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(&*first.normalized, "select a $1");
    assert!(first.is_plain_read());
    cache.shape_of(b"select b 1", utf8(), now);
    let counts = cache.counts();
    assert_eq!((counts.hits, counts.misses, cache.grammar_mut().asked), (1, 2, 2));
}

#[test]
fn a_refusal_is_believed_for_a_while_only() {
    let (mut cache, now) = (cache(1 << 20), Instant::now());
    let almost = now + SHAPE_REFUSED_TIME - Duration::from_nanos(1);
    for (now, asked) in
        [(now, 1), (almost, 1), (now + SHAPE_REFUSED_TIME, 2), (now + SHAPE_REFUSED_TIME, 2)]
    {
        let shape = cache.shape_of(b"selec a", utf8(), now).shape;
        assert_eq!(shape.incomplete, Some(Incomplete::Unparseable));
        assert_eq!((shape.kind, shape.access), (ShapeKind::Unknown, Access::Unknown));
        assert!(!shape.is_plain_read() && shape.literal_dependent);
        assert_eq!(cache.grammar_mut().asked, asked);
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn trap_99_texts_that_cannot_be_read_are_not_kept() {
    let (mut cache, now) = (cache(1 << 20), Instant::now());
    let long = vec![b' '; SHAPE_TEXT_BYTES_MAX + 1];
    let many = b"1+".repeat(10_000);
    let unsafe_text = TextSettings { encoding: TextEncoding::Unsafe, ..utf8() };
    for (text, settings, why) in [
        (&long[..], utf8(), Incomplete::TooLarge),
        (&many[..], utf8(), Incomplete::TooManyTokens),
        (b"select 'a", utf8(), Incomplete::Unparseable),
        (b"select \x83\x5c", unsafe_text, Incomplete::Encoding),
        (b"select '\\'", unsafe_text, Incomplete::Encoding),
    ] {
        let known = cache.shape_of(text, settings, now);
        assert_eq!(known.shape.incomplete, Some(why));
        assert_eq!(known.shape.access, Access::Unknown);
    }
    assert_eq!((cache.len(), cache.bytes(), cache.counts().refused), (0, 0, 5));
}

#[test]
fn encodings_matter_outside_of_literals_only() {
    let (mut cache, now) = (cache(1 << 20), Instant::now());
    let latin = TextSettings { encoding: TextEncoding::AsciiBased, ..utf8() };
    let unsafe_text = TextSettings { encoding: TextEncoding::Unsafe, ..utf8() };
    assert_eq!(cache.shape_of(b"select '\xe9'", latin, now).shape.incomplete, None);
    // These two bytes are one letter in UTF-8 and two in LATIN1: the name's spelling is not known.
    let shape = cache.shape_of(b"select \xc3\xa9", latin, now).shape;
    assert_eq!(shape.incomplete, Some(Incomplete::Encoding));
    assert_eq!(
        cache.shape_of(b"select \xe9", utf8(), now).shape.incomplete,
        Some(Incomplete::Encoding)
    );
    assert_eq!(cache.shape_of(b"select 'a'", unsafe_text, now).shape.incomplete, None);
}

#[test]
fn a_million_distinct_statements_stay_within_the_bound() {
    const BYTES_MAX: usize = 1 << 20;
    let (mut cache, now) = (cache(BYTES_MAX), Instant::now());
    let mut text = Vec::new();
    let mut longest = 0;
    for number in 0..1_000_000_u32 {
        text.clear();
        text.extend_from_slice(b"select t");
        text.extend_from_slice(number.to_string().as_bytes());
        cache.shape_of(&text, utf8(), now);
        // A statement that keeps coming stays.
        if number % 100 == 0 {
            cache.shape_of(b"select often", utf8(), now);
        }
        assert!(cache.bytes() <= BYTES_MAX);
        longest = longest.max(cache.len());
    }
    let counts = cache.counts();
    assert_eq!(counts.misses, 1_000_001);
    assert_eq!(counts.evictions as usize, 1_000_001 - cache.len());
    assert!(longest > 1_000, "{longest}");
}

#[test]
fn a_shape_larger_than_the_cache_is_given_but_not_kept() {
    let (mut cache, now) = (cache(100), Instant::now());
    assert_eq!(cache.shape_of(b"select a", utf8(), now).shape.kind, ShapeKind::Select);
    assert_eq!((cache.len(), cache.bytes()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is asked in whatever order, the answer is what a fresh cache would say, and the books are right.
    #[test]
    fn answers_do_not_depend_on_what_was_asked_before(
        asked in proptest::collection::vec((0..40_u32, 0..3_u64), 1..200),
        bytes_max in 0..8_000_usize,
    ) {
        let mut cache = cache(bytes_max);
        let mut now = Instant::now();
        for (number, seconds) in asked {
            now += Duration::from_secs(seconds);
            let text = match number % 4 {
                0 => format!("selec x{number}"),
                _ => format!("select {} '{seconds}'", "y".repeat(number as usize + 1)),
            };
            let fresh = self::cache(1 << 20).shape_of(text.as_bytes(), utf8(), now).shape;
            prop_assert_eq!(cache.shape_of(text.as_bytes(), utf8(), now).shape, fresh);
            cache.check();
        }
    }
}
