//! Prepared statements that outlive their batch, whichever server connection comes next.

use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::differential::front_url;
use tidegate_test_support::pipeline::Of;
use tidegate_test_support::{Client, differential, pipeline, test_database};

#[test]
fn trap_47_a_name_whose_parse_failed_is_free() {
    differential("", |c| {
        c.send(pipeline().parse("s", "SELECT nope", &[]).sync());
        c.expect("E:42703 ZI");
        c.send(pipeline().parse("s", "SELECT 1", &[]).bind("", "s", &[]).execute("").sync());
        c.expect("1 2 D C ZI");
    });
}

#[test]
fn trap_47_names_of_skipped_parses_are_free() {
    differential("", |c| {
        c.send(
            pipeline()
                .parse("good", "SELECT 1", &[])
                .parse("bad", "SELECT nope", &[])
                .parse("skipped", "SELECT 2", &[])
                .sync(),
        );
        c.expect("1 E:42703 ZI");
        c.send(pipeline().bind("", "skipped", &[]).sync());
        c.expect("E:26000 ZI");
        c.send(pipeline().bind("", "good", &[]).execute("").sync());
        c.expect("2 D C ZI");
        c.send(pipeline().parse("skipped", "SELECT 3", &[]).parse("bad", "SELECT 4", &[]).sync());
        c.expect("1 1 ZI");
    });
}

#[test]
fn trap_47_a_close_skipped_after_an_error_closes_nothing() {
    differential("", |c| {
        c.send(pipeline().parse("s", "SELECT 1", &[]).sync());
        c.expect("1 ZI");
        c.send(pipeline().bind("", "unknown", &[]).close(Of::Statement("s")).sync());
        c.expect("E:26000 ZI");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("2 D C ZI");
    });
}

#[test]
fn trap_49_the_unnamed_statement_outlives_its_batch() {
    differential("", |c| {
        c.send(pipeline().parse("", "SELECT $1::int * 2", &[]).describe(Of::Statement("")).sync());
        c.expect("1 t T ZI");
        for n in ["1", "2", "3"] {
            c.send(pipeline().bind("", "", &[Some(n)]).execute("").sync());
            c.expect("2 D C ZI");
        }
        c.send(pipeline().parse("", "SELECT nope", &[]).sync());
        c.expect("E:42703 ZI");
        c.send(pipeline().bind("", "", &[Some("1")]).execute("").sync());
        c.read_until_ready();
    });
}

#[test]
fn trap_49_a_simple_query_ends_the_unnamed_statement() {
    differential("", |c| {
        c.send(pipeline().parse("", "SELECT 1", &[]).sync());
        c.expect("1 ZI");
        c.query("SELECT 2");
        c.send(pipeline().bind("", "", &[]).execute("").sync());
        c.expect("E:26000 ZI");
    });
}

#[test]
fn trap_59_a_plan_whose_result_type_changed() {
    differential("DROP TABLE IF EXISTS t59; CREATE TABLE t59 (a int)", |c| {
        c.send(
            pipeline().parse("s", "SELECT * FROM t59", &[]).bind("", "s", &[]).execute("").sync(),
        );
        c.expect("1 2 C ZI");
        c.query("BEGIN");
        c.query("ALTER TABLE t59 ADD b int");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("E:0A000 ZE");
        c.query("ROLLBACK");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("2 C ZI");
    });
}

#[test]
fn trap_60_deallocate_by_query() {
    differential("", |c| {
        let both = || pipeline().parse("a", "SELECT 1", &[]).parse("b", "SELECT 2", &[]).sync();
        c.send(both());
        c.expect("1 1 ZI");
        c.query("DEALLOCATE a");
        c.send(pipeline().bind("", "a", &[]).sync().bind("", "b", &[]).execute("").sync());
        c.expect("E:26000 ZI 2 D C ZI");
        c.query("DEALLOCATE PREPARE ALL");
        c.send(pipeline().bind("", "b", &[]).sync());
        c.expect("E:26000 ZI");
        c.send(both());
        c.expect("1 1 ZI");
        c.query("DEALLOCATE unknown");
        c.query("DISCARD ALL");
        c.send(both());
        c.expect("1 1 ZI");
    });
}

