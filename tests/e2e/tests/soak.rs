//! Everything at once: clients that share few connections do random things, and each row must be its client's own.
//!
//! `TIDEGATE_SOAK_SECS` sets how long, `TIDEGATE_SOAK_WORKERS` the proxy's threads; `TIDEGATE_SOAK_SEED` repeats a run's
//! choices (not its timing).

mod notify; // who listens, who notifies, and what must have arrived

use crate::own::{Folder, json, pool_of};
use notify::{Board, Listening};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Message, Tidegate, TidegateOptions, pipeline, shared_cluster, test_database, wait_until,
};

const CLIENTS: usize = 30;
const POOL: usize = 5;
const SECONDS: u64 = 20;
/// How often the process is replaced by its successor.
const HAND_OVERS: u32 = 2;
/// What the last of them may grow by between half of the time and the end, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;
/// Errors that the chaos may cause in a client that did nothing wrong: its server was terminated.
const LOST: [&str; 4] = ["57P01", "57P02", "08006", "08007"];

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

#[derive(Default)]
struct Counts {
    answers: AtomicUsize,
    cancels: AtomicUsize,
    vanished: AtomicUsize,
    lost: AtomicUsize,
    /// Notifications that reached their listener.
    heard: AtomicUsize,
}

/// What one client believes about its own session.
struct Soaker<'a> {
    url: &'a str,
    index: usize,
    me: String,
    /// The value of `app.me`, as this session set it last; empty in a new session.
    setting: String,
    number: u64,
    named: u64,
    client: Client,
    random: Random,
    counts: &'a Counts,
    board: &'a Board,
    listening: Option<Listening>,
}

/// The session ended, for a reason that is not the client's.
struct Gone;

/// Rows, the SQLSTATE of an error, the transaction status.
type Answer = (Vec<Vec<Option<String>>>, Option<String>, char);

