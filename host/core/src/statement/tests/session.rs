//! Traps 80 to 96: commands that leave state, end it, or move transactions.

use super::*;

#[test]
fn trap_80_to_84_settings() {
    check(&[
        ("SET work_mem = '1MB'", "SETS"),
        ("set session work_mem to '1MB';", "SETS"),
        ("SET LOCAL work_mem = '1MB'", ""),
        ("SET myapp.user_id = '1'", "SETS"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", ""),
        ("SET LOCAL TRANSACTION READ ONLY", ""),
        ("SET CONSTRAINTS ALL DEFERRED", ""),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SETS"),
        ("SET TIME ZONE 'UTC'", "SETS"),
        ("SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE", "SETS"),
        ("SET NAMES 'utf8'", "SETS"),
        ("SET SCHEMA 'app'", "SETS"),
        ("SET ROLE alice", "SETS SESSION_AUTHORIZATION"),
        ("SET role = alice", "SETS SESSION_AUTHORIZATION"),
        ("SET LOCAL ROLE alice", ""),
        ("SET SESSION ROLE alice", "SETS SESSION_AUTHORIZATION"),
        ("SET SESSION AUTHORIZATION bob", "SETS SESSION_AUTHORIZATION"),
        ("SET SESSION SESSION AUTHORIZATION bob", "SETS SESSION_AUTHORIZATION"),
        ("SET LOCAL SESSION AUTHORIZATION bob", ""),
        ("RESET ROLE", "SETS SESSION_AUTHORIZATION"),
        ("RESET SESSION AUTHORIZATION", "SETS SESSION_AUTHORIZATION"),
        ("SELECT set_config('role', 'bob', false)", "SETS SESSION_AUTHORIZATION"),
        ("RESET work_mem", "SETS"),
        ("RESET ALL", "RESET_ALL"),
        ("SET XML OPTION DOCUMENT", "SETS"),
        ("SET SEED TO 0.5", "SETS SEED"),
        ("SET nonsense", "SETS UNKNOWN_SETTINGS"),
        ("SET", "SETS UNKNOWN_SETTINGS"),
        ("SHOW work_mem", ""),
        ("SHOW ALL", ""),
        ("ALTER SYSTEM SET work_mem = '1MB'", "DDL"),
        ("ALTER ROLE alice SET work_mem = '1MB'", "DDL"),
        ("UPDATE pg_settings SET setting = 'x' WHERE name = 'y'", "SETS UNKNOWN_SETTINGS"),
        ("UPDATE pg_catalog.pg_settings SET setting = 'x'", "SETS UNKNOWN_SETTINGS"),
        ("UPDATE \"pg_settings\" SET setting = 'x'", "SETS UNKNOWN_SETTINGS"),
        ("WITH u AS (UPDATE pg_settings SET setting = 1) SELECT 1", "SETS UNKNOWN_SETTINGS"),
        ("SELECT name, setting FROM pg_settings", ""),
    ]);
}

#[test]
fn trap_86_advisory_locks() {
    check(&[
        ("SELECT pg_advisory_lock(1)", "ADVISORY_LOCK"),
        ("SELECT pg_try_advisory_lock(1, 2)", "ADVISORY_LOCK"),
        ("SELECT pg_advisory_lock_shared(1)", "ADVISORY_LOCK"),
        ("SELECT pg_try_advisory_lock_shared(1)", "ADVISORY_LOCK"),
        ("SELECT pg_catalog.pg_advisory_lock(1)", "ADVISORY_LOCK"),
        ("SELECT PG_Advisory_Lock (1)", "ADVISORY_LOCK"),
        ("SELECT \"pg_advisory_lock\"(1)", "ADVISORY_LOCK"),
        ("SELECT \"pg_catalog\" . \"pg_advisory_lock\" (1)", "ADVISORY_LOCK"),
        ("SELECT db.pg_catalog.pg_advisory_lock(1)", "ADVISORY_LOCK"),
        ("SELECT pg_advisory_lock/* so */(1)", "ADVISORY_LOCK"),
        ("SELECT 1 FROM t WHERE pg_try_advisory_lock(t.id)", "ADVISORY_LOCK"),
        ("PREPARE p AS SELECT pg_advisory_lock($1)", "PREPARES ADVISORY_LOCK"),
        ("SELECT pg_advisory_xact_lock(1)", ""),
        ("SELECT pg_try_advisory_xact_lock_shared(1)", ""),
        ("SELECT pg_advisory_unlock(1)", "ADVISORY_UNLOCK"),
        ("SELECT pg_advisory_unlock_shared(1)", "ADVISORY_UNLOCK"),
        ("SELECT pg_advisory_unlock_all()", "ADVISORY_UNLOCK"),
    ]);
}

#[test]
fn trap_87_temporary_objects() {
    check(&[
        ("CREATE TEMP TABLE t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE TEMPORARY TABLE IF NOT EXISTS t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE LOCAL TEMP TABLE t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE GLOBAL TEMPORARY TABLE t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", "DDL TEMP_OBJECTS"),
        ("CREATE OR REPLACE TEMP VIEW v AS SELECT 1", "DDL TEMP_OBJECTS"),
        ("CREATE TEMP SEQUENCE s", "DDL TEMP_OBJECTS"),
        ("CREATE/**/TEMP/**/TABLE t()", "DDL TEMP_OBJECTS"),
        ("CREATE TABLE pg_temp.t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE TABLE \"pg_temp\".t (a int)", "DDL TEMP_OBJECTS"),
        ("CREATE TYPE pg_temp_3.t AS (a int)", "DDL TEMP_OBJECTS"),
        ("SELECT 1 INTO TEMP t", "DDL TEMP_OBJECTS"),
        ("SELECT 1 AS a INTO TEMPORARY TABLE t FROM x", "DDL TEMP_OBJECTS"),
        ("WITH x AS (SELECT 1) SELECT * INTO LOCAL TEMP t FROM x", "DDL TEMP_OBJECTS"),
        ("SELECT 1 INTO t", "DDL"),
        ("INSERT INTO temp (a) VALUES (1)", ""),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", "TEMP_OBJECTS"),
        ("CREATE UNLOGGED TABLE t (a int)", "DDL"),
        ("CREATE TABLE t (temp int)", "DDL"),
        ("SELECT temp, temporary FROM weather", ""),
        ("SET search_path = pg_temp, public", "SETS TEMP_OBJECTS SESSION_BOUND"),
        ("SET search_path = 'PG_TEMP'", "SETS TEMP_OBJECTS SESSION_BOUND"),
        ("SET SCHEMA 'pg_temp'", "SETS TEMP_OBJECTS SESSION_BOUND"),
        ("SET search_path = E'\\160g_temp'", "SETS TEMP_OBJECTS SESSION_BOUND"),
        ("SET LOCAL search_path = pg_temp", "TEMP_OBJECTS"),
        ("SELECT set_config('search_path', 'pg_temp', false)", "SETS TEMP_OBJECTS SESSION_BOUND"),
        ("DROP TABLE t", "DDL DROPS"),
        ("DISCARD TEMP", "DISCARD_TEMP DROPS"),
        ("DISCARD TEMPORARY", "DISCARD_TEMP DROPS"),
    ]);
}

#[test]
fn trap_88_cursors() {
    check(&[
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "HOLD_CURSOR"),
        ("DECLARE c BINARY SCROLL CURSOR WITH HOLD FOR SELECT 1", "HOLD_CURSOR"),
        ("DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", ""),
        ("DECLARE c CURSOR FOR SELECT 1", ""),
        ("FETCH 10 FROM c", ""),
        ("FETCH FORWARD ALL IN c", ""),
        ("MOVE c", ""),
        ("CLOSE c", "CLOSES_CURSOR"),
        ("CLOSE ALL", "CLOSES_CURSOR"),
    ]);
}