#[test]
fn trap_60_deallocate_by_messages() {
    differential("", |c| {
        for sql in ["DEALLOCATE ALL", "DEALLOCATE a", "DISCARD ALL"] {
            c.send(pipeline().parse("a", "SELECT 1", &[]).sync());
            c.expect("1 ZI");
            c.send(pipeline().parse("", sql, &[]).bind("", "", &[]).execute("").sync());
            c.expect("1 2 C ZI");
            c.send(pipeline().bind("", "a", &[]).sync());
            c.expect("E:26000 ZI");
        }
    });
}

#[test]
fn trap_60_deallocate_in_the_middle_of_a_batch() {
    differential("", |c| {
        c.send(
            pipeline()
                .parse("a", "SELECT 1", &[])
                .parse("d", "DEALLOCATE a", &[])
                .bind("", "a", &[])
                .execute("")
                .bind("", "d", &[])
                .execute("")
                .parse("a", "SELECT 2", &[])
                .bind("", "a", &[])
                .execute("")
                .sync(),
        );
        c.expect("1 1 2 D C 2 C 1 2 D C ZI");
    });
}

#[test]
fn trap_61_sql_and_messages_share_their_names() {
    differential("", |c| {
        c.query("PREPARE by_sql (int) AS SELECT $1 + 1");
        c.send(pipeline().bind("", "by_sql", &[Some("1")]).execute("").sync());
        c.expect("2 D C ZI");
        c.send(pipeline().parse("by_sql", "SELECT 1", &[]).sync());
        c.expect("E:42P05 ZI");
        c.send(pipeline().parse("by_message", "SELECT $1::int + 2", &[]).sync());
        c.expect("1 ZI");
        c.query("EXECUTE by_message(1)");
        c.query("EXPLAIN (COSTS OFF) EXECUTE by_message(1)");
        c.query("PREPARE by_message AS SELECT 1");
        c.send(pipeline().close(Of::Statement("by_sql")).sync());
        c.expect("3 ZI");
        c.query("EXECUTE by_sql(1)");
        c.query("DEALLOCATE ALL");
    });
}

#[test]
fn trap_61_sql_finds_what_messages_have_prepared() {
    let fixture = "DROP TABLE IF EXISTS t61; CREATE TABLE t61 (a int)";
    differential(fixture, |c| {
        let both = || {
            let insert = "INSERT INTO t61 VALUES ($1)";
            pipeline().parse("ins", insert, &[23]).parse("Sel", "SELECT * FROM t61", &[]).sync()
        };
        c.send(both());
        c.expect("1 1 ZI");
        // First by Query, and in the middle of a transaction.
        c.query("BEGIN");
        c.send(pipeline().query("EXECUTE ins(1); EXECUTE \"Sel\"; EXECUTE sel"));
        c.expect("C T D C E:26000 ZE");
        c.send(pipeline().query("EXECUTE ins(1)"));
        c.expect("E:25P02 ZE");
        c.query("ROLLBACK");
        c.query("EXECUTE ins(2)");
        // Whoever has made it, it goes on by either way, under the name that is taken.
        c.send(pipeline().bind("", "ins", &[Some("3")]).execute("").sync());
        c.expect("2 C ZI");
        c.send(pipeline().describe(Of::Statement("ins")).parse("ins", "SELECT 1", &[]).sync());
        c.expect("t n E:42P05 ZI");
        c.query("CREATE TABLE t61_copy AS EXECUTE \"Sel\"");
        assert_eq!(c.value("SELECT string_agg(a::text, ',') FROM t61_copy").unwrap(), "2,3");
        c.query("DROP TABLE t61_copy");
        // By Parse, too: alone, and in one batch with what it names.
        let execute = |sql: &str| pipeline().parse("", sql, &[]).bind("", "", &[]).execute("");
        c.send(execute("EXECUTE \"Sel\"").describe(Of::Portal("")).sync());
        c.expect("1 2 D D C T ZI");
        let batch = pipeline().parse("late", "SELECT 'late'", &[]);
        c.send(batch.raw(execute("EXECUTE late").sync().bytes()));
        c.expect("1 1 2 D C ZI");
        // A name that is free again is free for both.
        c.query("DEALLOCATE ins");
        c.query("DEALLOCATE \"Sel\"");
        c.send(both());
        c.expect("1 1 ZI");
        c.send(pipeline().close(Of::Statement("ins")).sync());
        c.expect("3 ZI");
        c.query("PREPARE ins AS SELECT 'sql'");
        c.query("EXECUTE ins");
        c.send(pipeline().bind("", "ins", &[]).execute("").sync());
        c.expect("2 D C ZI");
        // What cannot be made again is not found, and does no harm.
        c.query("DROP TABLE t61");
        c.query("EXECUTE \"Sel\"");
        c.query("DISCARD ALL");
        c.send(pipeline().parse("ins", "SELECT 1", &[]).bind("", "ins", &[]).execute("").sync());
        c.expect("1 2 D C ZI");
    });
}

