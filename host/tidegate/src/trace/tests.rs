//! What is written is read again, and nothing that a statement's literals hold is in it.

use proptest::prelude::*;
use std::time::Instant;
use tidegate_core::limits::SHAPE_CACHE_BYTES_MAX;
use tidegate_core::statement::{ShapeCache, TextSettings};
use tidegate_grammar::PostgresGrammar;

use super::*;

fn shape(sql: &str) -> Shape {
    let mut shapes = ShapeCache::new(PostgresGrammar, 7, SHAPE_CACHE_BYTES_MAX);
    Shape::clone(&shapes.shape_of(sql.as_bytes(), TextSettings::default(), Instant::now()).shape)
}

fn line(sql: &str, count: u64) -> Line {
    Line {
        shape: ShapeLine::from(&shape(sql)),
        tags: vec![("route".to_owned(), "replica".to_owned())],
        user: "ann".to_owned(),
        database: "shop".to_owned(),
        application: "psql".to_owned(),
        end_user: Some("00ff".to_owned()),
        server: "primary".to_owned(),
        plan: Some(PlanLine { target: "replicas".to_owned(), label: None, generation: Some(3) }),
        cache: Some("bypass".to_owned()),
        error: Some("23505".to_owned()),
        counts: Counts { count, first_ms: 1, last_ms: 2, mean_us: 3, max_us: 4 },
    }
}

fn head() -> Head {
    let version = "0.1.0".to_owned();
    Head { tidegate_record: FORMAT, version, began_ms: 9, replicas: vec!["replica-1".to_owned()] }
}

fn written(lines: &[Line], bytes_max: usize) -> String {
    let mut writer = Writer::new(&head(), bytes_max);
    lines.iter().for_each(|line| writer.put(line));
    let rest = Tail { lasted_ms: 5, dropped: 1, unread: 2, unanswered: 3, ..Tail::default() };
    String::from_utf8(writer.end(rest)).unwrap()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let texts = [
        "SELECT a.x, count(*) FROM s.orders a JOIN users u ON a.user_id = u.id \
         WHERE a.status = 'open' AND a.n IN (1, 2) AND f(a.b) > $1 GROUP BY 1 ORDER BY a.x",
        "UPDATE t SET a = $1 WHERE id BETWEEN $2 AND $3 OR b IS NULL OR c LIKE 'x%'",
        "INSERT INTO t (a, b) VALUES ($1, 'two')",
        "SELECT 1; SELECT 2",
        "SELECT nextval('s'), x::money ### y FROM t WHERE id = ANY ($1) FOR UPDATE",
        "SELEC",
        "",
        "COMMIT",
    ];
    let lines: Vec<Line> = texts.iter().map(|sql| line(sql, 2)).collect();
    let trace = Trace::read(&written(&lines, 1 << 20)).unwrap();
    assert_eq!((&trace.head, &trace.lines), (&head(), &lines));
    for (sql, line) in texts.iter().zip(&trace.lines) {
        assert_eq!(line.shape.shape().unwrap(), shape(sql), "{sql}");
    }
    let expected = Tail {
        lasted_ms: 5,
        lines: texts.len(),
        executions: 16,
        dropped: 1,
        unread: 2,
        unanswered: 3,
    };
    assert_eq!(trace.tail, Some(expected));
}

#[test]
fn what_does_not_fit_is_counted_and_what_was_cut_off_is_noticed() {
    let lines = [line("SELECT 1", 10), line("SELECT b FROM t", 20), line("SELECT c FROM t", 30)];
    let one = serde_json::to_string(&lines[1]).unwrap().len() + 1;
    let text = written(&lines, 2 * one);
    let trace = Trace::read(&text).unwrap();
    assert_eq!(trace.lines.len(), 2);
    let tail = trace.tail.unwrap();
    assert_eq!((tail.executions, tail.dropped), (30, 31));
    let cut = text.lines().take(3).collect::<Vec<_>>().join("\n");
    assert_eq!(Trace::read(&cut).unwrap().tail, None);
    assert!(Trace::read(&text[..text.len() / 2]).unwrap_err().starts_with("line "));
    assert_eq!(Trace::read("").unwrap_err(), "the file is empty");
    assert!(Trace::read("{}").unwrap_err().contains("no head of a record"));
    let newer = text.replace("\"tidegate_record\":1", "\"tidegate_record\":2");
    assert_eq!(Trace::read(&newer).unwrap_err(), "format 2; this reads 1");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_literal_is_recorded(secret in "[b-hj-km]{9}[0-9]{3}", form in 0..8usize) {
        let sql = match form {
            0 => format!("SELECT * FROM t WHERE a = '{secret}'"),
            1 => format!("SELECT * FROM t WHERE a = E'\\t{secret}' /* {secret} */ -- {secret}"),
            2 => format!("SELECT $q${secret}$q$, U&'{secret}'"),
            3 => format!("DO $$ BEGIN PERFORM '{secret}'; END $$"),
            4 => format!("ALTER ROLE app PASSWORD '{secret}'"),
            5 => format!("INSERT INTO t VALUES ('{secret}', '{secret}') /*key='{secret}'*/"),
            6 => format!("SET app.key = '{secret}'"),
            _ => format!("SELECT '{secret}"),
        };
        let text = written(&[line(&sql, 1)], 1 << 20);
        prop_assert!(!text.contains(&secret), "{text}");
    }
}
