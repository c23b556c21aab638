//! What no text shows: temporary objects by way of settings, defaults of databases and roles, changes inside blocks.

use crate::own::{SOON, pool_of, sqlstate, tidegate};
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