#[test]
fn trap_89_notifications() {
    check(&[
        ("LISTEN events", "LISTEN"),
        ("listen \"Events\"", "LISTEN"),
        ("UNLISTEN events", "UNLISTEN"),
        ("UNLISTEN *", "UNLISTEN"),
        ("NOTIFY events, 'x'", ""),
        ("SELECT pg_notify('events', 'x')", ""),
        ("SELECT 'LISTEN events'", ""),
    ]);
}

#[test]
fn trap_90_other_session_state() {
    check(&[
        ("SELECT setseed(0.5)", "SEED"),
        ("SELECT random()", ""),
        ("SELECT currval('s')", "SEQUENCE_STATE"),
        ("SELECT lastval()", "SEQUENCE_STATE"),
        ("SELECT nextval('s')", ""),
        ("LOAD 'auto_explain'", "LOADS"),
        ("CREATE FUNCTION f(int) RETURNS int AS 'my_library' LANGUAGE C STRICT", "LOADS DDL"),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE 'c' AS 'l', 'f'", "LOADS DDL"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1 -- LANGUAGE C'", "DDL"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'int4mi'", "DDL"),
        ("ALTER LANGUAGE c OWNER TO me", "DDL"),
        ("SELECT lo_open(1, 2)", "LARGE_OBJECT_DESCRIPTOR"),
        ("SELECT lo_get(1)", ""),
        ("SELECT dblink_connect('c', 'dbname=x')", "UNKNOWN_SETTINGS"),
        ("SELECT pg_create_logical_replication_slot('s', 'p', true)", "SESSION_BOUND"),
        ("SELECT pg_replication_origin_session_setup('o')", "SESSION_BOUND"),
        ("SELECT pg_backup_start('b')", "SESSION_BOUND"),
        ("IDENTIFY_SYSTEM", "SESSION_BOUND"),
        ("START_REPLICATION 0/0", "SESSION_BOUND"),
        ("CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL", "SESSION_BOUND"),
        ("SET session_replication_role = replica", "SETS"),
        ("PREPARE TRANSACTION 'x'", "TWO_PHASE ENDS"),
        ("COMMIT PREPARED 'x'", "TWO_PHASE"),
        ("ROLLBACK PREPARED 'x'", "TWO_PHASE"),
        ("DO $$ begin perform set_config('a.b', 'c', false); end $$", "DDL UNKNOWN_SETTINGS"),
        ("DO LANGUAGE plpgsql 'begin end'", "DDL UNKNOWN_SETTINGS"),
        ("CALL refresh()", "UNKNOWN_SETTINGS"),
        ("CALL pg_catalog.now()", "UNKNOWN_SETTINGS"),
        ("CREATE EXTENSION hstore", "DDL UNKNOWN_SETTINGS"),
        ("ALTER EXTENSION hstore UPDATE", "DDL UNKNOWN_SETTINGS"),
        ("SELECT query_to_xml('select set_config(1)', true, true, '')", "UNKNOWN_SETTINGS"),
        ("SELECT ts_stat('select 1')", "UNKNOWN_SETTINGS"),
        ("WAIT FOR LSN '0/1'", "UNKNOWN_SETTINGS"),
    ]);
}

