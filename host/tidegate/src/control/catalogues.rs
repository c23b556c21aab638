//! Reads what the databases' catalogues say about names, on the primary, anew after each change of a schema.

mod tables; // what matters to answers that are kept

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tidegate_cache::{Stamp, Tables};
use tidegate_core::catalogue::{Builder, Catalogue, FunctionRow, RelationKind, RelationRow};
use tidegate_core::limits::CATALOGUE_ROWS_MAX;
use tidegate_core::session::hidden::{Findings, Hides, INSPECTION};

use super::Watched;
use super::schedule::Schedule;
use crate::hidden::HiddenCodes;
use crate::results::Results;
use crate::upstream::{Asker, ConnectError};
use crate::view::{Known, KnownTables};

/// A database whose schema changes all the time is not read more often than this.
pub(super) const REREAD_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// What PostgreSQL says of a database that does not exist.
const UNDEFINED_DATABASE: &str = "3D000";

/// The catalogues of the databases that clients use.
pub(super) struct Catalogues {
    settled: (Arc<crate::config::Config>, Arc<crate::upstream::Target>),
    databases: HashMap<Arc<str>, Database>,
}

struct Database {
    asker: Asker,
    known: Option<Known>,
    schedule: Schedule,
}

/// What came of a look at one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refreshed {
    /// It is not time yet.
    No,
    /// It was read, or could not be.
    Yes,
    /// There is no such database: nobody reads it until somebody wants it again.
    Gone,
}

/// What came of a reading.
enum Reading {
    Read(Catalogue, Option<Arc<Tables>>),
    /// Too large, or not understood.
    Unusable,
    Gone,
    Failed(ConnectError),
}

impl Catalogues {
    /// `before`: what stands until it has been read again.
    pub(super) fn new(watched: &Watched, before: &FxHashMap<Arc<str>, Known>) -> Self {
        let mut catalogues = Self {
            settled: (watched.config.clone(), watched.targets[0].clone()),
            databases: HashMap::new(),
        };
        for (name, known) in before {
            catalogues.database(name).known = Some(known.clone());
        }
        catalogues
    }

    fn database(&mut self, name: &Arc<str>) -> &mut Database {
        let (config, target) = &self.settled;
        self.databases.entry(name.clone()).or_insert_with(|| {
            let mut asker = Asker::new(config, 0, target.clone(), "tidegate: catalogue");
            asker.database = name.clone();
            Database { asker, known: None, schedule: Schedule::default() }
        })
    }

    pub(super) fn known(&self) -> FxHashMap<Arc<str>, Known> {
        let known = |(name, database): (&Arc<str>, &Database)| {
            Some((name.clone(), database.known.clone()?))
        };
        self.databases.iter().filter_map(known).collect()
    }

    /// Reads a database's catalogue when it is new, changed or old. `schema` counts the changes that have passed.
    pub(super) async fn refresh(
        &mut self,
        name: &Arc<str>,
        schema: u64,
        hidden: &HiddenCodes,
        results: &Results,
    ) -> Refreshed {
        let database = self.database(name);
        let kept = (results.round() != 0).then(|| results.stamp(name));
        let is_changed = database.known.as_ref().is_none_or(|known| {
            known.schema != schema
                || kept.is_some() && known.tables.as_ref().map(|known| known.stamp) != kept
        });
        if !database.schedule.is_due(is_changed, Instant::now()) {
            return Refreshed::No;
        }
        let code = hidden.get(name);
        let claimed = code.as_deref().map(|code| (code, code.claim_anyway()));
        let refreshed = database.refresh(schema, kept, results).await;
        // With the catalogue reads begin to use replicas, and sessions there can't ask.
        if let Some((code, claim)) = claimed
            && database.known.is_some()
        {
            code.settle(&claim, database.inspect().await);
        }
        if refreshed == Refreshed::Gone {
            self.databases.remove(name);
        }
        refreshed
    }
}

impl Database {
    async fn inspect(&mut self) -> Hides {
        let mut findings = Findings::default();
        match self.asker.ask(INSPECTION).await {
            Ok(rows) => {
                for row in rows {
                    let row: Vec<_> =
                        row.iter().map(|value| value.as_deref().map(str::as_bytes)).collect();
                    findings.row(&row);
                }
            }
            Err(_) => findings.fail(),
        }
        self.asker.close();
        findings.hides()
    }

