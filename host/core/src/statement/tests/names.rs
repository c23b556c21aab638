//! Names: settings, SQL-level prepared statements, and Tidegate's own settings.

use super::*;

use PreparedTouched::{Deallocate, DeallocateAll, Execute, Prepare};
use SettingTouched::{Reset, ResetAll, Set, SetLocal};

fn set(name: &str) -> SettingTouched {
    Set(name.to_owned())
}

fn local(name: &str) -> SettingTouched {
    SetLocal(name.to_owned())
}

fn reset(name: &str) -> SettingTouched {
    Reset(name.to_owned())
}

#[test]
fn settings_have_canonical_names() {
    for (sql, names) in [
        ("SET Work_Mem = 1", vec![set("work_mem")]),
        ("SET \"Work_Mem\" TO 1", vec![set("work_mem")]),
        ("SET sort_mem = 1", vec![set("work_mem")]),
        ("SET SESSION a.B.c TO 1", vec![set("a.b.c")]),
        ("SET LOCAL a.\"B\" = 1", vec![local("a.b")]),
        ("SET search_path TO a, \"b\"", vec![set("search_path")]),
        ("SET SCHEMA 'a'", vec![set("search_path")]),
        ("SET TIME ZONE 'UTC'", vec![set("timezone")]),
        ("SET TIME ZONE LOCAL", vec![reset("timezone")]),
        ("SET LOCAL TIME ZONE DEFAULT", vec![local("timezone")]),
        ("SET timezone TO DEFAULT", vec![reset("timezone")]),
        ("SET time = 1", vec![set("time")]),
        ("SET NAMES 'UTF8'", vec![set("client_encoding")]),
        ("SET NAMES", vec![reset("client_encoding")]),
        ("SET ROLE NONE", vec![set("role")]),
        ("SET LOCAL ROLE x", vec![local("role")]),
        ("SET SESSION AUTHORIZATION DEFAULT", vec![reset("session_authorization")]),
        ("SET XML OPTION CONTENT", vec![set("xmloption")]),
        ("RESET Work_Mem", vec![reset("work_mem")]),
        ("RESET ALL", vec![ResetAll]),
        ("RESET TIME ZONE", vec![reset("timezone")]),
        ("RESET SESSION AUTHORIZATION", vec![reset("session_authorization")]),
        ("SET a.b=1; RESET c.d; SET LOCAL e.f = 2", vec![set("a.b"), reset("c.d"), local("e.f")]),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE",
            vec![
                set("default_transaction_isolation"),
                set("default_transaction_read_only"),
                set("default_transaction_deferrable"),
            ],
        ),
        (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
            vec![set("default_transaction_isolation")],
        ),
        ("SELECT 'SET a.b = 1'", vec![]),
        ("ALTER DATABASE d SET a.b = 1", vec![]),
        ("CREATE FUNCTION f() RETURNS int SET a.b = 1 AS 'x' LANGUAGE sql", vec![]),
    ] {
        assert_eq!(analyse(sql.as_bytes()).names, names, "{sql}");
    }
}

#[test]
fn set_config_with_literals() {
    for (call, names, expected) in [
        ("set_config('Search_Path', '', false)", vec![set("search_path")], "SETS"),
        ("pg_catalog.set_config('search_path', '', false)", vec![set("search_path")], "SETS"),
        ("set_config('a.b', $1, true)", vec![local("a.b")], ""),
        ("set_config('a.b', $1::text, TRUE)", vec![local("a.b")], ""),
        ("set_config('a.b', 'x', $2)", vec![set("a.b")], "SETS"),
        ("set_config('a.b', f('x', true), false)", vec![set("a.b")], "SETS UNKNOWN_SETTINGS"),
        ("set_config('a.b', 'x' || 'y', true)", vec![set("a.b")], "SETS"),
        ("set_config('a.b', 'x', true or false)", vec![set("a.b")], "SETS"),
        ("set_config('a.b', 'x', not true)", vec![set("a.b")], "SETS"),
        ("set_config(E'a.b', 'x', true)", vec![local("a.b")], ""),
        ("set_config($1, 'x', true)", vec![], "SETS UNKNOWN_SETTINGS"),
        ("set_config(E'a\\056b', 'x', true)", vec![], "SETS UNKNOWN_SETTINGS"),
        ("set_config(U&'a', 'x', true)", vec![], "SETS UNKNOWN_SETTINGS"),
        ("set_config('a.' || 'b', 'x', true)", vec![], "SETS UNKNOWN_SETTINGS"),
        ("set_config('a.'\n'b', 'x', true)", vec![], "SETS UNKNOWN_SETTINGS"),
        (
            "set_config(setting_name => 'a.b', new_value => 'x', is_local => true)",
            vec![],
            "SETS UNKNOWN_SETTINGS",
        ),
    ] {
        let sql = format!("SELECT {call}");
        let analysis = analyse(sql.as_bytes());
        assert_eq!(analysis.names, names, "{sql}");
        assert_eq!(analysis.effects, effects(expected), "{sql}");
    }
}

