//! LISTEN and NOTIFY without keeping a server: who hears what, when, from whom; and what happens when that is lost.

use crate::own::{SOON, json, pool_of, tidegate, wait_for_pins};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Message, Tidegate, pipeline, shared_cluster, test_database, wait_until,
};

/// The process that a client was told is its own.
fn told(client: &Client) -> u32 {
    u32::from_be_bytes(client.backend_key[..4].try_into().unwrap())
}

fn process(message: &Message) -> u32 {
    assert_eq!(message.tag, b'A', "{message:?}");
    u32::from_be_bytes(message.body[..4].try_into().unwrap())
}

fn tags(messages: &[Message]) -> String {
    messages.iter().map(|message| char::from(message.tag)).collect()
}

/// Tidegate's own connections that listen in this database.
fn listeners(database: &str) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' \
         AND application_name = 'tidegate listener'"
    );
    shared_cluster().primary().psql(&sql).unwrap()
}

fn end_listeners(database: &str) {
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' \
         AND application_name = 'tidegate listener'"
    );
    shared_cluster().primary().psql(&sql).unwrap();
}

fn alone(name: &str, size: usize) -> (Tidegate, String, String) {
    let database = test_database(name);
    let tidegate = tidegate(shared_cluster(), &database, &pool_of(size));
    let url = tidegate.url(ROLE, &database);
    (tidegate, url, database)
}

#[test]
fn trap_89_many_clients_listen_with_one_server_between_them() {
    const CLIENTS: usize = 40;
    let (tidegate, url, database) = alone("listen_many", 1);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&url)).collect();
    for client in &mut clients {
        let answer = client.query("LISTEN news");
        assert_eq!((tags(&answer).as_str(), answer[0].text().as_str()), ("CZ", "LISTEN"));
    }
    let mut other = Client::connect(&url);
    for number in 0..10 {
        other.query(&format!("NOTIFY news, '{number}'"));
    }
    for client in &mut clients {
        for number in 0..10 {
            assert_eq!(client.read_message().describe(), format!("A news \"{number}\""));
        }
    }
    wait_for_pins(&tidegate, &[]);
    assert_eq!(listeners(&database), "1");
    // One of them is told of its own before it is told that it is done, and by its own name.
    let own = told(&clients[7]);
    let answer = clients[7].query("NOTIFY news, 'mine'");
    assert_eq!(tags(&answer), "CAZ");
    assert_eq!((process(&answer[1]), answer[1].notification().1.as_str()), (own, "mine"));
    for (index, client) in clients.iter_mut().enumerate().filter(|(index, _)| *index != 7) {
        let message = client.read_message();
        assert_ne!(process(&message), told(client), "{index} takes it for its own");
    }
    for client in &mut clients {
        client.query("UNLISTEN *");
    }
    other.query("NOTIFY news, 'unheard'");
    for client in &mut clients {
        assert_eq!(tags(&client.query("SELECT 1")), "TDCZ");
    }
    wait_until(SOON, "the connection that listened is closed", || listeners(&database) == "0");
}

#[test]
fn trap_89_what_listens_follows_the_transaction() {
    tidegate_test_support::differential("", |c| {
        for sql in [
            "LISTEN a; NOTIFY a, 'in one text'",
            "BEGIN",
            "LISTEN b",
            "NOTIFY b, 'after the commit'",
            "NOTIFY b, 'after the commit'",
            "SELECT 1",
            "COMMIT",
            "BEGIN; LISTEN c; ROLLBACK",
            "NOTIFY c, 'unheard'",
            "BEGIN",
            "SAVEPOINT s",
            "UNLISTEN a",
            "ROLLBACK TO s",
            "UNLISTEN b",
            "NOTIFY a, 'still heard'",
            "NOTIFY b, 'no longer'",
            "COMMIT",
            "SELECT * FROM pg_listening_channels() ORDER BY 1",
            "BEGIN",
            "UNLISTEN *",
            "SELECT 1/0",
            "ROLLBACK",
            "NOTIFY a, 'undone'",
            "LISTEN \"Ü b\"\"c\"",
            "NOTIFY \"Ü b\"\"c\", 'quoted'",
            "LISTEN",
            "LISTEN 'x'",
            "NOTIFY a, 'once more'; SELECT 1/0",
            "SELECT pg_notify('a', NULL)",
            "SELECT pg_notify('a', repeat('x', 7999))",
            "SELECT pg_notify('a', repeat('x', 8000))",
            "DISCARD ALL",
            "NOTIFY a, 'unheard'",
            "SELECT * FROM pg_listening_channels()",
            "BEGIN; LISTEN d; COMMIT; NOTIFY d, 'in the same text'; SELECT 2",
            "LISTEN e; SELECT 1/0",
            "SELECT * FROM pg_listening_channels()",
            "UNLISTEN never",
            "UNLISTEN *",
        ] {
            c.query(sql);
        }
    });
}

