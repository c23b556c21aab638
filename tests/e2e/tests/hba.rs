//! Who may connect from where, and how: `pg_hba.conf` in front of Tidegate.

use crate::own::{Folder, pool_of};
use std::process::Output;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Tidegate, TidegateOptions, password_of, shared_cluster, test_database,
};

/// A Tidegate with these rules, and a Unix socket beside its port.
struct Ruled {
    tidegate: Tidegate,
    folder: Folder,
    database: String,
}

impl Ruled {
    fn start(name: &str, rules: &str) -> Ruled {
        let (folder, database) = (Folder::new(), test_database(name));
        let file = folder.file("pg_hba.conf");
        std::fs::write(&file, rules).unwrap();
        let toml = format!("{}[auth]\nhba_file = \"{}\"\n", pool_of(2), file.display());
        let socket = folder.file(".s.PGSQL.6432");
        let tidegate = Tidegate::start(TidegateOptions {
            primary: shared_cluster().primary().url("postgres", &database),
            toml: Some(toml),
            arguments: vec!["--listen".to_owned(), format!("unix:{}", socket.display())],
            ..TidegateOptions::default()
        });
        Ruled { tidegate, folder, database }
    }

    fn url(&self, user: &str) -> String {
        self.tidegate.url(user, &self.database)
    }

    #[track_caller]
    fn lets_in(&self, user: &str) {
        let mut client = Client::connect(&self.url(user));
        assert_eq!(client.value("SELECT session_user").as_deref(), Some(user));
    }

    #[track_caller]
    fn refuses(&self, url: &str, sqlstate: &str, why: &str) {
        let error = Client::try_connect(url, &[]).unwrap_err();
        let said = error.describe();
        assert_eq!(error.sqlstate(), sqlstate, "{said}");
        assert!(said.contains(why), "{said}");
    }

    fn psql_by_socket(&self, user: &str, password: &str) -> Output {
        let folder = self.folder.file("");
        let target =
            format!("host={} port=6432 user={user} dbname={}", folder.display(), self.database);
        let mut psql = shared_cluster().installation().client("psql");
        psql.env("PGPASSWORD", password).args(["-wXAtc", "SELECT session_user", &target]);
        psql.output().unwrap()
    }
}

#[test]
fn the_first_rule_that_fits_says_how_a_client_logs_in() {
    for user in ["hba_ann", "hba_bob", "hba_mallory", "hba_carol"] {
        shared_cluster().create_role(user).unwrap();
    }
    let primary = shared_cluster().primary();
    primary.psql("CREATE ROLE hba_staff; GRANT hba_staff TO hba_carol").unwrap();
    let ruled = Ruled::start(
        "hba_rules",
        "# who may connect\n\
         local all hba_ann scram-sha-256\n\
         host all hba_mallory all reject\n\
         host all hba_ann,+hba_staff samehost scram-sha-256\n\
         host sameuser hba_bob 127.0.0.0/8 trust\n",
    );
    ruled.lets_in("hba_ann");
    ruled.lets_in("hba_carol");
    let wrong = ruled.url("hba_ann").replace("hba_ann-password", "wrong");
    ruled.refuses(&wrong, "28P01", "password authentication failed");
    let database = &ruled.database;
    let connection = |user: &str| {
        format!("host \"127.0.0.1\", user \"{user}\", database \"{database}\", no encryption")
    };
    let rejected = format!("pg_hba.conf rejects connection for {}", connection("hba_mallory"));
    ruled.refuses(&ruled.url("hba_mallory"), "28000", &rejected);
    // One who is there and one who is not hear the same.
    for user in ["hba_bob", "hba_nobody"] {
        let none = format!("no pg_hba.conf entry for {}", connection(user));
        ruled.refuses(&ruled.url(user), "28000", &none);
    }
    let replication = Client::try_connect(&ruled.url("hba_ann"), &[("replication", "true")]);
    let said = replication.unwrap_err().describe();
    assert!(said.contains("no pg_hba.conf entry for replication connection from host"), "{said}");
    let output = ruled.psql_by_socket("hba_ann", &password_of("hba_ann"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hba_ann\n", "{output:?}");
    let output = ruled.psql_by_socket(ROLE, &password_of(ROLE));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no pg_hba.conf entry for host \"[local]\""), "{said}");
}

#[test]
fn a_reload_reads_the_rules_again_and_keeps_the_old_ones_when_they_are_faulty() {
    let ruled = Ruled::start("hba_reload", "host all all all reject\n");
    ruled.refuses(&ruled.url(ROLE), "28000", "rejects connection");
    let file = ruled.folder.file("pg_hba.conf");
    std::fs::write(&file, "host all @listed all scram-sha-256\n").unwrap();
    std::fs::write(ruled.folder.file("listed"), "app, nobody\n").unwrap();
    let answer = ruled.tidegate.admin_post("/api/v1/reload", "");
    assert!(answer.body.contains("auth.hba_file"), "{answer:?}");
    ruled.lets_in(ROLE);
    std::fs::write(&file, "host all all all scram-sha-256\nhost all all all ldap\n").unwrap();
    let answer = ruled.tidegate.admin_post("/api/v1/reload", "");
    assert!(answer.status >= 400 && answer.body.contains("pg_hba.conf:2:1"), "{answer:?}");
    ruled.lets_in(ROLE);
}

#[test]
fn the_system_says_who_is_at_a_unix_socket() {
    let own = std::process::Command::new("id").arg("-un").output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap().trim().to_owned();
    shared_cluster().primary().psql(&format!("CREATE ROLE \"{own}\" LOGIN")).unwrap_or_default();
    let ruled = Ruled::start("hba_peer", "local all all peer\n");
    let output = ruled.psql_by_socket("hba_another", "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Peer authentication failed for user \"hba_another\""), "{said}");
    // Let in here, and with nothing to show to a server that wants a password.
    let output = ruled.psql_by_socket(&own, "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the server wants"), "{output:?}");
}
