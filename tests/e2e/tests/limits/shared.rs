//! Two Tidegates that count together in one Redis; and all that may become of that.

use crate::own::{SOON, metric, policies_answer, sqlstate};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Redis, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

/// On a machine that is busy with other tests nothing is to be late, where that is not what is tested.
pub const PATIENT: &str = "deadline = \"1s\"";
/// However busy the machine is.
pub const LONG: Duration = Duration::from_secs(60);

/// Two Tidegates, and a client of each.
pub struct Pair {
    both: [Tidegate; 2],
    clients: [Client; 2],
    urls: [String; 2],
}

impl Pair {
    fn start(name: &str, rates: &str, redis: &str) -> Pair {
        let database = test_database(name);
        let both = [0, 1].map(|_| {
            let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
            options.replicas.clear();
            options.toml = Some(format!(
                "workers = 2\n[pool]\nsize_min = 0\nsize_max = 5\n[rates]\nwait_max = \"off\"\n{rates}\n\
                 [rates.redis]\n{redis}\n"
            ));
            Tidegate::start(options)
        });
        for one in &both {
            wait_until(3 * SOON, "policies answer", || policies_answer(one));
        }
        let urls = both.each_ref().map(|one| one.url(ROLE, &database));
        let clients = urls.each_ref().map(|url| Client::connect(url));
        Pair { both, clients, urls }
    }

    /// And until both know that they are two.
    pub fn shared(name: &str, rates: &str, redis: &str) -> Pair {
        let pair = Self::start(name, rates, redis);
        pair.wait_until_shared();
        pair
    }

    #[track_caller]
    pub fn wait_until_shared(&self) {
        wait_until(LONG, "both count together", || {
            self.both.iter().all(|one| {
                metric(one, "tidegate_limits_shared") == 1.0
                    && metric(one, "tidegate_limits_members") == 2.0
            })
        });
    }

    /// Does a statement of this user pass?
    pub fn passes(&mut self, which: usize, user: &str) -> bool {
        match &*sqlstate(&mut self.clients[which], &format!("SELECT 2 /* user_id='{user}' */")) {
            "" => true,
            "53400" => false,
            other => panic!("{other}"),
        }
    }

    /// How many of so many statements pass.
    pub fn passing(&mut self, which: usize, user: &str, count: usize) -> usize {
        (0..count).filter(|_| self.passes(which, user)).count()
    }

    pub fn metric(&self, name: &str) -> f64 {
        self.both.iter().map(|one| metric(one, name)).sum()
    }
}

fn on(redis: &Redis) -> String {
    format!("url = \"{}\"\n{PATIENT}", redis.url())
}

// Property 27: the limit holds for all Tidegates together.
#[test]
fn a_limit_holds_for_both_together_and_is_used_to_its_end() {
    let redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_both", "per_end_user = 30\nall = 50", &on(&redis));
    let mut passed = pair.passing(0, "7", 20) + pair.passing(1, "7", 40);
    // What the first one had in hand, and did not use, comes back.
    wait_until(LONG, "all thirty pass", || {
        passed += usize::from(pair.passes(1, "7"));
        passed == 30
    });
    for which in [0, 1, 0, 1] {
        assert_eq!(pair.passing(which, "7", 20), 0);
    }
    let error = pair.clients[1].query("SELECT 3 /* user_id='7' */");
    let detail = error[0].field(b'D').unwrap();
    let start = "bucket=end user limit=30 window_s=60 remaining=0 retry_after_ms=";
    let retry: u64 =
        detail.strip_prefix(start).unwrap_or_else(|| panic!("{detail}")).parse().unwrap();
    assert!(retry <= 62_000, "{detail}");
    // The others have what is left of the limit for all.
    let mut others = 0;
    wait_until(LONG, "all fifty pass", || {
        others += usize::from(pair.passes(0, "8")) + usize::from(pair.passes(1, "9"));
        others == 20
    });
    assert_eq!(pair.passing(0, "8", 20) + pair.passing(1, "9", 20), 0);
    assert_eq!(pair.metric("tidegate_limits_local_total"), 0.0);
    let denied = pair.metric("tidegate_limits_denied_locally_total");
    assert!(denied >= 60.0, "{denied} refusals without a round trip");
}