#[test]
fn trap_89_the_extended_protocol_listens_as_well() {
    tidegate_test_support::differential("", |c| {
        let run = |sql: &str| pipeline().parse("", sql, &[]).bind("", "", &[]).execute("");
        c.send(run("LISTEN x").sync());
        c.read_until_ready();
        c.send(run("NOTIFY x, 'own'").sync());
        c.read_until_ready();
        // Pipelined.
        c.send(pipeline().query("LISTEN y").query("NOTIFY y, '1'").query("NOTIFY x, '2'"));
        (0..3).for_each(|_| drop(c.read_until_ready()));
        c.send(run("UNLISTEN y").sync().query("NOTIFY y, 'unheard'").query("SELECT 3"));
        (0..3).for_each(|_| drop(c.read_until_ready()));
        c.send(pipeline().parse("l", "LISTEN z", &[]).sync());
        c.read_until_ready();
        c.send(pipeline().query("BEGIN").bind("", "l", &[]).execute("").sync().query("COMMIT"));
        (0..3).for_each(|_| drop(c.read_until_ready()));
        c.send(run("SELECT pg_notify($1, $2)").sync());
        c.read_until_ready();
        let notify = pipeline().parse("", "SELECT pg_notify($1, $2)", &[]);
        c.send(notify.bind("", "", &[Some("z"), Some("bound")]).execute("").sync());
        c.read_until_ready();
        c.query("DISCARD ALL");
        c.query("NOTIFY z, 'unheard'");
    });
}

#[test]
fn trap_89_a_client_in_a_transaction_is_told_when_it_is_over() {
    let (_tidegate, url, _) = alone("listen_later", 2);
    let [mut one, mut other] = [(); 2].map(|()| Client::connect(&url));
    one.query("LISTEN later");
    one.query("BEGIN");
    other.query("NOTIFY later, 'meanwhile'");
    assert_eq!(tags(&one.query("SELECT 1")), "TDCZ");
    assert!(one.is_silent_for(Duration::from_millis(50)));
    let answer = one.query("COMMIT");
    assert_eq!(tags(&answer), "CAZ");
    assert_eq!(answer[1].describe(), "A later \"meanwhile\"");
    other.query("NOTIFY later, 'at rest'");
    assert_eq!(one.read_message().describe(), "A later \"at rest\"");
}

#[test]
fn a_client_whose_listener_is_lost_is_told_and_can_listen_again() {
    let (tidegate, url, database) = alone("listen_lost", 2);
    let [mut idle, mut busy, mut other] = [(); 3].map(|()| Client::connect(&url));
    idle.query("LISTEN news");
    busy.query("LISTEN news");
    busy.query("BEGIN");
    end_listeners(&database);
    let message = idle.expect("E:08006 (end)").swap_remove(0);
    assert!(message.describe().contains("may have been lost"), "{message:?}");
    // Its transaction is its own affair, and ends first.
    assert_eq!(tags(&busy.query("SELECT 1")), "TDCZ");
    assert_eq!(busy.query("COMMIT")[0].text(), "COMMIT");
    busy.expect("E:08006 (end)");
    let mut again = Client::connect(&url);
    again.query("LISTEN news");
    other.query("NOTIFY news, 'again'");
    assert_eq!(again.read_message().describe(), "A news \"again\"");
    wait_for_pins(&tidegate, &[]);
}

