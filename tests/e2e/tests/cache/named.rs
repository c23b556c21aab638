//! Prepared statements, as drivers use them: answered without a server, and there on any server afterwards.

use super::{Kept, SCHEMA, With};
use crate::clients;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::{Of, Pipeline};
use tidegate_test_support::{Client, Message, pipeline, shared_cluster};

fn ask(client: &mut Client, batch: &Pipeline) -> Vec<Message> {
    client.send(batch.bytes());
    client.read_until_ready()
}

/// The forms in which drivers prepare a statement and run it at once.
fn forms(name: &str, sql: &str) -> [Pipeline; 3] {
    let bind =
        |batch: Pipeline| batch.bind_formats("", name, &[1], &[Some(&4_i32.to_be_bytes())], &[1]);
    [
        bind(pipeline().parse(name, sql, &[23])).describe(Of::Portal("")).execute("").sync(),
        bind(pipeline().parse(name, sql, &[23]).describe(Of::Statement(name))).execute("").sync(),
        bind(pipeline().parse(name, sql, &[23])).execute("").close(Of::Portal("")).sync(),
    ]
}

#[test]
fn a_statement_that_is_prepared_and_run_at_once_needs_no_server() {
    let mut kept = Kept::start(shared_cluster(), "cache_named", SCHEMA, With::ThePrimary);
    let (mut one, mut other) = (kept.connect(), kept.connect());
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &kept.database));
    for form in 0..3 {
        // A name that nobody knows may be anything, after which the catalogue is read again.
        kept.wait_until_kept();
        let mark = kept.mark();
        let sql = format!("SELECT id, v, d, m FROM t WHERE id = $1 {mark}");
        let name = format!("s{form}");
        let [batch, again] = [(); 2].map(|()| forms(&name, &sql)[form].clone());
        let first = ask(&mut one, &batch);
        let times = kept.times_run(&mark);
        assert!(times > 0 && first.iter().any(|message| message.tag == b'D'), "{first:?}");
        let second = ask(&mut other, &again);
        assert_eq!(first, second, "form {form}");
        assert_eq!(kept.times_run(&mark), times, "form {form}");
        assert_eq!(ask(&mut direct, &batch), first, "as a server answers, byte for byte");
        // By its name alone, described or not: an answer of its own, then none.
        let run = |name: &str| {
            let batch = pipeline();
            batch
                .bind_formats("", name, &[1], &[Some(&5_i32.to_be_bytes())], &[1])
                .execute("")
                .sync()
        };
        let told = ask(&mut one, &run(&name));
        let times = kept.times_run(&mark);
        assert_eq!(ask(&mut other, &run(&name)), told);
        assert_eq!(kept.times_run(&mark), times);
        // The name is taken, as if the server had heard of it.
        let taken = ask(&mut other, &batch);
        assert_eq!(taken[0].sqlstate(), "42P05", "{taken:?}");
        // In a transaction the server has to know it.
        other.query("BEGIN");
        assert_eq!(ask(&mut other, &run(&name))[1..told.len() - 1], told[1..told.len() - 1]);
        other.query("COMMIT");
        let described = ask(&mut other, &pipeline().describe(Of::Statement(&name)).sync());
        assert_eq!([described[0].tag, described[1].tag], [b't', b'T'], "{described:?}");
        // And goes as it came.
        ask(&mut other, &pipeline().close(Of::Statement(&name)).sync());
        let gone = ask(&mut other, &run(&name));
        assert_eq!(gone[0].sqlstate(), "26000", "{gone:?}");
    }
}

