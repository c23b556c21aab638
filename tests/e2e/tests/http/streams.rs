//! Long answers, slow clients, clients that go.

use super::Endpoint;
use crate::own::{SOON, wait_until_running};
use serde_json::{Value, json as value};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{Client, shared_cluster, wait_until};

/// Sends a request, and leaves the rest to the test.
fn send(endpoint: &Endpoint, sql: &str) -> TcpStream {
    let mut stream = TcpStream::connect(endpoint.at).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let body = value!({ "query": sql }).to_string();
    // Where the tests look for it.
    let login = format!(
        "Neon-Connection-String: {}?options=-c+tidegate.route%3Dprimary\r\n",
        endpoint.url(ROLE)
    );
    let length = body.len();
    write!(
        stream,
        "POST /sql HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{login}\r\n{body}"
    )
    .unwrap();
    stream
}

fn read_head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    head.to_ascii_lowercase()
}

/// Is nothing of this text running?
fn is_over(endpoint: &Endpoint, what: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND query LIKE '%{what}%'",
        endpoint.database
    );
    shared_cluster().primary().psql(&sql).unwrap() == "0"
}

#[test]
fn a_long_answer_comes_in_pieces_and_takes_no_memory() {
    let endpoint = Endpoint::start("http_long", "");
    endpoint.rows("SELECT 1");
    let before = endpoint.tidegate.resident_kib();
    let stream =
        send(&endpoint, "SELECT n, repeat('x', 1000) AS t FROM generate_series(1, 60000) n");
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader);
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut most = 0;
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        reader.read_exact(&mut chunk).unwrap();
        body.extend_from_slice(&chunk[..size]);
        most = most.max(size);
        if size == 0 {
            break;
        }
    }
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let rows = answer["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &answer["rowCount"]), (60_000, &value!(60_000)));
    assert!(rows.iter().enumerate().all(|(index, row)| row["n"] == index + 1));
    assert!(body.len() > 60_000_000 && most < 1 << 20, "{} in pieces of {most}", body.len());
    let grown = endpoint.tidegate.resident_kib().saturating_sub(before);
    assert!(grown < 30_000, "{grown} KiB for an answer of {} KiB", body.len() >> 10);
}

#[test]
fn an_answer_that_fails_on_the_way_is_not_whole() {
    let endpoint = Endpoint::start_with("http_cut", "result_mib_max = 2", "");
    // The first rows have gone when the last one fails; and an answer that becomes too large.
    for sql in [
        "SELECT 1 / (60000 - n) AS q, repeat('x', 20) FROM generate_series(1, 60000) n",
        "SELECT repeat('x', 1000) FROM generate_series(1, 5000) n",
    ] {
        let mut reader = BufReader::new(send(&endpoint, sql));
        let head = read_head(&mut reader);
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest);
        assert!(rest.len() > 100_000 && !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
    }
    assert_eq!(endpoint.counted("cut"), 2);
    // A failure before that is told as one.
    let (status, answer) =
        endpoint.ask("", &value!({ "query": "SELECT 1 / (9 - n) FROM generate_series(1, 9) n" }));
    assert_eq!((status, &answer["code"]), (400, &value!("22012")));
}

#[test]
fn a_client_that_goes_has_its_statement_cancelled() {
    let endpoint = Endpoint::start("http_gone", "");
    let stream = send(&endpoint, "SELECT pg_sleep(600), 'gone'");
    wait_until_running(shared_cluster(), &endpoint.database, "pg_sleep(600)", 1);
    drop(stream);
    wait_until(SOON, "it is cancelled", || is_over(&endpoint, "pg_sleep(600)"));
    wait_until(SOON, "it is counted", || endpoint.counted("gone") == 1);
    // And one that goes in the middle of a long answer.
    let long = "SELECT generate_series(1, 100000000), repeat('long', 500)";
    let mut stream = send(&endpoint, long);
    let mut some = [0; 100_000];
    stream.read_exact(&mut some).unwrap();
    drop(stream);
    wait_until(SOON, "it is cancelled", || is_over(&endpoint, "100000000"));
    wait_until(SOON, "it is counted", || endpoint.counted("gone") == 2);
    assert_eq!(endpoint.rows("SELECT 1 AS a"), value!([{"a": 1}]));
}

#[test]
fn a_request_that_takes_too_long_is_cancelled() {
    let endpoint = Endpoint::start_with("http_slow", "time_max = \"1s\"", "");
    let (status, answer) = endpoint.ask("", &value!({ "query": "SELECT pg_sleep(600), 'slow'" }));
    assert_eq!((status, &answer["code"]), (504, &value!("57014")), "{answer}");
    wait_until(SOON, "it is cancelled", || is_over(&endpoint, "pg_sleep(600)"));
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    let endpoint = Endpoint::start("http_reader", "");
    let mut stream =
        send(&endpoint, "SELECT n, repeat('y', 1000) AS t FROM generate_series(1, 20000) n");
    let mut first = [0; 100];
    stream.read_exact(&mut first).unwrap();
    for _ in 0..20 {
        assert_eq!(endpoint.rows("SELECT 1 AS a"), value!([{"a": 1}]));
    }
    let mut wire = Client::connect(&endpoint.tidegate.url(ROLE, &endpoint.database));
    assert_eq!(wire.value("SELECT 2").as_deref(), Some("2"));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n") && rest.len() > 20_000_000);
}
