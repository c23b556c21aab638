//! Who decides with Tidegate, or for it, which server is primary: other Tidegates by a lease in etcd, and Patroni.

use crate::failover::{
    LONG, Writers, cluster, primary_of, promotions, tidegate, topology, url, wait_until_steady,
    wait_until_writable,
};
use crate::tls::Authority;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::{
    Client, Etcd, EtcdTls, Patroni, Tidegate, TidegateOptions, patroni, wait_until,
};

fn by_lease(etcd: &Etcd) -> String {
    format!(
        "mode = \"etcd\"\nhold_max = \"60s\"\ninterval_min = \"1ms\"\n[failover.etcd]\nurls = [\"{}\"]\nlease = \"4s\"",
        etcd.url()
    )
}

const LEADS: &str = "this Tidegate holds the lease in etcd";

fn leads(tidegate: &Tidegate) -> bool {
    let log = tidegate.log();
    log.rfind(LEADS) > log.rfind("the lease in etcd is not held here any more")
}

/// Who holds the lease, then the other: that may be the other way round a moment later, but not when all has settled.
fn by_rank<'a>(one: &'a Tidegate, other: &'a Tidegate) -> (&'a Tidegate, &'a Tidegate) {
    wait_until(LONG, "one of them holds the lease", || leads(one) != leads(other));
    if leads(one) { (one, other) } else { (other, one) }
}

/// While roles change there may be no answer.
fn is_primary(tidegate: &Tidegate, name: &str) -> bool {
    topology(tidegate)["primary"] == name
}

