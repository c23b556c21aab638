//! Parse, Bind, Describe, Execute, Close, Flush, Sync.

use std::time::Duration;
use tidegate_test_support::pipeline::{Of, Pipeline};
use tidegate_test_support::{differential, pipeline};

/// Long enough to see a reply that should not come, short enough not to matter.
const A_MOMENT: Duration = Duration::from_millis(50);

fn unnamed(sql: &str) -> Pipeline {
    pipeline().parse("", sql, &[]).bind("", "", &[]).execute("")
}

#[test]
fn trap_38_a_query_inside_a_batch_runs_in_order_and_ends_its_transaction() {
    differential("DROP TABLE IF EXISTS t38; CREATE TABLE t38 (a int)", |c| {
        c.send(unnamed("INSERT INTO t38 VALUES (1)").query("SELECT 2"));
        c.expect("1 2 C T D C ZI");
        c.send(pipeline().bind("", "", &[]).sync());
        c.expect("E:26000 ZI");
        assert_eq!(c.value("SELECT count(*) FROM t38"), Some("1".to_owned()));
    });
}

#[test]
fn trap_38_a_query_after_an_error_in_the_batch_is_discarded() {
    differential("", |c| {
        c.send(unnamed("SELECT 1/0").query("SELECT 2").sync());
        c.expect("1 E:22012 ZI");
        c.query("SELECT 3");
    });
}

#[test]
fn trap_41_an_error_among_the_rows_ends_the_batch() {
    differential("", |c| {
        let rows = "SELECT 1 / (3 - n) FROM generate_series(1, 9) n";
        c.send(unnamed(rows).raw(unnamed("SELECT 2").bytes()).sync());
        c.expect("1 2 D D E:22012 ZI");
        c.query(rows);
    });
}

#[test]
fn trap_41_an_error_skips_to_the_sync_and_each_sync_is_answered_once() {
    differential("", |c| {
        c.send(
            unnamed("SELECT 1")
                .bind("", "not there", &[])
                .parse("skipped", "SELECT 2", &[])
                .describe(Of::Statement("skipped"))
                .close(Of::Statement("skipped"))
                .execute("")
                .flush()
                .sync()
                .raw(unnamed("SELECT 3").bytes())
                .sync(),
        );
        c.expect("1 2 D C E:26000 ZI 1 2 D C ZI");
        c.send(pipeline().describe(Of::Statement("skipped")).sync());
        c.expect("E:26000 ZI");
    });
}

#[test]
fn trap_42_many_syncs_in_flight_are_all_answered() {
    differential("", |c| {
        let mut batches = pipeline().parse("s", "SELECT $1::int", &[]).sync().sync();
        for n in 0..100 {
            batches = batches.bind("", "s", &[Some(&n.to_string())]).execute("").sync();
        }
        c.send(batches);
        c.expect("1 ZI ZI");
        for n in 0..100 {
            let messages = c.expect("2 D C ZI");
            assert_eq!(messages[1].row(), [Some(n.to_string())]);
        }
    });
}

#[test]
fn trap_42_an_error_in_one_of_many_batches_spares_the_others() {
    differential("", |c| {
        let mut batches = pipeline();
        for divisor in ["1", "0", "1", "0", "1"] {
            batches = batches
                .parse("", "SELECT 1 / $1::int", &[])
                .bind("", "", &[Some(divisor)])
                .execute("")
                .sync();
        }
        c.send(batches);
        c.expect("1 2 D C ZI 1 E:22012 ZI 1 2 D C ZI 1 E:22012 ZI 1 2 D C ZI");
    });
}

#[test]
fn trap_43_flush_delivers_without_ready_for_query() {
    differential("", |c| {
        c.send(
            pipeline().parse("f", "SELECT $1::int AS a", &[]).describe(Of::Statement("f")).flush(),
        );
        c.expect("1 t T");
        assert!(c.is_silent_for(A_MOMENT));
        c.send(pipeline().bind("", "f", &[Some("7")]).flush());
        c.expect("2");
        c.send(pipeline().execute("").flush());
        c.expect("D C");
        c.send(pipeline().sync());
        c.expect("ZI");
    });
}

#[test]
fn trap_43_an_error_before_a_flush_is_delivered_too() {
    differential("", |c| {
        c.send(pipeline().parse("", "SELEC", &[]).flush());
        c.expect("E:42601");
        c.send(unnamed("SELECT 1").flush());
        assert!(c.is_silent_for(A_MOMENT));
        c.send(pipeline().sync());
        c.expect("ZI");
    });
}

