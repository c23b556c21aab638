//! Prepared statements that outlive a server connection: what clients named, and which servers know them.

use crate::limits;
use crate::settings::Settings;
use crate::statement::{Analysis, Effects, Kind, StringSyntax, analyse_with};
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A statement as a client's Parse described it. Shared by all clients that parsed the same under settings that read alike.
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
    sharing: Sharing,
}

/// Counts the changes of schemas that passed. A statement parsed before one may stand for types and tables that are gone:
/// PostgreSQL keeps what it made of such a statement, so those who parse it later get one of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaGeneration(pub u64);

/// How far a change of a schema reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaChange {
    /// What no text names runs no other code than before: a table or index has come to be or changed, by a text that calls
    /// nothing but harmless built-in functions, or something has gone.
    Plain,
    Any,
}

impl SchemaChange {
    pub(super) fn of(analysis: &Analysis) -> Self {
        let effects = match analysis.kind {
            Kind::DefineRelation => Effects::DDL,
            Kind::Drop => Effects::DDL.with(Effects::DROPS),
            _ => return Self::Any,
        };
        let plain = analysis.statements == 1 && analysis.effects == effects;
        if plain { Self::Plain } else { Self::Any }
    }
}

/// Who may use what a server made of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    /// Everybody who parses the same text and types under settings that read alike, and the same schema.
    Interned(SchemaGeneration),
    /// Its client alone: it was parsed while it was not known which settings were in force.
    Private,
}

/// A `Prepared` as a key: compared by pointer first, by content when pointers differ and both may be shared.
#[derive(Clone, Debug)]
pub struct PreparedKey(pub Arc<Prepared>);

impl PartialEq for PreparedKey {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) = (&self.0, &other.0);
        Arc::ptr_eq(left, right)
            || (left.digest == right.digest
                && left.sharing != Sharing::Private
                && left.sharing == right.sharing
                && left.sql == right.sql
                && left.types == right.types
                && left.settings.read_alike(&right.settings))
    }
}

impl Eq for PreparedKey {}

impl Hash for PreparedKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.digest);
    }
}

impl Prepared {
    /// A statement that is shared with nobody. Without `strings`, its text cannot be read with confidence.
    pub fn private(
        sql: &[u8],
        types: &[u8],
        settings: &Arc<Settings>,
        strings: Option<StringSyntax>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sql: sql.into(),
            types: types.into(),
            settings: settings.clone(),
            analysis: strings.map_or_else(Analysis::unknown, |strings| analyse_with(sql, strings)),
            digest: digest_of(sql, types, settings),
            sharing: Sharing::Private,
        })
    }

    /// Would it be the same statement if it were parsed now, under these settings and this schema?
    pub(super) fn is_current(&self, schema: SchemaGeneration, settings: &Arc<Settings>) -> bool {
        self.sharing == Sharing::Interned(schema) && self.settings.read_alike(settings)
    }

    /// Was it parsed under these settings, or is it nobody else's business?
    pub(super) fn fits(&self, settings: &Arc<Settings>) -> bool {
        self.sharing == Sharing::Private
            || Arc::ptr_eq(&self.settings, settings)
            || self.settings.read_alike(settings)
    }
}

fn digest_of(sql: &[u8], types: &[u8], settings: &Settings) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(sql);
    hasher.write(types);
    hasher.write_u64(settings.reading_digest());
    hasher.finish()
}

/// The statements that the sessions of one worker hold, each kept once.
#[derive(Debug, Default)]
pub struct Interner {
    generation: SchemaGeneration,
    /// The farthest change since somebody last asked.
    changed: Option<SchemaChange>,
    statements: FxHashMap<u64, Vec<Arc<Prepared>>>,
    count: usize,
    purge_at: usize,
}

/// Statements below which the interner is not looked through for unused ones.
const INTERNER_PURGE_FIRST: usize = 1024;

impl Interner {
    pub fn generation(&self) -> SchemaGeneration {
        self.generation
    }

    /// What the other workers saw; never goes back.
    pub fn set_generation(&mut self, generation: SchemaGeneration) {
        self.generation.0 = self.generation.0.max(generation.0);
    }

    /// A schema may have changed: statements that are parsed from now on are not shared with earlier ones.
    pub fn schema_changed(&mut self, change: SchemaChange) {
        self.generation.0 += 1;
        self.changed = self.changed.max(Some(change));
    }

    /// The farthest change since the last call.
    pub fn take_change(&mut self) -> Option<SchemaChange> {
        self.changed.take()
    }