#[test]
fn trap_60_61_prepared_statements_and_discard() {
    check(&[
        ("PREPARE p AS SELECT 1", "PREPARES"),
        ("PREPARE p (int, text) AS SELECT $1, $2", "PREPARES"),
        ("PREPARE transaction AS SELECT 1", "PREPARES"),
        ("PREPARE transaction (int) AS SELECT 1", "PREPARES"),
        ("EXECUTE p", "EXECUTES UNKNOWN_SETTINGS"),
        ("EXECUTE p (1, now())", "EXECUTES UNKNOWN_SETTINGS"),
        ("EXPLAIN EXECUTE p", "EXECUTES UNKNOWN_SETTINGS"),
        ("EXPLAIN (ANALYZE, BUFFERS) EXECUTE p(1)", "EXECUTES UNKNOWN_SETTINGS"),
        ("CREATE TABLE t AS EXECUTE p(1)", "DDL EXECUTES UNKNOWN_SETTINGS"),
        ("GRANT EXECUTE ON FUNCTION f(int) TO bob", "DDL"),
        ("CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f()", "DDL"),
        ("DEALLOCATE p", "DEALLOCATES"),
        ("DEALLOCATE PREPARE p", "DEALLOCATES"),
        ("DEALLOCATE ALL", "DEALLOCATES"),
        ("DEALLOCATE PREPARE ALL", "DEALLOCATES"),
        ("DISCARD ALL", "DISCARD_ALL DROPS"),
        ("DISCARD PLANS", "DISCARD_PLANS DROPS"),
        ("DISCARD SEQUENCES", "DISCARD_SEQUENCES DROPS"),
    ]);
}

