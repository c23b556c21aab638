//! What a session has set tells its answers apart, and what it is in the middle of is not answered from what is kept.

use super::{Kept, SCHEMA, With};
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::pipeline::Of;
use tidegate_test_support::{Client, Message, Pipeline, pipeline, shared_cluster};

/// Settings that shape answers, and a statement whose answer shows it.
const SHAPING: [(&str, &str); 12] = [
    ("search_path = 'other', 'public'", "SELECT v FROM t WHERE id = 1"),
    ("TimeZone = 'Asia/Tokyo'", "SELECT to_timestamp(id) FROM t WHERE id = 1"),
    ("DateStyle = 'German'", "SELECT d FROM t WHERE id = 1"),
    ("IntervalStyle = 'iso_8601'", "SELECT interval '1 day' * id FROM t WHERE id = 1"),
    ("extra_float_digits = -6", "SELECT 1::float8 / 3 * id FROM t WHERE id = 1"),
    ("bytea_output = 'escape'", "SELECT decode('00', 'hex') FROM t WHERE id = 1"),
    ("xmlbinary = 'hex'", "SELECT xmlelement(name a, decode('00', 'hex')) FROM t WHERE id = 1"),
    ("quote_all_identifiers = on", "SELECT format('%s', id) FROM t WHERE id = 1"),
    ("default_text_search_config = 'simple'", "SELECT to_tsvector('running') FROM t WHERE id = 1"),
    ("client_encoding = 'LATIN1'", "SELECT upper('e') FROM t WHERE id = 1"),
    ("app.tenant = '7'", "SELECT v FROM t WHERE id = 2"),
    ("row_security = off", "SELECT v FROM t WHERE id = 3"),
];
const HARMLESS: [&str; 4] = [
    "application_name = 'x'",
    "statement_timeout = '1min'",
    "lock_timeout = '1min'",
    "client_min_messages = 'error'",
];

fn rows(answer: &[Message]) -> Vec<Vec<Option<String>>> {
    answer.iter().filter(|message| message.tag == b'D').map(Message::row).collect()
}

fn start(name: &str) -> (Kept, Client) {
    let mut kept = Kept::start(shared_cluster(), name, SCHEMA, With::ThePrimary);
    let direct = Client::connect(&shared_cluster().primary().url(ROLE, &kept.database));
    // Through Tidegate, so that the catalogue is read again.
    kept.connect()
        .query("CREATE SCHEMA other; CREATE TABLE other.t AS SELECT id, -v AS v, d FROM public.t");
    kept.wait_until_kept();
    (kept, direct)
}

#[test]
fn what_a_session_has_set_tells_answers_apart() {
    let (mut kept, mut direct) = start("cache_settings");
    let mut plain = kept.connect();
    for (setting, sql) in SHAPING {
        let mut client = kept.connect();
        let (first, _) = kept.read(&mut plain, sql);
        assert_eq!(kept.read(&mut client, sql), (first.clone(), false), "before {setting}");
        for session in [&mut client, &mut direct] {
            let answer = session.query(&format!("SET {setting}"));
            assert!(answer.iter().all(|message| message.tag != b'E'), "{setting}: {answer:?}");
        }
        let (other, ran) = kept.read(&mut client, sql);
        assert!(ran, "{setting} is another key");
        assert_eq!(rows(&other), rows(&direct.query(sql)), "{setting}");
        assert_eq!(kept.read(&mut client, sql), (other, false), "{setting} has its own answer");
        assert_eq!(kept.read(&mut plain, sql), (first.clone(), false), "others keep theirs");
        let name = setting.split(' ').next().unwrap();
        for session in [&mut client, &mut direct] {
            session.query(&format!("RESET {name}"));
        }
        // One of the users' own is empty from then on, and not what it was before.
        let is_as_before = !name.contains('.');
        assert_eq!(kept.read(&mut client, sql), (first, !is_as_before), "after {setting}");
    }
    let sql = "SELECT d FROM t WHERE id = 4";
    let mut client = kept.connect();
    let (first, _) = kept.read(&mut plain, sql);
    for setting in HARMLESS {
        client.query(&format!("SET {setting}"));
        assert_eq!(kept.read(&mut client, sql), (first.clone(), false), "{setting}");
    }
    // What no text tells: a session whose settings are in doubt is answered as its server would.
    client.query("SELECT set_config(n, 'German', false) FROM (VALUES ('Date' || 'Style')) x(n)");
    for _ in 0..3 {
        assert_eq!(client.value(sql).as_deref(), Some("01.01.2020"));
    }
    assert_eq!(kept.read(&mut plain, sql), (first, false));
    // A temporary table goes before the one of its name, for its session alone.
    let sql = "SELECT v FROM t WHERE id = 5";
    let mut client = kept.connect();
    kept.runs(&mut plain, sql);
    client.query("CREATE TEMP TABLE t AS SELECT 5 AS id, 555 AS v");
    for _ in 0..3 {
        assert_eq!(client.value(sql).as_deref(), Some("555"));
        assert_eq!(plain.value(sql).as_deref(), Some("5"));
    }
    client.query("DISCARD TEMP");
    assert_eq!(client.value(sql).as_deref(), Some("5"));
}

