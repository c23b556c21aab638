//! Transactions that are run again, and what a history of writes, kept by those who wrote, says of a failover.

use crate::failover::{LONG, options, primary_of, topology, wait_until_steady};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use tidegate_test_support::{
    Client, Cluster, ClusterOptions, Message, Tidegate, pipeline, shared_tidegate, test_database,
    wait_until,
};

const ON: &str = "SET tidegate.transaction_replay = 'on'";

/// What became of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// 08007, or the connection has ended.
    Unknown,
    Failed,
}

#[derive(Clone, Debug)]
struct Attempt {
    client: String,
    number: u64,
    fate: Fate,
}

/// A read of a session's own last write that did not see it.
#[derive(Clone, Debug)]
struct Missed {
    written: u64,
    seen: u64,
}

/// Who writes, and what they saw.
#[derive(Default)]
struct History {
    next: AtomicU64,
    stop: AtomicBool,
    attempts: Mutex<Vec<Attempt>>,
    missed: Mutex<Vec<Missed>>,
    /// What clients whose transactions are run again were told that was no answer.
    errors: Mutex<Vec<String>>,
}

impl History {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn number(&self) -> u64 {
        1 + self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn note(&self, client: &str, number: u64, fate: Fate) {
        let client = client.to_owned();
        self.attempts.lock().unwrap().push(Attempt { client, number, fate });
    }

    fn acknowledged(&self) -> usize {
        let attempts = self.attempts.lock().unwrap();
        attempts.iter().filter(|attempt| attempt.fate == Fate::Acknowledged).count()
    }

    fn wait_for_more(&self, more: usize) {
        let before = self.acknowledged();
        wait_until(LONG, "writes go on", || self.acknowledged() >= before + more);
    }

    /// Writes by single statements, each of which is then looked for.
    fn write(&self, url: &str, name: &str) {
        while self.goes_on() {
            let Ok(mut client) = Client::try_connect(url, &[("application_name", name)]) else {
                continue;
            };
            while self.goes_on() && self.write_one(&mut client, name) {}
        }
    }

    fn write_one(&self, client: &mut Client, name: &str) -> bool {
        let number = self.number();
        client.send(pipeline().query(&format!("INSERT INTO h VALUES ({number}, '{name}')")));
        let Some(answer) = answer(client) else {
            self.note(name, number, Fate::Unknown);
            return false;
        };
        let fate = fate_of(&answer);
        self.note(name, number, fate);
        if fate != Fate::Acknowledged {
            return !is_over(&answer);
        }
        client.send(pipeline().query(&format!("SELECT max(n) FROM h WHERE client = '{name}'")));
        let Some(answer) = self::answer(client) else { return false };
        if let Some(row) = answer.iter().find(|message| message.tag == b'D') {
            let seen = row.row()[0].as_deref().map_or(0, |n| n.parse().unwrap());
            if seen < number {
                self.missed.lock().unwrap().push(Missed { written: number, seen });
            }
        }
        !is_over(&answer)
    }

