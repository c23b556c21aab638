//! What operators order about the cluster: drain, failover, and another process in the middle of it.

use crate::failover::{
    LONG, cluster, numbers_on, options, primary_of, promotions, tidegate, topology, url,
    wait_until_steady, wait_until_writable,
};
use crate::own::Folder;
use std::collections::BTreeSet;
use tidegate_test_support::{Client, Node, Tidegate, pipeline, wait_until};

/// Has a statement of this text run there, on a connection that is still open?
fn has_run(node: &Node, sql: &str) -> bool {
    let sql = sql.replace('\'', "''");
    let count = format!("SELECT count(*) FROM pg_stat_activity WHERE query = '{sql}'");
    node.psql(&count).unwrap() != "0"
}

fn server(tidegate: &Tidegate, name: &str) -> serde_json::Value {
    let topology = topology(tidegate);
    let servers = topology["servers"].as_array().unwrap();
    servers.iter().find(|server| server["name"] == name).unwrap().clone()
}

/// Runs a command that must end well, and says what it said.
#[track_caller]
fn succeeds(tidegate: &Tidegate, arguments: &[&str]) -> String {
    let (code, said) = tidegate.command(arguments);
    assert_eq!(code, 0, "{said}\n{}", tidegate.log_tail());
    said
}

#[track_caller]
fn fails(tidegate: &Tidegate, arguments: &[&str]) -> String {
    let (code, said) = tidegate.command(arguments);
    assert_eq!(code, 1, "{said}");
    said
}

#[test]
fn no_new_reads_go_to_a_drained_replica_until_it_is_undrained() {
    let cluster = cluster(2);
    let tidegate = tidegate(&cluster, "mode = \"follow\"");
    wait_until_steady(&tidegate);
    let mut client = Client::connect(&url(&tidegate));
    let (first, second) = (cluster.replica(0), cluster.replica(1));
    let mut read_until = |sql: &str, nodes: &[&Node]| {
        wait_until(LONG, "reads go there", || {
            client.query(sql);
            nodes.iter().all(|node| has_run(node, sql))
        });
    };
    read_until("SELECT count(*) FROM t WHERE n > 1", &[first, second]);
    assert_eq!(succeeds(&tidegate, &["drain", "replica-1"]), "\"replica-1\" is drained\n");
    read_until("SELECT count(*) FROM t WHERE n > 2", &[second]);
    for _ in 0..50 {
        read_until("SELECT count(*) FROM t WHERE n > 2", &[second]);
    }
    assert!(!has_run(first, "SELECT count(*) FROM t WHERE n > 2"));
    let drained = server(&tidegate, "replica-1");
    assert_eq!((&drained["drained"], &drained["serves_reads"]), (&true.into(), &false.into()));
    assert!(succeeds(&tidegate, &["topology"]).contains(", drained"));
    // A reload does not end it, nor does a second order.
    tidegate.reload();
    wait_until_steady(&tidegate);
    succeeds(&tidegate, &["drain", "replica-1"]);
    read_until("SELECT count(*) FROM t WHERE n > 3", &[second]);
    assert!(!has_run(first, "SELECT count(*) FROM t WHERE n > 3"));
    // With both drained, the primary runs them.
    succeeds(&tidegate, &["drain", "replica-2"]);
    read_until("SELECT count(*) FROM t WHERE n > 4", &[cluster.primary()]);
    assert!(!has_run(first, "SELECT count(*) FROM t WHERE n > 4"));
    assert!(!has_run(second, "SELECT count(*) FROM t WHERE n > 4"));
    for name in ["replica-1", "replica-2"] {
        succeeds(&tidegate, &["undrain", name]);
    }
    read_until("SELECT count(*) FROM t WHERE n > 5", &[first, second]);
    let refused = fails(&tidegate, &["drain", "primary"]);
    assert!(refused.contains("\"primary\" is the primary: `tidegate switchover`"), "{refused}");
    assert!(fails(&tidegate, &["drain", "nobody"]).contains("there is no server \"nobody\""));
    assert!(fails(&tidegate, &["undrain", "replica-1"]).contains("is not drained"));
    let log = tidegate.log();
    assert_eq!(log.matches("\"replica-1\" is drained: no new reads go there").count(), 1, "{log}");
}