#[test]
fn of_two_tidegates_the_one_that_holds_the_lease_acts_and_none_that_was_paused() {
    let cluster = cluster(2);
    let etcd = Etcd::start();
    let (one, other) = (tidegate(&cluster, &by_lease(&etcd)), tidegate(&cluster, &by_lease(&etcd)));
    for tidegate in [&one, &other] {
        wait_until_steady(tidegate);
        // Who is primary is written down.
        wait_until(LONG, "one of them holds the lease again", || leads(&one) != leads(&other));
    }
    // A switchover fails nobody, whichever of them has the client; whoever does not hold the lease refuses it.
    let writers = Writers::new();
    let (first, second) = (url(&one), url(&other));
    thread::scope(|scope| {
        scope.spawn(|| writers.run(&first));
        scope.spawn(|| writers.run(&second));
        writers.wait_for_more(50);
        wait_until(LONG, "one of them does it", || {
            let orders =
                |tidegate: &Tidegate| tidegate.command(&["switchover", "--to", "replica-2"]).0 == 0;
            orders(&one) || orders(&other)
        });
        writers.wait_for_more(50);
        writers.stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(*writers.errors.lock().unwrap(), [""; 0]);
    wait_until(LONG, "both have the same primary", || {
        is_primary(&one, "replica-2") && is_primary(&other, "replica-2")
    });
    cluster.primary().kill();
    let follows = |tidegate: &Tidegate| {
        let topology = topology(tidegate);
        let servers = topology["servers"].as_array().unwrap().clone();
        let mut replica = servers.into_iter().filter(|server| server["name"] == "replica-1");
        replica.next().is_some_and(|one| one["timeline"] == 2 && one["serves_reads"] == true)
    };
    wait_until(LONG, "the other replica follows", || follows(&one) && follows(&other));

    // The one that may act does nothing, and does not know.
    for tidegate in [&one, &other] {
        wait_until_steady(tidegate);
    }
    let (leader, follower) = by_rank(&one, &other);
    let before = (promotions(leader), promotions(follower));
    leader.pause();
    cluster.replica(1).kill();
    wait_until_writable(&url(follower), 1_000_001);
    assert_eq!(primary_of(follower), "replica-1");
    leader.resume();
    wait_until_writable(&url(leader), 1_000_002);
    assert_eq!(primary_of(leader), "replica-1");
    let promoted = (promotions(leader) - before.0, promotions(follower) - before.1);
    assert_eq!(promoted, (0, 1), "{}", leader.log());
    assert_eq!(cluster.replica(0).psql("SELECT count(*) FROM t WHERE n > 1000000").unwrap(), "2");
}

#[test]
fn who_ends_in_an_orderly_way_gives_its_lease_up_and_the_other_leads_at_once() {
    let cluster = cluster(1);
    let etcd = Etcd::start();
    let lasting = by_lease(&etcd).replace("lease = \"4s\"", "lease = \"60s\"");
    let (one, other) = (tidegate(&cluster, &lasting), tidegate(&cluster, &lasting));
    for tidegate in [&one, &other] {
        wait_until_steady(tidegate);
    }
    wait_until(LONG, "one of them holds the lease", || leads(&one) != leads(&other));
    let (mut leader, follower) = if leads(&one) { (one, other) } else { (other, one) };
    let begun = Instant::now();
    leader.sigterm();
    assert_eq!(leader.wait(), 0);
    assert!(leader.log().contains("the lease in etcd is given up"), "{}", leader.log());
    wait_until(LONG, "the other holds the lease", || leads(&follower));
    // And waits for nobody else's word.
    cluster.primary().kill();
    wait_until_writable(&url(&follower), 1);
    assert_eq!((promotions(&follower), primary_of(&follower).as_str()), (1, "replica-1"));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(40), "it waited for the lease to run out: {took:?}");
}

#[test]
fn without_etcd_writes_go_on_and_nobody_is_promoted_until_it_is_back() {
    let cluster = cluster(1);
    let mut etcd = Etcd::start();
    let tidegate = tidegate(&cluster, &by_lease(&etcd));
    wait_until_steady(&tidegate);
    wait_until(LONG, "it holds the lease", || leads(&tidegate));
    etcd.kill();
    wait_until(LONG, "it is said that etcd is lost", || {
        tidegate.log().contains("etcd is asked in vain")
    });
    wait_until(LONG, "the lease is over", || {
        let refused = tidegate.command(&["switchover"]);
        refused.1.contains("the lease in etcd is not held here")
    });
    wait_until_writable(&url(&tidegate), 1);
    assert_eq!(topology(&tidegate)["state"], "steady");
    cluster.primary().kill();
    wait_until(LONG, "it is said why there is no failover", || {
        tidegate.log().contains("no failover: etcd does not answer")
    });
    assert_eq!(promotions(&tidegate), 0);
    etcd.start_again();
    wait_until_writable(&url(&tidegate), 2);
    assert_eq!((promotions(&tidegate), primary_of(&tidegate).as_str()), (1, "replica-1"));
}

#[test]
fn etcd_is_asked_with_a_certificate_and_a_new_one_is_shown_when_it_is_there() {
    let cluster = cluster(1);
    let (ours, stranger) = (Authority::new("Ours"), Authority::new("A stranger"));
    let (cert, key) = ours.sign("127.0.0.1");
    let etcd = Etcd::start_with(EtcdTls { cert, key, client_ca: ours.own() });
    let (cert, key) = stranger.sign("tidegate");
    let with = |toml: &str| tidegate(&cluster, &(by_lease(&etcd) + toml));
    let trusted = format!("\nroot_ca = \"{}\"", ours.own());
    let shown = format!("{trusted}\ncert = \"{cert}\"\nkey = \"{key}\"");
    let (bare, known) = (with(&trusted), with(&shown));
    for tidegate in [&bare, &known] {
        wait_until(LONG, "it is said that etcd does not want it", || {
            tidegate.log().contains("etcd is asked in vain")
        });
    }
    let (new_cert, new_key) = ours.sign("tidegate");
    std::fs::copy(new_key, key).unwrap();
    std::fs::copy(new_cert, cert).unwrap();
    wait_until(LONG, "it holds the lease", || leads(&known));
    wait_until_steady(&known);
    cluster.primary().kill();
    wait_until_writable(&url(&known), 1);
    assert_eq!((promotions(&known), promotions(&bare)), (1, 0));
}

fn before_patroni(patroni: &Patroni, failover: &str) -> Tidegate {
    let urls = patroni.urls();
    Tidegate::start(TidegateOptions {
        primary: urls[0].clone(),
        replicas: urls[1..].to_vec(),
        toml: Some(format!("[pool]\nsize_min = 0\nsize_max = 5\n[failover]\n{failover}\n")),
        ..TidegateOptions::default()
    })
}

#[test]
fn patroni_is_followed_gives_orders_and_takes_them_and_has_no_manager_beside_it() {
    let patroni = Patroni::start("{noloadbalance: true}");
    let apis: Vec<String> = patroni.api_urls().iter().map(|url| format!("{url:?}")).collect();
    let external = format!(
        "mode = \"external\"\nhold_max = \"60s\"\n[failover.patroni]\nurls = [{}]\nuser = \"{}\"\npassword = \"{}\"",
        apis.join(", "),
        patroni::API_USER,
        patroni::API_PASSWORD
    );
    let embedded = before_patroni(&patroni, "mode = \"embedded\"");
    let tidegate = before_patroni(&patroni, &external);
    wait_until_steady(&tidegate);
    let mut client = Client::connect(&url(&tidegate));
    client.query("CREATE TABLE t (n bigint PRIMARY KEY)");
    wait_until(LONG, "the replica is fresh", || {
        topology(&tidegate)["servers"][1]["lag_ms"].is_number()
    });
    // Patroni does not want reads there.
    assert_eq!(topology(&tidegate)["servers"][1]["serves_reads"], false);
    wait_until(LONG, "embedded beside Patroni is refused", || {
        embedded.log().contains("nobody is promoted: Patroni manages these servers")
    });
    let refused = embedded.command(&["switchover"]);
    assert!(refused.1.contains("set failover.mode = \"external\""), "{}", refused.1);
    drop(embedded);

    let said = tidegate.command(&["switchover"]);
    assert_eq!(said.0, 0, "{}\n{}", said.1, tidegate.log_tail());
    wait_until_writable(&url(&tidegate), 1);
    assert_eq!(primary_of(&tidegate), "replica-1");
    wait_until(LONG, "it leads as Patroni has it, too", || {
        patroni.leader().as_deref() == Some("p2")
    });
    let is_back = |name: &str| {
        let told = patroni.told();
        let member = told.iter().find(|member| member["name"] == name).cloned();
        member.is_some_and(|member| member["lag"] == 0 && member["state"] != "stopped")
    };
    wait_until(LONG, "the old leader follows", || is_back("p1"));
    let answer = patroni.post("/switchover", r#"{"leader": "p2", "candidate": "p1"}"#);
    assert_eq!(answer.status, 200, "{}", answer.body);
    wait_until_writable(&url(&tidegate), 2);
    assert_eq!(primary_of(&tidegate), "primary");

    wait_until(LONG, "the old leader follows", || is_back("p2"));
    wait_until_steady(&tidegate);
    let (code, said) = tidegate.command(&["failover", "--to", "replica-1"]);
    assert!(code == 1 && said.contains("the primary answers"), "{said}");
    let (code, said) = tidegate.command(&["failover", "--to", "replica-1", "--force"]);
    assert_eq!(code, 0, "{said}\n{}", tidegate.log_tail());
    assert!(said.contains("replica-1 is the primary now"), "{said}");
    wait_until(LONG, "it leads as Patroni has it, too", || {
        patroni.leader().as_deref() == Some("p2")
    });
    wait_until_writable(&url(&tidegate), 3);

    wait_until(LONG, "the old leader follows", || is_back("p1"));
    patroni.kill_server("p2");
    wait_until(LONG, "another leads", || is_primary(&tidegate, "primary"));
    wait_until_writable(&url(&tidegate), 4);
    assert_eq!(client.value("SELECT count(*) FROM t").as_deref(), Some("4"));
    assert_eq!(promotions(&tidegate), 0);
}