// Property 29: whenever the window begins.
#[test]
fn no_window_lets_more_through_than_the_limit() {
    let redis = Redis::start(&[]);
    let pair = Pair::shared("limits_window", "all = 60\nwindow = \"2s\"", &on(&redis));
    let began = Instant::now();
    // Until when each was sent and answered: it was let through in between.
    let ask = |url: &str| {
        let (mut client, mut passed) = (Client::connect(url), Vec::new());
        while began.elapsed() < Duration::from_secs(7) {
            let sent = began.elapsed();
            if sqlstate(&mut client, "SELECT 2").is_empty() {
                passed.push((sent, began.elapsed()));
            }
        }
        passed
    };
    let passed: Vec<(Duration, Duration)> = thread::scope(|scope| {
        let urls = pair.urls.iter().cycle().take(4);
        let threads: Vec<_> = urls.map(|url| scope.spawn(|| ask(url))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    for (begin, _) in &passed {
        let end = *begin + Duration::from_secs(2);
        let within = passed.iter().filter(|(sent, done)| sent >= begin && *done <= end).count();
        assert!(within <= 60, "{within} from {begin:?} on");
    }
    assert!(passed.len() > 120, "{} in all", passed.len());
    assert_eq!(pair.metric("tidegate_limits_local_total"), 0.0);
}

#[test]
fn most_statements_of_a_busy_client_cost_no_round_trip() {
    let redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_lease", "per_end_user = 100000", &on(&redis));
    let batch = pipeline().query("SELECT 2 /* user_id='7' */");
    let many = [batch.bytes(); 500].concat();
    pair.clients[0].send(&many);
    for _ in 0..500 {
        pair.clients[0].expect("T D C ZI");
    }
    let trips = pair.metric("tidegate_limits_round_trips_total");
    assert!(trips < 100.0, "{trips} round trips");
    assert_eq!(pair.metric("tidegate_limits_leased_total"), 500.0);
    // What is in a transaction passes in any case, is told, and leaves less for the other.
    let redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_told", "all = 20", &on(&redis));
    pair.clients[0].query("BEGIN");
    for _ in 0..30 {
        assert_eq!(sqlstate(&mut pair.clients[0], "SELECT 2"), "");
    }
    pair.clients[0].query("COMMIT");
    wait_until(LONG, "the other is refused", || !pair.passes(1, "7"));
}

#[test]
fn without_redis_each_has_its_part_and_when_it_is_back_what_was_used_is_known() {
    let mut redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_lost", "all = 20", &on(&redis));
    redis.kill();
    let passed = pair.passing(0, "7", 30) + pair.passing(1, "7", 30);
    assert_eq!(passed, 20);
    assert_eq!(pair.metric("tidegate_limits_shared"), 0.0);
    // Not those: nobody need be counted.
    assert_eq!(pair.clients[0].value("SELECT 1").as_deref(), Some("1"));
    redis.start_again();
    pair.wait_until_shared();
    // It remembers nothing; both tell it.
    wait_until(LONG, "both are refused", || !pair.passes(0, "7") && !pair.passes(1, "7"));
    assert_eq!(pair.passing(0, "7", 10) + pair.passing(1, "7", 10), 0);
    let log = pair.both[0].log();
    assert!(log.contains("limits are not counted with other Tidegates"), "{log}");
    assert!(log.contains("limits are counted with other Tidegates in Redis"), "{log}");
}

#[test]
fn functions_and_scripts_that_are_flushed_come_back_by_themselves() {
    let redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_flush", "per_end_user = 5", &on(&redis));
    for user in 0..5 {
        redis.command(["FUNCTION FLUSH", "SCRIPT FLUSH", "FLUSHALL"][user % 3]);
        let user = user.to_string();
        let passed = pair.passing(0, &user, 10) + pair.passing(1, &user, 10);
        assert!((1..=5).contains(&passed), "{passed}");
    }
    assert_eq!(pair.metric("tidegate_limits_losses_total"), 0.0);
    assert_eq!(pair.metric("tidegate_limits_local_total"), 0.0);
    // One of before 7.0 knows scripts alone.
    let old = Redis::start(&["--rename-command", "FCALL", ""]);
    let mut pair = Pair::shared("limits_script", "per_end_user = 5", &on(&old));
    for user in 0..3 {
        old.command("SCRIPT FLUSH");
        let user = user.to_string();
        let passed = pair.passing(0, &user, 10) + pair.passing(1, &user, 10);
        assert!((1..=5).contains(&passed), "{passed}");
    }
    assert_eq!(pair.metric("tidegate_limits_local_total"), 0.0);
}

#[test]
fn a_redis_that_is_full_or_read_only_is_as_one_that_is_gone() {
    let redis = Redis::start(&[]);
    let mut pair = Pair::shared("limits_full", "per_end_user = 4", &on(&redis));
    for (trouble, remedy, word) in [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
    ] {
        redis.command(trouble);
        assert_eq!(pair.passing(0, word, 10) + pair.passing(1, word, 10), 4);
        wait_until(LONG, "it is said", || pair.both.iter().all(|one| one.log().contains(word)));
        redis.command(remedy);
        pair.wait_until_shared();
        wait_until(LONG, "both are refused", || !pair.passes(0, word) && !pair.passes(1, word));
    }
}

#[test]
fn a_redis_that_hangs_keeps_no_statement_longer_than_the_deadline() {
    let redis = Redis::start(&[]);
    let settings = format!("url = \"{}\"\ndeadline = \"300ms\"", redis.url());
    let mut pair = Pair::shared("limits_hangs", "per_end_user = 4", &settings);
    redis.pause();
    // Each asks for a bucket of its own, so each would wait; after three nobody does.
    let began = Instant::now();
    for user in 0..30 {
        assert!(pair.passes(0, &user.to_string()));
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(pair.passing(0, "1", 10), 1, "two of four, of which one was used");
    redis.resume();
    pair.wait_until_shared();
    wait_until(LONG, "it is counted together", || pair.passing(1, "1", 1) == 0);
    assert!(pair.both[0].log().contains("it does not answer in time"));
}

#[test]
fn a_password_that_is_wrong_is_said_and_costs_no_statement() {
    let redis = Redis::start(&["--user", "t1", "on", ">secret", "~*", "&*", "+@all"]);
    let settings = format!("url = \"{}\"", redis.url_as("t1", "wrong"));
    let mut pair = Pair::start("limits_password", "per_end_user = 4", &settings);
    // Nobody has told that there are two.
    assert_eq!(pair.passing(0, "7", 10), 4);
    wait_until(LONG, "it is said", || {
        pair.both[0].log().contains("Password authentication failed")
    });
    assert!(!pair.both[0].log().contains("wrong@"), "a password is nobody's business");
    assert_eq!(metric(&pair.both[0], "tidegate_limits_shared"), 0.0);
    let closed = format!("{settings}\nfail_mode = \"closed\"");
    let mut pair = Pair::start("limits_closed", "per_end_user = 4", &closed);
    assert_eq!(pair.passing(0, "7", 10), 0);
    let message = pair.clients[0].query("SELECT 2 /* user_id='7' */")[0].field(b'M').unwrap();
    assert_eq!(
        message,
        "rate limit \"end user\" cannot be counted: the Redis that counts it is lost"
    );
    let open = format!("{settings}\nfail_mode = \"open\"");
    let mut pair = Pair::start("limits_open", "per_end_user = 4", &open);
    assert_eq!(pair.passing(0, "7", 10), 10);
}
