//! The number that a client takes for its server's process: what login says, `pg_backend_pid()` answers and signals name.

use crate::own::{SOON, json, pool_of, tidegate, wait_for_state, wait_until_running};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, pipeline, shared_cluster, test_database, wait_until,
};

/// Two workers, so that clients are told of each other across threads.
fn started(name: &str, mode: &str) -> (Tidegate, String, String) {
    let database = test_database(name);
    let toml = pool_of(2).replace("workers = 1", "workers = 2") + mode;
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database);
    (tidegate, url, database)
}

fn by_parameter(client: &mut Client, sql: &str, types: &[u32], number: i32) {
    let parse = pipeline().parse("", sql, types);
    let bound = parse.bind("", "", &[Some(&number.to_string())]);
    client.send(bound.execute("").sync());
}

/// With the number in binary, and a statement that is kept.
fn by_name(client: &mut Client, number: i32) {
    let value = number.to_be_bytes();
    client
        .send(pipeline().bind_formats("", "signal", &[1], &[Some(&value)], &[]).execute("").sync());
}

#[test]
fn trap_93_a_client_is_told_the_same_number_at_login_and_by_sql() {
    for mode in ["", "mode = \"session\"\n"] {
        let (_tidegate, url, _) = started("trap_93", mode);
        let mut client = Client::connect(&url);
        let told = client.told_pid().to_string();
        let answer = client.query("SELECT pg_backend_pid()");
        assert_eq!(answer[1].describe(), format!("D {told}"));
        let direct = shared_cluster().primary().url(ROLE, "postgres");
        let columns = Client::connect(&direct).query("SELECT pg_backend_pid()")[0].describe();
        assert_eq!(answer[0].describe(), columns, "the column is the same");
        assert_eq!(client.value("SELECT pg_backend_pid()::text AS pid;"), Some(told.clone()));
        for name in ["", "pid"] {
            let sql = "SELECT pg_catalog.pg_backend_pid(), current_user";
            client.send(pipeline().parse(name, sql, &[]).bind("", name, &[]).execute("").sync());
            let row = client.expect("1 2 D C ZI").swap_remove(2).row();
            assert_eq!(row, [Some(told.clone()), Some(ROLE.to_owned())]);
        }
        client.query("BEGIN");
        assert_eq!(client.value("SELECT pg_backend_pid()"), Some(told.clone()));
        // What is compared with what the server says is the server's.
        let shown = "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        assert_eq!(client.value(shown).as_deref(), Some("1"));
        assert_ne!(client.server_pid(), told);
        client.query("COMMIT");
        // A statement of the same text is nobody else's.
        let mut other = Client::connect(&url);
        let sql = "SELECT pg_catalog.pg_backend_pid(), current_user";
        other.send(pipeline().parse("pid", sql, &[]).bind("", "pid", &[]).execute("").sync());
        let row = other.expect("1 2 D C ZI").swap_remove(2).row();
        assert_eq!(row[0], Some(other.told_pid().to_string()));
    }
}

#[test]
fn trap_93_a_client_is_terminated_by_its_number_whatever_it_does() {
    let (tidegate, url, _) = started("trap_93_ended", "");
    let mut by = Client::connect(&url);
    type Act = fn(&mut Client);
    let acts: [Act; 3] = [
        |_| (),
        |client| drop(client.query("BEGIN")),
        |client| client.send(pipeline().query("SELECT pg_sleep(60)")),
    ];
    by.send(pipeline().parse("signal", "SELECT pg_terminate_backend($1)", &[]).sync());
    by.expect("1 ZI");
    for (index, act) in acts.into_iter().enumerate() {
        for form in 0..4 {
            let mut client = Client::connect(&url);
            act(&mut client);
            if index == 2 {
                wait_for_state(&tidegate, "active");
            }
            let number = client.told_pid();
            match form {
                0 => by.send(pipeline().query(&format!("SELECT pg_terminate_backend({number});"))),
                1 => by_parameter(&mut by, "SELECT pg_terminate_backend($1)", &[], number),
                2 => by_parameter(&mut by, "select pg_terminate_backend($1::int)", &[20], number),
                _ => by_name(&mut by, number),
            }
            let wanted = ["T D C ZI", "1 2 D C ZI", "1 2 D C ZI", "2 D C ZI"][form];
            let answer = by.expect(wanted);
            let row = answer.iter().find(|message| message.tag == b'D').unwrap();
            assert_eq!(row.describe(), "D t");
            client.expect("E:57P01 (end)");
        }
    }
    let none_left = || json(&tidegate, "/api/v1/clients")["clients"].as_array().unwrap().len() == 1;
    wait_until(SOON, "the others are gone", none_left);
    // What ran for them does not go on.
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' \
                   AND datname = current_database() AND pid <> pg_backend_pid()";
    wait_until(SOON, "nothing runs", || by.value(running).as_deref() == Some("0"));
}

