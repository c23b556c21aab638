//! What no text shows: temporary objects by way of settings, defaults of databases and roles, changes inside blocks.

use crate::own::{SOON, behind_relay, pool_of, sqlstate, tidegate};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Message, Tidegate, password_of, pipeline, shared_cluster, test_database, wait_until,
};

/// What is read runs where it is written.
fn on_primary(database: &str, pool: usize) -> Tidegate {
    let toml = format!("{}[routing]\nreads = \"primary\"\n", pool_of(pool));
    tidegate(shared_cluster(), database, &toml)
}

#[test]
fn temporary_objects_are_noticed_however_the_search_path_came_to_be() {
    let database = test_database("hidden_temporary");
    // One connection for each client that keeps one, and one that all others share.
    let tidegate = on_primary(&database, 9);
    let url = tidegate.url(ROLE, &database);
    let ways = [
        "",
        "SET search_path = pg_temp, public",
        "SELECT set_config('search_path', 'pg_' || 'temp, public', false)",
        "SELECT set_config('search_path', concat('pg_', 'temp'), false)",
        "UPDATE pg_settings SET setting = 'pg_temp, public' WHERE name = 'search_path'",
        "DO $$ BEGIN PERFORM set_config('search_path', 'pg_temp, public', false); END $$",
        "BEGIN; SELECT set_config('search_path', 'pg_' || 'temp', true)",
        "BEGIN; DO $$ BEGIN PERFORM set_config('search_path', 'pg_temp', true); END $$",
    ];
    let mut owners = Vec::new();
    for (number, way) in ways.iter().enumerate() {
        let startup: &[(&str, &str)] =
            if way.is_empty() { &[("search_path", "pg_temp, public")] } else { &[] };
        let mut owner = Client::connect_with(&url, startup);
        if !way.is_empty() {
            assert_eq!(sqlstate(&mut owner, way), "", "{way}");
        }
        let create = format!("CREATE TABLE secret_{number} AS SELECT {number} AS mine; COMMIT");
        assert_eq!(sqlstate(&mut owner, &create), "", "{way}");
        owners.push(owner);
    }
    for (number, owner) in owners.iter_mut().enumerate() {
        let look = format!("SELECT mine FROM pg_temp.secret_{number}");
        for _ in 0..3 {
            let seen = sqlstate(&mut Client::connect(&url), &look);
            assert_eq!(seen, "42P01", "another client sees the table of {:?}", ways[number]);
        }
        assert_eq!(owner.value(&look), Some(number.to_string()), "after {:?}", ways[number]);
    }
    // Nor when they have gone.
    drop(owners);
    for (number, way) in ways.iter().enumerate() {
        let seen =
            sqlstate(&mut Client::connect(&url), &format!("SELECT FROM pg_temp.secret_{number}"));
        assert_eq!(seen, "42P01", "left behind by {way:?}");
    }
}

#[test]
fn a_role_that_takes_the_name_of_another_gets_none_of_its_connections() {
    let database = test_database("hidden_role");
    let cluster = shared_cluster();
    let name = "hidden_ann";
    cluster.create_role(name).unwrap();
    let tidegate = on_primary(&database, 2);
    let identity = "SELECT (SELECT oid FROM pg_roles WHERE rolname = current_user), current_user";
    let first = Client::connect(&tidegate.url(name, &database)).query(identity)[1].row();
    assert_eq!(first[1].as_deref(), Some(name));
    let oid = cluster.primary().psql(&format!("SELECT '{name}'::regrole::oid")).unwrap();
    assert_eq!(first[0].as_deref(), Some(oid.as_str()));
    let password = password_of(name);
    let renamed = format!(
        "ALTER ROLE {name} RENAME TO {name}_old; CREATE ROLE {name} LOGIN PASSWORD '{password}2'"
    );
    cluster.primary().psql(&renamed).unwrap();
    let url = tidegate.url(name, &database).replace(&password, &format!("{password}2"));
    let second = Client::connect(&url).query(identity)[1].row();
    assert_eq!(second[1].as_deref(), Some(name));
    assert_ne!(second[0], first[0]);
}

#[test]
fn texts_are_read_as_the_databases_default_has_it() {
    let database = test_database("hidden_strings");
    let off = "SET standard_conforming_strings = off";
    shared_cluster().primary().psql(&format!("ALTER DATABASE {database} {off}")).unwrap();
    let tidegate = on_primary(&database, 1);
    let url = tidegate.url(ROLE, &database);
    let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
    // By the standard's reading the call is in a comment.
    one.query("SELECT '\\'', set_config('work_mem', '77MB', false) --'");
    assert_ne!(other.value("SHOW work_mem").as_deref(), Some("77MB"));
    assert_eq!(one.value("SHOW work_mem").as_deref(), Some("77MB"));
}

