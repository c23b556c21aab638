//! Clients that speak in bytes: slow ones, rude ones, and those who do what libpq of this version
//! cannot.

use crate::cluster::Cluster;
use crate::proxy::{Proxy, context, server_users, target};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::sync::Arc;
use tidegate::data::login::Method;
use tidegate::data::users::Users;
use tidegate::tls::SslMode;
use tidegate_core::limits::LOGIN_TIME_MAX;
use tidegate_wire::auth::{self, ClientFirst, ScramSecret, Secret};
use tidegate_wire::error_fields::{field, find};
use tidegate_wire::startup;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn pass_through() -> Proxy {
    Proxy::start(context(Method::Passthrough, server_users("admin", Some("adminpw")))).await
}

async fn dial(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port)).await.unwrap()
}

fn startup_packet(user: &str) -> Vec<u8> {
    let mut out = Vec::new();
    startup::startup_message(&mut out, 0, [("user", user), ("database", "postgres")]);
    out
}

fn ssl_packet() -> Vec<u8> {
    let mut out = Vec::new();
    startup::ssl_request(&mut out);
    out
}

fn gssenc_packet() -> Vec<u8> {
    let mut out = Vec::new();
    startup::gssenc_request(&mut out);
    out
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    let length = stream.read_u32().await.unwrap() as usize;
    let mut body = vec![0; length - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

async fn byte(stream: &mut (impl AsyncRead + Unpin)) -> u8 {
    stream.read_u8().await.unwrap()
}

/// All until the end: what a refused client gets to see.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

fn sqlstate(message: &[u8]) -> &str {
    assert_eq!(message.first(), Some(&b'E'), "{message:?}");
    std::str::from_utf8(find(&message[5..], field::SQLSTATE).unwrap()).unwrap()
}

/// Logs in by SCRAM; yields the tags and the codes of what the server said.
async fn scram(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    user: &str,
    password: &str,
) -> Vec<String> {
    let mut said = Vec::new();
    stream.write_all(&startup_packet(user)).await.unwrap();
    let secret = ScramSecret::Password(Secret::new(password));
    let (client, first) = ClientFirst::start(secret, "clientnonce", &auth::Channel::None);
    let (tag, body) = message(stream).await;
    said.push(format!("{} {}", char::from(tag), body[3]));
    let mut out = Vec::new();
    auth::write_sasl_initial(&mut out, auth::SCRAM_SHA_256, first.as_bytes());
    stream.write_all(&out).await.unwrap();
    let (tag, body) = message(stream).await;
    said.push(format!("{} {} {}", char::from(tag), body[3], body.len()));
    let (_, proof) = client.answer(&body[4..]).unwrap();
    out.clear();
    auth::write_sasl_response(&mut out, proof.as_bytes());
    stream.write_all(&out).await.unwrap();
    let (tag, body) = message(stream).await;
    let text = find(&body, field::MESSAGE).map(|text| String::from_utf8_lossy(text).into_owned());
    said.push(format!("{} {}", char::from(tag), text.unwrap_or_default()));
    said
}

#[tokio::test]
async fn trap_18_unknown_users_hear_the_same_as_wrong_passwords() {
    let proxy = pass_through().await;
    let wrong = scram(&mut dial(&proxy).await, "alice", "wrong").await;
    let unknown = scram(&mut dial(&proxy).await, "zelda", "wrong").await;
    assert_eq!(wrong[..2], unknown[..2]);
    assert_eq!(wrong[2].replace("alice", "zelda"), unknown[2]);
    assert!(wrong[2].starts_with("E password authentication failed"));
    assert_eq!(scram(&mut dial(&proxy).await, "alice", "alicepw").await[2], "R ");
}

#[tokio::test]
async fn a_byte_at_a_time_is_as_good_as_any() {
    let proxy = pass_through().await;
    let mut stream = dial(&proxy).await;
    stream.set_nodelay(true).unwrap();
    for byte in [gssenc_packet(), startup_packet("alice")].concat() {
        stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
        if byte == 0x30 {
            assert_eq!(self::byte(&mut stream).await, b'N');
        }
    }
    let (tag, body) = message(&mut stream).await;
    assert_eq!((tag, body[3]), (b'R', 10));
}

#[tokio::test]
async fn trap_06_rubbish_is_answered_by_silence() {
    let mut proxy = pass_through().await;
    for rubbish in [
        b"GET / HTTP/1.1\r\nHost: tidegate\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 100_000],
        [&10_001_u32.to_be_bytes()[..], &[0; 10_000]].concat(),
    ] {
        let mut stream = dial(&proxy).await;
        stream.write_all(&rubbish).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream).await, b"");
        assert_eq!(proxy.ended().await, "startup_malformed");
    }
    let mut stream = dial(&proxy).await;
    stream.write_all(&[0, 0, 1, 0, 0, 3, 0]).await.unwrap();
    drop(stream);
    assert_eq!(proxy.ended().await, "disconnected");
}

