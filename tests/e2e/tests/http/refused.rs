//! Who is not let in, and what is not taken.

use super::Endpoint;
use crate::own::{Folder, SOON, pool_of, wait_for_state};
use crate::tls::Authority;
use serde_json::{Value, json as value};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::http::{self, Response};
use tidegate_test_support::{Client, password_of, shared_cluster, wait_until};

fn told(answer: &Response) -> (u16, String) {
    let read: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    (answer.status, read["code"].as_str().unwrap_or_default().to_owned())
}

fn select() -> Vec<u8> {
    value!({ "query": "SELECT 1 AS a" }).to_string().into_bytes()
}

fn connection(user: &str, password: &str, database: &str) -> String {
    format!("Neon-Connection-String: postgres://{user}:{password}@host/{database}\r\n")
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let endpoint = Endpoint::start("http_auth", "");
    let database = &endpoint.database;
    let wrong = endpoint.post(&connection(ROLE, "wrong", database), &select());
    let unknown = endpoint.post(&connection("nobody", "wrong", database), &select());
    assert_eq!((told(&wrong), told(&unknown)), ((401, "28P01".into()), (401, "28P01".into())));
    assert_eq!(wrong.body.replace(ROLE, "nobody"), unknown.body);
    let without_lengths = |answer: &Response| {
        let lines = answer.head.lines().filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("content-length") && !line.starts_with("date")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without_lengths(&wrong), without_lengths(&unknown));
    assert!(wrong.head.to_ascii_lowercase().contains("www-authenticate: basic"), "{wrong:?}");
    // Nothing of the password is in what is said or logged.
    assert!(!wrong.body.contains("wrong") && !endpoint.tidegate.log().contains("wrong"));
    for (headers, wanted) in [
        (String::new(), (401, "28000")),
        (connection(ROLE, "", database), (401, "28000")),
        ("Authorization: Bearer abc\r\n".to_owned(), (401, "28000")),
        (connection(ROLE, &password_of(ROLE), "no_such_database"), (400, "3D000")),
    ] {
        let answer = endpoint.post(&headers, &select());
        assert_eq!(told(&answer), (wanted.0, wanted.1.to_owned()), "{headers}");
    }
    // "app:app-password" as Basic, and the database by the string.
    let basic = format!(
        "Authorization: Basic YXBwOmFwcC1wYXNzd29yZA==\r\nNeon-Connection-String: postgres://host/{database}\r\n"
    );
    assert_eq!(endpoint.post(&basic, &select()).status, 200);
    assert!(endpoint.counted("unauthorized") >= 5);
}

#[test]
fn rules_hold_for_requests_as_for_connections() {
    let rules = Folder::new();
    let file = rules.file("pg_hba.conf");
    std::fs::write(&file, "local all all peer\nhostnossl all app 127.0.0.1/32 scram-sha-256\n")
        .unwrap();
    let toml = format!("[auth]\nhba_file = \"{}\"\n", file.display());
    let endpoint = Endpoint::start("http_hba", &toml);
    let app = connection(ROLE, &password_of(ROLE), &endpoint.database);
    assert_eq!(endpoint.post(&app, &select()).status, 200);
    // A pair of sockets within the process is no Unix socket of this user's.
    for user in ["root", "postgres", "http_other"] {
        let answer = endpoint.post(&connection(user, "x", &endpoint.database), &select());
        assert_eq!(told(&answer), (401, "28000".into()), "{user}: {answer:?}");
        assert!(answer.body.contains("no pg_hba.conf entry for host"), "{answer:?}");
    }
}

