//! Clients log in through libpq.

use crate::cluster::Cluster;
use crate::proxy::{FAKE_SECRET, Proxy, acceptor, context, server_users};
use std::net::SocketAddr;
use std::sync::Arc;
use tidegate::data::login::{Method, Peer};
use tidegate::data::users::{UserFile, Users};
use tidegate::tls::ClientCertificates;
use tidegate_core::session::login::{Destination, PeerKind, TlsPolicy, User};

const WHO: &str = "SELECT current_user";

fn remote() -> Option<Peer> {
    Some(Peer::Tcp(SocketAddr::from(([192, 0, 2, 1], 5000))))
}

fn failed(user: &str) -> String {
    format!("FATAL:  password authentication failed for user \"{user}\"")
}

#[tokio::test]
async fn users_of_the_server_log_in_with_their_own_passwords() {
    let proxy =
        Proxy::start(context(Method::Passthrough, server_users("admin", Some("adminpw")))).await;
    proxy.expect("user=admin", "adminpw", WHO, "admin").await;
    proxy.expect("user=alice", "alicepw", WHO, "alice").await;
    proxy.expect("user=bob", "böb's \"Ⅸ\" password", WHO, "bob").await;
    proxy.expect("user=bob", "böb's \"IX\" password", WHO, "bob").await;
    proxy.expect(r"user=o\'neil\\", "quoted", WHO, r"o'neil\").await;
    proxy.expect("user=mdee", "mdeepw", WHO, "mdee").await;
    proxy.expect("user=alice sslmode=require", "alicepw", WHO, "alice").await;
    proxy.expect("user=alice sslmode=disable", "alicepw", WHO, "alice").await;
    proxy
        .expect("user=alice options='-c work_mem=123kB'", "alicepw", "SHOW work_mem", "123kB")
        .await;
}

#[tokio::test]
async fn wrong_passwords_fail_in_postgresqls_words() {
    let mut proxy =
        Proxy::start(context(Method::Passthrough, server_users("admin", Some("adminpw")))).await;
    for (user, password, end) in [
        ("admin", "wrong", "password_wrong"),
        ("alice", "wrong", "password_wrong"),
        ("mdee", "wrong", "password_wrong"),
        ("nobody", "wrong", "user_unknown"),
        ("nopassword", "wrong", "user_unknown"),
        ("expired", "expiredpw", "password_expired"),
    ] {
        let options = format!("user={user} sslmode=disable");
        proxy.expect_error(&options, password, &failed(user)).await;
        assert_eq!(proxy.ended().await, end, "{user}");
    }
    let options = "user=locked sslmode=disable";
    proxy.expect_error(options, "lockedpw", "role \"locked\" is not permitted to log in").await;
    assert_eq!(proxy.ended().await, "login_not_permitted");
}

#[tokio::test]
async fn a_changed_password_counts_soon() {
    let proxy =
        Proxy::start(context(Method::Passthrough, server_users("admin", Some("adminpw")))).await;
    proxy.expect("user=changing", "before", WHO, "changing").await;
    Cluster::get().sql("ALTER ROLE changing PASSWORD 'after'");
    // The first attempt may meet what was known a moment ago, and makes it forgotten.
    proxy.psql("user=changing", "after", WHO).await;
    proxy.expect("user=changing", "after", WHO, "changing").await;
    proxy.expect_error("user=changing", "before", &failed("changing")).await;
}

#[tokio::test]
async fn whom_the_server_trusts_on_this_machine_is_let_in() {
    let proxy =
        Proxy::start(context(Method::Passthrough, server_users("admin", Some("adminpw")))).await;
    proxy.expect("user=trusty", "", WHO, "trusty").await;
    let mut proxy = Proxy::start(context(Method::Passthrough, server_users("boss", None))).await;
    proxy.expect("user=boss", "", WHO, "boss").await;
    proxy.expect("user=trusty", "", WHO, "trusty").await;
    proxy.expect("user=alice", "alicepw", WHO, "alice").await;
    proxy
        .expect_error("user=trusty dbname=nowhere", "", "database \"nowhere\" does not exist")
        .await;
    while proxy.ends.try_recv().is_ok() {}

    let users = server_users("admin", Some("adminpw"));
    let mut proxy = Proxy::start_with_peer(context(Method::Passthrough, users), remote()).await;
    let options = "user=trusty sslmode=require";
    proxy.expect_error(options, "guess", &failed("trusty")).await;
    assert_eq!(proxy.ended().await, "user_unknown");
}

#[tokio::test]
async fn where_passwords_cannot_be_read_the_server_decides() {
    let users = || server_users("plain", Some("plainpw"));
    let proxy = Proxy::start(context(Method::Passthrough, users())).await;
    proxy.expect("user=alice", "alicepw", WHO, "alice").await;
    proxy.expect("user=trusty", "", WHO, "trusty").await;
    proxy.expect_error("user=alice", "wrong", &failed("alice")).await;
    proxy.expect_error("user=nobody", "wrong", &failed("nobody")).await;

    let mut proxy = Proxy::start_with_peer(context(Method::Passthrough, users()), remote()).await;
    proxy.expect("user=alice sslmode=require", "alicepw", WHO, "alice").await;
    assert_eq!(proxy.ended().await, "done");
    proxy.expect_error("user=alice sslmode=disable", "alicepw", "sent unencrypted").await;
    assert_eq!(proxy.ended().await, "cleartext_forbidden");
}

#[tokio::test]
async fn users_of_a_file_log_in_by_every_method() {
    let verifier = "SCRAM-SHA-256$4096:WVrsfSLRPwQw/LgxeB/15Q==$\
        MMsQDJ9lk7mhwRMRnPq2wbWc48c4UKmMIwbHPgrocks=:3VtPkeOr8ALNaTGvRfxbtzkiTg/0LJ+IreiX5JwuYPQ=";
    let text = format!("\"alice\" \"alicepw\"\n\"trusty\" \"{verifier}\"\n\"empty\" \"\"");
    let users = Users::File(Arc::new(UserFile::new(
        &tidegate::config::Users::parse(&text).unwrap(),
        FAKE_SECRET,
    )));
    for method in [Method::Scram, Method::Md5, Method::Password] {
        let proxy = Proxy::start(context(method, users.clone())).await;
        proxy.expect("user=alice", "alicepw", WHO, "alice").await;
        proxy.expect("user=trusty", "pencil", WHO, "trusty").await;
        for user in ["alice", "trusty", "nobody", "empty"] {
            proxy.expect_error(&format!("user={user}"), "wrong", &failed(user)).await;
        }
    }
    let proxy = Proxy::start(context(Method::Trust, users)).await;
    proxy.expect("user=alice", "", WHO, "alice").await;
}

#[tokio::test]
async fn certificates_name_their_users() {
    let cluster = Cluster::get();
    let ca = cluster.file("ca.crt");
    let mut context = context(Method::Certificate, Users::Nobody);
    context.tls = Some(acceptor(ClientCertificates::Optional(ca.clone())));
    let mut proxy = Proxy::start(context.clone()).await;
    let with = |user: &str, name: &str| {
        let (cert, key) =
            (cluster.file(&format!("{name}.crt")), cluster.file(&format!("{name}.key")));
        format!("user={user} sslmode=require sslcert={} sslkey={}", cert.display(), key.display())
    };
    proxy.expect(&with("trusty", "trusty"), "", WHO, "trusty").await;
    assert_eq!(proxy.ended().await, "done");
    let refused = "certificate authentication failed for user \"trusty\"";
    proxy.expect_error(&with("trusty", "alice"), "", refused).await;
    assert_eq!(proxy.ended().await, "certificate_of_another");
    let bare = "user=trusty sslmode=require";
    proxy.expect_error(bare, "", "connection requires a valid client certificate").await;
    assert_eq!(proxy.ended().await, "certificate_missing");
    let stranger = with("trusty", "selfsigned");
    assert!(!proxy.psql(&stranger, "", WHO).await.status.success());
    assert_eq!(proxy.ended().await, "tls_failed");

    context.tls = Some(acceptor(ClientCertificates::Required(ca)));
    let mut proxy = Proxy::start(context).await;
    assert!(!proxy.psql(bare, "", WHO).await.status.success());
    assert_eq!(proxy.ended().await, "tls_failed");
}

#[tokio::test]
async fn clients_verify_us_and_can_be_made_to_encrypt() {
    let cluster = Cluster::get();
    let mut context = context(Method::Passthrough, server_users("admin", Some("adminpw")));
    context.policy.tls = TlsPolicy::Required;
    let mut proxy = Proxy::start(context).await;
    proxy
        .expect_error("user=alice sslmode=disable", "alicepw", "connection requires encryption")
        .await;
    assert_eq!(proxy.ended().await, "tls_required");
    let full = |ca: &str| {
        let ca = cluster.file(ca);
        format!(
            "user=alice host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}",
            ca.display()
        )
    };
    proxy.expect(&full("ca.crt"), "alicepw", WHO, "alice").await;
    proxy.expect_error(&full("other-ca.crt"), "alicepw", "certificate verify failed").await;
}

#[tokio::test]
async fn a_reload_serves_new_handshakes_and_survives_a_faulty_file() {
    let cluster = Cluster::get();
    let (certificate, key) = (cluster.file("reload.crt"), cluster.file("reload.key"));
    std::fs::copy(cluster.file("proxy.crt"), &certificate).unwrap();
    std::fs::copy(cluster.file("proxy.key"), &key).unwrap();
    let files = tidegate::tls::AcceptFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        clients: ClientCertificates::NotAsked,
    };
    let acceptor = Arc::new(tidegate::tls::Acceptor::new(files).unwrap());
    let mut context = context(Method::Trust, Users::Nobody);
    context.tls = Some(acceptor.clone());
    let proxy = Proxy::start(context).await;
    let full = |ca: &str| {
        let ca = cluster.file(ca);
        format!(
            "user=trusty host=localhost hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}",
            ca.display()
        )
    };
    proxy.expect(&full("ca.crt"), "", WHO, "trusty").await;
    std::fs::copy(cluster.file("selfsigned.crt"), &certificate).unwrap();
    assert!(acceptor.reload().unwrap_err().to_string().contains("is not the key"));
    proxy.expect(&full("ca.crt"), "", WHO, "trusty").await;
    std::fs::copy(cluster.file("selfsigned.key"), &key).unwrap();
    acceptor.reload().unwrap();
    proxy.expect_error(&full("ca.crt"), "", "certificate verify failed").await;
    proxy.expect(&full("selfsigned.crt"), "", WHO, "trusty").await;
}

