//! Code that no statement names: does a database have any that may leave state in a session?
//!
//! A trigger, a column default, a view or an operator may call a function that takes a session lock, LISTENs, or changes a
//! setting, and so may a function of the user's own that has a built-in's name. No text shows it. So the first login to a
//! database asks its catalogue once ([`INSPECTION`]) whether anything there could: most databases have nothing of the kind,
//! and pay nothing more. Where there is, what may have reached it is followed by the probe. What is not known yet counts as
//! if there were.

use super::client::Chosen;
use super::expected::Own;
use super::gather::Gather;
use super::prepared::SchemaChange;
use super::{ServerState, Session};
use crate::statement::{Analysis, Effects, Kind, is_built_in_function};
use std::sync::atomic::{AtomicU64, Ordering};
use tidegate_wire::backend::read_data_row;

/// How far what has run may have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// Only what concerns the session or transaction itself.
    #[default]
    Nothing,
    /// Operators, types, views, policies.
    Reads,
    /// Triggers, rules, defaults and constraints as well.
    Writes,
}

impl Reach {
    pub(super) fn of(analysis: &Analysis) -> Self {
        let one = analysis.statements <= 1 && !analysis.effects.contains(Effects::DDL);
        match analysis.kind {
            // What was deferred runs now, and counts as what has deferred it.
            kind if one && (kind.is_about_session() || kind == Kind::Prepare) => Self::Nothing,
            Kind::Select | Kind::Values | Kind::Table if one => Self::Reads,
            _ => Self::Writes,
        }
    }
}

/// Where a database has code that may leave state behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hides {
    /// Not known (yet): as if it were anywhere.
    Unknown,
    Nowhere,
    /// Only a text that may write reaches it.
    InWrites,
    Anywhere,
}

impl Hides {
    const ALL: [Self; 4] = [Self::Unknown, Self::Nowhere, Self::InWrites, Self::Anywhere];

    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Nowhere => "nowhere",
            Self::InWrites => "in_writes",
            Self::Anywhere => "anywhere",
        }
    }
}

/// What is known of one database, shared by all its sessions.
#[derive(Debug, Default)]
pub struct HiddenCode {
    /// The generation, then `DUE`, then a position in `Hides::ALL`.
    word: AtomicU64,
}

const DUE: u64 = 4;
const GENERATION: u64 = 8;

/// The right to inspect, and which knowledge the answer is to replace.
#[derive(Debug)]
pub struct Claim(u64);

impl HiddenCode {
    /// A database in which nothing hides.
    pub fn nowhere() -> Self {
        Self { word: AtomicU64::new(1) }
    }

    fn load(&self) -> u64 {
        // With the release in `update`: who has heard of a schema change sees that what was known is void.
        self.word.load(Ordering::Acquire)
    }

    fn update(&self, next: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()
    }

    pub fn hides(&self) -> Hides {
        Hides::ALL[(self.load() % DUE) as usize]
    }

    /// May what reached so far have met code that leaves something?
    pub(super) fn may_leave(&self, reach: Reach) -> bool {
        match self.hides() {
            Hides::Nowhere => false,
            Hides::InWrites => reach == Reach::Writes,
            Hides::Anywhere | Hides::Unknown => reach != Reach::Nothing,
        }
    }

    /// What a change comes to here. Where something hides, anything may take it away.
    pub(super) fn heed(&self, change: SchemaChange) -> SchemaChange {
        if self.hides() == Hides::Nowhere { change } else { SchemaChange::Any }
    }

    /// The schema has changed. Nobody asks before the next `permit`, so that a migration does not make one ask each time.
    pub fn forget(&self) {
        self.update(|word| Some((word / GENERATION + 1) * GENERATION));
    }

    /// From now on somebody may ask what is not known.
    pub fn permit(&self) {
        self.update(|word| (word % GENERATION == Hides::Unknown as u64).then_some(word | DUE));
    }

    /// What is known is old: somebody is to ask again. It holds until there is an answer.
    pub fn refresh(&self) {
        self.update(|word| Some(word | DUE));
    }

    /// For one of those who see that it is time to ask.
    pub fn claim(&self) -> Option<Claim> {
        if self.load() & DUE == 0 {
            return None;
        }
        let before = self.update(|word| (word & DUE != 0).then_some(word & !DUE))?;
        Some(Claim(before / GENERATION))
    }

