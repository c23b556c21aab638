//! A catalogue with one relation and one function of each kind, and the shapes of texts.

use crate::store::Tag;
use crate::tables::{Builder, Follower, RelationRow, Tables, Traits};
use std::sync::Arc;
use std::time::Instant;
use tidegate_core::catalogue::{FunctionRow, RelationKind};
use tidegate_core::statement::{Known, ShapeCache, TextSettings};
use tidegate_grammar::PostgresGrammar;

/// PostgreSQL's own functions, and how volatile they are.
const BUILT_IN: [(&str, char); 47] = [
    ("abs", 'i'),
    ("age", 's'),
    ("avg", 'i'),
    ("clock_timestamp", 'v'),
    ("count", 'i'),
    ("currval", 'v'),
    ("current_database", 's'),
    ("current_schemas", 's'),
    ("current_setting", 's'),
    ("date", 's'),
    ("date_part", 's'),
    ("date_trunc", 's'),
    ("extract", 's'),
    ("gen_random_uuid", 'v'),
    ("generate_series", 's'),
    ("has_table_privilege", 's'),
    ("inet_client_addr", 's'),
    ("json_agg", 's'),
    ("lastval", 'v'),
    ("length", 's'),
    ("lo_get", 'v'),
    ("lower", 'i'),
    ("max", 'i'),
    ("nextval", 'v'),
    ("now", 's'),
    ("obj_description", 's'),
    ("pg_advisory_xact_lock", 'v'),
    ("pg_backend_pid", 's'),
    ("pg_get_viewdef", 's'),
    ("pg_is_in_recovery", 'v'),
    ("pg_notify", 'v'),
    ("pg_relation_size", 'v'),
    ("pg_sleep", 'v'),
    ("query_to_xml", 'v'),
    ("random", 'v'),
    ("round", 'i'),
    ("set_config", 'v'),
    ("setval", 'v'),
    ("statement_timestamp", 's'),
    ("sum", 'i'),
    ("table_to_xml", 's'),
    ("timezone", 's'),
    ("to_char", 's'),
    ("to_regclass", 's'),
    ("to_tsvector", 's'),
    ("txid_current", 's'),
    ("upper", 'i'),
];
/// Of users' own.
const OWN: [(&str, char); 4] = [("own", 'i'), ("spy", 's'), ("poke", 'v'), ("total", 's')];
const OWN_OID: u32 = 16_384;

pub(super) const DATABASE: &str = "d";

/// A catalogue, and what reads texts.
pub(super) struct Examples {
    pub tables: Arc<Tables>,
    shapes: ShapeCache<PostgresGrammar>,
}

impl Examples {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(more: impl FnOnce(&mut Builder)) -> Self {
        let mut builder = builder();
        more(&mut builder);
        let tables = builder.build().unwrap();
        Self { tables, shapes: ShapeCache::new(PostgresGrammar, 7, 1 << 20) }
    }

    pub fn shape(&mut self, sql: &str) -> Known {
        self.shapes.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now())
    }
}

/// The tables by name, in alphabetical order.
pub(super) fn names(tags: &[Tag]) -> Vec<&'static str> {
    let name = |tag: &Tag| match tag {
        Tag::Relation(database, oid) if **database == *DATABASE => {
            let row = RELATIONS.iter().find(|(known, ..)| known == oid);
            row.map_or("unknown", |(_, name, ..)| *name)
        }
        _ => "other",
    };
    let mut names: Vec<&str> = tags.iter().map(name).collect();
    names.sort_unstable();
    names
}

pub(super) fn function_oid(wanted: &str) -> u32 {
    let own = OWN.iter().position(|(name, _)| *name == wanted);
    let built_in = BUILT_IN.iter().position(|(name, _)| *name == wanted);
    own.map(|at| OWN_OID + at as u32).or(built_in.map(|at| 100 + at as u32)).unwrap()
}