#[test]
fn trap_63_preparing_is_not_transactional() {
    differential("", |c| {
        c.query("BEGIN");
        c.send(pipeline().parse("s", "SELECT 1", &[]).sync());
        c.expect("1 ZT");
        c.query("ROLLBACK");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("2 D C ZI");
        c.query("BEGIN");
        c.query("DEALLOCATE s");
        c.query("ROLLBACK");
        c.send(pipeline().bind("", "s", &[]).execute("").sync());
        c.expect("E:26000 ZI");
    });
}

#[test]
fn trap_50_a_name_means_something_else_to_every_client() {
    let url = front_url(ROLE, &test_database("trap_50"));
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(&url)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("SELECT {number} + $1::int");
        client.send(pipeline().parse("s", &sql, &[]).sync());
        client.expect("1 ZI");
    }
    for round in 0..10 {
        for client in &mut clients {
            client.send(
                pipeline().bind("", "s", &[Some(&(round * 100).to_string())]).execute("").sync(),
            );
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let row = client.expect("2 D C ZI")[1].row();
            assert_eq!(row, [Some((round * 100 + number).to_string())]);
        }
    }
}

#[test]
fn trap_50_a_search_path_belongs_to_what_is_prepared_under_it() {
    let fixture = "DROP SCHEMA IF EXISTS s50a, s50b CASCADE; CREATE SCHEMA s50a; CREATE SCHEMA s50b; \
                   CREATE TABLE s50a.t AS SELECT 'a' AS v; CREATE TABLE s50b.t AS SELECT 'b' AS v";
    differential(fixture, |c| {
        for schema in ["s50a", "s50b", "s50a"] {
            c.query(&format!("SET search_path = {schema}"));
            c.send(
                pipeline().parse("", "SELECT v FROM t", &[]).bind("", "", &[]).execute("").sync(),
            );
            c.expect("1 2 D C ZI");
        }
    });
}

#[test]
fn trap_53_more_statements_than_a_server_connection_keeps() {
    differential("", |c| {
        for n in 0..1200 {
            c.send(pipeline().parse(&format!("s{n}"), &format!("SELECT {n}"), &[]).sync());
            c.expect("1 ZI");
        }
        for n in (0..1200).step_by(7) {
            c.send(pipeline().bind("", &format!("s{n}"), &[]).execute("").sync());
            assert_eq!(c.expect("2 D C ZI")[1].row(), [Some(n.to_string())]);
        }
        let mut batch = pipeline();
        for n in 0..1200 {
            batch = batch.bind("", &format!("s{n}"), &[]).execute("");
        }
        c.send(batch.sync());
        let rows = c.read_until_ready().into_iter().filter(|message| message.tag == b'D');
        assert!(rows.map(|row| row.row()).eq((0..1200).map(|n| vec![Some(n.to_string())])));
    });
}
