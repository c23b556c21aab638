//! What tells answers apart: everything that a server's answer depends on besides its data.

use std::sync::Arc;
use tidegate_core::settings::Settings;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Which description a client asked for along with the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Described {
    /// By a Query, whose answer always begins with one.
    #[default]
    Query,
    /// None.
    Nothing,
    /// The portal's.
    Portal,
    /// The statement's, with its parameters.
    Statement,
}

/// The parts of a key. Whoever may see an answer is among them: the role that it was read as.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyParts<'a> {
    /// The database's name.
    pub database: &'a str,
    /// Who logged in. Whose rights count is among the settings (`role`).
    pub user: &'a str,
    /// Which generation of the policy planned it: another may tell answers apart otherwise.
    pub policy: u64,
    /// The session's: of these count all that may change what a text means or how its answer looks.
    pub settings: Option<&'a Settings>,
    /// Without what stands before its first token and behind its last.
    pub text: &'a [u8],
    /// Types of parameters as in Parse.
    pub types: &'a [u8],
    /// What Bind says behind its names: formats, parameters, formats of the result. Empty for a Query.
    pub bound: &'a [u8],
    /// Which description came along.
    pub described: Described,
    /// How many rows were wanted at most; 0 for all.
    pub rows_max: u32,
    /// What the policy adds.
    pub own: &'a [String],
}

/// A key: a keyed hash to look for, and all of it to compare. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    hash: u128,
    bytes: Arc<[u8]>,
}

impl Key {
    /// `seed` is the process's, so that nobody can make two keys collide; and if two do, their bytes differ.
    pub fn new(parts: &KeyParts<'_>, seed: u64) -> Self {
        Self::build(parts, seed, &mut Vec::new())
    }

    /// The same, put together in a place that is there already.
    pub fn build(parts: &KeyParts<'_>, seed: u64, bytes: &mut Vec<u8>) -> Self {
        bytes.clear();
        part(bytes, parts.database.as_bytes());
        part(bytes, parts.user.as_bytes());
        bytes.extend_from_slice(&parts.policy.to_le_bytes());
        let count_at = bytes.len();
        count(bytes, 0);
        let mut settings = 0_u64;
        for (name, value) in parts.settings.into_iter().flat_map(Settings::reading) {
            part(bytes, name.as_bytes());
            part(bytes, value.as_bytes());
            settings += 1;
        }
        if let Some(place) = bytes.get_mut(count_at..count_at + size_of::<u64>()) {
            place.copy_from_slice(&settings.to_le_bytes());
        }
        part(bytes, parts.text);
        part(bytes, parts.types);
        part(bytes, parts.bound);
        bytes.push(parts.described as u8);
        bytes.extend_from_slice(&parts.rows_max.to_le_bytes());
        count(bytes, parts.own.len());
        for own in parts.own {
            part(bytes, own.as_bytes());
        }
        Self { hash: xxh3_128_with_seed(bytes, seed), bytes: Arc::from(&bytes[..]) }
    }

    /// Of all of it.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Memory that it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(crate) fn of(hash: u128, bytes: &[u8]) -> Self {
        Self { hash, bytes: bytes.into() }
    }
}

/// Each part after its length, so that no two lists of parts run into the same bytes.
fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    count(bytes, part.len());
    bytes.extend_from_slice(part);
}

fn count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&(count as u64).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Owned = (Vec<String>, BTreeMap<String, String>, Vec<Vec<u8>>, (u64, u8, u32));

    fn parts() -> impl Strategy<Value = Owned> {
        // Few letters, so that parts often differ only in where one ends and the next begins.
        let text = || "[ab]{0,2}";
        (
            proptest::collection::vec(text(), 2..5),
            proptest::collection::btree_map(text(), text(), 0..3),
            proptest::collection::vec(proptest::collection::vec(0..3_u8, 0..3), 3),
            (0..2_u64, 0..4_u8, 0..2_u32),
        )
    }

    fn key((names, settings, bytes, (policy, which, rows_max)): &Owned) -> Key {
        let settings =
            Settings::from_pairs(settings.iter().map(|(name, value)| (name, value.as_str())));
        let described =
            [Described::Query, Described::Nothing, Described::Portal, Described::Statement];
        let parts = KeyParts {
            database: &names[0],
            user: &names[1],
            policy: *policy,
            settings: Some(&settings),
            text: &bytes[0],
            types: &bytes[1],
            bound: &bytes[2],
            described: described[usize::from(*which)],
            rows_max: *rows_max,
            own: &names[2..],
        };
        Key::new(&parts, 7)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        // Property 17: keys are equal only when every part is.
        #[test]
        fn different_parts_make_different_keys(one in parts(), other in parts()) {
            prop_assert_eq!(key(&one) == key(&other), one == other);
            prop_assert_eq!(key(&one), key(&one));
        }
    }
}
