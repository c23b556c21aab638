//! A primary's network that is cut without a word: nothing arrives, and nobody is told.

use crate::failover::{
    LONG, numbers_on, options, primary_of, promotions, topology, wait_until_steady,
    wait_until_writable,
};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Link, Passing, Relay, Tidegate, namespaces, password_of,
    pipeline, wait_until,
};

/// What is between the primary and who reaches it by TCP.
enum Cable {
    Real(Link, SocketAddr),
    /// Where the kernel gives us no network: connections are accepted, and nothing arrives.
    Relay(Relay),
}

impl Cable {
    /// The primary is at the far end from now on.
    fn lay(cluster: &Cluster) -> Cable {
        let primary = cluster.primary();
        match Link::new() {
            Ok(link) => {
                primary.stop();
                link.inside(|| primary.start()).unwrap();
                let address = SocketAddr::from((link.address(), primary.port()));
                Cable::Real(link, address)
            }
            Err(error) => {
                eprintln!("a relay in the place of a network: {error}");
                Cable::Relay(Relay::start(cluster))
            }
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Cable::Real(_, address) => *address,
            Cable::Relay(relay) => relay.address(),
        }
    }

    fn cut(&self) {
        match self {
            Cable::Real(link, _) => link.cut(),
            Cable::Relay(relay) => relay.set_passing(Passing::NothingArrives),
        }
    }

    fn mend(&self) {
        match self {
            Cable::Real(link, _) => link.mend(),
            // What was lost is not sent again.
            Cable::Relay(relay) => {
                relay.set_passing(Passing::On);
                relay.cut();
            }
        }
    }
}

#[test]
fn a_cable_of_tidegate_alone_that_is_cut_changes_nothing_and_one_of_all_ends_in_a_failover() {
    let cluster = Cluster::start(&ClusterOptions {
        replicas: 2,
        conf: vec!["wal_receiver_timeout = 2s".to_owned(), "listen_addresses = '*'".to_owned()],
        hba: ["all", "replication"]
            .map(|what| format!("host {what} all {} scram-sha-256", namespaces::ADDRESSES))
            .to_vec(),
        ..ClusterOptions::default()
    })
    .unwrap();
    let primary = cluster.primary();
    primary.psql("CREATE TABLE t (n bigint PRIMARY KEY)").unwrap();
    let cable = Cable::lay(&cluster);
    // Replicas reach it by its Unix socket.
    cluster.wait_until_streaming().unwrap();
    let direct = format!("127.0.0.1:{}", primary.port());
    let mut options =
        options(&cluster, "mode = \"embedded\"\nsilent_max = \"1s\"\nhold_max = \"30s\"");
    options.primary =
        options.primary.replace(&direct, &cable.address().to_string()) + "?sslmode=disable";
    let tidegate = Tidegate::start(options);
    let connect = || Client::connect(&crate::failover::url(&tidegate));
    wait_until_steady(&tidegate);
    wait_until_writable(&crate::failover::url(&tidegate), 1);
    let (mut begun, mut reader, mut writer) = (connect(), connect(), connect());
    begun.query("BEGIN");
    begun.query("INSERT INTO t VALUES (2)");
    wait_until(LONG, "reads go to a replica", || {
        reader.query("SELECT count(*) FROM t");
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT count(*) FROM t'";
        cluster.replicas().iter().any(|node| node.psql(sql).unwrap() != "0")
    });

    cable.cut();
    begun.send(pipeline().query("INSERT INTO t VALUES (3)"));
    wait_until(LONG, "it is said why there is no failover", || {
        tidegate.log().contains("so only Tidegate cannot reach it")
    });
    writer.send(pipeline().query("INSERT INTO t VALUES (4)"));
    let asked = Instant::now();
    assert_eq!(reader.value("SELECT count(*) FROM t").as_deref(), Some("1"));
    assert!(asked.elapsed() < Duration::from_secs(5), "reads go on: {:?}", asked.elapsed());
    assert_eq!((promotions(&tidegate), topology(&tidegate)["held"] == true), (0, true));
    cable.mend();
    // It was held, and runs; what was on its way arrives, as far as there is a network.
    writer.expect("C ZI");
    let is_real = matches!(cable, Cable::Real(..));
    if is_real {
        begun.expect("C ZT");
        assert_eq!(begun.query("COMMIT")[0].describe(), "C COMMIT");
    }
    wait_until_steady(&tidegate);
    assert_eq!((promotions(&tidegate), primary_of(&tidegate).as_str()), (0, "primary"));

    // Now replicas reach it by the cable, too.
    for replica in cluster.replicas() {
        let (host, port) = (cable.address().ip(), cable.address().port());
        let password = password_of("postgres");
        let conninfo = format!("host={host} port={port} user=postgres password={password}");
        replica.psql(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'")).unwrap();
        replica.psql("SELECT pg_reload_conf()").unwrap();
    }
    wait_until(LONG, "they receive by the cable", || {
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND client_addr IS NOT NULL";
        primary.psql(sql).unwrap() == "2"
    });
    wait_until_steady(&tidegate);
    let (mut held, mut asks) = (connect(), connect());
    held.query("BEGIN");
    held.query("INSERT INTO t VALUES (5)");
    asks.send(pipeline().query("INSERT INTO t SELECT 6 FROM pg_sleep(3600)"));
    wait_until(LONG, "it runs", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%FROM pg_sleep(3600)' AND state = 'active' AND pid <> pg_backend_pid()";
        primary.psql(sql).unwrap() == "1"
    });
    let cut = Instant::now();
    cable.cut();
    writer.send(pipeline().query("INSERT INTO t VALUES (7)"));
    held.send(pipeline().query("COMMIT"));
    // Nobody knows of a COMMIT whether it arrived.
    for (client, told) in [(&mut asks, "E:08007 ZI"), (&mut held, "E:08007 ZI")] {
        client.expect(told);
    }
    wait_until_writable(&crate::failover::url(&tidegate), 8);
    let took = cut.elapsed();
    assert!(took < LONG / 2, "{took:?}");
    eprintln!("a write is acknowledged {took:?} after the cut");
    let name = primary_of(&tidegate);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    cable.mend();
    wait_until(LONG, "the old primary is found to be a leftover", || {
        tidegate.log().contains("\"primary\" is a primary on timeline 1")
    });
    wait_until_writable(&crate::failover::url(&tidegate), 9);
    let kept = numbers_on(promoted);
    assert!(kept.is_superset(&BTreeSet::from([1, 4, 8, 9])), "{kept:?}");
    assert!(!kept.contains(&5) && !kept.contains(&6), "{kept:?}");
    assert_eq!(promotions(&tidegate), 1);
}