#[test]
fn trap_46_unknown_names_are_errors_that_keep_the_connection() {
    differential("", |c| {
        c.send(pipeline().bind("", "unknown", &[]).sync());
        c.expect("E:26000 ZI");
        c.send(pipeline().describe(Of::Statement("unknown")).sync());
        c.expect("E:26000 ZI");
        c.send(pipeline().describe(Of::Portal("unknown")).sync());
        c.expect("E:34000 ZI");
        c.send(pipeline().execute("unknown").sync());
        c.expect("E:34000 ZI");
        c.send(pipeline().parse("twice", "SELECT 1", &[]).parse("twice", "SELECT 2", &[]).sync());
        c.expect("1 E:42P05 ZI");
        c.send(pipeline().parse("twice", "SELECT 1", &[]).sync());
        c.expect("E:42P05 ZI");
        c.send(pipeline().bind("", "twice", &[]).execute("").sync());
        assert_eq!(c.expect("2 D C ZI")[1].row(), [Some("1".to_owned())]);
    });
}

#[test]
fn trap_48_closing_what_is_unknown_succeeds() {
    differential("", |c| {
        c.send(pipeline().close(Of::Statement("unknown")).close(Of::Portal("unknown")).sync());
        c.expect("3 3 ZI");
        c.send(pipeline().close(Of::Statement("")).close(Of::Portal("")).sync());
        c.expect("3 3 ZI");
    });
}

#[test]
fn trap_48_closing_a_statement_and_the_portals_made_of_it() {
    differential("", |c| {
        c.query("BEGIN");
        c.send(
            pipeline()
                .parse("s", "SELECT 1", &[])
                .bind("p", "s", &[])
                .close(Of::Statement("s"))
                .sync(),
        );
        c.expect("1 2 3 ZT");
        c.send(pipeline().execute("p").sync());
        c.read_until_ready();
        c.query("ROLLBACK");
    });
}

#[test]
fn trap_51_a_failed_transaction_accepts_only_its_end() {
    differential("", |c| {
        c.send(pipeline().parse("before", "SELECT 1", &[]).sync());
        c.expect("1 ZI");
        c.query("BEGIN");
        c.send(unnamed("SELECT 1/0").sync());
        c.expect("1 E:22012 ZE"); // at the Bind, where the planner folds constants
        c.send(pipeline().parse("during", "SELECT 1", &[]).sync());
        c.expect("E:25P02 ZE");
        c.send(pipeline().bind("", "before", &[]).execute("").sync());
        c.expect("E:25P02 ZE");
        c.send(pipeline().parse("", "ROLLBACK", &[]).bind("", "", &[]).execute("").sync());
        c.expect("1 2 C ZI");
        c.send(pipeline().bind("", "during", &[]).sync());
        c.expect("E:26000 ZI");
    });
}

#[test]
fn trap_52_replies_come_in_the_order_of_their_messages() {
    differential("", |c| {
        for _ in 0..3 {
            c.send(
                pipeline()
                    .parse("a", "SELECT 'a'", &[])
                    .close(Of::Statement("a"))
                    .parse("a", "SELECT 'b'", &[])
                    .describe(Of::Statement("a"))
                    .bind("", "a", &[])
                    .describe(Of::Portal(""))
                    .execute("")
                    .close(Of::Portal(""))
                    .close(Of::Statement("a"))
                    .sync(),
            );
            c.expect("1 3 1 t T 2 T D C 3 3 ZI");
        }
    });
}

#[test]
fn trap_57_a_portal_is_suspended_and_goes_on() {
    differential("", |c| {
        let rows = "SELECT generate_series(1, 5)";
        c.query("BEGIN");
        c.send(pipeline().parse("s", rows, &[]).bind("p", "s", &[]).execute_rows("p", 2).sync());
        c.expect("1 2 D D s ZT");
        c.send(pipeline().execute_rows("p", 2).execute_rows("p", 2).execute_rows("p", 2).sync());
        c.expect("D D s D C C ZT");
        c.query("COMMIT");
        c.send(pipeline().execute("p").sync());
        c.expect("E:34000 ZI");
    });
}