#[tokio::test]
async fn a_malformed_start_up_is_explained() {
    let mut proxy = pass_through().await;
    for (body, expected) in [
        (&b"\0\x03\0\0user\0alice\0"[..], "08P01"),
        (b"\0\x03\0\0user\0alice\0\0more", "08P01"),
        (b"\0\x03\0\0user\0\xff\0\0", "08P01"),
        (b"\0\x03\0\0\0", "28000"),
        (b"\0\x02\0\0user\0alice\0\0", "0A000"),
        (b"\0\x03\0\0user\0alice\0replication\0perhaps\0\0", "22023"),
        (b"\0\x03\0\0user\0alice\0options\0-c\0\0", "42601"),
    ] {
        let mut stream = dial(&proxy).await;
        let packet = [&((body.len() + 4) as u32).to_be_bytes()[..], body].concat();
        stream.write_all(&packet).await.unwrap();
        assert_eq!(sqlstate(&rest(&mut stream).await), expected, "{body:?}");
        proxy.ended().await;
    }
}

#[tokio::test]
async fn an_oversized_answer_is_refused_from_its_header() {
    let mut proxy = pass_through().await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&startup_packet("alice")).await.unwrap();
    message(&mut stream).await;
    stream.write_all(b"p\x7f\xff\xff\xff").await.unwrap();
    assert_eq!(sqlstate(&rest(&mut stream).await), "08P01");
    assert_eq!(proxy.ended().await, "message_length");
}

#[tokio::test]
async fn trap_01_and_03_encryption_is_asked_for_once_and_with_nothing_behind() {
    let mut proxy = pass_through().await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&[ssl_packet(), startup_packet("alice")].concat()).await.unwrap();
    assert_eq!(sqlstate(&rest(&mut stream).await), "08P01");
    assert_eq!(proxy.ended().await, "bytes_before_tls");

    let mut stream = dial(&proxy).await;
    for _ in 0..2 {
        stream.write_all(&gssenc_packet()).await.unwrap();
        if byte(&mut stream).await != b'N' {
            break;
        }
    }
    assert_eq!(proxy.ended().await, "negotiation_repeated");
}

#[tokio::test]
async fn trap_03_ssl_twice_is_refused_without_tls_too() {
    let mut context = context(Method::Trust, Users::Nobody);
    context.tls = None;
    let mut proxy = Proxy::start(context).await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&ssl_packet()).await.unwrap();
    assert_eq!(byte(&mut stream).await, b'N');
    stream.write_all(&ssl_packet()).await.unwrap();
    assert_eq!(sqlstate(&rest(&mut stream).await), "08P01");
    assert_eq!(proxy.ended().await, "negotiation_repeated");
}

