//! What a statement's shape costs: found in the cache; made anew; and PostgreSQL's parser alone on the same text. In
//! nanoseconds, and where valgrind is installed in instructions, which other users of the machine cannot disturb.

use crate::micro::{AGGREGATE, INSERT, ORM, PGBENCH, nanos_per_call};
use clap::{Args, ValueEnum};
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::statement::{Grammar, ShapeCache, TextSettings};
use tidegate_grammar::PostgresGrammar;

/// One thing, done a number of times, and nothing else: for callgrind and other profilers.
#[derive(Args)]
pub struct Calls {
    #[arg(value_enum)]
    what: What,
    /// A statement.
    sql: String,
    /// How often.
    calls: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// The shape, found in the cache.
    Hit,
    /// The shape, made anew: the cache has no room.
    Miss,
    /// PostgreSQL's parser alone.
    Parser,
    /// The parser, and the walk through its tree.
    Grammar,
}

const ALL: [What; 4] = [What::Hit, What::Miss, What::Parser, What::Grammar];

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Hit => "hit",
            What::Miss => "miss",
            What::Parser => "parser",
            What::Grammar => "grammar",
        }
    }

    /// A function that does it once.
    fn call(self, sql: &str) -> Box<dyn FnMut() + '_> {
        let room = if self == What::Hit { SHAPE_CACHE_BYTES_MAX } else { 0 };
        let mut cache = ShapeCache::new(PostgresGrammar, 1, room);
        let (settings, now) = (TextSettings::default(), Instant::now());
        match self {
            What::Hit | What::Miss => Box::new(move || {
                black_box(cache.shape_of(black_box(sql.as_bytes()), settings, now));
            }),
            What::Parser => Box::new(|| {
                let _ = black_box(pg_raw_parse::parse(black_box(sql)));
            }),
            What::Grammar => Box::new(|| {
                black_box(PostgresGrammar.parse(black_box(sql)));
            }),
        }
    }
}

/// Does what was asked for.
pub fn calls(asked: &Calls) {
    let mut call = asked.what.call(&asked.sql);
    (0..asked.calls).for_each(|_| call());
}

/// Prints a line for each statement.
pub fn run() {
    let instructions = Command::new("valgrind").arg("--version").output().is_ok();
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
        line(name, sql.len(), "ns", ALL.map(|what| nanos_per_call(what.call(&sql))));
        if instructions {
            let counted = ALL.map(|what| instructions_per_call(what, &sql));
            line(name, sql.len(), "instructions", counted.map(|n| n.unwrap_or(f64::NAN)));
        }
    }
}

fn line(name: &str, bytes: usize, unit: &str, [hit, miss, parser, grammar]: [f64; 4]) {
    println!(
        "analysis  {name:<12} {bytes:>5} bytes  hit {hit:>8.1}  miss {miss:>9.1} ({:.2})  parser alone {parser:>9.1}  \
         parser and walk {grammar:>9.1} ({:.2})  {unit}",
        miss / parser,
        grammar / parser,
    );
}

/// Of 1100 calls less those of 100, so that what happens once does not count. `None` if it cannot be counted.
fn instructions_per_call(what: What, sql: &str) -> Option<f64> {
    let own = std::env::current_exe().ok()?;
    let count = |calls: &str| -> Option<f64> {
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
        command.arg(&own).args(["calls", what.name(), sql, calls]);
        let output = command.output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr);
        said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
    };
    Some((count("1100")? - count("100")?) / 1000.0)
}
