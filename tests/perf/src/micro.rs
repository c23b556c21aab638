//! Micro benchmarks: one pure function at a time, in nanoseconds per call.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::statement::{Grammar, ShapeCache, TextSettings, analyse};
use tidegate_grammar::PostgresGrammar;

const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
const ORM: &str = r#"SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."status", "shop_order"."created_at", "shop_order"."total", "shop_customer"."id", "shop_customer"."name", "shop_customer"."email" FROM "shop_order" INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id") WHERE ("shop_order"."status" = $1 AND "shop_order"."total" >= $2) ORDER BY "shop_order"."created_at" DESC LIMIT 25"#;
const INSERT: &str =
    "INSERT INTO orders (id, customer_id, status, total) VALUES ($1, $2, $3, $4) RETURNING id";
const AGGREGATE: &str = "SELECT date_trunc('day', created_at), count(*), coalesce(sum(total), 0) FROM orders GROUP BY 1";
const SET: &str = "SET search_path TO app, public";

/// Runs every micro benchmark and prints a line for each.
pub fn run() {
    for (name, sql) in [
        ("BEGIN", "BEGIN"),
        ("pgbench -S", PGBENCH),
        ("ORM select", ORM),
        ("insert", INSERT),
        ("aggregate", AGGREGATE),
        ("SET", SET),
    ] {
        let nanos = nanos_per_call(|| {
            black_box(analyse(black_box(sql.as_bytes())));
        });
        let per_byte = nanos / sql.len() as f64;
        println!(
            "statement::analyse  {name:<12} {:>5} bytes  {nanos:>8.1} ns  {per_byte:.2} ns/byte",
            sql.len()
        );
    }
    analysis();
}

/// What a statement's shape costs: found in the cache; made anew; and PostgreSQL's parser alone on the same text.
fn analysis() {
    for (name, sql) in [
        ("pgbench -S", PGBENCH.to_owned()),
        ("ORM select", ORM.to_owned()),
        ("insert", INSERT.to_owned()),
        ("aggregate", AGGREGATE.to_owned()),
        (
            "50 rows",
            format!("INSERT INTO t (a, b) VALUES {}(1, 'x')", "(12345, 'abcdef'), ".repeat(49)),
        ),
        ("IN of 200", format!("SELECT * FROM t WHERE a IN ({}1)", "12345, ".repeat(199))),
    ] {
        let (text, settings, now) = (sql.as_bytes(), TextSettings::default(), Instant::now());
        let mut cache = ShapeCache::new(PostgresGrammar, 1, SHAPE_CACHE_BYTES_MAX);
        let hit = nanos_per_call(|| {
            black_box(cache.shape_of(black_box(text), settings, now));
        });
        // A cache without room asks the grammar each time.
        let mut none = ShapeCache::new(PostgresGrammar, 1, 0);
        let miss = nanos_per_call(|| {
            black_box(none.shape_of(black_box(text), settings, now));
        });
        let parser = nanos_per_call(|| {
            let _ = black_box(pg_raw_parse::parse(black_box(&sql)));
        });
        let grammar = nanos_per_call(|| {
            black_box(PostgresGrammar.parse(black_box(&sql)));
        });
        println!(
            "analysis  {name:<12} {:>5} bytes  hit {hit:>7.1} ns  miss {miss:>8.1} ns  parser alone {parser:>8.1} ns  \
             parser and walk {grammar:>8.1} ns",
            sql.len()
        );
    }
}

/// The fastest of several batches, which is the one that the machine disturbed least.
pub(crate) fn nanos_per_call(mut call: impl FnMut()) -> f64 {
    const BATCHES: usize = 20;
    const CALLS: u32 = 20_000;
    let batch = (0..BATCHES).map(|_| {
        let begin = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        begin.elapsed()
    });
    let fastest = batch.min().unwrap_or(Duration::ZERO);
    fastest.as_secs_f64() * 1e9 / f64::from(CALLS)
}
