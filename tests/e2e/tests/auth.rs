//! Who gets in, and how: pass-through, a users file, trust; SCRAM, md5; TLS as libpq asks for it.

use crate::own::{Folder, cluster_like, pool_of, tidegate};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::startup;
use tidegate_test_support::{
    Client, ClusterOptions, HostAuth, Tidegate, TidegateOptions, password_of, shared_cluster,
    test_database,
};

/// Starts with `toml` and a users file that holds these lines.
fn with_users(database: &str, method: &str, users: &str) -> (Tidegate, Folder) {
    let folder = Folder::new();
    let file = folder.file("users.txt");
    std::fs::write(&file, users).unwrap();
    let toml = format!(
        "{}[auth]\nmethod = \"{method}\"\nusers_file = \"{}\"\n",
        pool_of(2),
        file.display()
    );
    (tidegate(shared_cluster(), database, &toml), folder)
}

#[track_caller]
fn refused(url: &str, sqlstate: &str) {
    match Client::try_connect(url, &[]) {
        Ok(_) => panic!("{url} was let in"),
        Err(error) => assert_eq!(error.sqlstate(), sqlstate, "{}", error.describe()),
    }
}

#[test]
fn several_users_log_in_through_with_their_own_passwords() {
    let database = test_database("passthrough");
    let cluster = shared_cluster();
    let names = ["auth_ann", "auth_bob", "auth_cid"];
    for name in names {
        cluster.create_role(name).unwrap();
    }
    let tidegate = tidegate(cluster, &database, &pool_of(2));
    for name in names.into_iter().chain([ROLE]) {
        let url = tidegate.url(name, &database);
        for _ in 0..2 {
            let mut client = Client::connect(&url);
            assert_eq!(client.value("SELECT session_user").as_deref(), Some(name));
        }
        refused(&url.replace(&password_of(name), "wrong"), "28P01");
    }
    refused(&tidegate.url("auth_nobody", &database), "28P01");
    refused(&tidegate.url(ROLE, "no_such_database"), "3D000");
}

#[test]
fn a_password_changed_at_the_server_counts_for_the_next_login() {
    let database = test_database("changed");
    let cluster = shared_cluster();
    cluster.create_role("auth_changed").unwrap();
    let tidegate = tidegate(cluster, &database, &pool_of(2));
    let old = tidegate.url("auth_changed", &database);
    Client::connect(&old).query("SELECT 1");
    cluster.primary().psql("ALTER ROLE auth_changed PASSWORD 'another'").unwrap();
    let new = old.replace("auth_changed-password", "another");
    assert_eq!(Client::connect(&new).value("SELECT 1").as_deref(), Some("1"));
    refused(&old, "28P01");
}

#[test]
fn a_password_changed_through_tidegate_counts_at_once() {
    let database = test_database("changed_through");
    let cluster = shared_cluster();
    // May read what is stored of others, so that it is kept for a moment.
    cluster.create_role("auth_boss").unwrap();
    cluster.primary().psql("ALTER ROLE auth_boss SUPERUSER").unwrap();
    cluster.create_role("auth_again").unwrap();
    let tidegate = Tidegate::start(TidegateOptions {
        primary: cluster.primary().url("auth_boss", &database),
        toml: Some(pool_of(3)),
        ..TidegateOptions::default()
    });
    let mut boss = Client::connect(&tidegate.url("auth_boss", &database));
    let url = tidegate.url("auth_again", &database);
    let with = |password: &str| url.replace("auth_again-password", password);
    Client::connect(&url);
    let mut before = "auth_again-password".to_owned();
    for (round, sql) in [
        "ALTER ROLE auth_again PASSWORD '1'",
        "BEGIN; ALTER USER auth_again PASSWORD '2'; COMMIT",
        "DROP ROLE auth_again; CREATE ROLE auth_again LOGIN PASSWORD '3'",
        "BEGIN; ALTER ROLE auth_again PASSWORD 'x'; ROLLBACK; ALTER ROLE auth_again PASSWORD '4'",
    ]
    .into_iter()
    .enumerate()
    {
        boss.query(sql);
        let now = (round + 1).to_string();
        Client::connect(&with(&now));
        refused(&with(&before), "28P01");
        // Known again, and so kept until the next round.
        Client::connect(&with(&now));
        before = now;
    }
}

#[test]
fn users_of_a_file_log_in_by_scram() {
    let database = test_database("file_scram");
    let secret = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
    let verifier = shared_cluster().primary().psql(secret).unwrap();
    for line in
        [format!("\"app\" \"{}\"\n", password_of(ROLE)), format!("\"app\" \"{verifier}\"\n")]
    {
        let (tidegate, _folder) = with_users(&database, "scram-sha-256", &line);
        let url = tidegate.url(ROLE, &database);
        assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
        refused(&url.replace("app-password", "wrong"), "28P01");
        refused(&tidegate.url("auth_unlisted", &database), "28P01");
    }
}

