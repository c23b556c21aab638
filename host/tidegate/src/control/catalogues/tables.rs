//! What a catalogue says of relations and functions beyond where reads may run: what answers that are kept depend on.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use tidegate_cache::{Builder, Follower, RelationRow, Tables, Traits};

use super::{function, relation};

/// `None`: a row is not as the query makes it, or nothing may be kept of this database.
pub(super) fn build(rows: &[Vec<Option<String>>]) -> Option<Arc<Tables>> {
    let mut builder = Builder::default();
    let mut more: FxHashMap<u32, Traits> = FxHashMap::default();
    let mut followers: FxHashMap<u32, Vec<Follower>> = FxHashMap::default();
    let mut relations = Vec::new();
    for row in rows {
        let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or_default()).collect();
        match row.as_slice() {
            ["f", ..] => builder.function(function(&row)?),
            ["r", ..] => relations.push(relation(&row)?),
            ["h", oid] => builder.hidden(oid.parse().ok()?),
            ["k", "stable", oid] => builder.stable(oid.parse().ok()?),
            ["k", "harmless", oid] => builder.harmless(oid.parse().ok()?),
            ["k", "attribute", name] => builder.attribute(name),
            ["k", "define"] => builder.define(),
            ["k", "follows", followed, oid, when, column] => {
                let flag = |letter: char| when.contains(letter).then_some(());
                followers.entry(followed.parse().ok()?).or_default().push(Follower {
                    oid: oid.parse().ok()?,
                    on_delete: flag('d'),
                    on_update: flag('u'),
                    column: flag('g').is_none().then(|| Box::from(*column)),
                });
            }
            ["k", "relation", oid, persistence, traits] => {
                let flag = |letter: char| traits.contains(letter).then_some(());
                let traits = Traits {
                    persistence: persistence.bytes().next()?,
                    row_security: flag('s'),
                    opaque: flag('o'),
                    unfit: flag('u'),
                };
                more.insert(oid.parse().ok()?, traits);
            }
            _ => return None,
        }
    }
    for row in relations {
        // Those of the system have none, and are not kept from.
        let traits = more.remove(&row.oid).unwrap_or_default();
        let followers = followers.remove(&row.oid).unwrap_or_default();
        let core = row;
        builder.relation(RelationRow {
            oid: core.oid,
            schema: core.schema,
            name: core.name,
            kind: core.kind,
            traits,
            reads: core.reads,
            calls: core.calls,
            followers,
        });
    }
    builder.build()
}

/// Rows that begin with `k`.
///
/// - Libraries whose volatile functions are known to write nothing.
/// - Functions whose texts have a word of what changes the meaning of names, or that run what is put together.
/// - Of relations: `s`, row security; `o`, what a write does beyond them (triggers, rules, volatile functions in defaults, checks
///   and policies); `u`, views with what no list of functions shows: CURRENT_DATE and its kin, conversions by way of texts into dates and
///   types of users' own, system columns. Trees are stored expressions.
/// - Whose rows follow: foreign keys with CASCADE, SET NULL, SET DEFAULT; `d`, when a row is deleted; `u`, when the column changes;
///   `g`, which is generated.
pub(super) const SQL: &str = concat!(
    "SELECT 'k', 'stable', p.oid FROM pg_proc p WHERE p.provolatile = 's'; ",
    "SELECT 'k', 'harmless', p.oid FROM pg_proc p WHERE p.oid >= 16384 AND p.provolatile = 'v' AND p.probin IN ",
    "('$libdir/uuid-ossp', '$libdir/pgcrypto', '$libdir/pg_trgm', '$libdir/unaccent', '$libdir/hstore', '$libdir/ltree', ",
    "'$libdir/intarray', '$libdir/citext', '$libdir/pg_stat_statements'); ",
    "SELECT DISTINCT 'k', 'attribute', p.proname FROM pg_proc p JOIN pg_type t ON t.oid = p.proargtypes[0] ",
    "LEFT JOIN pg_type b ON b.oid = t.typbasetype WHERE p.oid >= 16384 AND p.pronargs >= 1 ",
    "AND p.pronargs - p.pronargdefaults <= 1 AND (t.typtype IN ('c', 'p') OR b.typtype IN ('c', 'd')); ",
    "SELECT 'k', 'define' WHERE EXISTS (SELECT FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.oid >= 16384 ",
    "AND (l.lanname NOT IN ('c', 'internal', 'sql', 'plpgsql') OR l.lanname IN ('sql', 'plpgsql') AND p.prosrc ~* ",
    r"E'\\y(create|alter|drop|grant|revoke|execute|security|import|reassign|set_config|rename)\\y')); ",
    "WITH volatile(relation) AS (SELECT coalesce(a.adrelid, k.conrelid, l.polrelid) FROM pg_depend d ",
    "JOIN pg_proc p ON p.oid = d.refobjid AND p.provolatile = 'v' AND p.oid >= 16384 ",
    "AND p.probin IS DISTINCT FROM '$libdir/uuid-ossp' AND p.probin IS DISTINCT FROM '$libdir/pgcrypto' ",
    "LEFT JOIN pg_attrdef a ON d.classid = 'pg_attrdef'::regclass AND a.oid = d.objid ",
    "LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid ",
    "LEFT JOIN pg_policy l ON d.classid = 'pg_policy'::regclass AND l.oid = d.objid ",
    "WHERE d.refclassid = 'pg_proc'::regclass) ",
    "SELECT 'k', 'relation', c.oid, c.relpersistence, concat(CASE WHEN c.relrowsecurity THEN 's' END, ",
    "CASE WHEN EXISTS (SELECT FROM pg_trigger g WHERE g.tgrelid = c.oid AND (NOT g.tgisinternal OR g.tgparentid <> 0 ",
    "AND g.tgconstraint = 0)) OR EXISTS (SELECT FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1') ",
    "OR EXISTS (SELECT FROM volatile v WHERE v.relation = c.oid) THEN 'o' END, ",
    "CASE WHEN c.relkind = 'v' AND EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '1' ",
    "AND (r.ev_action::text ~ 'SQLVALUEFUNCTION|TABLEFUNC|XMLEXPR|TABLESAMPLE|JSONEXPR|NEXTVALUEEXPR|ROWMARKCLAUSE|:varattno -' ",
    "OR r.ev_action::text ~ 'COERCEVIAIO|ARRAYCOERCEEXPR' AND r.ev_action::text ~ ",
    r"E':resulttype (1082|1083|1114|1184|1266|1182|1183|1115|1185|1270|39[01][0-9]|45[0-9][0-9]|61[0-9][0-9]|[0-9]{5,})\\y')) ",
    "THEN 'u' END) ",
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
    "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema') ",
    r"AND n.nspname NOT LIKE E'pg\\_toast%' AND n.nspname NOT LIKE E'pg\\_temp%'; ",
    "SELECT 'k', 'follows', k.confrelid, k.conrelid, concat(CASE WHEN k.confdeltype IN ('c', 'n', 'd') THEN 'd' END, ",
    "CASE WHEN k.confupdtype IN ('c', 'n', 'd') THEN 'u' END, CASE WHEN a.attgenerated <> '' THEN 'g' END), a.attname ",
    "FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = ANY (k.confkey) WHERE k.contype = 'f' ",
    "AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')); ",
);