#[test]
fn garbage_is_refused_and_the_endpoint_goes_on() {
    let endpoint = Endpoint::start_with("http_garbage", "body_mib_max = 1", "");
    let login = endpoint.login();
    for body in [
        "",
        "null",
        "[]",
        "{",
        "\u{0}",
        "{\"query\": 1}",
        "{\"query\": \"SELECT 1\", \"params\": {}}",
        "{\"queries\": [1]}",
        "{\"query\": \"SELECT '\\u0000'\"}",
        "SELECT 1",
        "{\"query\": \"SELECT $1\", \"params\": [[[[[[[[1]]]]]]]]}",
    ] {
        assert_eq!(
            told(&endpoint.post(&login, body.as_bytes())),
            (400, "08P01".into()),
            "{body:?}"
        );
    }
    assert_eq!(endpoint.post(&login, b"\xff\xfe{").status, 400);
    for headers in ["Neon-Batch-Isolation-Level: Snapshot\r\n", "Neon-Batch-Read-Only: 1\r\n"] {
        assert_eq!(endpoint.post(&format!("{login}{headers}"), &select()).status, 400);
    }
    let asked = |method: &str, path: &str| {
        http::send(endpoint.at, (method, path), "", &login, &select()).unwrap().status
    };
    assert_eq!(
        (asked("GET", "/sql"), asked("POST", "/"), asked("POST", "/sql/x")),
        (405, 404, 404)
    );
    // Bytes that are no HTTP at all, and ends in the middle.
    for bytes in [
        &b"\x16\x03\x01\x00"[..],
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"POST /sql HTTP/1.1\r\nHost: x\r\nContent-Le",
    ] {
        let mut stream = TcpStream::connect(endpoint.at).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let too_large = "x".repeat((1 << 20) + 1);
    assert_eq!(told(&endpoint.post(&login, too_large.as_bytes())), (413, "54000".into()));
    let many: Vec<Value> = (0..1001).map(|_| value!({ "query": "SELECT 1" })).collect();
    assert_eq!(endpoint.ask("", &value!({ "queries": many })).0, 400);
    assert_eq!(
        endpoint.ask("", &value!({ "query": "COPY (SELECT 1) TO STDOUT" })).1["code"],
        "0A000"
    );
    assert_eq!(endpoint.ask("", &value!({ "query": "SELECT 1; SELECT 2" })).1["code"], "42601");
    assert_eq!(endpoint.rows("SELECT 1 AS a"), value!([{"a": 1}]));
}

#[test]
fn a_body_of_nobodys_is_not_read() {
    let endpoint = Endpoint::start("http_unread", "");
    let mut stream = TcpStream::connect(endpoint.at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = "POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 16000000\r\n";
    let login = connection(ROLE, "wrong", &endpoint.database);
    write!(stream, "{head}{login}\r\n").unwrap();
    // Not a byte of it has been sent.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let endpoint = Endpoint::start("http_slow_body", "");
    let mut stream = TcpStream::connect(endpoint.at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let head = "POST /sql HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n";
    write!(stream, "{head}{}\r\n{{", endpoint.login()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[test]
fn what_cannot_be_had_is_503() {
    let endpoint = Endpoint::start("http_full", "[limits]\nclients_max = 1");
    let _client = Client::connect(&endpoint.tidegate.url(ROLE, &endpoint.database));
    wait_for_state(&endpoint.tidegate, "idle");
    let answer = endpoint.post(&endpoint.login(), &select());
    assert_eq!(told(&answer), (503, "53300".into()), "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: 1"), "{answer:?}");
}

#[test]
fn web_pages_may_ask_only_if_they_are_named() {
    let origins = "cors_origins = [\"https://app.example.com\"]";
    let endpoint = Endpoint::start_with("http_cors", origins, "");
    let login = endpoint.login();
    let of = |origin: &str| {
        let answer = endpoint.post(&format!("{login}Origin: {origin}\r\n"), &select());
        (answer.status, answer.head.to_ascii_lowercase())
    };
    let (status, head) = of("https://app.example.com");
    assert_eq!(status, 200);
    assert!(head.contains("access-control-allow-origin: https://app.example.com"), "{head}");
    assert!(head.contains("vary: origin"), "{head}");
    for origin in ["https://evil.example.com", "null", "http://app.example.com"] {
        let (status, head) = of(origin);
        assert_eq!(status, 403, "{origin}");
        assert!(!head.contains("access-control-allow-origin"), "{head}");
    }
    let preflight = |origin: &str| {
        let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\n");
        http::send(endpoint.at, ("OPTIONS", "/sql"), "", &headers, b"").unwrap()
    };
    let allowed = preflight("https://app.example.com");
    assert_eq!(allowed.status, 204);
    let head = allowed.head.to_ascii_lowercase();
    for wanted in ["neon-connection-string", "access-control-max-age: 86400", "authorization"] {
        assert!(head.contains(wanted), "{wanted} in {head}");
    }
    assert_eq!(preflight("https://evil.example.com").status, 403);
    assert_eq!(endpoint.counted("preflight"), 1);
}

#[test]
fn with_a_certificate_it_is_https() {
    let authority = Authority::new("authority");
    let (cert, key) = authority.sign("localhost");
    let tls = format!("[tls]\nmode = \"require\"\ncert = \"{cert}\"\nkey = \"{key}\"");
    let endpoint = Endpoint::start("http_tls", &tls);
    let curl = |scheme: &str| {
        let port = endpoint.at.port();
        let output = Command::new("curl")
            .args([
                "-sS",
                "--cacert",
                &authority.own(),
                "--resolve",
                &format!("localhost:{port}:127.0.0.1"),
            ])
            .args(["-H", endpoint.login().trim_end(), "--data-binary", "@-"])
            .arg(format!("{scheme}://localhost:{port}/sql"))
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(|mut child| {
                let ssl = value!({ "query": "SELECT 1 AS a" }).to_string();
                child.stdin.take().unwrap().write_all(ssl.as_bytes())?;
                child.wait_with_output()
            })
            .unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let encrypted = curl("https");
    assert!(encrypted.contains(r#""rows":[{"a":1}]"#), "{encrypted}");
    // In clear it is as a connection in clear is: refused where TLS is required.
    let plain = curl("http");
    assert!(plain.contains("connection requires encryption"), "{plain}");
}

#[test]
fn where_passwords_would_go_in_clear_it_does_not_start() {
    let toml = |http: &str| format!("{}[http]\nlisten = \"0.0.0.0:1\"\n{http}", pool_of(1));
    let check = |http: &str| {
        let folder = Folder::new();
        let file = folder.file("tidegate.toml");
        let primary = shared_cluster().primary().url(ROLE, "postgres");
        std::fs::write(&file, toml(http) + &format!("\n[cluster]\nprimary = \"{primary}\"\n"))
            .unwrap();
        let output = Command::new(tidegate_test_support::tidegate::binary())
            .args(["check", "--config"])
            .arg(file)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    let (ok, said) = check("");
    assert!(!ok && said.contains("http.listen") && said.contains("allow_plain"), "{said}");
    let (ok, said) = check("allow_plain = true");
    assert!(ok && said.contains("in clear"), "{said}");
    let (ok, said) = check("allow_plain = true\ncors_origins = [\"app.example.com\"]");
    assert!(!ok && said.contains("http.cors_origins"), "{said}");
}

#[test]
fn a_drain_answers_what_is_under_way() {
    let mut endpoint = Endpoint::start("http_drain", "");
    let login = endpoint.login();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let body = value!({ "query": "SELECT pg_sleep(2), 'answered' AS a" }).to_string();
            endpoint.post(&login, body.as_bytes())
        });
        wait_for_state(&endpoint.tidegate, "active");
        endpoint.tidegate.sigterm();
        wait_until(SOON, "no more are taken", || TcpStream::connect(endpoint.at).is_err());
        let answer = asking.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body.contains("answered"), "{answer:?}");
    });
    assert_eq!(endpoint.tidegate.wait(), 0);
}