#[test]
fn an_operator_promotes_whom_tidegate_would_not() {
    let cluster = cluster(2);
    let tidegate = tidegate(&cluster, "mode = \"embedded\"\ninterval_min = \"1h\"");
    wait_until_steady(&tidegate);
    wait_until_writable(&url(&tidegate), 1);
    let refused = fails(&tidegate, &["failover", "--to", "replica-1"]);
    assert!(refused.contains("the primary answers: a switchover loses nothing"), "{refused}");
    let refused = fails(&tidegate, &["failover", "--to", "primary", "--force"]);
    assert!(refused.contains("it is the primary already"), "{refused}");
    cluster.primary().kill();
    wait_until(LONG, "a replica takes over", || {
        let now = topology(&tidegate);
        now["state"] == "steady" && now["primary"] != "primary"
    });
    wait_until_writable(&url(&tidegate), 2);
    let name = primary_of(&tidegate);
    let (promoted, other) = match name.as_str() {
        "replica-1" => (cluster.replica(0), cluster.replica(1)),
        _ => (cluster.replica(1), cluster.replica(0)),
    };
    wait_until(LONG, "the other one follows, as Tidegate has seen", || {
        // Reads stay there meanwhile. A replica whose primary is gone says itself which timeline it follows as of its last
        // checkpoint alone, so that it must have been seen before.
        numbers_on(other) == BTreeSet::from([1, 2])
            && server(&tidegate, other.name())["timeline"] == 2
    });
    // Who logs in needs a server for that, unless its worker knows already what clients are told.
    let mut waits = Client::connect(&url(&tidegate));
    promoted.kill();
    wait_until(LONG, "it is said why there is no failover", || {
        tidegate.log().contains("no failover: the last one was less than failover.interval_min ago")
    });
    waits.send(pipeline().query("INSERT INTO t VALUES (3)"));
    let said = succeeds(&tidegate, &["failover", "--to", other.name()]);
    assert!(said.contains("it has all that the primary is known to have written"), "{said}");
    assert!(said.contains(&format!("{} is the primary now, after", other.name())), "{said}");
    waits.expect("C ZI");
    assert_eq!(numbers_on(other), BTreeSet::from([1, 2, 3]));
    assert_eq!(promotions(&tidegate), 2);
    assert!(tidegate.log().contains(&format!("a failover to \"{}\" was ordered", other.name())));
}

#[test]
fn a_primary_that_answers_is_replaced_by_force_alone() {
    let cluster = cluster(1);
    let tidegate = tidegate(&cluster, "mode = \"embedded\"");
    wait_until_steady(&tidegate);
    wait_until_writable(&url(&tidegate), 1);
    cluster.wait_until_caught_up().unwrap();
    fails(&tidegate, &["failover", "--to", "replica-1"]);
    succeeds(&tidegate, &["failover", "--to", "replica-1", "--force"]);
    wait_until_writable(&url(&tidegate), 2);
    assert_eq!(numbers_on(cluster.replica(0)), BTreeSet::from([1, 2]));
    wait_until(LONG, "the old primary is a leftover", || {
        tidegate.log().contains("\"primary\" is a primary on timeline 1")
    });
    assert_eq!(numbers_on(cluster.primary()), BTreeSet::from([1]));
}

#[test]
fn one_process_alone_promotes_while_another_has_clients_left() {
    let (cluster, folder) = (cluster(2), Folder::new());
    let mut options = options(&cluster, "mode = \"embedded\"");
    let handover = format!("[handover]\ndir = \"{}\"\n", folder.file("sockets").display());
    options.toml = Some(options.toml.unwrap() + &handover);
    let before = Tidegate::start(options.clone());
    wait_until_steady(&before);
    let mut stays = Client::connect(&url(&before));
    stays.query("INSERT INTO t VALUES (1)");
    let after = before.start_successor(options);
    wait_until_steady(&after);
    cluster.wait_until_caught_up().unwrap();
    cluster.primary().kill();
    // A client of each process gets its write done, on the same new primary.
    stays.send(pipeline().query("INSERT INTO t VALUES (2)"));
    stays.expect("C ZI");
    wait_until_writable(&url(&after), 3);
    let name = primary_of(&after);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    assert_eq!(numbers_on(promoted), BTreeSet::from([1, 2, 3]));
    assert_eq!((promotions(&before), promotions(&after)), (0, 1));
    assert!(before.log().contains(&format!("\"{name}\" is the primary now, on timeline 2")));
}
