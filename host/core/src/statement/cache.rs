//! Shapes by fingerprint, in bounded memory: the grammar is asked once for each.
//!
//! A second chance before eviction (CLOCK): a statement that came twice outlives a flood of those that come once.

use super::StringSyntax;
use super::encoding::{TextEncoding, is_safe_anywhere};
use super::fingerprint::{Fingerprinter, Reading, Unreadable};
use super::render::{Canvas, Rendered, render};
use super::shape::{Family, Fingerprint, Grammar, Incomplete, Parsed, Shape};
use crate::limits::SHAPE_REFUSED_TIME;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::mem::size_of;
use std::sync::Arc;
use std::time::Instant;

/// What a session's settings say about the reading of its texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextSettings {
    pub strings: StringSyntax,
    pub encoding: TextEncoding,
}

/// A text's shape, and where its tokens are: comments for [`super::Tags`] lie before and behind.
#[derive(Clone, Debug)]
pub struct Known {
    pub shape: Arc<Shape>,
    pub begin: usize,
    pub end: usize,
}

/// What the cache has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheCounts {
    pub hits: u64,
    pub misses: u64,
    pub evictions: u64,
    /// Texts without a fingerprint, and texts that the grammar refused.
    pub refused: u64,
}

struct Entry {
    shape: Arc<Shape>,
    bytes: usize,
    /// Asked for since the hand last passed.
    used: bool,
    /// For a text that the grammar refused: when to ask again.
    until: Option<Instant>,
}

/// A text that was read a moment ago: one statement is often looked at from several sides.
struct Last {
    text: Vec<u8>,
    settings: TextSettings,
    known: Known,
}

/// Longer texts are not compared, but read again.
const LAST_BYTES_MAX: usize = 1_024;

/// What an entry takes beside its shape: itself, its place in the map at its usual load, the counts of the `Arc`.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * (size_of::<(Fingerprint, u32)>() + 1) + 16;

/// The shapes of one worker's statements.
pub struct ShapeCache<G> {
    grammar: G,
    fingerprinter: Fingerprinter,
    canvas: Canvas,
    places: HashMap<Fingerprint, u32, BuildHasherDefault<AsIs>>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    bytes_max: usize,
    counts: CacheCounts,
    last: Option<Last>,
    /// The shapes of texts without a fingerprint.
    too_large: Arc<Shape>,
    too_many_tokens: Arc<Shape>,
    broken: Arc<Shape>,
    encoding: Arc<Shape>,
}

impl<G: Grammar> ShapeCache<G> {
    /// `seed` as for [`Fingerprinter::new`]; all caches of a process share it, so that fingerprints agree.
    pub fn new(grammar: G, seed: u128, bytes_max: usize) -> Self {
        Self {
            grammar,
            fingerprinter: Fingerprinter::new(seed),
            canvas: Canvas::default(),
            places: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            bytes: 0,
            bytes_max,
            counts: CacheCounts::default(),
            last: None,
            too_large: unreadable(Incomplete::TooLarge),
            too_many_tokens: unreadable(Incomplete::TooManyTokens),
            broken: unreadable(Incomplete::Unparseable),
            encoding: unreadable(Incomplete::Encoding),
        }
    }

    /// The shape of a text. Never fails: what cannot be read has a shape that says so.
    #[inline]
    pub fn shape_of(&mut self, text: &[u8], settings: TextSettings, now: Instant) -> Known {
        if let Some(last) = &self.last
            && last.text == text
            && last.settings == settings
        {
            self.counts.hits += 1;
            return last.known.clone();
        }
        let strings = settings.strings;
        if settings.encoding == TextEncoding::Unsafe && !is_safe_anywhere(text) {
            return self.unknown(text, |cache| &cache.encoding);
        }
        let reading = match self.fingerprinter.read(text, strings) {
            Ok(reading) => reading,
            Err(Unreadable::TooLarge) => return self.unknown(text, |cache| &cache.too_large),
            Err(Unreadable::TooManyTokens) => {
                return self.unknown(text, |cache| &cache.too_many_tokens);
            }
            Err(Unreadable::Broken) => return self.unknown(text, |cache| &cache.broken),
        };
        let known = |shape| Known { shape, begin: reading.begin, end: reading.end };
        if let Some(place) = self.places.get(&reading.fingerprint)
            && let Some(entry) = self.entries.get_mut(*place as usize)
            && entry.until.is_none_or(|until| now < until)
        {
            entry.used = true;
            self.counts.hits += 1;
            let known = known(Arc::clone(&entry.shape));
            if entry.until.is_none() && text.len() <= LAST_BYTES_MAX {
                remember(&mut self.last, text, settings, &known);
            }
            return known;
        }
        known(self.miss(text, settings, &reading, now))
    }