/// What PgBouncer's documentation suggests: a function that answers for one user, run by a role that may do nothing else.
fn lookup_function(database: &str, role: &str) {
    let primary = shared_cluster().primary();
    shared_cluster().create_role(role).unwrap();
    let sql = format!(
        "CREATE SCHEMA lookup; REVOKE ALL ON SCHEMA lookup FROM public; GRANT USAGE ON SCHEMA lookup TO {role}; \
         CREATE FUNCTION lookup.user_lookup(wanted text, OUT name text, OUT secret text) RETURNS SETOF record \
         LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS \
         $$ SELECT rolname::text, rolpassword FROM pg_authid WHERE rolname = wanted AND rolcanlogin $$; \
         REVOKE ALL ON FUNCTION lookup.user_lookup FROM public; \
         GRANT EXECUTE ON FUNCTION lookup.user_lookup TO {role}"
    );
    primary.psql_in(database, &sql).unwrap();
}

fn query_by(role: &str) -> String {
    format!(
        "query = \"SELECT * FROM lookup.user_lookup($1)\"\nquery_user = \"{role}\"\nquery_password = \"{}\"\n",
        password_of(role)
    )
}

#[test]
fn trap_19_users_are_looked_up_by_a_query_that_needs_no_superuser() {
    let database = test_database("auth_query");
    lookup_function(&database, "auth_lookup");
    for user in ["auth_asked", "auth_barred"] {
        shared_cluster().create_role(user).unwrap();
    }
    shared_cluster().primary().psql("ALTER ROLE auth_barred NOLOGIN").unwrap();
    for method in ["passthrough", "scram-sha-256"] {
        let toml =
            format!("{}[auth]\nmethod = \"{method}\"\n{}", pool_of(2), query_by("auth_lookup"));
        let tidegate = tidegate(shared_cluster(), &database, &toml);
        let url = tidegate.url("auth_asked", &database);
        for _ in 0..2 {
            let mut client = Client::connect(&url);
            assert_eq!(client.value("SELECT session_user").as_deref(), Some("auth_asked"));
        }
        // Whoever is not found, or is no name at all, hears what a wrong password hears.
        refused(&url.replace("auth_asked-password", "wrong"), "28P01");
        refused(&tidegate.url("auth_nobody", &database), "28P01");
        refused(&tidegate.url("auth_barred", &database), "28P01");
        for name in ["x' OR 'a'='a", "auth_asked'--", "$1", "\\"] {
            let mut client = Client::open(&tidegate.address());
            client.send(startup(196_608, &[("user", name), ("database", &database)]));
            assert_eq!(client.log_in(name, "x").unwrap_err().sqlstate(), "28P01", "{name}");
        }
        // A password that changes counts for the next login, though the answer is kept for a moment.
        let change = |password: &str| format!("ALTER ROLE auth_asked PASSWORD '{password}'");
        shared_cluster().primary().psql(&change("another")).unwrap();
        Client::connect(&url.replace("auth_asked-password", "another")).query("SELECT 1");
        shared_cluster().primary().psql(&change("auth_asked-password")).unwrap();
        assert!(
            !tidegate.log().contains("SCRAM-SHA-256$") && !tidegate.log().contains("-password")
        );
    }
}

#[test]
fn users_of_a_file_come_before_those_of_the_query_and_a_broken_query_lets_nobody_in() {
    let database = test_database("auth_query_file");
    lookup_function(&database, "auth_lookup_two");
    shared_cluster().create_role("auth_found").unwrap();
    let folder = Folder::new();
    let file = folder.file("users.txt");
    std::fs::write(&file, format!("\"app\" \"{}\"\n", password_of(ROLE))).unwrap();
    let toml = format!(
        "{}[auth]\nmethod = \"scram-sha-256\"\nusers_file = \"{}\"\n{}",
        pool_of(2),
        file.display(),
        query_by("auth_lookup_two")
    );
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let listed = tidegate.url(ROLE, &database);
    let found = tidegate.url("auth_found", &database);
    for url in [&listed, &found] {
        assert_eq!(Client::connect(url).value("SELECT 1").as_deref(), Some("1"));
    }
    shared_cluster().primary().psql_in(&database, "DROP SCHEMA lookup CASCADE").unwrap();
    Client::connect(&listed).query("SELECT 1");
    refused(&tidegate.url("auth_nobody", &database), "58000");
    assert!(tidegate.log().contains("auth.query failed"), "{}", tidegate.log());
    // A configuration that cannot work is refused as a whole.
    tidegate.write_config(&toml.replace("$1", "'app'"));
    let answer = tidegate.admin_post("/api/v1/reload", "");
    assert!(answer.status >= 400 && answer.body.contains("auth.query"), "{answer:?}");
}