#[test]
fn listening_that_a_function_hides_keeps_the_server_as_ever() {
    let (tidegate, url, _) = alone("listen_hidden", 2);
    let [mut one, mut other] = [(); 2].map(|()| Client::connect(&url));
    one.query("DO $$ BEGIN LISTEN hidden; END $$");
    wait_for_pins(&tidegate, &["listen"]);
    other.query("NOTIFY hidden, 'heard'");
    assert_eq!(one.read_message().describe(), "A hidden \"heard\"");
    let answer = one.query("NOTIFY hidden, 'own'");
    assert_eq!((tags(&answer).as_str(), process(&answer[1])), ("CAZ", told(&one)));
    one.query("UNLISTEN *");
    wait_for_pins(&tidegate, &[]);
    // Who listens anyway has what it hides found as well.
    one.query("LISTEN shown");
    one.query("DO $$ BEGIN LISTEN hidden; UNLISTEN shown; END $$");
    wait_for_pins(&tidegate, &[]);
    other.query("NOTIFY shown, 'unheard'");
    other.query("NOTIFY hidden, 'heard'");
    assert_eq!(one.read_message().describe(), "A hidden \"heard\"");
}

#[test]
fn a_client_in_another_encoding_keeps_its_server() {
    let (tidegate, url, _) = alone("listen_latin", 2);
    let [mut one, mut other] = [(); 2].map(|()| Client::connect(&url));
    one.query("SET client_encoding = 'LATIN1'");
    one.query("LISTEN news");
    wait_for_pins(&tidegate, &["listen"]);
    other.query("NOTIFY news, 'Ü'");
    assert_eq!(one.read_message().body[9..], [0xdc, 0]);
}

#[test]
fn a_client_that_takes_nothing_is_ended() {
    let (_tidegate, url, _) = alone("listen_slow", 2);
    let [mut slow, mut other] = [(); 2].map(|()| Client::connect(&url));
    slow.query("LISTEN news");
    slow.query("BEGIN");
    let sql = "SELECT pg_notify('news', i || repeat('x', 7900)) FROM generate_series(1, 200) AS i";
    for _ in 0..4 {
        other.query(sql);
    }
    slow.expect("E:53400 (end)");
}

// --- at random --------------------------------------------------------------------------------------------------

/// Random numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What one client read: the answers, and what it heard with who is said to have sent it.
#[derive(Debug, Default)]
struct Heard {
    answers: Vec<String>,
    notifications: Vec<(String, String, u32)>,
    /// Channels that it began to listen to, and what it may be told there though it was notified before: PostgreSQL looks
    /// when the transaction is over, or just after LISTEN, at what it has not looked at yet.
    early: Vec<(String, std::ops::Range<usize>)>,
}

impl Heard {
    fn note(&mut self, messages: &[Message]) {
        for message in messages {
            if message.tag == b'A' {
                let (channel, payload) = message.notification();
                self.notifications.push((channel, payload, process(message)));
            } else {
                self.answers.push(message.describe());
            }
        }
    }
}