    /// `kept` stood before, if answers are kept.
    async fn refresh(&mut self, schema: u64, kept: Option<Stamp>, results: &Results) -> Refreshed {
        let began = Instant::now();
        let wants = if kept.is_some() { Wants::All } else { Wants::Reads };
        let reading = read_catalogue(&mut self.asker, wants).await;
        // Seldom needed, so it does not hold a place on the server.
        self.asker.close();
        let database = &*self.asker.database;
        let is_first = !self.schedule.is_failing();
        self.known = match reading {
            Reading::Read(catalogue, tables) => {
                tracing::debug!(database, names = catalogue.len(), "catalogue read");
                if !is_first {
                    tracing::info!(database, "the catalogue is read again");
                }
                self.schedule.handle_reading(began);
                let tables = kept.map(|stamp| self.known_tables(tables, stamp, results));
                Some(Known { catalogue: Arc::new(catalogue), schema, tables })
            }
            Reading::Gone => {
                tracing::info!(
                    database,
                    "there is no such database: its catalogue is read when somebody logs in to it"
                );
                return Refreshed::Gone;
            }
            failed => {
                if is_first {
                    tell(database, &failed);
                }
                self.schedule.handle_failure(Instant::now());
                // A server that cannot be asked is changed by nobody whom we serve: replicas go on with what was known, and
                // what others have changed is seen when it is back.
                self.known.take().filter(|_| failed.is_unanswered())
            }
        };
        Refreshed::Yes
    }
}

impl Reading {
    fn is_unanswered(&self) -> bool {
        matches!(self, Self::Failed(ConnectError::Unreachable(_) | ConnectError::Timeout))
    }
}

impl Database {
    /// What was read of its tables. If that differs from what was read before, and nothing has passed that would have changed
    /// it, somebody has changed it past Tidegate: then nothing that is kept stands.
    fn known_tables(
        &mut self,
        tables: Option<Arc<Tables>>,
        stamp: Stamp,
        results: &Results,
    ) -> KnownTables {
        let before = self.known.as_ref().and_then(|known| known.tables.as_ref());
        let changed = before.is_some_and(|before| before.stamp == stamp && before.tables != tables);
        let stamp = if changed { results.correct(&self.asker.database, stamp) } else { stamp };
        KnownTables { tables, stamp, serial: results.number_reading() }
    }
}

fn tell(database: &str, failed: &Reading) {
    match failed {
        Reading::Failed(error) => {
            tracing::warn!(database, %error, "cannot read the catalogue: where none is known, reads stay on the primary");
        }
        Reading::Unusable => tracing::warn!(
            database,
            rows_max = CATALOGUE_ROWS_MAX,
            "the catalogue is too large to keep, or not understood: reads stay on the primary"
        ),
        Reading::Read(..) | Reading::Gone => {}
    }
}

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// What decides where reads run.
    Reads,
    /// And what may be kept.
    All,
}

async fn read_catalogue(asker: &mut Asker, wants: Wants) -> Reading {
    match ask_catalogue(asker, wants).await {
        Ok(Some((catalogue, tables))) => Reading::Read(catalogue, tables),
        Ok(None) => Reading::Unusable,
        Err(ConnectError::Refused(error)) if error.sqlstate == UNDEFINED_DATABASE => Reading::Gone,
        Err(error) => Reading::Failed(error),
    }
}

type Both = (Catalogue, Option<Arc<Tables>>);

async fn ask_catalogue(asker: &mut Asker, wants: Wants) -> Result<Option<Both>, ConnectError> {
    let counts = asker.ask(COUNT_SQL).await?;
    let rows = counts.first().and_then(|row| row.first()?.as_deref()?.parse().ok());
    if rows.is_none_or(|rows: usize| rows > CATALOGUE_ROWS_MAX) {
        return Ok(None);
    }
    let kept = if wants == Wants::All { tables::SQL } else { "" };
    // One snapshot for all, so that they fit each other; the first column says which query a row is of.
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {FUNCTIONS_SQL}; {kept}{RELATIONS_SQL}; {HIDDEN_SQL}; COMMIT"
    );
    let rows = asker.ask(&sql).await?;
    // Away from this thread: half a million rows take longer than a round of the watcher may.
    let both = move || {
        let catalogue = build(&rows)?;
        Some((catalogue, if wants == Wants::All { tables::build(&rows) } else { None }))
    };
    Ok(tokio::task::spawn_blocking(both).await.ok().flatten())
}

/// `None` when a row is not as the query makes it.
fn build(rows: &[Vec<Option<String>>]) -> Option<Catalogue> {
    let mut builder = Builder::default();
    for row in rows {
        let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        match row.as_slice() {
            ["f", ..] => builder.function(function(&row)?),
            ["r", ..] => builder.relation(relation(&row)?),
            ["h", oid] => builder.hidden_function(oid.parse().ok()?),
            ["k", ..] => {}
            _ => return None,
        }
    }
    Some(builder.build())
}

fn function(row: &[&str]) -> Option<FunctionRow> {
    let ["f", oid, schema, name, volatile, calls] = row else { return None };
    Some(FunctionRow {
        oid: oid.parse().ok()?,
        schema: (*schema).to_owned(),
        name: (*name).to_owned(),
        volatile: *volatile == "1",
        calls: oids(calls)?,
    })
}