#[test]
fn trap_93_a_statement_is_cancelled_by_its_clients_number() {
    let (_tidegate, url, database) = started("trap_93_cancelled", "");
    let [mut client, mut by] = [(); 2].map(|()| Client::connect(&url));
    client.send(pipeline().query("SELECT pg_sleep(60)"));
    wait_until_running(shared_cluster(), &database, "pg_sleep(60)", 1);
    let number = client.told_pid();
    assert_eq!(by.value(&format!("SELECT pg_cancel_backend({number})")).as_deref(), Some("t"));
    client.expect("T E:57014 ZI");
    // At rest nothing happens to it, and nothing to a server's next client.
    assert_eq!(by.value(&format!("SELECT pg_cancel_backend({number})")).as_deref(), Some("t"));
    assert_eq!(client.value("SELECT 'alive'").as_deref(), Some("alive"));
    // Its own: the server does it.
    client.send(pipeline().query(&format!("SELECT pg_cancel_backend({number})")));
    client.expect("T D E:57014 ZI");
    client.send(pipeline().query(&format!("SELECT pg_terminate_backend({number})")));
    client.expect("T D E:57P01 (end)");
    assert_eq!(by.value("SELECT 'alive'").as_deref(), Some("alive"));
}

#[test]
fn a_signal_that_does_not_run_is_not_sent() {
    let (_tidegate, url, _) = started("signal_undone", "");
    let [mut client, mut by] = [(); 2].map(|()| Client::connect(&url));
    let sql = format!("SELECT pg_terminate_backend({})", client.told_pid());
    by.query("BEGIN");
    by.query("SELECT 1/0");
    by.send(pipeline().query(&sql));
    by.expect("E:25P02 ZE");
    let extended = pipeline().parse("", &sql, &[]).bind("", "", &[]).execute("").sync();
    by.send(extended);
    by.expect("E:25P02 ZE");
    by.query("ROLLBACK");
    by.send(pipeline().query("SELECT 1/0").query(&sql.replace("SELECT", "SELECT 1/0,")));
    by.expect("E:22012 ZI E:22012 ZI");
    let fails = pipeline().parse("", "SELECT 1/0", &[]).bind("", "", &[]).execute("");
    by.send(fails.parse("", &sql, &[]).bind("", "", &[]).execute("").sync());
    by.expect("1 E:22012 ZI");
    assert_eq!(client.value("SELECT 'alive'").as_deref(), Some("alive"));
}

#[test]
fn a_signal_takes_the_same_role_or_a_superuser() {
    let (tidegate, url, database) = started("signal_roles", "");
    for role in ["signal_other", "signal_root"] {
        shared_cluster().create_role(role).unwrap();
    }
    shared_cluster().primary().psql("ALTER ROLE signal_root SUPERUSER").unwrap();
    let mut client = Client::connect(&url);
    let [mut other, mut root] =
        ["signal_other", "signal_root"].map(|role| Client::connect(&tidegate.url(role, &database)));
    let sql = format!("SELECT pg_terminate_backend({})", client.told_pid());
    let extended = || pipeline().parse("", &sql, &[]).bind("", "", &[]).execute("").sync();
    other.send(pipeline().query(&sql).query("BEGIN").query(&sql).query("ROLLBACK"));
    other.expect("E:42501 ZI C ZT E:42501 ZE C ZI");
    other.send(extended());
    other.expect("1 E:42501 ZI");
    // As another role, a superuser is none.
    root.query("SET ROLE signal_other");
    root.send(pipeline().query(&sql));
    root.expect("E:42501 ZI");
    // A number that nobody has is the server's to judge.
    assert_eq!(other.value("SELECT pg_terminate_backend(2147483647)").as_deref(), Some("f"));
    assert_eq!(client.value("SELECT 'alive'").as_deref(), Some("alive"));
    root.query("RESET ROLE");
    root.send(extended());
    root.expect("1 2 D C ZI");
    client.expect("E:57P01 (end)");
}