impl Soaker<'_> {
    fn connect(url: &str) -> Client {
        let mut client = None;
        wait_until(Duration::from_secs(30), "a login succeeds", || {
            match Client::try_connect(url, &[]) {
                Ok(connected) => client = Some(connected),
                Err(error) => assert!(LOST.contains(&error.sqlstate().as_str()), "{error:?}"),
            }
            client.is_some()
        });
        client.unwrap()
    }

    fn start_again(&mut self) {
        self.leave_the_board();
        self.client = Soaker::connect(self.url);
        self.setting = String::new();
        self.named = 0;
    }

    /// Reads one answer: rows, or the SQLSTATE of its error.
    fn answer(&mut self) -> Result<Answer, Gone> {
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let Some(message) = self.client.read_message_or_end() else {
                assert!(error.is_some(), "{}: ended without a word", self.me);
                return Err(Gone);
            };
            match message.tag {
                b'D' => rows.push(message.row()),
                b'E' => error = Some(self.judge(&message)),
                b'Z' => return Ok((rows, error, message.status())),
                b'A' => self.hear(&message),
                b'T' | b'C' | b'1' | b'2' | b'3' | b'n' | b't' | b'S' | b'N' | b'I' => {}
                _ => panic!("{} got {message:?}", self.me),
            }
        }
    }

    fn judge(&self, error: &Message) -> String {
        let code = error.sqlstate();
        if error.field(b'S').as_deref() == Some("FATAL") {
            assert!(LOST.contains(&code.as_str()), "{}: {}", self.me, error.describe());
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
        code
    }

    /// An answer with one row `setting|me|number`, without an error.
    fn own_row(&mut self, status: char) -> Result<(), Gone> {
        let (rows, error, now) = self.answer()?;
        assert_eq!(error, None, "{}", self.me);
        let wanted = [&self.setting, &self.me, &self.number.to_string()].map(|t| Some(t.clone()));
        assert_eq!(rows, [wanted.to_vec()], "{} got another's row", self.me);
        assert_eq!(now, status, "{}", self.me);
        self.counts.answers.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn quiet(&mut self, sql: &str, status: char) -> Result<(), Gone> {
        self.client.send(pipeline().query(sql));
        let (rows, error, now) = self.answer()?;
        assert_eq!((rows.len(), error, now), (0, None, status), "{}: {sql}", self.me);
        Ok(())
    }

    fn ask_simply(&mut self, status: char) -> Result<(), Gone> {
        self.number += 1;
        let (me, number) = (&self.me, self.number);
        let sql =
            format!("SELECT coalesce(current_setting('app.me', true), ''), '{me}', {number}::int8");
        self.client.send(pipeline().query(&sql));
        self.own_row(status)
    }

    fn ask_extended(&mut self, status: char) -> Result<(), Gone> {
        const SQL: &str =
            "SELECT coalesce(current_setting('app.me', true), ''), $1::text, $2::int8";
        self.number += 1;
        let number = self.number.to_string();
        let values = [Some(self.me.as_str()), Some(number.as_str())];
        let named = self.random.below(4);
        let messages = match named {
            0 => pipeline().parse("", SQL, &[]).bind("", "", &values),
            name if self.named & (1 << name) != 0 => {
                pipeline().bind("", &format!("s{name}"), &values)
            }
            name => {
                self.named |= 1 << name;
                // The same name is another statement to every client.
                let sql = format!("{SQL} /* {name} */");
                let name = format!("s{name}");
                pipeline().parse(&name, &sql, &[]).bind("", &name, &values)
            }
        };
        self.client.send(messages.execute("").sync());
        self.own_row(status)
    }

    fn ask(&mut self, status: char) -> Result<(), Gone> {
        if self.random.below(2) == 0 { self.ask_simply(status) } else { self.ask_extended(status) }
    }

    fn step(&mut self) -> Result<(), Gone> {
        match self.random.below(25) {
            0..8 => self.ask('I'),
            8..10 => {
                let setting = format!("{} {}", self.me, self.random.below(100));
                self.quiet(&format!("SET app.me = '{setting}'"), 'I')?;
                self.setting = setting;
                self.ask('I')
            }
            10..13 => self.transaction(),
            13 => self.pipelined(),
            14 => {
                self.client.send(pipeline().query("SELECT 1/0"));
                let (_, error, status) = self.answer()?;
                assert_eq!((error.as_deref(), status), (Some("22012"), 'I'), "{}", self.me);
                self.ask('I')
            }
            15 => {
                self.quiet("RESET app.me", 'I')?;
                self.setting = String::new();
                self.ask('I')
            }
            16 => self.cancelled(),
            17 => {
                self.quiet("CREATE TEMP TABLE mine (a int)", 'I')?;
                self.ask('I')?;
                self.quiet("DROP TABLE mine", 'I')
            }
            18..23 => self.notifications(),
            _ => self.vanish(),
        }
    }

    fn transaction(&mut self) -> Result<(), Gone> {
        self.quiet("BEGIN", 'T')?;
        let before = self.setting.clone();
        for _ in 0..self.random.below(4) {
            self.ask('T')?;
            if self.random.below(3) == 0 {
                let setting = format!("{} inside {}", self.me, self.random.below(100));
                self.quiet(&format!("SET app.me = '{setting}'"), 'T')?;
                self.setting = setting;
            }
        }
        if self.random.below(2) == 0 {
            self.quiet("COMMIT", 'I')?;
        } else {
            self.quiet("ROLLBACK", 'I')?;
            self.setting = before;
        }
        self.ask('I')
    }

    /// Several batches without waiting in between.
    fn pipelined(&mut self) -> Result<(), Gone> {
        let first = self.number + 1;
        let mut messages = pipeline();
        for number in first..first + 5 {
            let sql = format!(
                "SELECT coalesce(current_setting('app.me', true), ''), '{}', {number}::int8",
                self.me
            );
            messages = messages.parse("", &sql, &[]).bind("", "", &[]).execute("").sync();
        }
        self.client.send(messages);
        for _ in 0..5 {
            self.number += 1;
            self.own_row('I')?;
        }
        Ok(())
    }

    fn cancelled(&mut self) -> Result<(), Gone> {
        self.client.send(pipeline().query("SELECT pg_sleep(0.02)"));
        self.client.cancel();
        let (_, error, _) = self.answer()?;
        assert!(error.as_deref().is_none_or(|code| code == "57014"), "{}: {error:?}", self.me);
        self.counts.cancels.fetch_add(1, Ordering::Relaxed);
        self.ask('I')
    }

    /// Goes without a word, in the middle of something.
    fn vanish(&mut self) -> Result<(), Gone> {
        let bytes = match self.random.below(4) {
            0 => pipeline().query("SELECT pg_sleep(0.01)").bytes().to_vec(),
            1 => pipeline().query("SELECT 'not yet all of it'").bytes()[..11].to_vec(),
            2 => {
                self.quiet("BEGIN", 'T')?;
                Vec::new()
            }
            _ => pipeline().parse("", "SELECT 1", &[]).bind("", "", &[]).bytes().to_vec(),
        };
        self.client.send(bytes);
        self.counts.vanished.fetch_add(1, Ordering::Relaxed);
        Err(Gone)
    }
}

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn rows_settings_and_notifications_stay_with_their_client() {
    soak("auto");
}

/// What runs where the kernel has no io_uring.
#[test]
fn rows_settings_and_notifications_stay_with_their_client_by_epoll() {
    soak("epoll");
}

fn soak(io: &str) {
    let time = Duration::from_secs(variable("TIDEGATE_SOAK_SECS", SECONDS));
    let seed = variable("TIDEGATE_SOAK_SEED", u64::from(std::process::id()) | 1);
    println!("TIDEGATE_SOAK_SEED={seed}");
    let database = test_database("soak");
    let workers = format!("workers = {}", variable("TIDEGATE_SOAK_WORKERS", 2));
    let folder = Folder::new();
    let handover = format!("[handover]\ndir = \"{}\"\n", folder.file("sockets").display());
    // A pool that grows and shrinks while it is used.
    let [toml, other] = [POOL, POOL - 1].map(|size| {
        pool_of(size).replace("workers = 1", &format!("io = \"{io}\"\n{workers}")) + &handover
    });
    let options = TidegateOptions {
        toml: Some(toml.clone()),
        ..TidegateOptions::for_cluster(shared_cluster(), &database)
    };
    let mut processes = vec![Tidegate::start(options.clone())];
    let url = processes[0].url(ROLE, &database);
    let (counts, begun, stop) = (Counts::default(), Instant::now(), AtomicBool::new(false));
    let board = Board::new(CLIENTS);
    let over = || begun.elapsed() > time || stop.load(Ordering::Relaxed);
    let (mut servers_max, mut early_kib, mut reloads) = (0, 0, 0_usize);
    std::thread::scope(|scope| {
        let soak = |index: usize| {
            let mut soaker = Soaker {
                url: &url,
                index,
                me: format!("client {index}"),
                setting: String::new(),
                number: 0,
                named: 0,
                client: Soaker::connect(&url),
                random: Random(seed.wrapping_mul(index as u64 * 2 + 1)),
                counts: &counts,
                board: &board,
                listening: None,
            };
            while !over() {
                if soaker.step().is_err() {
                    soaker.start_again();
                }
            }
        };
        let soakers: Vec<_> = (0..CLIENTS).map(|index| scope.spawn(move || soak(index))).collect();
        let (primary, mut random) = (shared_cluster().primary(), Random(seed));
        while !over() {
            let list = format!("SELECT pid FROM pg_stat_activity WHERE datname = '{database}'");
            let pids = primary.psql(&list).unwrap();
            let pids: Vec<&str> = pids.lines().collect();
            servers_max = servers_max.max(pids.len());
            if !pids.is_empty() && random.below(4) == 0 {
                let pid = pids[random.below(pids.len() as u64) as usize];
                primary.psql(&format!("SELECT pg_terminate_backend({pid})")).unwrap();
            }
            let running = processes.last().unwrap();
            if random.below(20) == 0 {
                reloads += 1;
                running.write_config(if reloads % 2 == 0 { &toml } else { &other });
                running.sighup();
            }
            let replaced = processes.len() as u32 - 1;
            let each = time / (2 * (HAND_OVERS + 1));
            if replaced == HAND_OVERS && early_kib == 0 && begun.elapsed() > time / 2 {
                early_kib = running.resident_kib();
            }
            if replaced < HAND_OVERS && begun.elapsed() > each * (replaced + 1) {
                processes.push(running.start_successor(options.clone()));
            }
            // A failure ends the run for all.
            if soakers.iter().any(|soaker| soaker.is_finished()) && begun.elapsed() < time {
                stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let tidegate = processes.pop().unwrap();
    let grown = tidegate.resident_kib().saturating_sub(early_kib);
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    println!(
        "{} answers, {} cancels, {} vanished, {} lost servers, {} notifications, {reloads} reloads, {} hand-overs, \
         at most {servers_max} server connections, {grown} KiB more",
        count(&counts.answers),
        count(&counts.cancels),
        count(&counts.vanished),
        count(&counts.lost),
        count(&counts.heard),
        processes.len()
    );
    assert!(count(&counts.answers) > 100 && count(&counts.vanished) > 0);
    assert!(count(&counts.heard) > 0);
    assert!(reloads > 0 && processes.len() as u32 == HAND_OVERS, "{reloads} reloads");
    // Two processes at a time; and one that was terminated or is being cleaned may still be listed beside its successor.
    assert!(servers_max <= 4 * POOL, "{servers_max} server connections");
    assert!(grown < GROWTH_KIB_MAX, "the proxy has grown by {grown} KiB");
    wait_until(Duration::from_secs(20), "no client is left", || {
        json(&tidegate, "/api/v1/clients")["total"] == 0
    });
}
