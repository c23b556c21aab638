//! Micro benchmarks: one pure function at a time, in nanoseconds per call.

use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate_core::statement::analyse;

pub(crate) const PGBENCH: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;";
pub(crate) const ORM: &str = r#"SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."status", "shop_order"."created_at", "shop_order"."total", "shop_customer"."id", "shop_customer"."name", "shop_customer"."email" FROM "shop_order" INNER JOIN "shop_customer" ON ("shop_order"."customer_id" = "shop_customer"."id") WHERE ("shop_order"."status" = $1 AND "shop_order"."total" >= $2) ORDER BY "shop_order"."created_at" DESC LIMIT 25"#;
pub(crate) const INSERT: &str =
    "INSERT INTO orders (id, customer_id, status, total) VALUES ($1, $2, $3, $4) RETURNING id";
pub(crate) const AGGREGATE: &str = "SELECT date_trunc('day', created_at), count(*), coalesce(sum(total), 0) FROM orders GROUP BY 1";
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
