//! Prepared statements that outlive a server connection: what clients named, and which servers know them.

use crate::limits;
use crate::settings::Settings;
use crate::statement::{Analysis, StringSyntax, analyse_with};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A statement as a client's Parse described it. Shared by all clients that parsed the same under the same settings.
///
/// The settings belong to its identity because PostgreSQL reads literals while it parses: `'today'::date` or a
/// timestamp without a zone becomes a constant under the `TimeZone` and `DateStyle` of that moment.
#[derive(Debug)]
pub struct Prepared {
    pub sql: Box<[u8]>,
    /// Parameter types as they stand in Parse: a 16-bit count, then OIDs.
    pub types: Box<[u8]>,
    pub settings: Arc<Settings>,
    pub analysis: Analysis,
    digest: u64,
}

/// A `Prepared` as a key: compared by pointer first, by content when pointers differ.
#[derive(Clone, Debug)]
pub struct PreparedKey(pub Arc<Prepared>);

impl PartialEq for PreparedKey {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (&self.0, &other.0);
        Arc::ptr_eq(left, right)
            || (left.digest == right.digest
                && left.sql == right.sql
                && left.types == right.types
                && left.settings == right.settings)
    }
}

impl Eq for PreparedKey {}

impl Hash for PreparedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.digest);
    }
}

impl Prepared {
    /// A statement whose text cannot be read with confidence; shared with nobody.
    pub fn unread(sql: &[u8], types: &[u8], settings: &Arc<Settings>) -> Arc<Self> {
        Arc::new(Self {
            sql: sql.into(),
            types: types.into(),
            settings: settings.clone(),
            analysis: Analysis::unknown(),
            digest: digest_of(sql, types, settings),
        })
    }
}

fn digest_of(sql: &[u8], types: &[u8], settings: &Settings) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(sql);
    hasher.write(types);
    hasher.write_u64(settings.digest());
    hasher.finish()
}

/// The statements that the sessions of one worker hold, each kept once.
#[derive(Debug, Default)]
pub struct Interner {
    statements: FxHashMap<u64, Vec<Arc<Prepared>>>,
    count: usize,
    purge_at: usize,
}

/// Statements below which the interner is not looked through for unused ones.
const INTERNER_PURGE_FIRST: usize = 1024;

impl Interner {
    /// The shared statement for this text, types and settings. `strings` follows from the settings.
    pub fn intern(
        &mut self,
        sql: &[u8],
        types: &[u8],
        settings: &Arc<Settings>,
        strings: StringSyntax,
    ) -> Arc<Prepared> {
        let digest = digest_of(sql, types, settings);
        let bucket = self.statements.entry(digest).or_default();
        let known = bucket.iter().find(|known| {
            *known.sql == *sql && *known.types == *types && known.settings == *settings
        });
        if let Some(known) = known {
            return known.clone();
        }
        let prepared = Arc::new(Prepared {
            sql: sql.into(),
            types: types.into(),
            settings: settings.clone(),
            analysis: analyse_with(sql, strings),
            digest,
        });
        bucket.push(prepared.clone());
        self.count += 1;
        if self.count >= self.purge_at.max(INTERNER_PURGE_FIRST) {
            self.purge();
        }
        prepared
    }

    /// Statements kept now.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Drops what nobody holds; the next time comes after as many again, so that the cost stays constant per statement.
    fn purge(&mut self) {
        self.statements.retain(|_, bucket| {
            bucket.retain(|statement| Arc::strong_count(statement) > 1);
            !bucket.is_empty()
        });
        self.count = self.statements.values().map(Vec::len).sum();
        self.purge_at = self.count * 2;
    }
}

/// A statement's name on one server connection: `tidegate_<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerName(pub u32);

/// What every server-side name starts with. Clients cannot reach such names: theirs are always mapped.
pub const SERVER_NAME_PREFIX: &[u8] = b"tidegate_";

impl ServerName {
    /// Appends the name without its terminating zero.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(SERVER_NAME_PREFIX);
        let mut digits = [0_u8; 10];
        let mut at = digits.len();
        let mut rest = self.0;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        out.extend_from_slice(&digits[at..]);
    }

    pub fn to_bytes(self) -> Vec<u8> {
        let mut name = Vec::with_capacity(SERVER_NAME_PREFIX.len() + 10);
        self.write(&mut name);
        name
    }
}

#[derive(Debug)]
struct Known {
    name: ServerName,
    used: u64,
}

/// The statements one server connection knows, the least recently used evicted beyond a bound.
#[derive(Debug)]
pub struct ServerPrepared {
    known: FxHashMap<PreparedKey, Known>,
    next_name: u32,
    clock: u64,
    capacity: usize,
}