fn connector(alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(Cluster::get().file("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn trap_04_direct_tls_is_taken_with_its_alpn_name() {
    let mut proxy = pass_through().await;
    let name = || "localhost".try_into().unwrap();
    let direct = connector(&[b"postgresql"]);
    let mut stream = direct.connect(name(), dial(&proxy).await).await.unwrap();
    assert_eq!(scram(&mut stream, "alice", "alicepw").await[2], "R ");
    drop(stream);
    assert_eq!(proxy.ended().await, "done");

    let nameless = connector(&[]);
    let mut stream = nameless.connect(name(), dial(&proxy).await).await.unwrap();
    assert_eq!(sqlstate(&rest(&mut stream).await), "08P01");
    assert_eq!(proxy.ended().await, "alpn_missing");

    let browser = connector(&[b"http/1.1"]);
    assert!(browser.connect(name(), dial(&proxy).await).await.is_err());
    assert_eq!(proxy.ended().await, "tls_failed");
}

#[tokio::test]
async fn trap_02_gssenc_then_ssl_then_a_cancel_inside() {
    let mut proxy = pass_through().await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&gssenc_packet()).await.unwrap();
    assert_eq!(byte(&mut stream).await, b'N');
    stream.write_all(&ssl_packet()).await.unwrap();
    assert_eq!(byte(&mut stream).await, b'S');
    let mut stream = connector(&[]).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let mut packet = Vec::new();
    startup::cancel_request(&mut packet, -1, &[0; 256]);
    stream.write_all(&packet).await.unwrap();
    assert_eq!(proxy.ended().await, "cancel");
}

#[tokio::test]
async fn plain_text_where_tls_should_begin_is_a_failed_handshake() {
    let mut proxy = pass_through().await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&ssl_packet()).await.unwrap();
    assert_eq!(byte(&mut stream).await, b'S');
    stream.write_all(&startup_packet("alice")).await.unwrap();
    assert_eq!(proxy.ended().await, "tls_failed");
}

#[tokio::test]
async fn bytes_behind_the_last_login_message_are_kept() {
    let proxy = Proxy::start(context(Method::Trust, Users::Nobody)).await;
    let mut stream = dial(&proxy).await;
    let mut input = startup_packet("trusty");
    tidegate_wire::frontend::query(&mut input, b"SELECT 'pipelined'");
    stream.write_all(&input).await.unwrap();
    loop {
        let (tag, body) = message(&mut stream).await;
        if tag == b'D' {
            assert!(body.ends_with(b"pipelined"));
            break;
        }
        assert_ne!(tag, b'E');
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_does_not_go_on_is_ended() {
    // The server is started before, for real time would let the clock of this test run away.
    let mut proxy = Proxy::start(context(Method::Scram, Users::Nobody)).await;
    let began = tokio::time::Instant::now();
    let mut silent = dial(&proxy).await;
    assert_eq!(rest(&mut silent).await, b"");
    assert_eq!(proxy.ended().await, "timed_out");
    assert!(began.elapsed() >= LOGIN_TIME_MAX);

    let mut stream = dial(&proxy).await;
    stream.write_all(&startup_packet("alice")).await.unwrap();
    message(&mut stream).await;
    assert_eq!(sqlstate(&rest(&mut stream).await), "57014");
    assert_eq!(proxy.ended().await, "timed_out");
}

#[tokio::test]
async fn a_server_that_is_gone_is_told() {
    let mut target = target(SslMode::Prefer);
    target.address = tidegate::config::ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port: 1 };
    let directory = tidegate::upstream::UserDirectory::new(
        target,
        "postgres".to_owned(),
        "admin".to_owned(),
        Some(Secret::new("adminpw")),
        [0; 32],
    );
    let users = Users::Server(Arc::new(directory));
    let mut proxy = Proxy::start(context(Method::Passthrough, users)).await;
    let mut stream = dial(&proxy).await;
    stream.write_all(&startup_packet("alice")).await.unwrap();
    assert_eq!(sqlstate(&rest(&mut stream).await), "08006");
    assert_eq!(proxy.ended().await, "server_unreachable");
}
