//! Who decides which server is the primary.

use super::*;
use crate::config::redact::redacted;
use std::time::Duration;
use tidegate_cluster::Mode;

const REPLICAS: &str = "cluster.replicas = [\"postgres://app@b:5433/shop\"]\n";

#[test]
fn etcd_is_named_where_it_decides() {
    let text = format!(
        "{REPLICAS}[failover]\nmode = \"etcd\"\n[failover.etcd]\nurls = [\"https://e1:2379\", \"http://e2:2379\"]\n\
         user = \"tide\"\npassword = \"secret\"\nprefix = \"/shop/\"\nlease = \"10s\""
    );
    let config = accepted(&text);
    assert_eq!(config.failover.policy.mode, Mode::Etcd);
    let etcd = config.failover.etcd.as_ref().unwrap();
    assert_eq!((etcd.prefix.as_str(), etcd.lease), ("/shop", Duration::from_secs(10)));
    let shown = redacted(&config)["failover"].to_string();
    assert!(shown.contains("https://e1:2379") && !shown.contains("secret"), "{shown}");
    // Whoever does not need it has none, though it is written.
    assert_eq!(accepted(&text.replace("mode = \"etcd\"\n", "")).failover.etcd, None);
    let cases = [
        ("mode = \"etcd\"", "write failover.etcd.urls"),
        ("etcd.urls = \"etcd:2379\"", "failover.etcd.urls: must begin with https:// or http://"),
        ("etcd.urls = \"http://etcd\"", "failover.etcd.urls: has no port"),
        ("etcd.user = \"tide\"", "failover.etcd.user: has no password"),
        ("etcd.cert = \"/c.pem\"", "failover.etcd.cert: has no key"),
        ("patroni.key = \"/k.pem\"", "failover.patroni.key: has no cert"),
        ("etcd.cert = \"/none.pem\"\netcd.key = \"/none.key\"", "/none.pem: "),
        ("etcd.lease = \"1s\"", "failover.etcd.lease: 1s is not a whole number of seconds"),
        ("etcd.lease = \"2500ms\"", "failover.etcd.lease: 2.5s is not a whole number"),
        ("etcd.prefix = \"/\"", "failover.etcd.prefix: is not from 1 to 200 bytes long"),
    ];
    for (line, words) in cases {
        let told = errors(&format!("{REPLICAS}[failover]\n{line}"));
        assert!(told.contains(words), "{line}: {told}");
    }
}

#[test]
fn patroni_is_asked_beside_each_server_unless_it_is_named() {
    let text = format!("{REPLICAS}[failover]\nmode = \"external\"");
    let patroni = accepted(&text).failover.patroni.unwrap();
    let places: Vec<(&str, u16)> =
        patroni.urls.iter().map(|url| (url.host.as_str(), url.port)).collect();
    assert_eq!(places, [("b", 8008), ("db", 8008)]);
    let named = format!("{text}\npatroni.urls = \"https://p:443\"");
    let patroni = accepted(&named).failover.patroni.unwrap();
    assert_eq!((patroni.urls.len(), patroni.urls[0].tls), (1, true));
    assert_eq!(accepted(&named.replace("external", "follow")).failover.patroni, None);
    let told = errors("[failover]\nmode = \"external\"");
    assert!(told.contains("there is no replica to promote"), "{told}");
}
