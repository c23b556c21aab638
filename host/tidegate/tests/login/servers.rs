//! We log in to servers, real ones and false ones.

use crate::cluster::Cluster;
use crate::proxy::{Proxy, cancel_running, context, target};
use std::sync::Arc;
use tidegate::config::{ProtocolVersion, ServerAddress};
use tidegate::data::login::Method;
use tidegate::data::users::Users;
use tidegate::tls::{
    AcceptFiles, Acceptor, ClientCertificates, OwnCertificate, RootCertificates, ServerTls,
    SslMode, TlsError,
};
use tidegate::upstream::{
    BackendKey, ConnectError, Credentials, NewServer, Secret, Target, cancel, connect, simple_query,
};
use tidegate_wire::auth::{self, Keys, Request, Verifier};
use tidegate_wire::startup::{self, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn password(text: &str) -> Credentials {
    Credentials::Password(Secret::new(text))
}

async fn open(target: &Target, user: &str, credentials: &Credentials) -> Result<NewServer, String> {
    connect(target, "postgres", user, credentials, &[]).await.map_err(|error| match error {
        ConnectError::Refused(error) => format!("{}: {}", error.sqlstate, error.message),
        error => format!("{}: {error}", error.label()),
    })
}

fn verifying(host: &str, mode: SslMode, ca: &str) -> Target {
    let roots = RootCertificates::File(Cluster::get().file(ca));
    let port = Cluster::get().port;
    Target {
        address: ServerAddress::Tcp { host: host.to_owned(), port },
        tls: ServerTls::new(mode, Some(&roots), None).unwrap(),
        ..target(SslMode::Require)
    }
}

#[tokio::test]
async fn every_method_of_the_server_is_answered() {
    let target = target(SslMode::Prefer);
    for (user, credentials) in [
        ("alice", password("alicepw")),
        ("bob", password("böb's \"Ⅸ\" password")),
        ("mdee", password("mdeepw")),
        ("mdee", Credentials::Md5Hash(auth::md5::stored_hash("mdee", "mdeepw"))),
        ("plain", password("plainpw")),
        ("trusty", Credentials::None),
        ("trusty", password("not asked for")),
    ] {
        let mut server = open(&target, user, &credentials).await.unwrap();
        let rows = simple_query(&mut server, "SELECT current_user, NULL").await.unwrap();
        assert_eq!(rows, [[Some(user.to_owned()), None]]);
        assert_eq!(server.backend_key.unwrap().secret.len(), 4);
        assert!(server.parameters.iter().any(|(name, _)| name == "server_version"));
    }
}

#[tokio::test]
async fn what_the_server_refuses_comes_in_its_words() {
    let target = target(SslMode::Prefer);
    let refused = async |user: &str, credentials: Credentials| {
        open(&target, user, &credentials).await.unwrap_err()
    };
    let wrong = refused("alice", password("wrong")).await;
    assert_eq!(wrong, "28P01: password authentication failed for user \"alice\"");
    let nothing = refused("alice", Credentials::None).await;
    assert!(nothing.starts_with("policy: the server wants SCRAM from user \"alice\""), "{nothing}");
    let hash = Credentials::Md5Hash(auth::md5::stored_hash("alice", "alicepw"));
    assert!(refused("alice", hash).await.starts_with("policy: "));
    let keys = Credentials::ScramKeys(Keys::from_password("alicepw", b"another salt", 4096));
    assert!(refused("alice", keys).await.starts_with("28P01: "));
    let error = connect(&target, "nowhere", "trusty", &Credentials::None, &[]).await.unwrap_err();
    assert_eq!(error.to_refusal("primary").message, "database \"nowhere\" does not exist");
    let settings = [("work_mem", "nonsense")];
    let error =
        connect(&target, "postgres", "trusty", &Credentials::None, &settings).await.unwrap_err();
    assert_eq!(
        error.to_refusal("primary").sqlstate,
        "22023",
        "trap 13: the server judges settings"
    );
}

#[tokio::test]
async fn sslmodes_are_those_of_libpq() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    for (mode, user, secret, encrypted) in [
        (Disable, "alice", "alicepw", Some(false)),
        (Disable, "tlsonly", "tlspw", None),
        (Disable, "notls", "notlspw", Some(false)),
        (Allow, "alice", "alicepw", Some(false)),
        (Allow, "tlsonly", "tlspw", Some(true)),
        (Prefer, "alice", "alicepw", Some(true)),
        (Prefer, "notls", "notlspw", Some(false)),
        (Require, "alice", "alicepw", Some(true)),
        (Require, "notls", "notlspw", None),
    ] {
        let opened = open(&target(mode), user, &password(secret)).await;
        let found = opened.as_ref().ok().map(|server| server.stream.is_encrypted());
        assert_eq!(found, encrypted, "{mode:?} {user} {opened:?}");
    }
    for (host, mode, ca, passes) in [
        ("localhost", VerifyFull, "ca.crt", true),
        ("127.0.0.1", VerifyFull, "ca.crt", false),
        ("localhost", VerifyFull, "other-ca.crt", false),
        ("127.0.0.1", VerifyCa, "ca.crt", true),
        ("127.0.0.1", VerifyCa, "other-ca.crt", false),
        ("127.0.0.1", Require, "ca.crt", true),
        ("127.0.0.1", Require, "other-ca.crt", false),
        // The server's own certificate as what is trusted.
        ("localhost", VerifyFull, "server.crt", true),
        ("127.0.0.1", VerifyFull, "server.crt", false),
    ] {
        let opened = open(&verifying(host, mode, ca), "alice", &password("alicepw")).await;
        assert_eq!(opened.is_ok(), passes, "{host} {mode:?} {ca}: {opened:?}");
        if let Err(error) = opened {
            assert!(error.starts_with("tls: "), "{error}");
        }
    }
    assert!(matches!(ServerTls::new(VerifyFull, None, None), Err(TlsError::RootMissing)));
    let system = Some(&RootCertificates::System);
    assert!(matches!(ServerTls::new(Require, system, None), Err(TlsError::SystemNeedsVerifyFull)));
}

