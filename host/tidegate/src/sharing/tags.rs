//! Names and numbers as Redis has them.

use std::sync::Arc;
use std::time::Duration;

use tidegate_cache::{Key, Names, Store, Stored, Tag};

/// The form of what is put. Another form, another prefix.
pub(super) const FORMAT: u32 = 4;
/// Keys of answers are told apart by all their bytes; the hash need not be secret.
pub const KEY_SEED: u64 = 0;

const VERSION_BYTES: usize = 8;
/// Before a key and an answer: how long the key is, where the rows begin, and how long the answer is if it is compressed.
const LENGTHS_BYTES: usize = 12;

/// A tag's name. Names of databases hold no zero byte, so none is another's.
pub(super) fn name(tag: &Tag) -> Vec<u8> {
    let parts = |kind: &str, database: &Arc<str>, rest: &str| {
        format!("{kind}{database}{}{rest}", if rest.is_empty() { "" } else { "\u{1}" }).into_bytes()
    };
    match tag {
        Tag::Cluster => b"c".to_vec(),
        Tag::Database(database) => parts("d", database, ""),
        Tag::Rows(database) => parts("r", database, ""),
        Tag::Relation(database, oid) => parts(&format!("t{oid}:"), database, ""),
        // What a policy names may hold anything; two that are taken for one go together.
        Tag::Named(database, name) => {
            parts(&format!("n{}:", database.len()), database, &name.replace('\0', "\u{1}"))
        }
        Tag::AnyNamed(database) => parts("a", database, ""),
    }
}

/// A version as Redis has it.
pub(super) fn version(version: u64) -> [u8; VERSION_BYTES] {
    version.to_be_bytes()
}

/// Versions that stand one behind the other.
pub(super) fn versions(bytes: &[u8]) -> Option<Arc<[u64]>> {
    let (chunks, rest) = bytes.as_chunks::<VERSION_BYTES>();
    rest.is_empty().then(|| chunks.iter().map(|chunk| u64::from_be_bytes(*chunk)).collect())
}

pub(super) fn bytes_of(versions: &[u64]) -> Vec<u8> {
    versions.iter().flat_map(|version| version.to_be_bytes()).collect()
}

/// What five arguments say of names: the tag of all rows, or nothing; the tags of cluster and database; their versions as known.
pub(super) fn names(names: Option<&Names>) -> [Vec<u8>; 5] {
    let Some(Names { database, versions }) = names else { return Default::default() };
    let [cluster, own, rows] = Store::common_tags(database).map(|tag| name(&tag));
    let [known, own_known] =
        versions.map(|known| known.map_or_else(Vec::new, |known| version(known).to_vec()));
    [rows, cluster, own, known, own_known]
}

/// Where an answer is, and what it is read from.
#[derive(Debug)]
pub struct Entry {
    key: Key,
    pub database: Arc<str>,
    /// In the order of their versions.
    pub tags: Box<[Tag]>,
}

impl Entry {
    /// `tags` besides those that every answer of a database has.
    pub fn new(key: Key, database: &Arc<str>, tags: &[Tag]) -> Self {
        let tags = Store::common_tags(database).into_iter().chain(tags.iter().cloned()).collect();
        Self { key, database: database.clone(), tags }
    }

    /// Is it this answer, read from the same?
    pub fn is(&self, other: &Self) -> bool {
        self.key == other.key && self.tags == other.tags
    }

    pub(super) fn name(&self) -> [u8; 16] {
        self.key.hash().to_be_bytes()
    }

    /// What is put behind the versions: the whole key, since two may have one hash, and the answer as it is kept.
    pub fn encode(&self, answer: &Stored) -> Vec<u8> {
        let key = self.key.as_bytes();
        let (bytes, rows_at, packed_length) = answer.parts();
        let mut value = Vec::with_capacity(LENGTHS_BYTES + key.len() + bytes.len());
        for length in [key.len(), rows_at, packed_length] {
            value.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
        value.extend_from_slice(key);
        value.extend_from_slice(bytes);
        value
    }

    /// The answer, if it is this key's.
    pub fn decode(&self, value: &[u8]) -> Option<Stored> {
        let (lengths, rest) = value.split_at_checked(LENGTHS_BYTES)?;
        let (lengths, _) = lengths.as_chunks::<4>();
        let [key, rows_at, packed_length] = *lengths else { return None };
        let [key, rows_at, packed_length] =
            [key, rows_at, packed_length].map(|length| u32::from_be_bytes(length) as usize);
        let (key, rest) = rest.split_at_checked(key)?;
        let is_own = key == self.key.as_bytes();
        is_own.then(|| Stored::from_parts(rest, rows_at, packed_length)).flatten()
    }
}

/// As Redis counts.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_cache::{Answer, KeyParts};

    #[test]
    fn what_is_put_is_what_comes_back_compressed_or_not_and_nothing_else_is() {
        let entry = |text: &[u8]| {
            let parts = KeyParts { text, ..KeyParts::default() };
            Entry::new(Key::new(&parts, KEY_SEED), &Arc::from("d"), &[])
        };
        let (own, other) = (entry(b"SELECT 1"), entry(b"SELECT 2"));
        let answer = Answer::new(&[b'x'; 5_000], 100).unwrap();
        for pack_min in [None, Some(1_000)] {
            let stored = Stored::new(answer.clone(), pack_min);
            let value = own.encode(&stored);
            assert_eq!(value.len() < 1_000, pack_min.is_some());
            assert_eq!(own.decode(&value), Some(stored.clone()));
            assert_eq!(other.decode(&value), None, "another key");
            for cut in [0, 4, LENGTHS_BYTES, LENGTHS_BYTES + 5] {
                assert_eq!(own.decode(&value[..cut]), None);
            }
        }
    }
}