#[test]
fn settings_in_another_encoding_stay_with_their_client() {
    let database = test_database("hidden_encoding");
    let tidegate = on_primary(&database, 2);
    let url = tidegate.url(ROLE, &database);
    let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
    one.query("SET client_encoding = 'LATIN1'");
    one.query("SELECT set_config('app.city', U&'Sch\\00f6nefeld', false)");
    for _ in 0..3 {
        assert_eq!(other.value("SELECT current_setting('app.city', true)").unwrap_or_default(), "");
        assert_eq!(one.value("SELECT length(current_setting('app.city'))").as_deref(), Some("10"));
    }
}

#[test]
fn what_a_block_changes_is_prepared_anew_for_whoever_comes() {
    let database = test_database("hidden_change");
    let tidegate = on_primary(&database, 1);
    let url = tidegate.url(ROLE, &database);
    let read = || {
        let mut client = Client::connect(&url);
        client.send(
            pipeline().parse("s", "SELECT * FROM t", &[]).bind("", "s", &[]).execute("").sync(),
        );
        client.read_until_ready()
    };
    let columns = |answer: &[Message]| answer.iter().find(|m| m.tag == b'D').map(|m| m.row().len());
    Client::connect(&url).query("CREATE TABLE t AS SELECT 1 AS a");
    assert_eq!(columns(&read()), Some(1));
    Client::connect(&url).query("DO $$ BEGIN ALTER TABLE t ADD b int; END $$");
    assert_eq!(columns(&read()), Some(2));
    // What passes somewhere else is told by the first error.
    let owner = Client::connect(&shared_cluster().primary().url(ROLE, &database));
    { owner }.query("ALTER TABLE t ADD c int");
    wait_until(SOON, "a statement of one's own", || columns(&read()) == Some(3));
}

/// What a session may hold, as a client sees it that has done nothing.
const STATE: &str = "SELECT concat_ws(' ', \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
    (SELECT count(*) FROM pg_listening_channels()), \
    (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
    current_setting('work_mem'), nullif(current_setting('app.x', true), ''))";
const CLEAN: &str = "0 0 0 4MB";

/// What makes it, and what a client says that reaches it without naming it.
const HIDING_PLACES: &[(&str, &str)] = &[
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_lock(7); RETURN new; END'; \
         CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        "INSERT INTO t VALUES (1)",
    ),
    (
        "CREATE FUNCTION g() RETURNS void LANGUAGE sql AS 'CREATE TEMPORARY TABLE mine (a int)'; \
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM g(); RETURN new; END'; \
         CREATE CONSTRAINT TRIGGER x AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION f()",
        "INSERT INTO t VALUES (1)",
    ),
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN EXECUTE concat(''lis'', ''ten news''); RETURN NULL; END'; \
         CREATE TRIGGER x AFTER TRUNCATE ON t EXECUTE FUNCTION f()",
        "TRUNCATE t",
    ),
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN /* now */ SET work_mem = ''77MB''; RETURN old; END'; \
         CREATE TABLE child (a int REFERENCES t ON DELETE CASCADE); \
         INSERT INTO t VALUES (1); INSERT INTO child VALUES (1); \
         CREATE TRIGGER x BEFORE DELETE ON child FOR EACH ROW EXECUTE FUNCTION f()",
        "DELETE FROM t",
    ),
    (
        "ALTER TABLE t ADD b text DEFAULT set_config('work_mem', '77MB', false)",
        "INSERT INTO t VALUES (2)",
    ),
    (
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD SELECT set_config('app.x', 'mine', false)",
        "INSERT INTO t VALUES (1)",
    ),
    ("CREATE VIEW v AS SELECT pg_try_advisory_lock(7) AS b", "SELECT b FROM v"),
    (
        "CREATE FUNCTION upper(int) RETURNS text LANGUAGE plpgsql AS \
         'BEGIN LISTEN news; RETURN ''x''; END'",
        "SELECT upper(1)",
    ),
    (
        "CREATE FUNCTION f(int, int) RETURNS int BEGIN ATOMIC SELECT 1 FROM pg_advisory_lock(7); END; \
         CREATE OPERATOR ## (LEFTARG = int, RIGHTARG = int, FUNCTION = f)",
        "SELECT 1 ## 2",
    ),
    (
        "CREATE FUNCTION f(text) RETURNS bool LANGUAGE plpgsql AS \
         'BEGIN PERFORM set_config(''app.x'', ''mine'', false); RETURN true; END'; \
         CREATE DOMAIN d AS text CHECK (f(value))",
        "SELECT 'a'::d",
    ),
    (
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_lock(7); RETURN new; END'; \
         CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); \
         CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'INSERT INTO t VALUES (1) RETURNING a'; \
         CREATE VIEW v AS SELECT g() AS a",
        "SELECT a FROM v",
    ),
];

