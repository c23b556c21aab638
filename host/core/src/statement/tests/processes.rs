//! Forms about server processes that are taken, and what stands in for them.

use super::*;

fn process(sql: &str) -> Option<ProcessCommand> {
    analyse(sql.as_bytes()).process.map(|command| *command)
}

fn numbered(sql: &str) -> Option<String> {
    let Some(ProcessCommand::Number(calls)) = process(sql) else { return None };
    Some(String::from_utf8(with_number(sql.as_bytes(), &calls, 4_194_305)).unwrap())
}

fn signal(sql: &str) -> Option<SignalCall> {
    match process(sql)? {
        ProcessCommand::Signal(call) => Some(call),
        ProcessCommand::Number(_) => None,
    }
}

#[test]
fn the_own_number_stands_where_it_is_selected_beside_plain_values() {
    const N: &str = "(SELECT 4194305 AS pg_backend_pid)";
    for sql in [
        "SELECT @",
        "select @ as pid;",
        "/* a */ Select @ \"Pid\" -- b",
        "SELECT @::text, 1 AS one, 'it', current_user, version() v, @::int4 AS again;",
        "SELECT now(), pg_catalog.current_database(), @",
    ] {
        let wanted = sql.replace('@', N);
        for call in ["pg_backend_pid()", "PG_BACKEND_PID ( )", "pg_catalog.pg_backend_pid()"] {
            assert_eq!(numbered(&sql.replace('@', call)), Some(wanted.clone()), "{sql}");
        }
    }
}

#[test]
fn what_may_meet_a_servers_number_is_left_as_it_is() {
    for sql in [
        "SELECT * FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        "SELECT pid FROM pg_backend_pid() AS pid",
        "SELECT pg_backend_pid() FROM t",
        "SELECT pg_backend_pid() = 12",
        "SELECT pg_backend_pid() WHERE true",
        "SELECT f(pg_backend_pid())",
        "SELECT pg_blocking_pids(pg_backend_pid())",
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "SELECT public.pg_backend_pid()",
        "SELECT pg_backend_pid(1)",
        "SELECT DISTINCT pg_backend_pid()",
        "SELECT pg_backend_pid(); SELECT 1",
        "SELECT $1, pg_backend_pid()",
        "SELECT pg_backend_pid()::smallint",
        "SELECT pg_backend_pid() UNION SELECT 1",
        "SELECT pg_backend_pid() INTO t",
        "CREATE TABLE t (a int DEFAULT pg_backend_pid())",
        "INSERT INTO t VALUES (pg_backend_pid())",
        "EXPLAIN SELECT pg_backend_pid()",
        "VALUES (pg_backend_pid())",
        "SELECT 'pg_backend_pid()'",
        "SELECT 1, pg_terminate_backend(5000000)",
        "SELECT pg_terminate_backend(5000000), pg_backend_pid()",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_terminate_backend($2)",
        "SELECT pg_terminate_backend($1, $2)",
        "SELECT pg_terminate_backend($1::text::int)",
        "SELECT pg_terminate_backend(99999999999)",
        "SELECT pg_terminate_backend(-5000000)",
        "SELECT pg_cancel_backend(5000000, 1)",
        "SELECT pg_terminate_backend(5000000) FROM t",
    ] {
        assert_eq!(process(sql), None, "{sql}");
    }
}

#[test]
fn a_signal_has_texts_that_answer_for_it() {
    let call = signal("SELECT pg_terminate_backend(5000000, 1000) AS gone").unwrap();
    assert_eq!((call.signal, call.process), (Signal::Terminate, ProcessNamed::Literal(5_000_000)));
    let sql = "select PG_CATALOG.pg_cancel_backend( $1::int );";
    let call = signal(sql).unwrap();
    assert_eq!((call.signal, call.process), (Signal::Cancel, ProcessNamed::Parameter));
    assert!(call.has_cast());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(
        text(call.answered(sql.as_bytes())),
        "select (SELECT ($1::int)::pg_catalog.int4 IS NOT NULL AS pg_cancel_backend);"
    );
    assert_eq!(
        text(call.to_itself(sql.as_bytes())),
        "select PG_CATALOG.pg_cancel_backend( CASE WHEN ($1::int)::pg_catalog.int4 IS NOT NULL \
         THEN pg_catalog.pg_backend_pid() END );"
    );
    assert!(!signal("SELECT pg_cancel_backend($1)").unwrap().has_cast());
}