#[test]
fn a_statement_of_before_a_change_of_the_schema_is_run() {
    let mut kept = Kept::start(shared_cluster(), "cache_named_ddl", SCHEMA, With::ThePrimary);
    let mut client = kept.connect();
    let mark = kept.mark();
    let batch = pipeline().parse("s", &format!("SELECT * FROM u WHERE id = 3 {mark}"), &[]);
    ask(&mut client, &batch.bind("", "s", &[]).describe(Of::Portal("")).execute("").sync());
    let run = pipeline().bind("", "s", &[]).execute("").sync();
    ask(&mut client, &run);
    let times = kept.times_run(&mark);
    ask(&mut client, &run);
    assert_eq!(kept.times_run(&mark), times, "it is kept in the first place");
    client.query("ALTER TABLE u ADD COLUMN more int DEFAULT 8");
    kept.wait_until_kept();
    // As on a server: one that knows it refuses it, another has the new column. Nobody has the row of before.
    for _ in 0..3 {
        let told = ask(&mut client, &run);
        match told.iter().find(|message| message.tag == b'E') {
            Some(error) => assert_eq!(error.sqlstate(), "0A000"),
            None => assert_eq!(told[1].row().len(), 4, "{told:?}"),
        }
    }
    // Prepared anew, it is as it is now: one column more.
    let mark = kept.mark();
    let sql = format!("SELECT * FROM u WHERE id = 3 {mark}");
    let anew =
        |name: &str| pipeline().parse(name, &sql, &[]).bind("", name, &[]).execute("").sync();
    let (first, again) = (ask(&mut client, &anew("n")), ask(&mut client, &anew("m")));
    let row = |answer: &[Message]| answer.iter().find(|message| message.tag == b'D').unwrap().row();
    assert_eq!(row(&first).last(), Some(&Some("8".to_owned())));
    assert_eq!(row(&first), row(&again));
}

#[test]
fn a_write_takes_what_named_statements_are_answered_with() {
    let kept = Kept::start(shared_cluster(), "cache_named_write", SCHEMA, With::ThePrimary);
    let (mut reader, mut writer) = (kept.connect(), kept.connect());
    let sql = "SELECT v FROM t WHERE id = $1";
    ask(&mut reader, &pipeline().parse("r", sql, &[23]).sync());
    let update = "UPDATE t SET v = v + 1 WHERE id = $1";
    ask(&mut writer, &pipeline().parse("w", update, &[23]).sync());
    let read = pipeline().bind("", "r", &[Some("2")]).execute("").sync();
    let write = pipeline().bind("", "w", &[Some("2")]).execute("").sync();
    for n in 3..20 {
        ask(&mut writer, &write);
        for _ in 0..2 {
            let answer = ask(&mut reader, &read);
            assert_eq!(answer[1].row(), [Some(n.to_string())]);
        }
    }
}

/// What a driver prints when it asks the same again and again, at the server and at Tidegate; and how many hits that were.
fn compare(kept: &Kept, mut run: impl FnMut(&str) -> String) -> u64 {
    let direct = run(&shared_cluster().primary().url(ROLE, &kept.database));
    let before = kept.counter("tidegate_cache_hits_total");
    let through = run(&kept.tidegate.url(ROLE, &kept.database));
    let rows = |output: &str| {
        output
            .lines()
            .filter(|line| line.starts_with("row "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(rows(&direct), rows(&through));
    assert!(rows(&direct).len() >= 100, "{direct}");
    kept.counter("tidegate_cache_hits_total") - before
}

#[test]
fn drivers_are_answered_without_a_server() {
    let kept = Kept::start(shared_cluster(), "cache_drivers", SCHEMA, With::ThePrimary);
    // Ten rounds of ten statements by two connections: all but the first of each can be kept.
    for driver in ["asyncpg", "psycopg"] {
        let script = clients::script("kept.py");
        let hits = compare(&kept, |url| {
            clients::succeed(clients::python().arg(&script).arg(url).arg(driver))
        });
        assert!(hits >= 150, "{driver}: {hits}");
    }
    let modules = clients::installed("node/node_modules").parent().unwrap().to_owned();
    let hits = compare(&kept, |url| {
        let mut node = std::process::Command::new("node");
        node.env("TIDEGATE_NODE_MODULES", &modules);
        clients::succeed(node.arg(clients::script("kept.mjs")).arg(url))
    });
    assert!(hits >= 180, "node-postgres: {hits}");
    let hits = compare(&kept, by_tokio_postgres);
    assert!(hits >= 150, "tokio-postgres: {hits}");
}

/// The driver that Prisma has.
fn by_tokio_postgres(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut lines = String::new();
        for _ in 0..2 {
            let (client, connection) =
                tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let statement =
                client.prepare("SELECT id, v, s FROM t WHERE id = $1 AND v < 1000").await.unwrap();
            for n in 0..100_i32 {
                let row = client.query_one(&statement, &[&(n % 10 + 1)]).await.unwrap();
                let (id, v, s): (i32, i32, &str) = (row.get(0), row.get(1), row.get(2));
                lines.push_str(&format!("row {id} {v} {s}\n"));
            }
            drop(statement);
            drop(client);
            connection.await.unwrap().unwrap();
        }
        lines
    })
}