/// A proxy of ours stands for the server, with a certificate that PostgreSQL does not have here.
async fn verified(certificate: &str, host: &str) -> Result<NewServer, String> {
    let file = |ending: &str| Cluster::get().file(&format!("{certificate}.{ending}"));
    let files = AcceptFiles {
        certificate: file("crt"),
        key: file("key"),
        clients: ClientCertificates::NotAsked,
    };
    let mut context = context(Method::Trust, Users::Nobody);
    context.tls = Some(Arc::new(Acceptor::new(files).unwrap()));
    let proxy = Proxy::start(context).await;
    let target = verifying(host, SslMode::VerifyFull, &format!("{certificate}.crt"));
    let address = ServerAddress::Tcp { host: host.to_owned(), port: proxy.port };
    open(&Target { address, ..target }, "trusty", &Credentials::None).await
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_trusted_when_it_is_named() {
    assert!(verified("selfsigned", "localhost").await.unwrap().stream.is_encrypted());
    assert!(verified("selfsigned", "127.0.0.1").await.unwrap_err().starts_with("tls: "));
    let expired = verified("expired", "localhost").await.unwrap_err();
    assert!(expired.contains("Expired"), "{expired}");
}

#[tokio::test]
async fn our_certificate_logs_us_in() {
    let cluster = Cluster::get();
    let own =
        OwnCertificate { certificate: cluster.file("certy.crt"), key: cluster.file("certy.key") };
    let tls = ServerTls::new(SslMode::Require, None, Some(&own)).unwrap();
    let target = Target { tls, ..target(SslMode::Require) };
    let mut server = open(&target, "certy", &Credentials::None).await.unwrap();
    let rows = simple_query(&mut server, "SELECT current_user").await.unwrap();
    assert_eq!(rows, [[Some("certy".to_owned())]]);
}

#[tokio::test]
async fn unix_sockets_are_reached_without_tls() {
    let cluster = Cluster::get();
    let address = ServerAddress::Unix { dir: cluster.dir.clone(), port: cluster.port };
    let target = Target { address, ..target(SslMode::Require) };
    let server = open(&target, "alice", &Credentials::None).await.unwrap();
    assert!(!server.stream.is_encrypted());
}

#[tokio::test]
async fn queries_are_cancelled_plain_and_encrypted() {
    for mode in [SslMode::Disable, SslMode::Require] {
        let error = cancel_running(&target(mode), &password("adminpw")).await.unwrap_err();
        let ConnectError::Refused(error) = error else { panic!("{error}") };
        assert_eq!(error.sqlstate, "57014");
    }
}

#[tokio::test]
async fn a_failed_question_is_an_error_and_several_answers_are_one_list() {
    let mut server = open(&target(SslMode::Prefer), "alice", &password("alicepw")).await.unwrap();
    let rows = simple_query(&mut server, "SELECT 1; SELECT 2, ''").await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [vec![text("1")], vec![text("2"), text("")]]);
    let denied = simple_query(&mut server, "SELECT rolpassword FROM pg_catalog.pg_authid").await;
    assert!(matches!(denied, Err(ConnectError::Refused(error)) if error.sqlstate == "42501"));
}