#[test]
fn users_of_a_file_log_in_by_md5() {
    let database = test_database("file_md5");
    let line = format!("\"app\" \"{}\"\n", password_of(ROLE));
    let (tidegate, _folder) = with_users(&database, "md5", &line);
    let url = tidegate.url(ROLE, &database);
    assert_eq!(Client::connect(&url).value("SELECT 1").as_deref(), Some("1"));
    refused(&url.replace("app-password", "wrong"), "28P01");
}

#[test]
fn roles_with_md5_hashes_log_in_through_with_their_own_passwords() {
    let md5 = ClusterOptions { host_auth: HostAuth::Md5, ..ClusterOptions::default() };
    let cluster = cluster_like("md5_through", &md5);
    cluster.create_role("auth_md5").unwrap();
    let stored = "SELECT bool_and(rolpassword LIKE 'md5%') FROM pg_authid WHERE rolcanlogin";
    cluster.primary().psql("ALTER ROLE postgres PASSWORD 'postgres-password'").unwrap();
    assert_eq!(cluster.primary().psql(stored).unwrap(), "t");
    // One that may read the hashes has clients asked for md5; one that may not, in clear.
    for (own, asked) in [("postgres", 5), (ROLE, 3)] {
        let options = TidegateOptions {
            primary: cluster.primary().url(own, "md5_through"),
            toml: Some(pool_of(2)),
            ..TidegateOptions::default()
        };
        let tidegate = Tidegate::start(options);
        for user in [ROLE, "auth_md5"] {
            let url = tidegate.url(user, "md5_through");
            for _ in 0..2 {
                let mut client = Client::connect(&url);
                assert_eq!(client.value("SELECT session_user").as_deref(), Some(user));
            }
            refused(&url.replace(&password_of(user), "wrong"), "28P01");
        }
        let mut client = Client::open(&tidegate.address());
        client.send(startup(196_608, &[("user", "auth_md5"), ("database", "md5_through")]));
        assert_eq!(client.expect("R")[0].body[..4], [0, 0, 0, asked], "for {own}");
    }
}

#[test]
fn many_wrong_passwords_are_answered_more_slowly_and_others_log_in() {
    let database = test_database("throttle");
    let line = format!("\"app\" \"{}\"\n", password_of(ROLE));
    let (tidegate, _folder) = with_users(&database, "scram-sha-256", &line);
    let url = tidegate.url("auth_guessed", &database);
    // Ten are free; then 0.1 s, 0.2 s, 0.4 s, 0.8 s.
    for _ in 0..13 {
        refused(&url, "28P01");
    }
    let start = Instant::now();
    refused(&url, "28P01");
    assert!(start.elapsed() >= Duration::from_millis(800), "{:?}", start.elapsed());
    let mut held_back = Client::open(&tidegate.address());
    std::thread::scope(|scope| {
        let guess = scope.spawn(|| {
            held_back.send(startup(196_608, &[("user", "auth_guessed"), ("database", &database)]));
            held_back.log_in("auth_guessed", "wrong").unwrap_err()
        });
        Client::connect(&tidegate.url(ROLE, &database)).query("SELECT 1");
        assert_eq!(guess.join().unwrap().sqlstate(), "28P01");
    });
}

#[test]
fn trust_asks_nothing_of_this_machine() {
    let database = test_database("trust");
    let toml = pool_of(2) + "[auth]\nmethod = \"trust\"\n";
    let tidegate = tidegate(shared_cluster(), &database, &toml);
    let url = tidegate.url(ROLE, &database).replace("app-password", "anything");
    assert_eq!(Client::connect(&url).value("SELECT current_user").as_deref(), Some(ROLE));
}

#[test]
fn psql_is_served_over_tls_as_it_asks() {
    let database = test_database("tls");
    let folder = Folder::new();
    let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (folder.file("cert.pem"), folder.file("key.pem"));
    std::fs::write(&cert, certificate.cert.pem()).unwrap();
    std::fs::write(&key, certificate.signing_key.serialize_pem()).unwrap();
    let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
    options.toml = Some(pool_of(2) + "[tls]\nmode = \"require\"\n");
    let path = |path: &Path| path.display().to_string();
    options.arguments =
        vec!["--tls-cert".to_owned(), path(&cert), "--tls-key".to_owned(), path(&key)];
    let tidegate = Tidegate::start(options);
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    let psql = |more: &str| -> Output {
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user={ROLE} dbname={database} {more}"
        );
        let mut psql = shared_cluster().installation().client("psql");
        psql.env("PGPASSWORD", password_of(ROLE)).args(["-XAtc", "SELECT 'in'", &target]);
        psql.output().unwrap()
    };
    let root = format!("sslrootcert={}", path(&cert));
    for more in ["sslmode=require", &format!("sslmode=verify-full {root}")] {
        let output = psql(more);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n", "{more}: {output:?}");
    }
    let plain = psql("sslmode=disable");
    assert!(!plain.status.success(), "{plain:?}");
    let other = format!("sslmode=verify-full {root}").replace("cert.pem", "key.pem");
    assert!(!psql(&other).status.success());
}