fn relation(row: &[&str]) -> Option<RelationRow> {
    let ["r", oid, schema, name, kind, permanent, reads, calls] = row else { return None };
    Some(RelationRow {
        oid: oid.parse().ok()?,
        schema: (*schema).to_owned(),
        name: (*name).to_owned(),
        kind: RelationKind::from_relkind(kind),
        permanent: *permanent == "1",
        reads: oids(reads)?,
        calls: oids(calls)?,
    })
}

/// A list of object identifiers with commas between.
fn oids(list: &str) -> Option<Vec<u32>> {
    list.split(',').filter(|oid| !oid.is_empty()).map(|oid| oid.parse().ok()).collect()
}

const COUNT_SQL: &str = "SELECT (SELECT count(*) FROM pg_proc) + (SELECT count(*) FROM pg_class)";

/// The stored trees of expressions name functions by number: `pg_depend` does not list built-in ones.
const FUNCTIONS_SQL: &str = "\
SELECT 'f', p.oid, n.nspname, p.proname, \
 CASE WHEN p.provolatile = 'v' OR p.prokind = 'a' AND EXISTS (SELECT FROM pg_aggregate a JOIN pg_proc q ON q.oid IN \
 (a.aggtransfn, a.aggfinalfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn) \
 WHERE a.aggfnoid = p.oid AND q.provolatile = 'v') THEN 1 ELSE 0 END, \
 CASE WHEN p.pronargdefaults > 0 AND p.oid >= 16384 THEN \
 (SELECT string_agg(DISTINCT m[2], ',') FROM regexp_matches(p.proargdefaults::text, \
 ':(funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m) END \
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind <> 'p'";

const RELATIONS_SQL: &str = "\
SELECT 'r', c.oid, n.nspname, c.relname, c.relkind, CASE WHEN c.relpersistence = 'p' AND t.locks IS NOT TRUE THEN 1 ELSE 0 END, \
 concat_ws(',', t.reads, (SELECT string_agg(i.inhrelid::text, ',') FROM pg_inherits i WHERE i.inhparent = c.oid)), \
 t.calls \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
LEFT JOIN LATERAL (SELECT \
 string_agg(DISTINCT m[2], ',') FILTER (WHERE m[1] = 'relid' AND m[2] <> '0') AS reads, \
 string_agg(DISTINCT m[2], ',') FILTER (WHERE m[1] <> 'relid' AND m[2] <> '0') AS calls, \
 bool_or(trees.tree LIKE '%{ROWMARKCLAUSE %') AS locks \
 FROM (SELECT r.ev_action::text AS tree FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '1' AND c.relkind = 'v' \
 UNION ALL SELECT concat(l.polqual::text, l.polwithcheck::text) FROM pg_policy l WHERE l.polrelid = c.oid AND c.relrowsecurity) trees, \
 regexp_matches(trees.tree, ':(relid|funcid|opfuncid|aggfnoid|winfnoid) (\\d+)', 'g') m) t \
 ON n.nspname NOT IN ('pg_catalog', 'information_schema') \
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'";

/// Functions that no text names: 16384 is the first number that PostgreSQL gives to what users make.
const HIDDEN_SQL: &str = "\
SELECT 'h', oid FROM (SELECT oprcode::oid AS oid FROM pg_operator WHERE oid >= 16384 AND oprcode <> 0 \
UNION SELECT amproc::oid FROM pg_amproc WHERE oid >= 16384 \
UNION SELECT unnest(ARRAY[rngcanonical, rngsubdiff])::oid FROM pg_range WHERE rngtypid >= 16384 \
UNION SELECT castfunc::oid FROM pg_cast WHERE oid >= 16384 AND castfunc <> 0 \
UNION SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin])::oid FROM pg_type \
 WHERE oid >= 16384 AND typtype NOT IN ('c', 'd', 'e') AND typelem = 0 \
UNION SELECT m[1]::oid FROM pg_constraint k, regexp_matches(k.conbin::text, \
 ':(?:funcid|opfuncid) (\\d+)', 'g') m WHERE k.contypid <> 0 AND k.oid >= 16384 AND m[1] <> '0' \
UNION SELECT p.oid FROM pg_proc p JOIN pg_type t ON t.oid = p.proargtypes[0] LEFT JOIN pg_type b ON b.oid = t.typbasetype \
 WHERE p.pronargs - p.pronargdefaults <= 1 AND p.pronargs >= 1 AND p.oid >= 16384 AND p.provolatile = 'v' AND (t.typtype IN ('c', 'p') OR b.typtype IN ('c', 'd'))) hidden";
