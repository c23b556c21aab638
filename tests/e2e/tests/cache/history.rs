//! Registers that count up, and pairs that are changed together, read through kept answers while they are written.
//!
//! Each register has one writer, so a reader needs no order of all events to be judged: what it sees must be no less than what was
//! acknowledged before it asked, no less than what it saw before, and no more than what was sent by when it heard.

use super::{Kept, With};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tidegate_test_support::{Client, pipeline, shared_cluster, wait_until};

pub const SCHEMA: &str = "
    CREATE TABLE t (id int PRIMARY KEY, v int);
    INSERT INTO t VALUES (9, 9);
    CREATE TABLE reg (k int PRIMARY KEY, v bigint);
    INSERT INTO reg SELECT n, 0 FROM generate_series(0, 3) n;
    CREATE TABLE a (v bigint); INSERT INTO a VALUES (0);
    CREATE TABLE b (v bigint); INSERT INTO b VALUES (0);";
const REGISTERS: usize = 4;
const READERS: usize = 6;
const TIME: Duration = Duration::from_secs(5);
const PLAIN: &str = r#""ttl_ms": 60000"#;

#[derive(Default)]
struct Register {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// SplitMix64: a seed that fails fails again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

fn write(mut client: Client, own: usize, registers: &[Register], stop: &AtomicBool) {
    let mut random = Random(own as u64);
    let register = &registers[own];
    while !stop.load(Ordering::Relaxed) {
        let next = register.sent.load(Ordering::SeqCst) + 1;
        let update = format!("UPDATE reg SET v = {next} WHERE k = {own}");
        match random.below(4) {
            // Rolled back: nobody may ever see it, so it does not count as sent.
            0 => {
                client.query("BEGIN");
                client.query(&format!("UPDATE reg SET v = 1000000 WHERE k = {own}"));
                client.query("ROLLBACK");
                continue;
            }
            1 => {
                register.sent.store(next, Ordering::SeqCst);
                client.query("BEGIN");
                client.query(&update);
                client.query("COMMIT");
            }
            _ => {
                register.sent.store(next, Ordering::SeqCst);
                client.query(&update);
            }
        }
        register.acknowledged.store(next, Ordering::SeqCst);
        if own == 0 {
            client.query("BEGIN");
            client.query(&format!("UPDATE a SET v = {next}"));
            client.query(&format!("UPDATE b SET v = {next}"));
            client.query("COMMIT");
        }
        // Readers find something that is kept only between writes.
        for _ in 0..random.below(12) {
            client.query("SELECT pg_sleep(0.001)");
        }
    }
}

/// Reads until the time is over; how often, and what was wrong.
fn read(
    mut client: Client,
    seed: u64,
    registers: &[Register],
    over: &AtomicBool,
) -> (u64, Vec<String>) {
    let mut random = Random(seed);
    let mut own = [0; REGISTERS];
    let (mut count, mut wrong) = (0, Vec::new());
    let sql = "SELECT v FROM reg WHERE k = $1";
    client.send(pipeline().parse("reg", sql, &[23]).sync().bytes());
    client.read_until_ready();
    while !over.load(Ordering::Relaxed) {
        count += 1;
        if random.below(5) == 0 {
            let answer = client.query("SELECT a.v, b.v FROM a, b");
            let row = answer.iter().find(|message| message.tag == b'D').unwrap().row();
            if row[0] != row[1] {
                wrong.push(format!("torn: {row:?}"));
            }
            continue;
        }
        let k = random.below(REGISTERS as u64) as usize;
        let least = registers[k].acknowledged.load(Ordering::SeqCst);
        // Now and then past what is kept, in a transaction.
        let direct = random.below(20) == 0;
        if direct {
            client.query("BEGIN");
        }
        let seen = if random.below(2) == 0 {
            client.value(&format!("SELECT v FROM reg WHERE k = {k}")).unwrap()
        } else {
            let k = k.to_string();
            client.send(pipeline().bind("", "reg", &[Some(&k)]).execute("").sync().bytes());
            let answer = client.read_until_ready();
            let row = answer.iter().find(|message| message.tag == b'D').unwrap().row();
            row.into_iter().next().flatten().unwrap()
        };
        let seen: u64 = seen.parse().unwrap();
        if direct {
            client.query("COMMIT");
        }
        let most = registers[k].sent.load(Ordering::SeqCst);
        if seen < own[k] || seen > most {
            wrong.push(format!("register {k}: {seen}, after {} and of {most}", own[k]));
        }
        own[k] = own[k].max(seen);
        // What routing promises of replicas is less: only a session's own order.
        if seen < least && seed & REPLICAS == 0 {
            wrong.push(format!("register {k}: {seen}, although {least} was acknowledged"));
        }
    }
    (count, wrong)
}

/// A bit of the seed.
const REPLICAS: u64 = 1 << 32;

fn histories(name: &str, with: With, rule: &str) {
    let mut kept = Kept::start(shared_cluster(), name, SCHEMA, with);
    kept.set_rules(rule);
    let bit = if with == With::Replicas { REPLICAS } else { 0 };
    observe(&|_| kept.connect(), bit, || wait_for(TIME));
}

/// Lets others go on for so long.
pub fn wait_for(time: Duration) {
    let begun = Instant::now();
    wait_until(2 * time, "time has passed", || begun.elapsed() >= time);
}

/// Reads and writes by many clients, which `connect` makes, until `meanwhile` is over; nobody may see what is wrong.
pub fn observe(connect: &dyn Fn(usize) -> Client, bit: u64, meanwhile: impl FnOnce()) {
    let registers: Vec<Register> = (0..REGISTERS).map(|_| Register::default()).collect();
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (count, wrong) = std::thread::scope(|scope| {
        for own in 0..REGISTERS {
            let (client, registers, stop) = (connect(own), &registers, &stop);
            scope.spawn(move || write(client, own, registers, stop));
        }
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (client, registers, over) = (connect(reader), &registers, &over);
                scope.spawn(move || read(client, reader as u64 | bit, registers, over))
            })
            .collect();
        // Readers and writers end, whatever becomes of it.
        let happened = catch_unwind(AssertUnwindSafe(meanwhile));
        over.store(true, Ordering::Relaxed);
        stop.store(true, Ordering::Relaxed);
        let mut all = (0, Vec::new());
        for reader in readers {
            let (count, wrong) = reader.join().unwrap();
            all.0 += count;
            all.1.extend(wrong);
        }
        if let Err(panic) = happened {
            resume_unwind(panic);
        }
        all
    });
    assert!(wrong.is_empty(), "{} of {count}: {:?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    assert!(count > 200, "{count} reads");
    println!("{count} reads");
    // When all is quiet, everybody sees the last value.
    let mut client = connect(0);
    for (k, register) in registers.iter().enumerate() {
        let last = register.acknowledged.load(Ordering::SeqCst).to_string();
        let sql = format!("SELECT v FROM reg WHERE k = {k}");
        wait_until(super::SOON, "the last value is seen", || {
            client.value(&sql) == Some(last.clone())
        });
    }
}

#[test]
fn no_reader_goes_back_while_others_write() {
    histories("cache_history", With::ThePrimary, PLAIN);
}

#[test]
fn nor_with_replicas() {
    histories("cache_replicas", With::Replicas, PLAIN);
}

#[test]
fn nor_when_answers_are_read_again() {
    let rule = r#""ttl_ms": 200, "write_through": true, "warm": true"#;
    histories("cache_history_through", With::ThePrimary, rule);
}