    /// For whoever reads the catalogue anyway.
    pub fn claim_anyway(&self) -> Claim {
        Claim(self.load() / GENERATION)
    }

    /// The answer; void if the schema has changed since it was asked for. `Unknown`, when the question has failed, leaves
    /// what was known; where nothing was, code may be anywhere until it is time to ask again.
    pub fn settle(&self, claim: &Claim, hides: Hides) {
        self.update(|word| {
            let known = match (hides, word % DUE == Hides::Unknown as u64) {
                (Hides::Unknown, false) => return None,
                (Hides::Unknown, true) => Hides::Anywhere,
                (hides, _) => hides,
            };
            (word / GENERATION == claim.0).then_some(claim.0 * GENERATION + known as u64)
        });
    }
}

/// Collects what an inspection finds.
#[derive(Debug, Default)]
pub struct Findings {
    anywhere: bool,
    writes: bool,
    /// Reads run code of the users' own, which may write.
    code_in_reads: bool,
    failed: bool,
}

impl Findings {
    /// A row of [`INSPECTION`].
    pub fn row(&mut self, columns: &[Option<&[u8]>]) {
        match columns {
            [Some(b"anywhere"), None] => self.anywhere = true,
            [Some(b"writes"), None] => self.writes = true,
            [Some(b"code"), None] => self.code_in_reads = true,
            // A text that calls a built-in function of this name may mean the user's.
            [Some(b"name"), Some(name)] => self.anywhere |= is_built_in_function(name),
            _ => self.fail(),
        }
    }

    /// The catalogue may not be read, its answer is not understood, it took too long, or the client has cancelled the question.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    pub fn hides(&self) -> Hides {
        if self.failed {
            return Hides::Unknown;
        }
        let reached_by_reads = self.anywhere || self.writes && self.code_in_reads;
        match (reached_by_reads, self.writes) {
            (true, _) => Hides::Anywhere,
            (_, true) => Hides::InWrites,
            _ => Hides::Nowhere,
        }
    }
}

impl Session {
    /// Asks the database's catalogue what hides there, when it is time to. Replicas may not have heard of what is new.
    pub(super) fn inspect(&mut self, server: &mut ServerState, to_server: &mut Gather) -> bool {
        if self.reach == Reach::Nothing || self.chosen == Chosen::ForReads {
            return false;
        }
        let Some(claim) = self.hidden.claim() else { return false };
        self.inspecting = Some(Box::new((claim, Findings::default())));
        self.ask(Own::Inspection, INSPECTION, server, to_server);
        true
    }

    pub(super) fn inspection_row(&mut self, body: &[u8]) {
        let Some(inspecting) = self.inspecting.as_deref_mut() else { return };
        match read_data_row(body) {
            Ok(columns) => inspecting.1.row(&columns),
            Err(_) => inspecting.1.fail(),
        }
    }

    pub(super) fn inspection_failed(&mut self) {
        if let Some(inspecting) = self.inspecting.as_deref_mut() {
            inspecting.1.fail();
        }
    }

    pub(super) fn inspection_finished(&mut self) {
        if let Some(inspecting) = self.inspecting.take() {
            let (claim, findings) = &*inspecting;
            self.hidden.settle(claim, findings.hides());
        }
    }
}