/// Number, name, `relkind`, and what is special: `u` unlogged, `T` temporary, `s` row security, `o` opaque, `f` unfit.
const RELATIONS: [(u32, &str, &str, &str); 27] = [
    (1, "t", "r", ""),
    (2, "u", "r", ""),
    (3, "w", "r", ""),
    (4, "tv", "v", ""),
    (5, "tm", "m", ""),
    (6, "p", "p", ""),
    (7, "p1", "r", ""),
    (8, "p2", "r", ""),
    (9, "un", "r", "u"),
    (10, "rls", "r", "s"),
    (11, "trg", "r", "o"),
    (12, "seq", "S", ""),
    (13, "ft", "f", ""),
    (14, "vrandom", "v", ""),
    (15, "vnow", "v", "f"),
    (16, "vown", "v", ""),
    (17, "vpoke", "v", ""),
    (18, "temporary", "r", "T"),
    (19, "deep", "v", ""),
    (20, "vchar", "v", ""),
    (21, "vrls", "v", ""),
    (22, "parent", "r", ""),
    (23, "followed", "r", ""),
    (24, "pf", "p", ""),
    (25, "keyed", "r", ""),
    (26, "parts", "p", ""),
    (27, "part", "r", ""),
];
/// What a view, or a parent, reads.
const READS: [(u32, &[u32]); 12] = [
    (4, &[1]),
    (5, &[1]),
    (6, &[7, 8]),
    (14, &[1]),
    (15, &[1]),
    (16, &[1]),
    (17, &[1]),
    (19, &[14, 4]),
    (20, &[1]),
    (21, &[10]),
    // A foreign table among the partitions.
    (24, &[7, 13]),
    (26, &[27]),
];
/// Whose rows follow: `u` those of `t`, `w` those of `u`; `trg` those of `followed`; `w` those of `parent`, by a
/// generated column; `w` those of `keyed`, by two columns, and those of `parts`. On which column, when it is `d`eleted or `u`pdated.
const FOLLOWERS: [(u32, u32, Option<&str>, &str); 7] = [
    (1, 2, Some("id"), "du"),
    (2, 3, Some("id"), "d"),
    (23, 11, Some("id"), "du"),
    (22, 3, None, "u"),
    (25, 3, Some("a"), "u"),
    (25, 3, Some("b"), "u"),
    (26, 3, Some("a"), "u"),
];
const CALLS: [(u32, &str); 4] = [(14, "random"), (16, "own"), (17, "poke"), (20, "to_char")];

fn followers(of: u32) -> Vec<Follower> {
    let those = FOLLOWERS.iter().filter(|(followed, ..)| *followed == of);
    let flag = |when: &str, letter: char| when.contains(letter).then_some(());
    let row = |(_, oid, column, when): &(u32, u32, Option<&str>, &str)| Follower {
        oid: *oid,
        on_delete: flag(when, 'd'),
        on_update: flag(when, 'u'),
        column: column.map(Box::from),
    };
    those.map(row).collect()
}

fn builder() -> Builder {
    let mut builder = Builder::default();
    for (schema, functions) in [("pg_catalog", &BUILT_IN[..]), ("public", &OWN[..])] {
        for (name, volatility) in functions {
            let oid = function_oid(name);
            builder.function(FunctionRow {
                oid,
                schema: schema.to_owned(),
                name: (*name).to_owned(),
                volatile: *volatility == 'v',
                calls: Vec::new(),
            });
            if *volatility == 's' {
                builder.stable(oid);
            }
        }
    }
    builder.attribute("total");
    let of = |all: &[(u32, &[u32])], oid: u32| {
        all.iter().filter(|(of, _)| *of == oid).flat_map(|(_, oids)| oids.to_vec()).collect()
    };
    for (oid, name, kind, special) in RELATIONS {
        let flag = |letter: char| special.contains(letter).then_some(());
        let persistence = match special {
            "u" => b'u',
            "T" => b't',
            _ => b'p',
        };
        let traits =
            Traits { persistence, row_security: flag('s'), opaque: flag('o'), unfit: flag('f') };
        let calls = CALLS.iter().filter(|(of, _)| *of == oid).map(|(_, name)| function_oid(name));
        builder.relation(RelationRow {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind: RelationKind::from_relkind(kind),
            traits,
            reads: of(&READS, oid),
            calls: calls.collect(),
            followers: followers(oid),
        });
    }
    for (oid, schema, name) in
        [(90, "pg_catalog", "pg_class"), (91, "information_schema", "tables")]
    {
        builder.relation(RelationRow {
            oid,
            schema: schema.to_owned(),
            name: name.to_owned(),
            kind: RelationKind::Table,
            traits: Traits { persistence: b'p', ..Traits::default() },
            reads: Vec::new(),
            calls: Vec::new(),
            followers: Vec::new(),
        });
    }
    builder
}
