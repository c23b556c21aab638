//! Query, FunctionCall, and the state of transactions.

use tidegate_test_support::{differential, pipeline};

#[test]
fn trap_34_empty_queries_have_their_own_answer() {
    differential("", |c| {
        for sql in ["", ";", " ;; ", "  \n\t", "-- a comment", "/* another /* nested */ */"] {
            c.send(pipeline().query(sql));
            c.expect("I ZI");
        }
        c.send(pipeline().parse("", "", &[]).bind("", "", &[]).execute("").sync());
        c.expect("1 2 I ZI");
    });
}

#[test]
fn trap_35_several_statements_are_one_transaction() {
    differential("DROP TABLE IF EXISTS t35; CREATE TABLE t35 (a int)", |c| {
        c.send(
            pipeline().query("INSERT INTO t35 VALUES (1); SELECT 2; INSERT INTO t35 VALUES (3)"),
        );
        c.expect("C T D C C ZI");
        c.send(
            pipeline().query("INSERT INTO t35 VALUES (4); SELECT 1/0; INSERT INTO t35 VALUES (5)"),
        );
        c.expect("C E:22012 ZI");
        c.send(pipeline().query("INSERT INTO t35 VALUES (6); BEGIN; INSERT INTO t35 VALUES (7)"));
        c.expect("C C C ZT");
        c.query("ROLLBACK");
        c.send(pipeline().query("BEGIN; INSERT INTO t35 VALUES (8); COMMIT; SELECT 1/0"));
        c.expect("C C C E:22012 ZI");
        c.query("VACUUM t35; SELECT 1");
        c.query("SELECT array_agg(a ORDER BY a) FROM t35");
    });
}

#[test]
fn trap_36_the_state_after_rollback_to() {
    differential("", |c| {
        c.query("BEGIN");
        c.query("SAVEPOINT s");
        c.send(pipeline().query("SELECT nope"));
        c.expect("E:42703 ZE");
        c.send(pipeline().query("SELECT 1"));
        c.expect("E:25P02 ZE");
        c.send(pipeline().query("ROLLBACK TO s"));
        c.expect("C ZT");
        c.query("RELEASE s");
        c.query("COMMIT");
    });
}

#[test]
fn trap_37_commit_of_a_failed_transaction_says_rollback() {
    differential("", |c| {
        c.query("BEGIN");
        c.query("SELECT 1/0");
        c.send(pipeline().query("COMMIT"));
        assert_eq!(c.expect("C ZI")[0].text(), "ROLLBACK");
    });
}

#[test]
fn trap_39_function_calls() {
    differential("", |c| {
        const INT4ABS: u32 = 1397;
        c.send(pipeline().function_call(INT4ABS, &[Some(b"-5")]));
        c.expect("V ZI");
        c.query("BEGIN");
        c.send(pipeline().function_call(INT4ABS, &[None]));
        c.expect("V ZT");
        c.send(pipeline().function_call(1, &[]));
        c.expect("E:42883 ZE");
        c.query("ROLLBACK");
    });
}

#[test]
fn trap_40_an_unknown_message_ends_the_connection() {
    differential("", |c| {
        c.send(pipeline().message(b'y', b"?"));
        assert_eq!(c.expect("E:08P01 (end)")[0].field(b'V').as_deref(), Some("FATAL"));
    });
}

#[test]
fn trap_94_warnings_about_transactions() {
    differential("", |c| {
        c.query("COMMIT");
        c.query("ROLLBACK");
        c.query("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
        c.query("BEGIN");
        c.query("SHOW transaction_isolation");
        c.query("SHOW transaction_read_only");
        c.query("COMMIT");
        c.query("BEGIN");
        c.query("COMMIT");
        c.query("SAVEPOINT s");
    });
}

#[test]
fn trap_96_a_chained_transaction_stays_open() {
    differential("DROP TABLE IF EXISTS t96; CREATE TABLE t96 (a int)", |c| {
        c.query("BEGIN ISOLATION LEVEL SERIALIZABLE");
        c.query("INSERT INTO t96 VALUES (1)");
        c.send(pipeline().query("COMMIT AND CHAIN"));
        c.expect("C ZT");
        c.query("SHOW transaction_isolation");
        c.query("INSERT INTO t96 VALUES (2)");
        c.query("ROLLBACK AND CHAIN");
        c.query("ROLLBACK");
        c.query("SELECT count(*) FROM t96");
    });
}

#[test]
fn queries_sent_without_waiting_are_answered_in_order() {
    differential("", |c| {
        let mut queries = pipeline();
        for n in 0..200 {
            queries = queries.query(&format!("SELECT {n}"));
        }
        c.send(queries);
        for n in 0..200 {
            assert_eq!(c.expect("T D C ZI")[1].row(), [Some(n.to_string())]);
        }
    });
}

#[test]
fn messages_arrive_in_pieces_of_any_size() {
    differential("", |c| {
        let batch = pipeline()
            .parse("s", "SELECT $1::text", &[])
            .bind("", "s", &[Some("some text")])
            .execute("")
            .sync()
            .query("SELECT 1");
        for size in [1, 2, 3, 5, 8, 13] {
            for piece in batch.bytes().chunks(size) {
                c.send(piece);
            }
            c.expect("1 2 D C ZI T D C ZI");
            c.query("DEALLOCATE ALL");
        }
    });
}

#[test]
fn errors_and_notices_arrive_whole() {
    differential("DROP TABLE IF EXISTS twhole; CREATE TABLE twhole (a int PRIMARY KEY)", |c| {
        c.query("INSERT INTO twhole VALUES (1)");
        c.query("INSERT INTO twhole VALUES (1)");
        c.query("SELECT * FROM twhol");
        c.query("SELECT a FROM twhole WHERE");
        c.query(
            "DO $$ BEGIN RAISE NOTICE 'n' USING DETAIL = 'd', HINT = 'h'; \
             RAISE EXCEPTION 'e' USING ERRCODE = 'AB123', DETAIL = 'd', HINT = 'h'; END $$",
        );
        c.query("DROP TABLE IF EXISTS not_there");
    });
}

#[test]
fn a_wide_result_and_a_long_value() {
    differential("", |c| {
        let columns = (0..1600).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        c.query(&format!("SELECT {columns}"));
        c.query("SELECT repeat('x', 3000000)");
        c.query(&format!("SELECT length('{}')", "y".repeat(3_000_000)));
    });
}
