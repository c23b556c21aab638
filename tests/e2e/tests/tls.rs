//! Certificates: clients that log in with one, and servers that are held to theirs.

use crate::own::{Folder, SOON, cluster_like, pool_of};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Tidegate, TidegateOptions, password_of, pipeline,
    shared_cluster, test_database, wait_until,
};

/// Who signs certificates, and where they are put.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: Folder,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let folder = Folder::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        write(&folder.file("ca.crt"), &params.self_signed(&key).unwrap().pem());
        Authority { issuer: Issuer::new(params, key), folder }
    }

    pub fn own(&self) -> String {
        self.folder.file("ca.crt").display().to_string()
    }

    /// Certificate and key for a common name, which is also the host's.
    pub fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |ending: &str| self.folder.file(&format!("{name}.{ending}"));
        write(&file("crt"), &certificate.pem());
        write(&file("key"), &key.serialize_pem());
        (file("crt").display().to_string(), file("key").display().to_string())
    }
}

/// Readable by its owner alone: libpq and PostgreSQL insist on it for keys.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

// --- clients ------------------------------------------------------------------------------------------

/// A Tidegate that asks for certificates of this authority.
fn asking(authority: &Authority, database: &str, mode: &str) -> Tidegate {
    let (cert, key) = authority.sign("localhost");
    let users = authority.folder.file("users.txt");
    let lines =
        ["tls_ann", "tls_bob"].map(|user| format!("\"{user}\" \"{}\"\n", password_of(user)));
    std::fs::write(&users, lines.concat()).unwrap();
    let toml = format!(
        "{}[auth]\nmethod = \"certificate\"\nusers_file = \"{}\"\n\
         [tls]\nmode = \"{mode}\"\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_ca = \"{}\"\n",
        pool_of(2),
        users.display(),
        authority.own(),
    );
    let options = TidegateOptions::for_cluster(shared_cluster(), database);
    Tidegate::start(TidegateOptions { toml: Some(toml), ..options })
}

fn psql(tidegate: &Tidegate, database: &str, user: &str, more: &str) -> Output {
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={user} dbname={database} {more}"
    );
    let mut psql = shared_cluster().installation().client("psql");
    psql.args(["-XAtc", "SELECT session_user", &target]).output().unwrap()
}

#[test]
fn a_certificate_logs_in_the_user_it_names() {
    let (authority, stranger) = (Authority::new("Ours"), Authority::new("A stranger"));
    let database = test_database("certificates");
    for user in ["tls_ann", "tls_bob"] {
        shared_cluster().create_role(user).unwrap();
    }
    let shown = |(cert, key): (String, String)| {
        format!("sslmode=verify-full sslrootcert={} sslcert={cert} sslkey={key}", authority.own())
    };
    for mode in ["require", "verify-full"] {
        let tidegate = asking(&authority, &database, mode);
        for user in ["tls_ann", "tls_bob"] {
            let output = psql(&tidegate, &database, user, &shown(authority.sign(user)));
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{user}\n"), "{output:?}");
        }
        let refused = |user: &str, more: &str, why: &str| {
            let output = psql(&tidegate, &database, user, more);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && said.contains(why), "{mode} {user}: {output:?}");
        };
        refused("tls_bob", &shown(authority.sign("tls_ann")), "authentication failed");
        refused("tls_ann", "sslmode=disable", "encryption");
        refused("tls_ann", &shown(stranger.sign("tls_ann")), "");
        let bare = format!("sslmode=verify-full sslrootcert={}", authority.own());
        refused("tls_ann", &bare, if mode == "require" { "certificate" } else { "" });
        // None of this hurts those who come after.
        let output = psql(&tidegate, &database, "tls_ann", &shown(authority.sign("tls_ann")));
        assert!(output.status.success(), "{output:?}");
    }
}

// --- servers ------------------------------------------------------------------------------------------

/// A primary that talks to nobody without TLS, with a certificate for `localhost`.
pub fn encrypting(authority: &Authority, database: &str) -> Cluster {
    let only = ["hostssl all all 127.0.0.1/32 scram-sha-256", "host all all 127.0.0.1/32 reject"];
    let hba = only.map(str::to_owned).to_vec();
    let cluster = cluster_like(database, &ClusterOptions { hba, ..ClusterOptions::default() });
    let primary = cluster.primary();
    let (cert, key) = authority.sign("localhost");
    for (from, to) in [(cert, "server.crt"), (key, "server.key")] {
        let to: PathBuf = primary.data_directory().join(to);
        std::fs::copy(from, &to).unwrap();
        cluster.installation().hand_over(&to).unwrap();
    }
    primary.psql("ALTER SYSTEM SET ssl = on").unwrap();
    primary.restart().unwrap();
    cluster
}