/// What asks a catalogue whether code hides there that may leave state in a session. Rows of (`anywhere`, NULL), (`writes`,
/// NULL), (`code`, NULL) and (`name`, a function that may leave state).
///
/// A function may leave state if its text has a word for it, names another that may, or is in a language whose texts we do
/// not read; so it errs on the side of asking more than is needed. Compiled functions do what they were made for, and only
/// those of PostgreSQL itself that are about sessions count. What ends with the transaction does not. 16384 is the first number that PostgreSQL gives to what users
/// make. A tree is a stored expression, which names functions by number. The settings end with this Query, which is one
/// transaction.
pub const INSPECTION: &str = concat!(
    "SET LOCAL search_path = pg_catalog; SET LOCAL statement_timeout = '3s'; ",
    r"WITH RECURSIVE texts AS MATERIALIZED (
 SELECT p.oid, p.proname AS name, l.lanname IN ('c', 'internal') AS compiled, l.lanname IN ('sql', 'plpgsql') AS readable,
  regexp_replace(lower(CASE WHEN p.prosrc = '' AND l.lanname = 'sql' THEN pg_get_functiondef(p.oid) ELSE p.prosrc END),
   E'set_config\\s*\\(\\s*''[^''\\\\]*''\\s*,\\s*(?:''[^''\\\\]*''|[a-z0-9_.:]+)\\s*,\\s*true\\s*\\)', '', 'g') AS text
 FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384 AND p.prokind <> 'a'
), seen AS MATERIALIZED (
 SELECT oid, name, compiled, readable, text, concat(text, E'\n', regexp_replace(text, E'--[^\\n]*|/\\*.*?\\*/', ' ', 'g')) AS both_ways
 FROM texts WHERE NOT compiled
), leaving(oid, name) AS (
 SELECT oid, name FROM texts WHERE compiled AND text ~ 'advisory_(un)?lock|set_config|setseed|set_limit|dblink_connect'
 UNION ALL SELECT oid, name FROM seen WHERE NOT readable OR both_ways ~ E'",
    // Words for state, for what runs a text that nobody sees, and for names that are spelt otherwise.
    r"advisory_(un)?lock|set_config|setseed|_to_xml|ts_stat|ts_rewrite|pg_settings|replication|_backup|u&",
    r#""|\\y(temp|temporary|pg_temp\\w*|listen|load|reset|discard|prepare|deallocate|hold|execute)\\y"#,
    // SET as a command, not as a part of UPDATE; SET LOCAL ends with the transaction.
    r"|(^|;|\\ybegin|\\ythen|\\yelse|\\yloop|\\*/)\\s*set\\s+(?!local\\M)'
), spread(oid, name) AS (
 SELECT oid, name FROM leaving
 UNION SELECT s.oid, s.name FROM spread l JOIN seen s ON strpos(s.text, lower(l.name)) > 0
), stateful AS MATERIALIZED (
 SELECT oid FROM spread
 UNION SELECT oid FROM pg_proc WHERE oid < 16384 AND proname ~ 'advisory_(un)?lock|^set_config$|^setseed$|^query_to_xml|^cursor_to_xml|^ts_stat$|^ts_rewrite$|replication_(slot|origin)|backup'
), trees(reads, tree) AS (
 SELECT ev_type = '1', concat(ev_action::text, ev_qual::text) FROM pg_rewrite WHERE ev_class >= 16384
 UNION ALL SELECT true, concat(polqual::text, polwithcheck::text) FROM pg_policy
 UNION ALL SELECT true, proargdefaults::text FROM pg_proc WHERE oid >= 16384 AND pronargdefaults > 0
 UNION ALL SELECT contypid <> 0, conbin::text FROM pg_constraint WHERE conbin IS NOT NULL AND oid >= 16384
 UNION ALL SELECT typtype = 'd', typdefaultbin::text FROM pg_type WHERE typdefaultbin IS NOT NULL AND oid >= 16384
 UNION ALL SELECT false, adbin::text FROM pg_attrdef
 UNION ALL SELECT false, tgqual::text FROM pg_trigger WHERE tgqual IS NOT NULL
 UNION ALL SELECT false, concat(indexprs::text, indpred::text) FROM pg_index WHERE indrelid >= 16384 AND (indexprs IS NOT NULL OR indpred IS NOT NULL)
 UNION ALL SELECT false, partexprs::text FROM pg_partitioned_table WHERE partexprs IS NOT NULL
), roots(reads, oid) AS MATERIALIZED (
 SELECT DISTINCT reads, m[1]::oid FROM trees, regexp_matches(tree, E':(?:funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m
 UNION SELECT true, oprcode::oid FROM pg_operator WHERE oid >= 16384
 UNION SELECT true, castfunc::oid FROM pg_cast WHERE oid >= 16384
 UNION SELECT true, unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout])::oid FROM pg_type WHERE oid >= 16384
 UNION SELECT true, unnest(ARRAY[aggtransfn, aggfinalfn, aggcombinefn, aggmtransfn, aggminvtransfn, aggmfinalfn])::oid FROM pg_aggregate WHERE aggfnoid >= 16384
 UNION SELECT true, amproc::oid FROM pg_amproc WHERE oid >= 16384
 UNION SELECT true, unnest(ARRAY[rngcanonical, rngsubdiff])::oid FROM pg_range WHERE rngtypid >= 16384
 UNION SELECT true, p.oid FROM pg_proc p JOIN pg_type t ON t.oid = p.proargtypes[0]
  WHERE p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1 AND p.oid >= 16384 AND t.typtype IN ('c', 'p')
 UNION SELECT false, tgfoid FROM pg_trigger WHERE NOT tgisinternal
 UNION SELECT false, evtfoid FROM pg_event_trigger
)
SELECT 'anywhere', NULL WHERE EXISTS (SELECT FROM roots JOIN stateful USING (oid) WHERE reads)
UNION ALL SELECT 'writes', NULL WHERE EXISTS (SELECT FROM roots JOIN stateful USING (oid) WHERE NOT reads)
UNION ALL SELECT 'code', NULL WHERE EXISTS (SELECT FROM roots JOIN seen USING (oid) WHERE reads)
UNION ALL SELECT 'name', name FROM spread",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::analyse;

    #[test]
    fn what_is_not_known_may_leave_anything_and_answers_of_old_schemas_are_void() {
        let code = HiddenCode::default();
        assert!(code.may_leave(Reach::Reads) && code.may_leave(Reach::Writes));
        assert!(!code.may_leave(Reach::Nothing));
        assert!(code.claim().is_none(), "nobody has permitted it");
        code.permit();
        let old = code.claim().unwrap();
        assert!(code.claim().is_none(), "one is enough");
        code.forget();
        code.settle(&old, Hides::Nowhere);
        assert_eq!(code.hides(), Hides::Unknown);
        assert!(code.claim().is_none());
        code.permit();
        let new = code.claim().unwrap();
        code.settle(&old, Hides::Nowhere);
        assert_eq!(code.hides(), Hides::Unknown);
        code.settle(&new, Hides::InWrites);
        assert!(!code.may_leave(Reach::Reads) && code.may_leave(Reach::Writes));
        code.permit();
        assert!(code.claim().is_none(), "it is known");
        code.refresh();
        assert_eq!(code.hides(), Hides::InWrites);
        let again = code.claim().unwrap();
        code.settle(&again, Hides::Nowhere);
        assert!(!code.may_leave(Reach::Writes));
        code.refresh();
        code.settle(&code.claim().unwrap(), Hides::Unknown);
        assert_eq!(code.hides(), Hides::Nowhere, "a question that failed takes nothing away");
        code.forget();
        code.permit();
        code.settle(&code.claim().unwrap(), Hides::Unknown);
        assert_eq!(code.hides(), Hides::Anywhere, "and is not asked all the time");
    }

    #[test]
    fn texts_reach_what_they_may_run() {
        let reaches = [
            ("", Reach::Nothing),
            ("BEGIN", Reach::Nothing),
            ("COMMIT", Reach::Nothing),
            ("SET a.b = 1", Reach::Nothing),
            ("SELECT 1", Reach::Reads),
            ("TABLE t", Reach::Reads),
            ("VALUES (1)", Reach::Reads),
            ("SELECT 1 INTO t", Reach::Writes),
            ("SELECT 1; INSERT INTO t VALUES (1)", Reach::Writes),
            ("BEGIN; INSERT INTO t VALUES (1); COMMIT", Reach::Writes),
            ("WITH a AS (INSERT INTO t VALUES (1)) SELECT 1", Reach::Writes),
            ("INSERT INTO t VALUES (1)", Reach::Writes),
            ("EXPLAIN ANALYZE DELETE FROM t", Reach::Writes),
            ("COPY t FROM STDIN", Reach::Writes),
            ("FETCH c", Reach::Writes),
            ("CREATE TABLE t (a int)", Reach::Writes),
        ];
        for (sql, reach) in reaches {
            assert_eq!(Reach::of(&analyse(sql.as_bytes())), reach, "{sql}");
        }
    }

    #[test]
    fn findings_count_from_the_worst() {
        let found = |rows: &[(&str, Option<&str>)]| {
            let mut findings = Findings::default();
            for (kind, name) in rows {
                findings.row(&[Some(kind.as_bytes()), name.map(str::as_bytes)]);
            }
            findings.hides()
        };
        assert_eq!(found(&[]), Hides::Nowhere);
        assert_eq!(found(&[("code", None), ("name", Some("my_lock"))]), Hides::Nowhere);
        assert_eq!(found(&[("name", Some("upper"))]), Hides::Anywhere);
        assert_eq!(found(&[("writes", None), ("name", Some("audit"))]), Hides::InWrites);
        assert_eq!(found(&[("writes", None), ("code", None)]), Hides::Anywhere);
        assert_eq!(found(&[("anywhere", None)]), Hides::Anywhere);
        assert_eq!(found(&[("what", None), ("anywhere", None)]), Hides::Unknown);
    }
}