    pub fn counts(&self) -> CacheCounts {
        self.counts
    }

    /// Memory that the shapes take, in bytes; never more than asked for in [`ShapeCache::new`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The grammar.
    pub fn grammar_mut(&mut self) -> &mut G {
        &mut self.grammar
    }

    /// Each entry is found at its place, and the bytes add up.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert_eq!(self.places.len(), self.entries.len());
        for (place, entry) in self.entries.iter().enumerate() {
            assert_eq!(self.places.get(&entry.shape.fingerprint), Some(&(place as u32)));
        }
        assert_eq!(self.bytes, self.entries.iter().map(|entry| entry.bytes).sum::<usize>());
        assert!(self.bytes <= self.bytes_max);
    }

    #[cold]
    fn unknown(&mut self, text: &[u8], which: impl Fn(&Self) -> &Arc<Shape>) -> Known {
        self.counts.refused += 1;
        Known { shape: Arc::clone(which(self)), begin: 0, end: text.len() }
    }

    #[cold]
    fn miss(
        &mut self,
        text: &[u8],
        settings: TextSettings,
        reading: &Reading,
        now: Instant,
    ) -> Arc<Shape> {
        self.counts.misses += 1;
        if let Some(place) = self.places.get(&reading.fingerprint).copied() {
            self.remove(place as usize);
        }
        let shape = Arc::new(self.make(text, settings, reading));
        let refused = shape.incomplete == Some(Incomplete::Unparseable);
        self.counts.refused += u64::from(refused);
        let bytes = shape.bytes() + ENTRY_BYTES;
        if bytes <= self.bytes_max {
            self.make_room(bytes);
            self.places.insert(reading.fingerprint, self.entries.len() as u32);
            let until = refused.then(|| now + SHAPE_REFUSED_TIME);
            self.entries.push(Entry { shape: Arc::clone(&shape), bytes, used: false, until });
            self.bytes += bytes;
        }
        shape
    }

    fn make(&mut self, text: &[u8], settings: TextSettings, reading: &Reading) -> Shape {
        let strings = settings.strings;
        let Rendered { skeleton, normalized } =
            render(text, strings, reading, self.fingerprinter.cuts(), &mut self.canvas);
        let parsed = match skeleton {
            Ok(text) if settings.encoding == TextEncoding::Utf8 || text.is_ascii() => {
                self.grammar.parse(text)
            }
            Ok(_) => Parsed::unknown(Incomplete::Encoding),
            Err(why) => Parsed::unknown(why),
        };
        let family = self.fingerprinter.family(text, strings, reading);
        shape(reading, family, normalized, parsed)
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max && !self.entries.is_empty() {
            self.hand %= self.entries.len();
            match self.entries.get_mut(self.hand) {
                Some(entry) if entry.used => {
                    entry.used = false;
                    self.hand += 1;
                }
                _ => {
                    self.counts.evictions += 1;
                    self.remove(self.hand);
                }
            }
        }
    }

    /// Removes an entry; the last one takes its place.
    fn remove(&mut self, place: usize) {
        let removed = self.entries.swap_remove(place);
        self.bytes -= removed.bytes;
        self.places.remove(&removed.shape.fingerprint);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.shape.fingerprint, place as u32);
        }
    }
}

fn remember(last: &mut Option<Last>, text: &[u8], settings: TextSettings, known: &Known) {
    let known = known.clone();
    match last {
        Some(last) => {
            last.text.clear();
            last.text.extend_from_slice(text);
            (last.settings, last.known) = (settings, known);
        }
        None => *last = Some(Last { text: text.to_vec(), settings, known }),
    }
}

fn unreadable(why: Incomplete) -> Arc<Shape> {
    let reading =
        Reading { fingerprint: Fingerprint(0), begin: 0, end: 0, parameters: 0, open_list: false };
    let parsed = Parsed::unknown(why);
    Arc::new(shape(&reading, Family(0), "".into(), parsed))
}

fn shape(reading: &Reading, family: Family, normalized: Box<str>, parsed: Parsed) -> Shape {
    Shape {
        fingerprint: reading.fingerprint,
        family,
        normalized,
        kind: parsed.kind,
        access: parsed.access,
        locks: parsed.locks,
        tables: parsed.tables,
        columns: parsed.columns,
        functions: parsed.functions,
        parameters: reading.parameters,
        literal_dependent: parsed.literal_dependent,
        incomplete: parsed.incomplete,
    }
}

/// A fingerprint is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, fingerprint: u128) {
        self.0 = fingerprint as u64;
    }
}