#[test]
fn state_that_no_text_shows_reaches_nobody_else() {
    let database = test_database("hidden_places");
    let mut owner = Client::connect(&shared_cluster().primary().url(ROLE, &database));
    for (makes, reaches) in HIDING_PLACES {
        let anew = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; \
                    CREATE TABLE t (a int PRIMARY KEY)";
        assert_eq!(sqlstate(&mut owner, anew), "");
        assert_eq!(sqlstate(&mut owner, makes), "", "{makes}");
        let tidegate = on_primary(&database, 2);
        let url = tidegate.url(ROLE, &database);
        for block in [["BEGIN", "COMMIT"], ["BEGIN", "ROLLBACK"], ["", ""]] {
            let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
            one.query(block[0]);
            assert_eq!(sqlstate(&mut one, reaches), "", "{reaches} after {makes}");
            one.query(block[1]);
            for _ in 0..3 {
                assert_eq!(other.value(STATE).as_deref(), Some(CLEAN), "{reaches} after {makes}");
            }
            one.query("DISCARD ALL");
            drop(one);
            sqlstate(&mut owner, "TRUNCATE t CASCADE; UNLISTEN *");
        }
        // Nor when its client vanishes.
        let (mut one, mut other) = (Client::connect(&url), Client::connect(&url));
        assert_eq!(sqlstate(&mut one, reaches), "", "{reaches} after {makes}");
        drop(one);
        assert_eq!(other.value(STATE).as_deref(), Some(CLEAN), "{reaches} after {makes}");
    }
}

#[test]
fn what_hides_nothing_costs_no_question() {
    let database = test_database("hidden_nothing");
    let mut owner = Client::connect(&shared_cluster().primary().url(ROLE, &database));
    let makes = "CREATE TABLE t (a int PRIMARY KEY, b timestamptz DEFAULT now()); \
        CREATE VIEW v AS SELECT a, upper(b::text) AS b FROM t; \
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN SET LOCAL work_mem = 100; PERFORM set_config(''app.x'', new.a::text, true); \
        PERFORM pg_advisory_xact_lock(1); new.b = now(); UPDATE t SET b = new.b WHERE a = new.a - 1; RETURN new; END'; \
        CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); \
        CREATE FUNCTION my_lock() RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_xact_lock(1)'";
    assert_eq!(sqlstate(&mut owner, makes), "");
    let tidegate = on_primary(&database, 1);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    for number in 0..5 {
        assert_eq!(sqlstate(&mut client, &format!("INSERT INTO t VALUES ({number})")), "");
        assert_eq!(client.value("SELECT max(a) FROM v"), Some(number.to_string()));
    }
    let metrics = tidegate.admin_get("/metrics").body;
    let value =
        |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    assert_eq!(value("tidegate_probes_total "), Some(0));
    assert_eq!(value("tidegate_databases_hidden_state "), Some(0));
    // A change that passes through Tidegate is heeded at once.
    let change = "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS \
        'BEGIN PERFORM set_config(''work_mem'', ''77MB'', false); RETURN new; END'";
    assert_eq!(sqlstate(&mut client, change), "");
    assert_eq!(sqlstate(&mut client, "INSERT INTO t VALUES (9)"), "");
    let mut other = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(other.value(STATE).as_deref(), Some(CLEAN));
    assert_eq!(client.value("SHOW work_mem").as_deref(), Some("77MB"));
    let hidden =
        || tidegate.admin_get("/metrics").body.contains("tidegate_databases_hidden_state 1");
    wait_until(SOON, "the database to be asked again", || {
        client.value("SELECT 1");
        hidden()
    });
}

#[test]
fn what_is_reset_for_others_is_there_again_for_a_client_that_cancels() {
    let database = test_database("hidden_cancel");
    let (tidegate, relay) = behind_relay(&database, &pool_of(1));
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    let makes = "CREATE FUNCTION nap() RETURNS void LANGUAGE sql AS 'SELECT pg_sleep(0.3)'";
    assert_eq!(sqlstate(&mut client, makes), "");
    client.query("SET app.me = 'mine'");
    // The server is kept while a cancel request is on its way to it.
    relay.hold_cancels();
    client.send(pipeline().query("SELECT nap()"));
    let cancel = std::thread::spawn(client.canceller());
    wait_until(SOON, "a cancel request that comes too late", || relay.cancels_held() == 1);
    client.read_until_ready();
    for _ in 0..3 {
        let there = client.value("SELECT current_setting('app.me', true)");
        assert_eq!(there.as_deref(), Some("mine"));
    }
    relay.release_cancels();
    cancel.join().unwrap();
}