/// A Tidegate that reaches the cluster's primary by this host name, with these parameters of its URL.
pub fn reaching(cluster: &Cluster, database: &str, host: &str, parameters: &str) -> Tidegate {
    let url = cluster.primary().url(ROLE, database).replace("127.0.0.1", host);
    Tidegate::start(TidegateOptions {
        primary: format!("{url}?{parameters}"),
        toml: Some(pool_of(2) + "connect_timeout = \"2s\"\n"),
        ..TidegateOptions::default()
    })
}

#[test]
fn servers_are_reached_over_tls_and_known_by_their_certificate() {
    let authority = Authority::new("Ours");
    let cluster = encrypting(&authority, "tls_server");
    let root = format!("sslrootcert={}", authority.own());
    for (host, parameters) in [
        ("localhost", format!("sslmode=verify-full&{root}")),
        ("127.0.0.1", format!("sslmode=verify-ca&{root}")),
        ("127.0.0.1", "sslmode=require".to_owned()),
    ] {
        let tidegate = reaching(&cluster, "tls_server", host, &parameters);
        let mut client = Client::connect(&tidegate.url(ROLE, "tls_server"));
        let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(client.value(encrypted).as_deref(), Some("t"), "{parameters}");
        let long = client.value("SELECT repeat('0123456789', 1000000)").unwrap();
        assert!(long == "0123456789".repeat(1_000_000));
        client.send(pipeline().parse("", "SELECT length($1)", &[25]).sync());
        client.expect("1 ZI");
        for megabytes in 1..6 {
            let large = "x".repeat(megabytes * 1_000_000);
            client.send(pipeline().bind("", "", &[Some(&large)]).execute("").sync());
            assert_eq!(client.expect("2 D C ZI")[1].row(), [Some(large.len().to_string())]);
        }
        // A cancel goes the same way.
        client.send(pipeline().query("SELECT pg_sleep(60)"));
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'";
        wait_until(SOON, "it sleeps", || cluster.primary().psql(running).unwrap() == "1");
        client.cancel();
        client.expect("T E:57014 ZI");
    }
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_no_password_and_the_client_is_told_why() {
    let (authority, stranger) = (Authority::new("Ours"), Authority::new("A stranger"));
    let cluster = encrypting(&authority, "tls_refused");
    for (host, parameters, why) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={}", stranger.own()), "issuer"),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={}", stranger.own()), "issuer"),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={}", authority.own()), "127.0.0.1"),
        ("localhost", "sslmode=disable".to_owned(), "no encryption"),
    ] {
        let tidegate = reaching(&cluster, "tls_refused", host, &parameters);
        let error = Client::try_connect(&tidegate.url(ROLE, "tls_refused"), &[]).unwrap_err();
        let said = error.describe();
        assert_eq!(error.field(b'S').as_deref(), Some("FATAL"), "{said}");
        assert!(["08006", "28000"].contains(&error.sqlstate().as_str()), "{said}");
        assert!(said.to_lowercase().contains(why), "{parameters}: {said}");
        assert!(!said.contains(&password_of(ROLE)) && !tidegate.log().contains("app-password"));
        assert!(tidegate.log().contains("primary"), "the operator is told:\n{}", tidegate.log());
    }
}

/// Lines of the long copies: 30 MB, more than all buffers on the way hold.
const LINES: usize = 30_000;