#[test]
fn trap_57_a_portal_ends_with_the_implicit_transaction() {
    differential("", |c| {
        let rows = "SELECT generate_series(1, 5)";
        c.send(pipeline().parse("", rows, &[]).bind("p", "", &[]).execute_rows("p", 2).flush());
        c.expect("1 2 D D s");
        c.send(pipeline().execute_rows("p", 1).sync().execute("p").sync());
        c.expect("D s ZI E:34000 ZI");
    });
}

#[test]
fn trap_57_several_portals_take_turns() {
    differential("", |c| {
        c.query("BEGIN");
        c.send(
            pipeline()
                .parse("s", "SELECT $1 || n FROM generate_series(1, 4) n", &[25])
                .bind("p1", "s", &[Some("a")])
                .bind("p2", "s", &[Some("b")])
                .execute_rows("p1", 1)
                .execute_rows("p2", 2)
                .execute_rows("p1", 1)
                .sync(),
        );
        c.expect("1 2 2 D s D D s D s ZT");
        c.send(pipeline().close(Of::Portal("p1")).execute("p2").execute("p1").sync());
        c.expect("3 D D C E:34000 ZE");
        c.query("ROLLBACK");
    });
}

#[test]
fn trap_58_describes_without_executes_and_executes_without_describes() {
    differential("", |c| {
        c.send(
            pipeline()
                .parse("s", "SELECT $1::int AS a, 'x' AS b", &[])
                .describe(Of::Statement("s"))
                .describe(Of::Statement("s"))
                .sync(),
        );
        c.expect("1 t T t T ZI");
        c.send(pipeline().describe(Of::Statement("s")).execute("").sync());
        c.expect("t T E:34000 ZI");
        c.send(
            pipeline().parse("n", "CREATE TABLE never ()", &[]).describe(Of::Statement("n")).sync(),
        );
        c.expect("1 t n ZI");
    });
}

#[test]
fn trap_56_the_bind_decides_about_result_formats() {
    differential("", |c| {
        c.send(
            pipeline()
                .parse("", "SELECT $1::int4 AS a, 'x'::text AS b", &[])
                .bind_formats("", "", &[1], &[Some(&[0, 0, 1, 0])], &[1, 0])
                .describe(Of::Portal(""))
                .execute("")
                .sync(),
        );
        let messages = c.expect("1 2 T D C ZI");
        assert!(messages[2].describe().starts_with("T a:23:1 b:25:0"));
    });
}

#[test]
fn trap_64_a_batch_is_one_transaction() {
    differential("DROP TABLE IF EXISTS t64; CREATE TABLE t64 (a int)", |c| {
        c.send(
            unnamed("INSERT INTO t64 VALUES (1)")
                .raw(unnamed("SELECT count(*) FROM t64").bytes())
                .raw(unnamed("SELECT 1/0").bytes())
                .sync(),
        );
        c.expect("1 2 C 1 2 D C 1 E:22012 ZI");
        assert_eq!(c.value("SELECT count(*) FROM t64"), Some("0".to_owned()));
    });
}

#[test]
fn transactions_by_the_extended_protocol() {
    differential("DROP TABLE IF EXISTS text; CREATE TABLE text (a int)", |c| {
        c.send(unnamed("BEGIN").sync().raw(unnamed("INSERT INTO text VALUES (1)").bytes()).sync());
        c.expect("1 2 C ZT 1 2 C ZT");
        c.send(unnamed("SAVEPOINT s").raw(unnamed("SELECT 1/0").bytes()).sync());
        c.expect("1 2 C 1 E:22012 ZE");
        c.send(unnamed("ROLLBACK TO s").sync().raw(unnamed("COMMIT").bytes()).sync());
        c.expect("1 2 C ZT 1 2 C ZI");
        assert_eq!(c.value("SELECT count(*) FROM text"), Some("1".to_owned()));
    });
}

#[test]
fn a_large_batch_and_its_large_answers_do_not_block_each_other() {
    differential("", |c| {
        let text = "x".repeat(100_000);
        let mut batches = pipeline().parse("s", "SELECT $1::text", &[]);
        for _ in 0..40 {
            batches = batches.bind("", "s", &[Some(&text)]).execute("");
        }
        c.send(batches.sync());
        let messages = c.read_until_ready();
        assert_eq!(messages.iter().filter(|message| message.tag == b'D').count(), 40);
    });
}