impl Default for ServerPrepared {
    fn default() -> Self {
        Self::with_capacity(limits::PREPARED_PER_SERVER_MAX)
    }
}

impl ServerPrepared {
    pub fn with_capacity(capacity: usize) -> Self {
        Self { known: FxHashMap::default(), next_name: 0, clock: 0, capacity: capacity.max(1) }
    }

    pub fn len(&self) -> usize {
        self.known.len()
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The statement's name here, if the server knows it; counts as a use.
    #[inline]
    pub fn touch(&mut self, prepared: &Arc<Prepared>) -> Option<ServerName> {
        self.clock += 1;
        let known = self.known.get_mut(&PreparedKey(prepared.clone()))?;
        known.used = self.clock;
        Some(known.name)
    }

    /// Gives the statement a fresh name. An older entry for it is replaced (its name stays on the server, unused).
    pub fn insert(&mut self, prepared: &Arc<Prepared>) -> ServerName {
        self.clock += 1;
        self.next_name = self.next_name.wrapping_add(1);
        let name = ServerName(self.next_name);
        self.known.insert(PreparedKey(prepared.clone()), Known { name, used: self.clock });
        name
    }

    /// Forgets the statement if `name` is still its name: the Parse that should have made it failed.
    pub fn forget(&mut self, prepared: &Arc<Prepared>, name: ServerName) {
        let key = PreparedKey(prepared.clone());
        if self.known.get(&key).is_some_and(|known| known.name == name) {
            self.known.remove(&key);
        }
    }

    /// Everything is gone on the server (DEALLOCATE ALL, DISCARD ALL).
    pub fn clear(&mut self) {
        self.known.clear();
    }

    /// A mark to pass to [`Self::evict`]: uses after it are younger.
    pub fn mark(&self) -> u64 {
        self.clock
    }

    /// When over capacity, takes out the least recently used statement, unless it was used since `mark`.
    pub fn evict(&mut self, mark: u64) -> Option<ServerName> {
        if self.known.len() <= self.capacity {
            return None;
        }
        let (key, used) = self
            .known
            .iter()
            .min_by_key(|(_, known)| known.used)
            .map(|(k, known)| (k.clone(), known.used))?;
        if used > mark {
            return None;
        }
        self.known.remove(&key).map(|known| known.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parse_is_kept_once_and_settings_tell_parses_apart() {
        let mut interner = Interner::default();
        let plain = Arc::new(Settings::default());
        let tokyo = Arc::new(Settings::from_pairs([("timezone", "Asia/Tokyo")]));
        let one = interner.intern(b"select 1", &[0, 0], &plain, StringSyntax::Standard);
        assert!(Arc::ptr_eq(
            &one,
            &interner.intern(b"select 1", &[0, 0], &plain, StringSyntax::Standard)
        ));
        let other = interner.intern(b"select 1", &[0, 0], &tokyo, StringSyntax::Standard);
        assert!(PreparedKey(one) != PreparedKey(other));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn unused_statements_are_purged_in_time() {
        let mut interner = Interner::default();
        let settings = Arc::new(Settings::default());
        for n in 0..10 * INTERNER_PURGE_FIRST {
            interner.intern(
                format!("select {n}").as_bytes(),
                &[0, 0],
                &settings,
                StringSyntax::Standard,
            );
        }
        assert!(interner.len() <= INTERNER_PURGE_FIRST);
    }

    #[test]
    fn the_least_recently_used_is_evicted_but_never_one_in_use() {
        let mut interner = Interner::default();
        let settings = Arc::new(Settings::default());
        let mut server = ServerPrepared::with_capacity(2);
        let all: Vec<_> = (0..4)
            .map(|n| {
                interner.intern(
                    format!("select {n}").as_bytes(),
                    &[0, 0],
                    &settings,
                    StringSyntax::Standard,
                )
            })
            .collect();
        let first = server.insert(&all[0]);
        server.insert(&all[1]);
        server.touch(&all[0]);
        let mark = server.mark();
        let third = server.insert(&all[2]);
        assert_eq!(server.evict(mark), Some(ServerName(2)), "1 is the oldest");
        assert_eq!(server.evict(mark), None, "within bounds again");
        server.insert(&all[3]);
        assert_eq!(server.evict(mark), Some(first));
        server.insert(&all[0]);
        assert_eq!(server.evict(mark), None, "all are used since the mark");
        server.forget(&all[2], third);
        assert_eq!(server.touch(&all[2]), None);
    }

    #[test]
    fn names_are_the_prefix_and_a_number() {
        assert_eq!(ServerName(0).to_bytes(), b"tidegate_0");
        assert_eq!(ServerName(u32::MAX).to_bytes(), b"tidegate_4294967295");
    }
}