/// The same random steps of some clients, one after the other.
fn play(url: &str, seed: u64, steps: usize) -> (Vec<Heard>, BTreeMap<u32, usize>) {
    const CLIENTS: usize = 6;
    const OPEN_MAX: usize = 2;
    let mut dice = Dice(seed);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(url)).collect();
    let senders = clients.iter().map(told).zip(0..).collect();
    let mut heard: Vec<Heard> = (0..CLIENTS).map(|_| Heard::default()).collect();
    let mut open = [false; CLIENTS];
    let mut inside: [Vec<String>; CLIENTS] = Default::default();
    for step in 0..steps {
        let index = dice.roll(CLIENTS);
        let channel = format!("c{}", dice.roll(4));
        let count = open.iter().filter(|open| **open).count();
        let sql = match dice.roll(16) {
            0..=3 => format!("LISTEN {channel}"),
            4 => format!("UNLISTEN {channel}"),
            5 if dice.roll(3) == 0 => "UNLISTEN *".to_owned(),
            6..=8 => format!("NOTIFY {channel}, '{step}'"),
            9 => format!("SELECT pg_notify('{channel}', '{step}') FROM generate_series(1, 3)"),
            10 if !open[index] && count < OPEN_MAX => "BEGIN".to_owned(),
            11 if open[index] => "COMMIT".to_owned(),
            12 if open[index] => "ROLLBACK".to_owned(),
            13 if open[index] => "SAVEPOINT s".to_owned(),
            14 if open[index] => "ROLLBACK TO s".to_owned(),
            15 if !open[index] && dice.roll(4) == 0 => "DISCARD ALL".to_owned(),
            _ => format!("LISTEN {channel}; NOTIFY {channel}, '{step}'"),
        };
        let answer = match dice.roll(2) {
            0 => clients[index].query(&sql),
            _ if sql.contains(';') => clients[index].query(&sql),
            _ => {
                let parse = pipeline().parse("", &sql, &[]);
                clients[index].send(parse.bind("", "", &[]).execute("").sync());
                clients[index].read_until_ready()
            }
        };
        if sql.starts_with("LISTEN") {
            match open[index] {
                true => inside[index].push(channel),
                false => heard[index].early.push((channel, step.saturating_sub(2)..step)),
            }
        }
        open[index] = answer.last().unwrap().status() != 'I';
        if !open[index] {
            heard[index].early.extend(inside[index].drain(..).map(|channel| (channel, 0..step)));
        }
        heard[index].note(&answer);
    }
    for (client, heard) in clients.iter_mut().zip(&mut heard) {
        heard.note(&client.query("ROLLBACK"));
        heard.note(&client.query("SELECT 1"));
    }
    (heard, senders)
}