#[tokio::test]
async fn many_logins_at_once_share_what_they_ask() {
    let users = server_users("admin", Some("adminpw"));
    let Users::Server(directory) = &users else { panic!("not the server's users") };
    let look_up = |index: usize| {
        let directory = directory.clone();
        let user = match index % 4 {
            0 => "alice".to_owned(),
            1 => "bob".to_owned(),
            2 => "nopassword".to_owned(),
            _ => format!("nobody{index}"),
        };
        tokio::spawn(async move {
            let found = directory
                .look_up(&user, &Destination::database("postgres"), PeerKind::Remote)
                .await;
            (index % 4, matches!(found.user, User::Known { .. }), found.user)
        })
    };
    let logins: Vec<_> = (0..200).map(look_up).collect();
    // Some give up while they wait.
    logins.iter().skip(3).step_by(7).for_each(|login| login.abort());
    for (index, login) in logins.into_iter().enumerate() {
        match login.await {
            Ok((kind, known, user)) => assert_eq!(known, kind < 2, "{index}: {user:?}"),
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    let found =
        directory.look_up("mdee", &Destination::database("postgres"), PeerKind::Remote).await;
    assert!(matches!(found.user, User::Known { .. }));
    // And all of these give up: the connection that was kept for them must not stay.
    let given_up: Vec<_> = (1_000..1_050).map(look_up).collect();
    let destination = Destination::database("postgres");
    let last = directory.look_up("nobody", &destination, PeerKind::Remote);
    assert!(matches!(last.await.user, User::Unknown));
    given_up.iter().for_each(|login| login.abort());
    for login in given_up {
        let _ = login.await;
    }
    let lingering = "SELECT count(*) FROM pg_stat_activity \
        WHERE application_name = 'tidegate: user look-up' AND usename = 'admin'";
    let proxy = Proxy::start(context(Method::Passthrough, users)).await;
    // Other tests look users up at the same time; each look-up is over in milliseconds.
    for _ in 0..1_000 {
        let output = proxy.psql("user=admin", "adminpw", lingering).await;
        if output.stdout == b"0\n" {
            return;
        }
    }
    panic!("a look-up's connection stays open");
}