// --- servers that are not what they should be ----------------------------------------------------

/// A server that sends the answers one after another, each when something has come from the client.
async fn false_server(answers: Vec<Vec<u8>>) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for answer in answers {
            if socket.read(&mut [0; 4096]).await.unwrap_or(0) == 0 {
                return;
            }
            socket.write_all(&answer).await.unwrap();
        }
        let _ = socket.read(&mut [0; 4096]).await;
    });
    Target {
        address: ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port },
        ..target(SslMode::Disable)
    }
}

fn authentication(requests: &[Request<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for request in requests {
        auth::write_request(&mut out, request);
    }
    out
}

const READY: &[u8] = b"Z\0\0\0\x05I";
const SASL: Request<'static> = Request::Sasl { mechanisms: b"SCRAM-SHA-256\0\0" };

async fn against(answers: Vec<Vec<u8>>) -> Result<NewServer, String> {
    open(&false_server(answers).await, "alice", &password("alicepw")).await
}

#[tokio::test]
async fn trap_07_20_21_false_servers_are_found_out() {
    let ok = authentication(&[Request::Ok]);
    let with = |rest: &[u8]| vec![[ok.as_slice(), rest].concat()];
    let error = against(vec![b"E\0\0\0\x0dMgo away\0\0".to_vec()]).await.unwrap_err();
    assert!(error == ": go away" || error.starts_with("protocol"), "{error}");
    let starts = [
        ("other method", vec![authentication(&[Request::Other(7)])], "policy: "),
        (
            "unknown mechanisms",
            vec![authentication(&[Request::Sasl { mechanisms: b"OAUTHBEARER\0\0" }])],
            "policy: ",
        ),
        (
            "ok in the middle of SCRAM",
            vec![authentication(&[SASL]), ok.clone()],
            "protocol: the server sent AuthenticationOk out of turn",
        ),
        (
            "final without proof",
            vec![authentication(&[SASL]), authentication(&[Request::SaslFinal(b"v=")])],
            "protocol: ",
        ),
        (
            "foreign nonce",
            vec![
                authentication(&[SASL]),
                authentication(&[Request::SaslContinue(b"r=x,s=c2FsdA==,i=1")]),
            ],
            "protocol: ",
        ),
        ("failed transaction", with(b"Z\0\0\0\x05E"), "protocol: "),
        ("short key", with(b"K\0\0\0\x0a\0\0\0\x01ab"), "protocol: "),
        ("false length", with(b"S\xff\xff\xff\xff"), "protocol: "),
        ("huge message", with(b"S\x7f\xff\xff\xff"), "protocol: "),
        ("rows unasked", with(b"D\0\0\0\x06\0\0"), "protocol: "),
        ("another version", vec![b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0".to_vec()], "protocol: "),
        ("closed", vec![], "unreachable: "),
    ];
    for (name, answers, expected) in starts {
        if name == "closed" {
            continue;
        }
        let error = against(answers).await.unwrap_err();
        assert!(error.starts_with(expected), "{name}: {error}");
    }
}

#[tokio::test]
async fn an_impostor_that_does_not_know_the_password_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut chunk = [0; 4096];
        let _ = socket.read(&mut chunk).await.unwrap();
        socket.write_all(&authentication(&[SASL])).await.unwrap();
        let bytes = socket.read(&mut chunk).await.unwrap();
        let (_, first) = auth::read_sasl_initial(&chunk[5..bytes]).unwrap();
        let verifier = Verifier::from_password("a guess", b"salt", 1);
        let (_, reply) =
            auth::ServerFirst::start(first, verifier, "nonce", &auth::Channel::None).unwrap();
        socket
            .write_all(&authentication(&[Request::SaslContinue(reply.as_bytes())]))
            .await
            .unwrap();
        let _ = socket.read(&mut chunk).await.unwrap();
        let signature = format!("v={}=", "A".repeat(43));
        let end = authentication(&[Request::SaslFinal(signature.as_bytes()), Request::Ok]);
        socket.write_all(&end).await.unwrap();
        let _ = socket.read(&mut chunk).await;
    });
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    let target = Target { address, ..target(SslMode::Disable) };
    let error = open(&target, "alice", &password("alicepw")).await.unwrap_err();
    assert!(error.starts_with("policy: ") && error.contains("impostor"), "{error}");
}