    /// Writes in transactions that are run again.
    fn replay(&self, url: &str, name: &str, bind: bool) {
        let mut client = Client::connect_with(url, &[("application_name", name)]);
        client.query(ON);
        let mut is_prepared = false;
        while self.goes_on() {
            let number = self.number();
            let text = number.to_string();
            let insert = match bind {
                false => pipeline().query(&format!("INSERT INTO h VALUES ({number}, '{name}')")),
                true if is_prepared => {
                    pipeline().bind("", "w", &[Some(&text), Some(name)]).execute("").sync()
                }
                true => pipeline()
                    .parse("w", "INSERT INTO h VALUES ($1, $2)", &[20, 25])
                    .bind("", "w", &[Some(&text), Some(name)])
                    .execute("")
                    .sync(),
            };
            is_prepared |= bind;
            let read = format!("SELECT n FROM h WHERE n = {number}");
            for step in [pipeline().query("BEGIN"), insert, pipeline().query(&read)] {
                client.send(step);
                let answer = client.read_until_ready();
                if let Some(error) = error_of(&answer) {
                    self.errors.lock().unwrap().push(format!("{name}: {error}"));
                }
            }
            client.send(pipeline().query("COMMIT"));
            let answer = client.read_until_ready();
            let fate = fate_of(&answer);
            self.note(name, number, fate);
            if fate == Fate::Failed {
                self.errors.lock().unwrap().push(format!("{name}: COMMIT: {answer:?}"));
            }
        }
    }
}

/// What comes up to ReadyForQuery, or to the end of a connection that has been told why.
fn answer(client: &mut Client) -> Option<Vec<Message>> {
    let mut answer = Vec::new();
    loop {
        let message = client.read_message_or_end()?;
        let is_last = message.tag == b'Z' || message.field(b'V').as_deref() == Some("FATAL");
        answer.push(message);
        if is_last {
            return Some(answer);
        }
    }
}

fn error_of(answer: &[Message]) -> Option<String> {
    answer.iter().find(|message| message.tag == b'E').map(Message::describe)
}

fn is_over(answer: &[Message]) -> bool {
    answer.last().is_none_or(|message| message.tag != b'Z')
}

fn fate_of(answer: &[Message]) -> Fate {
    match answer.iter().find(|message| message.tag == b'E') {
        None => Fate::Acknowledged,
        // What was in progress when its connection ended.
        Some(error) if ["08007", "08006", "57P01"].contains(&error.sqlstate().as_str()) => {
            Fate::Unknown
        }
        Some(_) => Fate::Failed,
    }
}

/// How often each client's name is among these.
fn by_client<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}

/// The verdict over a history: what was acknowledged is there or is reported as lost, and nothing is said to be lost that is there.
fn check(history: &History, kept: &BTreeSet<u64>, losses: &serde_json::Value) -> String {
    let attempts = history.attempts.lock().unwrap();
    let of = |fate| attempts.iter().filter(move |attempt| attempt.fate == fate);
    let missing: Vec<&Attempt> =
        of(Fate::Acknowledged).filter(|attempt| !kept.contains(&attempt.number)).collect();
    let reported = |certain: bool| {
        let all = losses["commits"].as_array().unwrap().iter();
        let all = all.filter(move |commit| !certain || commit["certain"] == true);
        by_client(all.map(|commit| commit["application"].as_str().unwrap()))
    };
    let (lost, named, certain) = (
        by_client(missing.iter().map(|attempt| attempt.client.as_str())),
        reported(false),
        reported(true),
    );
    assert_eq!(losses["cut"], false);
    for (client, count) in &lost {
        assert!(named.get(client) >= Some(count), "{client} lost {count}, but {losses}");
    }
    for (client, count) in &certain {
        assert!(lost.get(client) >= Some(count), "{client} lost {lost:?}, but {losses}");
    }
    let wrong: Vec<_> = of(Fate::Failed).filter(|a| kept.contains(&a.number)).collect();
    assert!(wrong.is_empty(), "failed, and are there: {wrong:?}");
    // Reads go back only where what they showed is lost.
    for Missed { written, seen } in history.missed.lock().unwrap().iter() {
        assert!(!kept.contains(written), "{written} was there, but {seen} was seen");
    }
    let (there, gone): (Vec<_>, Vec<_>) =
        of(Fate::Unknown).partition(|attempt| kept.contains(&attempt.number));
    format!(
        "{} acknowledged, {} of them lost, {} said to be, {} perhaps; {} in doubt are there, {} not",
        of(Fate::Acknowledged).count(),
        missing.len(),
        losses["lost"],
        losses["uncertain"],
        there.len(),
        gone.len(),
    )
}

