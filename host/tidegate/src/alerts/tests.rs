//! Letters to receivers of ours: over TLS that is good or not, with answers that are good or not.

use std::time::SystemTime;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tidegate_alerts::Failure;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::{AlertChannel, MailServer, MailTls, RootCertificates, Secret, WebUrl};

struct Certified {
    file: tempfile::NamedTempFile,
    acceptor: TlsAcceptor,
}

fn certified() -> Certified {
    let CertifiedKey { cert, signing_key }: CertifiedKey<KeyPair> =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    Certified { file, acceptor: TlsAcceptor::from(Arc::new(config)) }
}

fn a_letter() -> Letter {
    let finding = Finding {
        condition: Condition::Lag,
        server: Some("replica-1".to_owned()),
        what: "it is 7 s behind".to_owned(),
        is_urgent: false,
    };
    Letter {
        occasion: Occasion::Fired,
        finding,
        since: SystemTime::UNIX_EPOCH,
        lasted: Duration::ZERO,
        done: Vec::new(),
        cluster: String::new(),
        source: "here".to_owned(),
    }
}

fn webhook(port: u16, tls: bool, roots: RootCertificates) -> AlertReceiver {
    let url = WebUrl { tls, host: "localhost".to_owned(), port, path: Secret::new("/hook?a=b") };
    let channel = AlertChannel::Webhook { url, token: None };
    AlertReceiver { channel, repeat: Duration::from_secs(3600), roots }
}

/// Reads one request, answers it, and says what it was.
async fn answer_one<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, status: u16) -> String {
    let mut text = String::new();
    while !text.contains("}") {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    text
}

#[tokio::test]
async fn a_post_over_tls_goes_to_whom_the_certificates_name_alone() {
    let (good, other) = (certified(), certified());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let roots = |of: &Certified| RootCertificates::File(of.file.path().to_owned());
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let text = answer_one(good.acceptor.accept(stream).await.unwrap(), 204).await;
        let (stream, _) = listener.accept().await.unwrap();
        assert!(good.acceptor.accept(stream).await.is_err(), "it hangs up on a stranger");
        text
    };
    let ask = async {
        send(&webhook(port, true, roots(&good)), &a_letter()).await.unwrap();
        send(&webhook(port, true, roots(&other)), &a_letter()).await.unwrap_err()
    };
    let (text, refused) = tokio::join!(serve, ask);
    assert!(text.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("\"alert\":\"lag\""), "{text}");
    assert_eq!(refused.failure, Failure::Passing);
    assert!(refused.words.contains("certificate"), "{}", refused.words);
}

#[tokio::test]
async fn what_a_receiver_has_against_us_is_final_and_what_ails_it_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let cases = [
        (200, None),
        (302, Some(Failure::Final)),
        (404, Some(Failure::Final)),
        (429, Some(Failure::Passing)),
        (503, Some(Failure::Passing)),
    ];
    for (status, expected) in cases {
        let serve = async { answer_one(listener.accept().await.unwrap().0, status).await };
        let receiver = webhook(port, false, RootCertificates::System);
        let letter = a_letter();
        let (_, outcome) = tokio::join!(serve, send(&receiver, &letter));
        assert_eq!(outcome.err().map(|refused| refused.failure), expected, "{status}");
    }
    drop(listener);
    let refused = send(&webhook(port, false, RootCertificates::System), &a_letter()).await;
    let words = refused.unwrap_err().words;
    assert!(words.contains("refused") && !words.contains("hook"), "{words}");
}

/// A mail server that answers each line in turn.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    answers: &[&str],
) -> Vec<String> {
    let mut lines = Vec::new();
    for answer in answers {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        lines.push(String::from_utf8(line).unwrap().trim_end().to_owned());
        stream.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
    }
    lines
}

#[tokio::test]
async fn mail_goes_by_starttls_and_not_at_all_without_it() {
    let good = certified();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = MailServer { host: "localhost".to_owned(), port, tls: MailTls::StartTls };
    let channel = AlertChannel::Email {
        server,
        from: "a@b".to_owned(),
        to: vec!["c@d".to_owned()],
        login: Some(("user".to_owned(), Secret::new("hunter2"))),
    };
    let roots = RootCertificates::File(good.file.path().to_owned());
    let receiver = AlertReceiver { channel, repeat: Duration::from_secs(60), roots };
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail\r\n").await.unwrap();
        converse(&mut stream, &["250-mail\r\n250 STARTTLS", "220 go on"]).await;
        let mut stream = good.acceptor.accept(stream).await.unwrap();
        let said = converse(
            &mut stream,
            &["250-mail\r\n250 AUTH PLAIN", "235 ok", "250 ok", "550 unknown"],
        )
        .await;
        drop(stream);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 mail\r\n").await.unwrap();
        let in_clear = converse(&mut stream, &["250-mail\r\n250 AUTH PLAIN"]).await;
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "nothing more is said in clear");
        (said, in_clear)
    };
    let ask = async {
        let unknown = send(&receiver, &a_letter()).await.unwrap_err();
        (unknown, send(&receiver, &a_letter()).await.unwrap_err())
    };
    let ((said, in_clear), (unknown, without)) = tokio::join!(serve, ask);
    assert!(said[1].starts_with("AUTH PLAIN ") && said[3].starts_with("RCPT TO:<c@d>"), "{said:?}");
    assert!(in_clear[0].starts_with("EHLO "), "{in_clear:?}");
    assert_eq!((unknown.failure, without.failure), (Failure::Final, Failure::Final));
    assert!(unknown.words.contains("550 unknown"), "{}", unknown.words);
    assert!(without.words.contains("no STARTTLS"), "{}", without.words);
}