    /// The shared statement for this text, types and settings. `strings` follows from the settings.
    pub fn intern(
        &mut self,
        sql: &[u8],
        types: &[u8],
        settings: &Arc<Settings>,
        strings: StringSyntax,
    ) -> Arc<Prepared> {
        let sharing = Sharing::Interned(self.generation);
        let digest = digest_of(sql, types, settings).wrapping_add(self.generation.0);
        let bucket = self.statements.entry(digest).or_default();
        let known = bucket.iter().find(|known| {
            known.sharing == sharing
                && *known.sql == *sql
                && *known.types == *types
                && known.settings.read_alike(settings)
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
            sharing,
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
    /// When and in which batch of the session its Parse was sent.
    made: u64,
    batch: u32,
}

/// A statement found on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: ServerName,
    /// The batch of the session in which its Parse was sent, if that was after the mark.
    pub batch: Option<u32>,
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

    /// The statement as the server knows it; counts as a use.
    #[inline]
    pub fn touch(&mut self, prepared: &Arc<Prepared>, mark: u64) -> Option<Found> {
        self.clock += 1;
        let known = self.known.get_mut(&PreparedKey(prepared.clone()))?;
        known.used = self.clock;
        Some(Found { name: known.name, batch: (known.made > mark).then_some(known.batch) })
    }

    /// Gives the statement a fresh name. `batch` is the session's, for [`Found::batch`]. Another name that it had is
    /// returned; it is to be closed.
    pub fn insert(
        &mut self,
        prepared: &Arc<Prepared>,
        batch: u32,
    ) -> (ServerName, Option<ServerName>) {
        self.clock += 1;
        self.next_name = self.next_name.wrapping_add(1);
        let name = ServerName(self.next_name);
        let known = Known { name, used: self.clock, made: self.clock, batch };
        let before = self.known.insert(PreparedKey(prepared.clone()), known);
        (name, before.map(|known| known.name))
    }

    /// A statement that should have been closed is still there after all.
    pub fn restore(&mut self, prepared: &Arc<Prepared>, name: ServerName) {
        let known = Known { name, used: self.clock, made: 0, batch: 0 };
        self.known.entry(PreparedKey(prepared.clone())).or_insert(known);
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
    pub fn evict(&mut self, mark: u64) -> Option<(Arc<Prepared>, ServerName)> {
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
        self.known.remove(&key).map(|known| (key.0, known.name))
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
        assert!(PreparedKey(one.clone()) != PreparedKey(other));
        let named = Arc::new(Settings::from_pairs([("application_name", "other")]));
        assert!(Arc::ptr_eq(
            &one,
            &interner.intern(b"select 1", &[0, 0], &named, StringSyntax::Standard)
        ));
        assert!(one.fits(&named) && !one.fits(&tokyo));
        assert_eq!(interner.len(), 2);
    }

    #[test]
    fn what_is_parsed_after_a_change_of_schema_is_another_statement() {
        let mut interner = Interner::default();
        let settings = Arc::new(Settings::default());
        let parse = |interner: &mut Interner| {
            interner.intern(b"select 'x'::mood", &[0, 0], &settings, StringSyntax::Standard)
        };
        let before = parse(&mut interner);
        interner.schema_changed(SchemaChange::Plain);
        let after = parse(&mut interner);
        assert!(PreparedKey(before) != PreparedKey(after.clone()));
        assert!(Arc::ptr_eq(&after, &parse(&mut interner)));
    }

    #[test]
    fn tables_and_what_goes_hide_nothing_that_was_not_there() {
        let change =
            |sql: &str| SchemaChange::of(&analyse_with(sql.as_bytes(), Default::default()));
        for sql in [
            "CREATE TABLE t (a int PRIMARY KEY DEFAULT nextval('s'), b text CHECK (length(b) < 9))",
            "CREATE TABLE t AS SELECT now() AS at",
            "CREATE UNIQUE INDEX CONCURRENTLY i ON t (lower(b))",
            "ALTER TABLE t ADD COLUMN c timestamptz DEFAULT now(), DROP b",
            "DROP TABLE t CASCADE",
            "DROP FUNCTION f(int)",
        ] {
            assert_eq!(change(sql), SchemaChange::Plain, "{sql}");
        }
        for sql in [
            "CREATE TABLE t (a int DEFAULT f())",
            "CREATE TABLE t (a text DEFAULT set_config('x.y', '1', false))",
            "CREATE TABLE t AS EXECUTE q",
            "CREATE INDEX i ON t (f(b))",
            "ALTER TABLE t ALTER b TYPE int USING f(b)",
            "ALTER TABLE t ADD CHECK (pg_try_advisory_lock(a))",
            "CREATE TABLE t (a int); CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f()",
            "CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION f()",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE VIEW v AS SELECT 1",
            "CREATE TEMP TABLE t (a int)",
            "ALTER FUNCTION f() RENAME TO g",
            "DO $$ BEGIN CREATE TABLE t (a int); END $$",
            "CREATE EXTENSION x",
        ] {
            assert_eq!(change(sql), SchemaChange::Any, "{sql}");
        }
        let code = |hides| {
            let code = super::super::hidden::HiddenCode::default();
            code.settle(&code.claim_anyway(), hides);
            code.heed(SchemaChange::Plain)
        };
        use super::super::hidden::Hides;
        assert_eq!(code(Hides::Nowhere), SchemaChange::Plain);
        assert_eq!(code(Hides::InWrites), SchemaChange::Any, "it may have taken that away");
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
        let (first, _) = server.insert(&all[0], 0);
        server.insert(&all[1], 0);
        server.touch(&all[0], 0);
        let mark = server.mark();
        let evicted = |server: &mut ServerPrepared| server.evict(mark).map(|(_, name)| name);
        let (third, _) = server.insert(&all[2], 0);
        assert_eq!(evicted(&mut server), Some(ServerName(2)), "1 is the oldest");
        assert_eq!(evicted(&mut server), None, "within bounds again");
        server.insert(&all[3], 0);
        assert_eq!(evicted(&mut server), Some(first));
        server.insert(&all[0], 0);
        assert_eq!(evicted(&mut server), None, "all are used since the mark");
        server.forget(&all[2], third);
        assert_eq!(server.touch(&all[2], 0), None);
    }

    #[test]
    fn names_are_the_prefix_and_a_number() {
        assert_eq!(ServerName(0).to_bytes(), b"tidegate_0");
        assert_eq!(ServerName(u32::MAX).to_bytes(), b"tidegate_4294967295");
    }
}