#[test]
fn property_5_a_history_of_writes_through_a_kill_holds_and_replayed_transactions_see_no_error() {
    let cluster =
        Cluster::start(&ClusterOptions { replicas: 2, ..ClusterOptions::default() }).unwrap();
    let sql = "CREATE TABLE h (n bigint PRIMARY KEY, client text NOT NULL)";
    cluster.primary().psql(sql).unwrap();
    cluster.wait_until_caught_up().unwrap();
    let mut options = options(&cluster, "mode = \"embedded\"\nhold_max = \"60s\"");
    options.toml = options.toml.map(|toml| toml.replace("size_max = 5", "size_max = 20"));
    let tidegate = Tidegate::start(options);
    let url = tidegate.url("postgres", "postgres");
    wait_until_steady(&tidegate);
    // One is at rest in its transaction when the primary dies, and has prepared statements there.
    let mut begun = Client::connect(&url);
    begun.query(ON);
    begun.send(
        pipeline()
            .query("BEGIN")
            .parse("s", "SELECT n, client FROM h WHERE n < $1", &[20])
            .sync()
            .query("INSERT INTO h VALUES (-1, 'begun')")
            .bind("", "s", &[Some("0")])
            .execute("")
            .sync(),
    );
    begun.expect("C ZT 1 ZT C ZT 2 D C ZT");
    let history = History::default();
    thread::scope(|scope| {
        let (history, url) = (&history, &url);
        for number in 0..3 {
            scope.spawn(move || history.write(url, &format!("single-{number}")));
            scope.spawn(move || history.replay(url, &format!("again-{number}"), number > 0));
        }
        history.wait_for_more(300);
        cluster.primary().kill();
        history.wait_for_more(300);
        history.stop.store(true, Ordering::Relaxed);
    });
    // It has noticed nothing.
    begun.send(pipeline().bind("", "s", &[Some("0")]).execute("").sync().query("COMMIT"));
    begun.expect("2 D C ZT C ZI");
    wait_until_steady(&tidegate);
    wait_until(LONG, "it is said what is lost", || !topology(&tidegate)["losses"].is_null());
    let name = primary_of(&tidegate);
    let promoted = cluster.replicas().iter().find(|node| node.name() == name).unwrap();
    let kept = promoted.psql("SELECT n FROM h WHERE n > 0").unwrap();
    let kept: BTreeSet<u64> = kept.lines().map(|row| row.parse().unwrap()).collect();
    assert_eq!(promoted.psql("SELECT client FROM h WHERE n = -1").unwrap(), "begun");
    eprintln!("{}", check(&history, &kept, &topology(&tidegate)["losses"]));
    assert_eq!(*history.errors.lock().unwrap(), [""; 0]);
    let metrics = tidegate.admin_get("/metrics").body;
    assert!(!metrics.contains("tidegate_replays_succeeded_total 0"), "{metrics}");
    let log = tidegate.log();
    assert!(log.contains("acknowledged commit"), "{log}");
}

#[test]
fn what_cannot_be_serialized_is_run_again_unless_its_answers_would_be_others() {
    let database = test_database("again");
    let url = shared_tidegate().url("app", &database);
    let mut other = Client::connect(&url);
    other.query("CREATE TABLE a (k int PRIMARY KEY, v int); INSERT INTO a VALUES (1, 0), (2, 0)");
    let mut client = Client::connect(&url);
    client.query(ON);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    // It has seen nothing of what changes.
    client.query(begin);
    assert_eq!(client.value("SELECT v FROM a WHERE k = 2").as_deref(), Some("0"));
    other.query("UPDATE a SET v = v + 10 WHERE k = 1");
    client.send(pipeline().query("UPDATE a SET v = v + 1 WHERE k = 1 RETURNING v"));
    let answer = client.expect("T D C ZT");
    assert_eq!(answer[1].row()[0].as_deref(), Some("11"));
    assert_eq!(client.query("COMMIT")[0].describe(), "C COMMIT");
    // It has.
    client.query(begin);
    assert_eq!(client.value("SELECT v FROM a WHERE k = 1").as_deref(), Some("11"));
    other.query("UPDATE a SET v = v + 10 WHERE k = 1");
    client.send(pipeline().query("UPDATE a SET v = v + 1 WHERE k = 1"));
    client.expect("E:40001 ZE");
    client.send(pipeline().query("SELECT 1"));
    client.expect("E:25P02 ZE");
    client.query("ROLLBACK");
    assert_eq!(client.value("SELECT v FROM a WHERE k = 1").as_deref(), Some("21"));
    // Without the setting it is told at once.
    client.query("SET tidegate.transaction_replay = 'off'");
    client.query(begin);
    client.query("SELECT v FROM a WHERE k = 2");
    other.query("UPDATE a SET v = v + 10 WHERE k = 1");
    client.send(pipeline().query("UPDATE a SET v = v + 1 WHERE k = 1"));
    client.expect("E:40001 ZE");
    client.query("ROLLBACK");
}