#[test]
fn what_a_session_is_in_the_middle_of_is_not_answered() {
    let (mut kept, _) = start("cache_middle");
    let (mut other, mut client) = (kept.connect(), kept.connect());
    let sql = "SELECT v FROM t WHERE id = 1";
    kept.runs(&mut other, sql);
    for begin in [
        "BEGIN",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY",
        "START TRANSACTION READ ONLY",
    ] {
        assert!(!kept.runs(&mut client, sql), "before {begin}");
        client.query(begin);
        assert!(kept.runs(&mut client, sql) && kept.runs(&mut client, sql), "within {begin}");
        client.query("SAVEPOINT a");
        client.query("SELECT 1 / 0");
        let failed = kept.read(&mut client, sql).0;
        assert_eq!(failed[0].sqlstate(), "25P02", "a failed transaction answers nothing");
        client.query("ROLLBACK");
        assert!(!kept.runs(&mut client, sql), "after {begin}");
    }
    // What it has written itself it sees, and nobody else does, nor is it kept.
    client.query("BEGIN");
    client.query("UPDATE t SET v = 77 WHERE id = 1");
    assert_eq!(client.value(sql).as_deref(), Some("77"));
    assert_eq!(other.value(sql).as_deref(), Some("1"));
    client.query("ROLLBACK");
    assert_eq!(client.value(sql).as_deref(), Some("1"));
    // Nor what would be read under rules of its own.
    client.query("SET default_transaction_isolation = 'serializable'");
    assert!(kept.runs(&mut client, sql) && kept.runs(&mut client, sql));
    client.query("RESET default_transaction_isolation");
    assert!(!kept.runs(&mut client, sql));
    batches_that_are_not_followed(&mut kept, &mut client);
}

/// A portal with a name, two Executes, two statements before one Sync, a statement's description alone, a Flush in between.
fn batches_that_are_not_followed(kept: &mut Kept, client: &mut Client) {
    let texts: [fn(&str) -> Pipeline; 5] = [
        |sql| pipeline().parse("", sql, &[]).bind("p", "", &[]).execute("p").sync(),
        |sql| {
            pipeline().parse("", sql, &[]).bind("", "", &[]).execute_rows("", 1).execute("").sync()
        },
        |sql| {
            let one = pipeline().parse("", sql, &[]).bind("", "", &[]).execute("");
            one.parse("", sql, &[]).bind("", "", &[]).execute("").sync()
        },
        |sql| pipeline().parse("", sql, &[]).describe(Of::Statement("")).sync(),
        |sql| pipeline().parse("", sql, &[]).bind("", "", &[]).flush().execute("").sync(),
    ];
    for (number, batch) in texts.iter().enumerate() {
        for _ in 0..2 {
            let mark = kept.mark();
            client.send(batch(&format!("SELECT v FROM t WHERE id < 3 {mark}")).bytes());
            let answer = client.read_until_ready();
            assert!(answer.iter().all(|message| message.tag != b'E'), "{number}: {answer:?}");
            // A description alone is parsed, which no log tells: it is no answer with rows.
            assert!(kept.was_run(&mark) || rows(&answer).is_empty(), "{number}");
        }
    }
}