#[test]
fn trap_94_96_transactions() {
    check(&[
        ("BEGIN", "BEGINS"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "BEGINS"),
        ("START TRANSACTION READ ONLY", "BEGINS"),
        ("COMMIT", "ENDS"),
        ("COMMIT WORK AND NO CHAIN", "ENDS"),
        ("COMMIT AND CHAIN", "ENDS CHAINS"),
        ("END TRANSACTION AND CHAIN", "ENDS CHAINS"),
        ("ROLLBACK", "ENDS DROPS"),
        ("ABORT WORK", "ENDS DROPS"),
        ("ROLLBACK AND CHAIN", "ENDS DROPS CHAINS"),
        ("SAVEPOINT s", ""),
        ("RELEASE SAVEPOINT s", ""),
        ("ROLLBACK TO s", "DROPS"),
        ("ROLLBACK WORK TO SAVEPOINT s", "DROPS"),
        ("BEGIN; SELECT 1; COMMIT", "BEGINS ENDS"),
    ]);
}

#[test]
fn copy_has_a_direction() {
    check(&[
        ("COPY t FROM STDIN", "COPY_FROM"),
        ("COPY t (a, b) FROM STDIN WITH (FORMAT csv)", "COPY_FROM"),
        ("COPY s.t (a, b) FROM '/x' CSV", "COPY_FROM"),
        ("COPY t TO STDOUT (FORMAT binary)", "COPY_TO"),
        ("COPY (SELECT a FROM t) TO STDOUT", "COPY_TO"),
        ("COPY (INSERT INTO t (a) VALUES (1) RETURNING a) TO STDOUT", "COPY_TO"),
        ("COPY (SELECT set_config('a.b', 'x', false)) TO STDOUT", "COPY_TO SETS"),
    ]);
}

#[test]
fn the_first_statement_gives_the_kind() {
    for (sql, kind, statements) in [
        ("", Kind::Empty, 0),
        (" ; ;-- x\n/* y */", Kind::Empty, 0),
        ("select 1", Kind::Select, 1),
        ("((select 1) union (select 2))", Kind::Select, 1),
        ("(values (1))", Kind::Values, 1),
        (";;select 1;;", Kind::Select, 1),
        ("with x as (select 1) select 1", Kind::With, 1),
        ("insert into t values (1); select 1", Kind::Insert, 2),
        ("select 1; insert into t values (1)", Kind::Select, 2),
        ("rollback to s", Kind::RollbackTo, 1),
        ("rollback; rollback to s", Kind::Rollback, 2),
        ("abort", Kind::Rollback, 1),
        ("end", Kind::Commit, 1),
        ("commit prepared 'x'", Kind::FinishPrepared, 1),
        ("prepare transaction 'x'", Kind::PrepareTransaction, 1),
        ("prepare x as select 1", Kind::Prepare, 1),
        ("set local a.b = 1", Kind::SetLocal, 1),
        ("set a.b = 1; set local a.b = 1", Kind::Set, 2),
        ("set transaction read only", Kind::SetTransaction, 1),
        ("truncate t", Kind::Truncate, 1),
        ("vacuum (analyze) t", Kind::Maintenance, 1),
        ("explain select 1", Kind::Explain, 1),
        ("select_x", Kind::Other, 1),
    ] {
        let analysis = analyse(sql.as_bytes());
        assert_eq!((analysis.kind, analysis.statements), (kind, statements), "{sql}");
    }
}
