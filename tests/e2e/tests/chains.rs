//! Channel binding and direct TLS, towards clients and towards servers; one Tidegate behind another, which can both.

use crate::own::{SOON, cluster_like, pool_of, tidegate, wait_until_running};
use crate::tls::{Authority, encrypting, reaching};
use std::process::Output;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, ClusterOptions, HostAuth, Tidegate, TidegateOptions, password_of, pipeline,
    shared_cluster, test_database, wait_until,
};

/// A Tidegate in front of the shared cluster that offers TLS, with a certificate for `localhost`.
fn inner(authority: &Authority, database: &str) -> Tidegate {
    let (cert, key) = authority.sign("localhost");
    let tls = format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n");
    tidegate(shared_cluster(), database, &(pool_of(2) + &tls))
}

fn psql(tidegate: &Tidegate, database: &str, more: &str) -> Output {
    let port = tidegate.address().rsplit_once(':').unwrap().1.to_owned();
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user={ROLE} dbname={database} {more}"
    );
    let mut psql = shared_cluster().installation().client("psql");
    psql.env("PGPASSWORD", password_of(ROLE)).args(["-XAtc", "SELECT 'in'", &target]);
    psql.output().unwrap()
}

#[track_caller]
fn refused(url: &str, why: &str) {
    let error = Client::try_connect(url, &[]).unwrap_err();
    let said = error.describe();
    assert_eq!(error.sqlstate(), "28000", "{said}");
    assert!(said.contains(why), "{said}");
}

#[test]
fn libpq_binds_its_login_to_the_certificate() {
    let authority = Authority::new("Ours");
    let database = test_database("binding");
    let tidegate = inner(&authority, &database);
    for binding in ["require", "prefer", "disable"] {
        let output =
            psql(&tidegate, &database, &format!("sslmode=require channel_binding={binding}"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n", "{binding}: {output:?}");
    }
    let output = psql(&tidegate, &database, "sslmode=disable channel_binding=require");
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn servers_prove_themselves_by_their_certificate_where_that_is_required() {
    let authority = Authority::new("Ours");
    let cluster = encrypting(&authority, "bound_server");
    cluster.create_role("bound_ann").unwrap();
    for binding in ["require", "prefer", "disable"] {
        let parameters = format!("sslmode=require&channel_binding={binding}");
        let tidegate = reaching(&cluster, "bound_server", "localhost", &parameters);
        // By a password, and by the keys that a login left.
        for user in [ROLE, "bound_ann"] {
            let mut client = Client::connect(&tidegate.url(user, "bound_server"));
            assert_eq!(client.value("SELECT session_user").as_deref(), Some(user), "{binding}");
        }
    }
    // A line that there is nothing to bind to, and a server that asks for nothing.
    let plain = cluster_like("bound_plain", &ClusterOptions::default());
    let tidegate = reaching(&plain, "bound_plain", "localhost", "channel_binding=require");
    refused(&tidegate.url(ROLE, "bound_plain"), "there is no TLS to bind to");
    let trust = ClusterOptions { host_auth: HostAuth::Trust, ..ClusterOptions::default() };
    let trust = cluster_like("bound_trust", &trust);
    let tidegate = reaching(&trust, "bound_trust", "localhost", "channel_binding=require");
    refused(&tidegate.url(ROLE, "bound_trust"), "authenticates without it");
}

#[test]
fn a_chain_of_two_speaks_direct_tls_and_protocol_3_2_and_carries_cancels() {
    const NEWEST: &str = "max_protocol_version=3.2";
    let authority = Authority::new("Ours");
    let database = test_database("chain");
    let inner = inner(&authority, &database);
    let (cert, key) = authority.sign("localhost");
    let toml = format!("{}[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n", pool_of(2));
    let url = inner.url(ROLE, &database).replace("127.0.0.1", "localhost");
    let checked = format!("sslmode=verify-full&sslrootcert={}", authority.own());
    let outer = Tidegate::start(TidegateOptions {
        primary: format!("{url}?{checked}&sslnegotiation=direct&channel_binding=require&{NEWEST}"),
        toml: Some(toml),
        ..TidegateOptions::default()
    });
    let output = psql(&outer, &database, "sslmode=require channel_binding=require");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "in\n", "{output:?}");
    let shown = crate::own::json(&inner, "/api/v1/clients");
    assert!(
        shown["clients"].as_array().unwrap().iter().any(|client| client["tls"] == true),
        "{shown}"
    );
    let mut client = Client::connect(&outer.url(ROLE, &database));
    let long = client.value("SELECT repeat('0123456789', 1000000)").unwrap();
    assert!(long == "0123456789".repeat(1_000_000));
    client.send(pipeline().query("SELECT pg_sleep(60)"));
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND datname = '{database}'"
    );
    wait_until(SOON, "it sleeps", || shared_cluster().primary().psql(&running).unwrap() == "1");
    client.cancel();
    client.expect("T E:57014 ZI");
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn a_server_that_knows_no_direct_tls_is_told_from_one_that_does() {
    let authority = Authority::new("Ours");
    // PostgreSQL before 17 takes a ClientHello for a start-up packet.
    let cluster = encrypting(&authority, "direct_old");
    let tidegate =
        reaching(&cluster, "direct_old", "localhost", "sslmode=require&sslnegotiation=direct");
    let error = Client::try_connect(&tidegate.url(ROLE, "direct_old"), &[]).unwrap_err();
    assert_eq!(error.sqlstate(), "08006", "{}", error.describe());
    assert!(error.describe().contains("TLS failed"), "{}", error.describe());
}

/// Sends a cancel request with this client's key to another Tidegate, and waits until it has been seen to.
fn cancel_at(other: &Tidegate, client: &Client) {
    let mut canceller = Client::open(&other.address());
    let length = u32::try_from(8 + client.backend_key.len()).unwrap();
    let request = [&length.to_be_bytes()[..], &80_877_102_u32.to_be_bytes(), &client.backend_key];
    canceller.send(request.concat());
    canceller.expect("(end)");
}

#[test]
fn trap_75_a_cancel_that_comes_to_another_tidegate_is_forwarded_and_never_in_circles() {
    let database = test_database("peers");
    let numbered = |id: usize, peers: &[(usize, &Tidegate)]| {
        let peers = peers
            .iter()
            .map(|(id, peer)| format!("[[peers]]\nid = {id}\naddress = \"{}\"\n", peer.address()));
        format!("peer_id = {id}\n{}{}", pool_of(2), peers.collect::<String>())
    };
    let one = tidegate(shared_cluster(), &database, &numbered(1, &[]));
    let two = tidegate(shared_cluster(), &database, &numbered(2, &[(1, &one)]));
    one.write_config(&numbered(1, &[(2, &two), (3, &two)]));
    one.reload();
    for (own, other) in [(&one, &two), (&two, &one)] {
        let mut client = Client::connect(&own.url(ROLE, &database));
        client.send(pipeline().query("SELECT pg_sleep(60)"));
        wait_until_running(shared_cluster(), &database, "pg_sleep(60)", 1);
        cancel_at(other, &client);
        client.expect("T E:57014 ZI");
    }
    // A key that two takes for the third's, and one sends to two: it goes no further.
    let third = tidegate(shared_cluster(), &database, &numbered(3, &[]));
    two.write_config(&numbered(2, &[(3, &one)]));
    two.reload();
    let mut client = Client::connect(&third.url(ROLE, &database));
    cancel_at(&two, &client);
    cancel_at(&one, &client);
    assert_eq!(client.value("SELECT 'untouched'").as_deref(), Some("untouched"));
}