#[test]
fn prepared_statements_by_name() {
    let long = "n".repeat(70);
    let cut = "n".repeat(63);
    for (sql, expected) in [
        ("PREPARE Foo AS SELECT 1", vec![Prepare("foo".into())]),
        ("PREPARE \"Foo\"\"x\" (int) AS SELECT 1", vec![Prepare("Foo\"x".into())]),
        ("PREPARE transaction AS SELECT 1", vec![Prepare("transaction".into())]),
        ("EXECUTE \"Foo\"(1)", vec![Execute("Foo".into())]),
        ("EXPLAIN ANALYZE EXECUTE foo(1)", vec![Execute("foo".into())]),
        ("CREATE TABLE t AS EXECUTE foo", vec![Execute("foo".into())]),
        ("DEALLOCATE foo", vec![Deallocate("foo".into())]),
        ("DEALLOCATE PREPARE \"Foo\"", vec![Deallocate("Foo".into())]),
        ("DEALLOCATE prepare", vec![Deallocate("prepare".into())]),
        ("DEALLOCATE \"all\"", vec![Deallocate("all".into())]),
        ("DEALLOCATE all; DEALLOCATE PREPARE ALL", vec![DeallocateAll, DeallocateAll]),
        (&format!("DEALLOCATE {long}"), vec![Deallocate(cut)]),
    ] {
        assert_eq!(analyse(sql.as_bytes()).prepared, expected, "{sql}");
    }
}

#[test]
fn virtual_settings_are_commands_when_alone() {
    let set = |name: &str, value: &str| {
        Some(TidegateCommand::Set { name: name.into(), value: value.into() })
    };
    for (sql, expected) in [
        ("SET tidegate.route = 'replica'", set("route", "replica")),
        ("set TideGate.Route to Replica;", set("route", "replica")),
        ("SET SESSION \"tidegate\".\"route\" = 'it''s'", set("route", "it's")),
        ("SET tidegate.x = 1.5", set("x", "1.5")),
        ("SET tidegate.x = -1 ;", set("x", "-1")),
        ("SET tidegate.a.b = on", set("a.b", "on")),
        (
            "SET LOCAL tidegate.route = replica",
            Some(TidegateCommand::SetLocal { name: "route".into(), value: "replica".into() }),
        ),
        ("SET tidegate.route TO DEFAULT", Some(TidegateCommand::Reset { name: "route".into() })),
        ("RESET tidegate.route", Some(TidegateCommand::Reset { name: "route".into() })),
        ("/* x */ SHOW tidegate.route ;", Some(TidegateCommand::Show { name: "route".into() })),
        ("SET tidegate.x = a, b", None),
        ("SET tidegate.x = 'a' 'b'", None),
        ("SET tidegate.x = E'a\\n'", None),
        ("SET tidegate.x = 1; SELECT 1", None),
        ("SELECT 1; SHOW tidegate.x", None),
    ] {
        let analysis = analyse(sql.as_bytes());
        assert_eq!(analysis.tidegate.as_deref(), expected.as_ref(), "{sql}");
        assert_eq!(analysis.effects, Effects::TIDEGATE_SET, "{sql}");
    }
    for (sql, name) in [
        ("SET tidegate.Route = x", self::set("tidegate.route")),
        ("SET LOCAL tidegate.route = x", local("tidegate.route")),
        ("SET tidegate.route TO DEFAULT", reset("tidegate.route")),
        ("RESET tidegate.route", reset("tidegate.route")),
    ] {
        assert_eq!(analyse(sql.as_bytes()).names, [name], "{sql}");
    }
    assert_eq!(analyse(b"SET tidegatex.route = 1").effects, Effects::SETS);
    assert_eq!(analyse(b"SHOW tidegatex.route").effects, Effects::NONE);
}

