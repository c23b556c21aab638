//! Tests of `postgres://` URLs.

use std::path::PathBuf;

use proptest::prelude::*;

use super::super::checked::*;
use super::super::url::parse_server_url;
use super::super::version::ProtocolVersion;

fn tcp(host: &str, port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: host.to_owned(), port }
}

#[test]
fn each_part_is_read() {
    let url = "postgresql://us%40er:p%3Aa%2Fss@[2001:db8::1]:6000/my%20db?sslmode=verify-ca&sslrootcert=/ca.pem\
               &sslcert=/c.pem&sslkey=/k.pem";
    let server = parse_server_url(url).unwrap();
    assert_eq!(server.address, tcp("2001:db8::1", 6000));
    assert_eq!((server.user.as_str(), server.database.as_str()), ("us@er", "my db"));
    assert_eq!(server.password, Some(Secret::new("p:a/ss")));
    assert_eq!(server.sslmode, SslMode::VerifyCa);
    assert_eq!(server.sslrootcert, Some(RootCertificates::File("/ca.pem".into())));
    let own = OwnCertificate { certificate: "/c.pem".into(), key: "/k.pem".into() };
    assert_eq!(server.own_certificate, Some(own));
}

#[test]
fn what_is_left_out_is_as_in_libpq() {
    let server = parse_server_url("postgres://ann@db").unwrap();
    assert_eq!((server.address, server.database.as_str()), (tcp("db", 5432), "ann"));
    assert_eq!((server.password, server.sslmode), (None, SslMode::Prefer));
    let system = parse_server_url("postgres://ann@db?sslrootcert=system").unwrap();
    assert_eq!(system.sslmode, SslMode::VerifyFull);
}

#[test]
fn a_directory_is_a_unix_socket() {
    let dir = || PathBuf::from("/var/run/postgresql");
    for url in [
        "postgres://ann@%2Fvar%2Frun%2Fpostgresql:5433/db",
        "postgres://ann@/db?host=/var/run/postgresql&port=5433",
        "postgres:///db?host=/var/run/postgresql&port=5433&user=ann",
    ] {
        let server = parse_server_url(url).unwrap();
        assert_eq!(server.address, ServerAddress::Unix { dir: dir(), port: 5433 }, "{url}");
        assert_eq!(server.address.socket_path(), Some(dir().join(".s.PGSQL.5433")));
    }
}

#[test]
fn errors_say_which_part_without_the_url() {
    let cases = [
        ("mysql://a@b", "does not begin with postgres:// or postgresql://"),
        ("postgres://b/db", "names no user"),
        ("postgres://a@/db", "names no host"),
        ("postgres://a@h1,h2/db", "names several hosts"),
        ("postgres://a@h1:1,h2:2/db", "the port is not a number"),
        ("postgres://a@h:0/db", "the port is not a number from 1 to 65535"),
        ("postgres://a@h:65536/db", "the port is not a number"),
        ("postgres://a:p@ss@h/db", "`@` in the user or password is written %40"),
        ("postgres://a@[::1/db", "`[` without `]`"),
        ("postgres://a@[nope]/db", "`[nope]` is not an IPv6 address"),
        ("postgres://a@[::1]5432/db", "`]` is followed by something but a port"),
        ("postgres://a%zz@h/db", "the user has `%` without two hexadecimal digits"),
        ("postgres://a@h/d%00b", "the database has `%` without two hexadecimal digits"),
        ("postgres://a@h/d%ff", "the database is not UTF-8"),
        ("postgres://a@h/db?sslmode=requir", "did you mean require?"),
        ("postgres://a@h/db?sslmod=require", "unknown parameter; did you mean sslmode?"),
        ("postgres://a@h/db?zzzz=require", "unknown parameter zzzz"),
        ("postgres://a@h/db?sslmode", "a parameter without `=`"),
        ("postgres://a@h/db?max_protocol_version=3.1", "is none of 3.0, 3.2"),
        ("postgres://a@h/db?sslcert=/c", "sslcert and sslkey go together"),
        ("postgres://a@h/db?sslrootcert=system&sslmode=require", "needs sslmode=verify-full"),
        ("postgres://a@h/db?sslmode=verify-full", "needs sslrootcert=FILE or sslrootcert=system"),
        ("postgres://a@h%20h/db", "the host contains white space"),
    ];
    for (url, expected) in cases {
        let message = parse_server_url(url).unwrap_err();
        assert!(message.contains(expected), "{url}: {message}");
    }
}

proptest! {
    /// What is displayed reads as the same server, whatever names it has, and shows no password.
    #[test]
    fn a_displayed_url_reads_as_the_same_server(
        user in "[^\\x00]{1,12}", database in "[^\\x00]{1,12}", port in 1_u16..,
        host in prop_oneof!["[a-z][a-z0-9.-]{0,12}", "/[a-z/%?&@ü]{1,12}", Just("::1".to_owned())],
        mode in proptest::sample::select(&SslMode::NAMES), ca in proptest::option::of("/[^\\x00]{1,9}"),
        binding in proptest::sample::select(ChannelBinding::ALL),
        version in proptest::sample::select(ProtocolVersion::ALL),
    ) {
        let mode: SslMode = mode.parse().unwrap();
        // Checking certificates needs something to check them against.
        let checks = matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull);
        let ca = ca.or(checks.then(|| "/ca.pem".to_owned()));
        let address = match host.starts_with('/') {
            true => ServerAddress::Unix { dir: host.into(), port },
            false => ServerAddress::Tcp { host, port },
        };
        let server = ServerUrl {
            name: String::new(), address, user, password: None, database, sslmode: mode,
            sslrootcert: ca.map(|path| RootCertificates::File(path.into())), own_certificate: None,
            channel_binding: binding, sslnegotiation: SslNegotiation::Postgres,
            max_protocol_version: version, node_exporter: None,
        };
        prop_assert_eq!(parse_server_url(&server.to_string()), Ok(server.clone()));
        let secret = ServerUrl { password: Some(Secret::new("hunter2")), ..server.clone() };
        prop_assert_eq!(secret.to_string(), server.to_string());
    }

    #[test]
    fn any_url_is_read_or_explained(rest in "\\PC{0,60}") {
        if let Err(message) = parse_server_url(&format!("postgres://{rest}")) {
            prop_assert!(!message.is_empty());
        }
    }
}
