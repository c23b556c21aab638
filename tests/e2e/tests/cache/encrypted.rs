//! Answers in a Redis that is reached over TLS, and what is believed there.

use super::{SCHEMA, SOON};
use crate::own::{metric, policies_answer};
use crate::tls::Authority;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Redis, Tidegate, TidegateOptions, free_port, shared_cluster, test_database, wait_until,
};

const SQL: &str = "SELECT v FROM t WHERE id = 1";

/// Takes part with the Redis at this port, whose certificate has to lead to this one.
fn start(database: &str, host: &str, port: u16, root_ca: &str) -> Tidegate {
    let mut options = TidegateOptions::for_cluster(shared_cluster(), database);
    options.replicas.clear();
    options.toml = Some(format!(
        "workers = 1\npeer_id = 1\n[pool]\nsize_min = 0\nsize_max = 5\n[cache.redis]\n\
         url = \"rediss://:secret@{host}:{port}\"\nroot_ca = \"{root_ca}\"\n\
         deadline = \"1s\"\nlease = \"3s\"\n"
    ));
    let tidegate = Tidegate::start(options);
    wait_until(3 * SOON, "policies answer", || policies_answer(&tidegate));
    let rules = r#"{"rules": [{"table": "t", "ttl_ms": 60000}]}"#;
    let answer = tidegate.admin_put("/api/v1/plugins/caching/config", rules);
    assert_eq!(answer.status, 200, "{answer:?}");
    tidegate
}

#[test]
fn a_redis_is_believed_by_its_certificate_alone() {
    let (authority, stranger) = (Authority::new("Ours"), Authority::new("A stranger"));
    let (cert, key) = authority.sign("localhost");
    let tls_port = free_port().unwrap();
    let redis = Redis::start(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority.own(),
        "--tls-auth-clients",
        "no",
    ]);
    // The password is asked for from now on, on both ports.
    redis.command("CONFIG SET requirepass secret");
    let database = test_database("cache_tls");
    let mut direct = Client::connect(&shared_cluster().primary().url(ROLE, &database));
    direct.query(SCHEMA);
    {
        let tidegate = start(&database, "localhost", tls_port, &authority.own());
        let mut client = Client::connect(&tidegate.url(ROLE, &database));
        wait_until(3 * SOON, "answers are shared", || {
            client.value(SQL);
            metric(&tidegate, "tidegate_cache_l2_serving") == 1.0
                && metric(&tidegate, "tidegate_cache_l2_puts_total") > 0.0
        });
    }
    // Another's certificate, and a name that it does not have: statements go on, and nothing is told to a stranger.
    for (host, root_ca) in [("localhost", stranger.own()), ("127.0.0.1", authority.own())] {
        let tidegate = start(&database, host, tls_port, &root_ca);
        let mut client = Client::connect(&tidegate.url(ROLE, &database));
        wait_until(SOON, "it is told why", || {
            client.value(SQL);
            let log = tidegate.log();
            log.contains("no answers are kept or served") && log.contains("certificate")
        });
        assert_eq!(client.value(SQL).as_deref(), Some("1"));
        assert_eq!(metric(&tidegate, "tidegate_cache_l2_joined"), 0.0);
        assert!(!tidegate.log().contains("secret"));
    }
}