#[test]
fn databases_that_nobody_may_be_connected_to() {
    for (sql, expected) in [
        ("DROP DATABASE Shop", vec!["shop"]),
        ("drop database if exists \"A b\" with (force)", vec!["A b"]),
        ("DROP DATABASE a; DROP DATABASE IF EXISTS b", vec!["a", "b"]),
        ("DROP TABLE database", vec![]),
        ("ALTER DATABASE b SET x.y TO 1", vec![]),
        ("ALTER DATABASE \"B\" RENAME TO c", vec!["B"]),
        ("alter database b set tablespace fast", vec!["b"]),
        ("ALTER DATABASE b OWNER TO c", vec![]),
        ("ALTER ROLE b RENAME TO c", vec![]),
        ("CREATE DATABASE a", vec!["template1"]),
        ("CREATE DATABASE a OWNER b TEMPLATE = Shop ENCODING 'UTF8'; SELECT 1", vec!["shop"]),
        ("create database template with template \"A b\"", vec!["A b"]),
        ("CREATE DATABASE a TEMPLATE DEFAULT", vec!["template1"]),
        ("CREATE TABLE a (template int)", vec![]),
        ("SELECT 'DROP DATABASE a'", vec![]),
    ] {
        assert_eq!(analyse(sql.as_bytes()).vacated, expected, "{sql}");
    }
}

#[test]
fn trap_85_whose_sessions_begin_with_other_settings() {
    let of = |role: RoleNamed, database: Option<&str>| {
        vec![StartDefaults { role, database: database.map(str::to_owned) }]
    };
    let name = |name: &str| RoleNamed::Name(name.to_owned());
    for (sql, expected) in [
        ("ALTER ROLE Alice SET work_mem = '1MB'", of(name("alice"), None)),
        ("ALTER USER \"A b\" RESET ALL", of(name("A b"), None)),
        ("alter role a IN DATABASE d SET x.y TO 1", of(name("a"), Some("d"))),
        ("ALTER ROLE ALL SET x.y TO 1", of(RoleNamed::Any, None)),
        ("ALTER ROLE ALL IN DATABASE \"D\" RESET x.y", of(RoleNamed::Any, Some("D"))),
        ("ALTER ROLE CURRENT_USER SET x.y TO 1", of(RoleNamed::Own, None)),
        ("ALTER ROLE session_user SET x.y TO 1", of(RoleNamed::Own, None)),
        ("ALTER ROLE U&\"a\" SET x.y TO 1", of(RoleNamed::Any, None)),
        ("ALTER DATABASE d SET x.y TO 1", of(RoleNamed::Any, Some("d"))),
        ("SELECT 1; ALTER DATABASE d RESET x.y", of(RoleNamed::Any, Some("d"))),
        ("ALTER ROLE a PASSWORD 'set'", vec![]),
        ("ALTER ROLE a RENAME TO set", vec![]),
        ("ALTER DATABASE d OWNER TO a", vec![]),
        ("ALTER USER MAPPING FOR a SERVER s OPTIONS (SET x '1')", vec![]),
        ("ALTER TABLE role SET SCHEMA s", vec![]),
        ("SELECT 'ALTER ROLE a SET x.y TO 1'", vec![]),
    ] {
        assert_eq!(analyse(sql.as_bytes()).start_defaults, expected, "{sql}");
    }
}