#[test]
fn random_steps_are_heard_as_on_postgresql() {
    const STEPS: usize = 250;
    let (tidegate, url, database) = alone("listen_random", 3);
    let direct_url = shared_cluster().primary().url(ROLE, &database);
    let first = std::env::var("TIDEGATE_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let count = std::env::var("TIDEGATE_TEST_SEEDS").map_or(6, |count| count.parse().unwrap());
    let mut told = 0;
    for seed in first..first + count {
        let (direct, direct_senders) = play(&direct_url, seed, STEPS);
        let (through, senders) = play(&url, seed, STEPS);
        for (index, (direct, through)) in direct.iter().zip(&through).enumerate() {
            assert_eq!(direct.answers, through.answers, "seed {seed}, client {index}");
            let mut rest = through.notifications.clone();
            for (channel, payload, sender) in &direct.notifications {
                let step: usize = payload.parse().unwrap();
                let Some(at) = rest.iter().position(|(c, p, _)| (c, p) == (channel, payload))
                else {
                    let is_early =
                        direct.early.iter().any(|(c, at)| c == channel && at.contains(&step));
                    assert!(is_early, "seed {seed}: {index} has not heard {step} on {channel}");
                    continue;
                };
                // Of its own, those on channels that it began to listen to in the same transaction come last.
                let is_own = |sender| senders.get(&sender) == Some(&index);
                let moved = at == 0 || is_own(rest[at].2) || rest[..at].iter().all(|r| is_own(r.2));
                assert!(moved, "seed {seed}: {index} heard {step} on {channel} late: {rest:?}");
                let here = rest.remove(at);
                let sender = direct_senders[sender];
                match senders.get(&here.2) {
                    Some(said) => assert_eq!(*said, sender, "seed {seed}: {here:?}"),
                    None => assert_ne!(sender, index, "seed {seed}: {here:?} is its own"),
                }
                told += 1;
            }
            assert!(rest.is_empty(), "seed {seed}: {index} heard what was not for it: {rest:?}");
        }
        wait_for_pins(&tidegate, &[]);
    }
    assert!(told > 100, "{told} notifications show little");
}

/// What was notified on one channel: numbers, which are begun, sent, and done.
#[derive(Default)]
struct Sent {
    begun: AtomicUsize,
    done: AtomicUsize,
}

#[test]
fn at_once_nothing_is_lost_and_nothing_is_anybody_elses() {
    const CHANNELS: usize = 3;
    const ROUNDS: usize = 12;
    let database = test_database("listen_at_once");
    let toml = "workers = 2\n[pool]\nsize_min = 0\nsize_max = 4\n";
    let tidegate = tidegate(shared_cluster(), &database, toml);
    let url = tidegate.url(ROLE, &database);
    let sent: Vec<Sent> = (0..CHANNELS).map(|_| Sent::default()).collect();
    let over = AtomicBool::new(false);
    let heard_in_all = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for (channel, sent) in sent.iter().enumerate() {
            let (url, over) = (&url, &over);
            scope.spawn(move || {
                let mut client = Client::connect(url);
                while !over.load(Ordering::Relaxed) {
                    let number = sent.begun.fetch_add(1, Ordering::SeqCst);
                    let answer = client.query(&format!("NOTIFY n{channel}, '{number}'"));
                    assert_eq!(tags(&answer), "CZ");
                    sent.done.store(number + 1, Ordering::SeqCst);
                }
            });
        }
        let listeners: Vec<_> = (0..6)
            .map(|seed| {
                let (url, sent, heard_in_all) = (&url, &sent, &heard_in_all);
                scope.spawn(move || {
                    let mut dice = Dice(seed);
                    let mut client = Client::connect(url);
                    for _ in 0..ROUNDS {
                        let channel = dice.roll(CHANNELS);
                        let heard = listen_once(&mut client, channel, &sent[channel], &mut dice);
                        heard_in_all.fetch_add(heard, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        listeners.into_iter().for_each(|listener| listener.join().unwrap());
        over.store(true, Ordering::Relaxed);
    });
    assert!(heard_in_all.load(Ordering::Relaxed) > 500, "{heard_in_all:?} show little");
    wait_for_pins(&tidegate, &[]);
    let pools = json(&tidegate, "/api/v1/pools");
    assert!(pools["pools"].as_array().is_some(), "{pools}");
}

/// Listens for a while, and has heard all that was sent meanwhile, in order. How many that were.
fn listen_once(client: &mut Client, channel: usize, sent: &Sent, dice: &mut Dice) -> usize {
    let mut messages = match dice.roll(3) {
        0 => client.query(&format!("LISTEN n{channel}")),
        1 => {
            client.query("BEGIN");
            client.query(&format!("LISTEN n{channel}"));
            client.query("COMMIT")
        }
        _ => client.query(&format!("SELECT 1; LISTEN n{channel}; SELECT 2")),
    };
    let first = sent.begun.load(Ordering::SeqCst);
    for _ in 0..dice.roll(5) {
        messages.extend(client.query(["SELECT 1", "BEGIN", "COMMIT"][dice.roll(3)]));
    }
    messages.extend(client.query("COMMIT"));
    let until = sent.done.load(Ordering::SeqCst).max(first + 20);
    let number = |message: &Message| -> usize {
        let (heard_on, payload) = message.notification();
        assert_eq!(heard_on, format!("n{channel}"));
        payload.parse().unwrap()
    };
    let mut heard: Vec<usize> =
        messages.iter().filter(|message| message.tag == b'A').map(number).collect();
    while heard.last().is_none_or(|last| last + 1 < until) {
        heard.push(number(&client.read_message()));
    }
    let consecutive = heard.windows(2).all(|two| two[0] + 1 == two[1]);
    assert!(consecutive && heard[0] <= first, "from {first} to {until}: {heard:?}");
    // What comes until it is done is heard or not.
    client.query(&format!("UNLISTEN {}", ["*".to_owned(), format!("n{channel}")][dice.roll(2)]));
    heard.len()
}