/// TLS on both sides of Tidegate, and `psql` that runs this with long lines on its way in or out.
fn long_copy(authority: &Authority, tidegate: &Tidegate, sql: &str) -> std::process::Child {
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={ROLE} dbname=tls_long \
         sslmode=verify-full sslrootcert={}",
        authority.own()
    );
    let mut psql = shared_cluster().installation().client("psql");
    psql.env("PGPASSWORD", password_of(ROLE)).args(["-XAtc", sql, &target]);
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn trap_25_26_nothing_is_lost_or_repeated_over_tls_when_one_side_is_slow() {
    let authority = Authority::new("Ours");
    let cluster = encrypting(&authority, "tls_long");
    let (cert, key) = authority.sign("localhost");
    let url = cluster.primary().url(ROLE, "tls_long").replace("127.0.0.1", "localhost");
    let tidegate = Tidegate::start(TidegateOptions {
        primary: format!("{url}?sslmode=verify-full&sslrootcert={}", authority.own()),
        toml: Some(format!("{}[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n", pool_of(2))),
        ..TidegateOptions::default()
    });
    let line = |n: usize| format!("{n}\t{n:01000}\n");
    let all: String = (0..LINES).map(line).collect();
    let begin = "CREATE TABLE t (n int, a text); GRANT ALL ON t TO app; \
                 CREATE TABLE gate (); GRANT ALL ON gate TO app";
    cluster.primary().psql_in("tls_long", begin).unwrap();
    // In: the server stops in the middle, in a trigger, until somebody lets it go on.
    cluster
        .primary()
        .psql_in(
            "tls_long",
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN LOCK TABLE gate IN ROW SHARE MODE; RETURN NEW; END $$; \
             CREATE TRIGGER wait BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.n = 1000) \
             EXECUTE FUNCTION wait()",
        )
        .unwrap();
    let mut gate = Client::connect(&tidegate.url(ROLE, "tls_long"));
    gate.query("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE");
    let waits = |what: &str| {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event = '{what}'");
        wait_until(SOON, what, || cluster.primary().psql(&sql).unwrap() == "1");
    };
    let mut copy = long_copy(&authority, &tidegate, "COPY t FROM STDIN");
    let mut stdin = copy.stdin.take().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| stdin.write_all(all.as_bytes()).map(|()| drop(stdin)));
        waits("relation");
        gate.query("ROLLBACK");
        writer.join().unwrap().unwrap();
    });
    assert!(copy.wait().unwrap().success());
    // Out: nobody reads until the server can send no more.
    let mut copy = long_copy(&authority, &tidegate, "COPY (SELECT * FROM t ORDER BY n) TO STDOUT");
    waits("ClientWrite");
    let mut seen = String::new();
    copy.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(copy.wait().unwrap().success());
    assert!(seen == all, "{} bytes came back of {}", seen.len(), all.len());
}

// --- renewal ------------------------------------------------------------------------------------------

#[test]
fn trap_120_a_reload_shows_a_new_certificate_to_new_clients_and_drops_nobody() {
    let (before, after) = (Authority::new("Before"), Authority::new("After"));
    let database = test_database("tls_reload");
    let (cert, key) = before.sign("localhost");
    let tls = format!("[tls]\nmode = \"require\"\ncert = \"{cert}\"\nkey = \"{key}\"\n");
    let options = TidegateOptions::for_cluster(shared_cluster(), &database);
    let tidegate = Tidegate::start(TidegateOptions { toml: Some(pool_of(2) + &tls), ..options });
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    let psql = |trusted: &Authority, arguments: &[&str]| {
        let target = format!(
            "host=localhost hostaddr=127.0.0.1 port={port} user={ROLE} dbname={database} \
             sslmode=verify-full sslrootcert={}",
            trusted.own()
        );
        let mut psql = shared_cluster().installation().client("psql");
        psql.env("PGPASSWORD", password_of(ROLE)).args(arguments).arg(target);
        psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        psql.spawn().unwrap()
    };
    let connects = |trusted: &Authority| {
        let output = psql(trusted, &["-XAtc", "SELECT 1"]).wait_with_output().unwrap();
        output.status.success()
    };
    let mut staying = psql(&before, &["-XAtq"]);
    let (mut say, mut hear) = (staying.stdin.take().unwrap(), staying.stdout.take().unwrap());
    let mut ask = |word: &str| {
        writeln!(say, "SELECT '{word}';").unwrap();
        let mut answer = vec![0; word.len() + 1];
        hear.read_exact(&mut answer).unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("{word}\n"));
    };
    ask("first");
    let renew = |file: &str, from: &str| std::fs::copy(from, file).unwrap();
    let (new_cert, new_key) = after.sign("localhost");
    renew(&cert, &new_cert);
    renew(&key, &new_key);
    assert!(connects(&before) && !connects(&after), "files are read at a reload");
    tidegate.sighup();
    wait_until(SOON, "the new certificate is shown", || connects(&after));
    assert!(!connects(&before));
    ask("second");
    // Half a renewal: the key is not the certificate's.
    renew(&cert, &after.sign("localhost").0);
    let answer = tidegate.admin_post("/api/v1/reload", "");
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(connects(&after), "the one in force was kept");
    ask("third");
    drop(say);
    assert!(staying.wait().unwrap().success());
}