#[tokio::test]
async fn trap_77_a_server_without_key_and_with_notices_is_fine() {
    let notice = b"N\0\0\0\x0cMhello\0\0";
    let negotiated = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
    let answer =
        [negotiated, authentication(&[Request::Ok]).as_slice(), notice, READY, notice].concat();
    let server = against(vec![answer]).await.unwrap();
    assert_eq!(server.backend_key, None);
    assert!(server.parameters.is_empty());
}

#[tokio::test]
async fn a_server_is_asked_for_the_version_that_was_configured_and_may_have_an_older_one() {
    // PostgreSQL before 18 answers with NegotiateProtocolVersion.
    let newer = |target| Target { protocol: ProtocolVersion::V3_2, ..target };
    let mut server = open(&newer(target(SslMode::Prefer)), "alice", &password("alicepw")).await;
    let rows = simple_query(server.as_mut().unwrap(), "SELECT 1").await.unwrap();
    assert_eq!(rows, [vec![Some("1".to_owned())]]);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let secret: Vec<u8> = (0..32).collect();
    let key = [&b"K\0\0\0\x28\0\0\0\x07"[..], &secret].concat();
    let welcome = [authentication(&[Request::Ok]).as_slice(), &key, READY].concat();
    let packets = tokio::spawn(async move {
        let mut packets = Vec::new();
        for answer in [welcome, Vec::new()] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut packet = vec![0; 4096];
            let length = socket.read(&mut packet).await.unwrap();
            packet.truncate(length);
            packets.push(packet);
            socket.write_all(&answer).await.unwrap();
        }
        packets
    });
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    let target = newer(Target { address, ..target(SslMode::Disable) });
    let server = open(&target, "alice", &Credentials::None).await.unwrap();
    cancel(&target, &server.backend_key.unwrap()).await.unwrap();
    let packets = packets.await.unwrap();
    assert_eq!(packets[0][4..8], [0, 3, 0, 2]);
    let length = 4 + 4 + 4 + 32;
    let code_and_process = [0x04, 0xd2, 0x16, 0x2e, 0, 0, 0, 7];
    assert_eq!(packets[1], [&[0, 0, 0, length], &code_and_process[..], &secret].concat());
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    let error = open(&Target { address, ..target(SslMode::Prefer) }, "a", &Credentials::None).await;
    assert!(error.unwrap_err().starts_with("unreachable: "));
}

#[tokio::test]
async fn where_tls_is_preferred_and_broken_the_plain_line_serves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let mut chunk = [0; 4096];
        let mut codes = Vec::new();
        for _ in 0..4 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let bytes = socket.read(&mut chunk).await.unwrap();
            let (packet, _) = startup::read(&chunk[..bytes]).unwrap().unwrap();
            match packet {
                Packet::SslRequest => socket.write_all(b"S").await.unwrap(),
                Packet::Startup(_) => {
                    let answer = [&authentication(&[Request::Ok]), READY].concat();
                    socket.write_all(&answer).await.unwrap();
                }
                _ => {}
            }
            codes.push(packet);
        }
        codes
    });
    let address = ServerAddress::Tcp { host: "127.0.0.1".to_owned(), port };
    let target = Target { address, ..target(SslMode::Prefer) };
    let opened = open(&target, "alice", &Credentials::None).await.unwrap();
    assert!(!opened.stream.is_encrypted());
    let key = BackendKey { pid: -7, secret: vec![0, 1, 2, 3] };
    cancel(&target, &key).await.unwrap();
    let packets = server.await.unwrap();
    assert_eq!((&packets[0], &packets[2]), (&Packet::SslRequest, &Packet::SslRequest));
    let request = startup::CancelRequest { pid: key.pid, secret: key.secret };
    assert_eq!(packets[3], Packet::Cancel(request));
}
