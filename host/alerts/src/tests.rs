//! What is told and when; what waits; how it reads.

use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

const SECOND: Duration = Duration::from_secs(1);

fn finding(condition: Condition, server: Option<&str>) -> Finding {
    let what = format!("{} is wrong", condition.label());
    Finding { condition, server: server.map(str::to_owned), what, is_urgent: false }
}

fn letter(occasion: Occasion) -> Letter {
    Letter {
        occasion,
        finding: Finding {
            what: "\"réplica\" is <7 s> behind".to_owned(),
            ..finding(Condition::Lag, Some("réplica"))
        },
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_023_017),
        lasted: 90 * SECOND,
        done: vec!["reads leave \"réplica\"".to_owned()],
        cluster: "the primary is \"primary\"".to_owned(),
        source: "db-proxy-1".to_owned(),
    }
}

#[test]
fn an_alert_is_told_once_and_again_while_it_lasts_and_when_it_is_over() {
    let start = Instant::now();
    let mut ledger = Ledger::new(60 * SECOND);
    let lag = [finding(Condition::Lag, Some("replica-1"))];
    let mut told = Vec::new();
    for second in 0..200_u32 {
        let findings: &[Finding] = if (10..150).contains(&second) { &lag } else { &[] };
        for Told { occasion, .. } in ledger.handle_findings(findings, start + SECOND * second) {
            told.push((second, occasion));
        }
    }
    let expected = [
        (10, Occasion::Fired),
        (70, Occasion::Repeated),
        (130, Occasion::Repeated),
        (152, Occasion::Cleared),
    ];
    assert_eq!(told, expected);
    assert_eq!((ledger.open(), ledger.wake_at()), (0, None));
}

#[test]
fn a_blip_is_not_told_unless_it_is_acted_upon() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for is_urgent in [false, true] {
        let mut ledger = Ledger::new(3_600 * SECOND);
        let gone = [finding(Condition::Primary, None)];
        let acted = [Finding { is_urgent, ..gone[0].clone() }];
        let mut told = ledger.handle_findings(&gone, at(0));
        told.extend(ledger.handle_findings(&acted, at(200)));
        told.extend(ledger.handle_findings(&[], at(400)));
        told.extend(ledger.handle_findings(&[], at(5_000)));
        let told: Vec<Occasion> = told.into_iter().map(|told| told.occasion).collect();
        let expected: &[Occasion] =
            if is_urgent { &[Occasion::Fired, Occasion::Cleared] } else { &[] };
        assert_eq!(told, expected);
    }
}

#[test]
fn what_cannot_be_sent_is_tried_less_and_less_and_given_up_in_the_end() {
    let start = Instant::now();
    let mut outbox = Outbox::default();
    outbox.push("one", start);
    let mut tries = Vec::new();
    for second in 0..4_000_u32 {
        let now = start + SECOND * second;
        if outbox.next(now).is_some() {
            tries.push(second);
            outbox.handle_failure(Failure::Passing, now);
        }
    }
    assert_eq!(tries[..8], [0, 1, 3, 7, 15, 31, 63, 123]);
    assert!(outbox.is_empty() && *tries.last().unwrap() < 3_600);
    assert_eq!(outbox.given_up(), 1);
    // Who refuses one letter gets the next at once.
    let now = start + 9_000 * SECOND;
    outbox.push("two", now);
    outbox.push("three", now);
    outbox.handle_sent();
    let later = now + PAUSE_LONGEST;
    assert_eq!(outbox.next(later), Some(&"two"));
    assert_eq!(outbox.next(later), None, "one at a time");
    outbox.handle_failure(Failure::Final, later);
    assert_eq!(outbox.next(later), Some(&"three"));
    outbox.handle_sent();
    assert_eq!((outbox.len(), outbox.given_up(), outbox.wake_at(later)), (0, 2, None));
}

const PAUSE_LONGEST: Duration = Duration::from_secs(60);

#[test]
fn letters_read_as_each_receiver_wants_them() {
    let fired = letter(Occasion::Fired);
    assert_eq!(fired.summary(), "lag: \"réplica\" is <7 s> behind");
    let text = fired.text();
    for part in [
        "Since: 2026-11-30T07:16:57Z (90 s)",
        "- reads leave",
        "To do: see what keeps it",
        "db-proxy-1",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let webhook = fired.webhook();
    assert_eq!((&webhook["event"], &webhook["alert"]), (&"fired".into(), &"lag".into()));
    assert_eq!(webhook["server"], "réplica");
    let slack = fired.slack();
    assert!(slack["text"].as_str().unwrap().contains("is &lt;7 s&gt; behind"), "{slack}");
    let (trigger, resolve) = (fired.pagerduty("key"), letter(Occasion::Cleared).pagerduty("key"));
    assert_eq!(
        (&trigger["event_action"], &resolve["event_action"]),
        (&"trigger".into(), &"resolve".into())
    );
    assert_eq!(trigger["dedup_key"], resolve["dedup_key"]);
    assert_eq!(trigger["payload"]["severity"], "warning");
    assert!(letter(Occasion::Cleared).summary().starts_with("lag: over after 90 s"));
    assert!(!letter(Occasion::Cleared).text().contains("To do"));
    for condition in Condition::ALL {
        assert!(!condition.advice().is_empty() && !condition.label().contains('/'));
    }
}

#[test]
fn dates_are_written_as_mail_wants_them() {
    let cases = [
        (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
        (1_796_023_017, "Mon, 30 Nov 2026 07:16:57 +0000"),
        (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
    ];
    for (seconds, expected) in cases {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(super::time::rfc_5322(at), expected);
    }
}

fn mail_of(letter: &Letter) -> String {
    let to = ["a@example.com".to_owned(), "b@example.com".to_owned()];
    let at = SystemTime::UNIX_EPOCH;
    Mail { from: "tidegate@example.com", to: &to, at, id: "1.2" }.message(letter)
}

/// Headers and text of a message as a reader shows them.
fn read_mail(message: &str) -> (HashMap<String, String>, String) {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    let head = head.replace("\r\n ", " ");
    let headers = head.split("\r\n").map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), value.to_owned())
    });
    let body = STANDARD.decode(body.replace("\r\n", "")).unwrap();
    (headers.collect(), String::from_utf8(body).unwrap().replace("\r\n", "\n"))
}

fn decode_subject(subject: &str) -> String {
    let words = subject.split(' ').map(|word| {
        let word = word.strip_prefix("=?utf-8?B?").unwrap().strip_suffix("?=").unwrap();
        String::from_utf8(STANDARD.decode(word).unwrap()).unwrap()
    });
    words.collect()
}

/// Findings that are there from one second up to another.
type Episode = (usize, Option<u8>, u32, u32, bool);

fn episodes() -> impl Strategy<Value = Vec<Episode>> {
    let episode = (
        0..Condition::ALL.len(),
        proptest::option::of(0..3_u8),
        0..300_u32,
        1..120_u32,
        any::<bool>(),
    );
    proptest::collection::vec(episode, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // Property 40: whatever comes and goes, each alert fires once, is repeated no sooner and no later than configured while it
    // lasts, and is cleared once, after it has gone.
    #[test]
    fn every_alert_fires_once_repeats_and_clears(episodes in episodes(), repeat in 5..90_u32) {
        let start = Instant::now();
        let mut ledger = Ledger::new(SECOND * repeat);
        // By key: when it fired, was last told, and was last there.
        let mut open: HashMap<String, (u32, u32)> = HashMap::new();
        let mut there_since: HashMap<String, u32> = HashMap::new();
        for second in 0..500_u32 {
            let mut findings: Vec<Finding> = Vec::new();
            for (condition, server, from, length, is_urgent) in &episodes {
                if (*from..from + length).contains(&second) {
                    let server = server.map(|server| format!("replica-{server}"));
                    let found = Finding { is_urgent: *is_urgent, ..finding(Condition::ALL[*condition], server.as_deref()) };
                    if !findings.iter().any(|known| known.key() == found.key()) {
                        findings.push(found);
                    }
                }
            }
            let keys: Vec<String> = findings.iter().map(Finding::key).collect();
            there_since.retain(|key, _| keys.contains(key));
            for key in &keys {
                there_since.entry(key.clone()).or_insert(second);
            }
            for told in ledger.handle_findings(&findings, start + SECOND * second) {
                let key = told.finding.key();
                match told.occasion {
                    Occasion::Fired => {
                        prop_assert!(keys.contains(&key));
                        prop_assert_eq!(open.insert(key, (second, second)), None, "it fired twice");
                    }
                    Occasion::Repeated => {
                        prop_assert!(keys.contains(&key));
                        let (_, last) = open.get_mut(&key).expect("it fired first");
                        prop_assert!(second - *last >= repeat);
                        *last = second;
                    }
                    Occasion::Cleared => {
                        prop_assert!(!keys.contains(&key));
                        prop_assert!(open.remove(&key).is_some(), "it was open");
                    }
                }
            }
            // What is there has been told of, unless it is younger than a blip, and told again in time.
            for finding in &findings {
                let key = finding.key();
                let is_young = SECOND * (second - there_since[&key]) < finding.condition.told_after();
                prop_assert!(is_young || open.contains_key(&key), "{key} is not told at {second}");
                if let Some((_, last)) = open.get(&key) {
                    prop_assert!(second - last < repeat || second == *last);
                }
            }
            prop_assert_eq!(ledger.open(), open.len());
            // It wants to be asked no later than something is due.
            prop_assert_eq!(ledger.wake_at().is_none(), open.is_empty() && findings.is_empty());
        }
        prop_assert!(open.is_empty(), "all is over: {open:?}");
    }

    // Property 23: a replica that lags is told of when it begins, and when it ends, however long it lasts and whatever else happens.
    #[test]
    fn lag_is_told_when_it_begins_and_when_it_ends(from in 0..100_u32, length in 1..200_u32, others in episodes()) {
        let start = Instant::now();
        let mut ledger = Ledger::new(3_600 * SECOND);
        let lag = finding(Condition::Lag, Some("lagging"));
        let mut told = Vec::new();
        for second in 0..500_u32 {
            let mut findings: Vec<Finding> = Vec::new();
            for (condition, server, from, length, _) in &others {
                if (*from..from + length).contains(&second) {
                    findings.push(finding(Condition::ALL[*condition], server.map(|server| format!("replica-{server}")).as_deref()));
                }
            }
            if (from..from + length).contains(&second) {
                findings.push(lag.clone());
            }
            for Told { occasion, finding, .. } in ledger.handle_findings(&findings, start + SECOND * second) {
                if finding == lag {
                    told.push((second, occasion));
                }
            }
        }
        let over = from + length - 1 + u32::try_from(CLEAR_AFTER.as_secs()).unwrap();
        prop_assert_eq!(told, [(from, Occasion::Fired), (over, Occasion::Cleared)]);
    }

    // Property 40: nothing waits without bound or for ever, what is taken comes in order, and nothing is lost without a count.
    #[test]
    fn letters_wait_in_order_and_within_bounds(
        steps in proptest::collection::vec((0..4_u8, 0..100_u32), 0..400),
    ) {
        let start = Instant::now();
        let (mut outbox, mut now) = (Outbox::default(), start);
        let (mut pushed, mut taken, mut sending, mut refused) = (0_u64, Vec::new(), None, 0_u64);
        for (step, seconds) in steps {
            now += SECOND * seconds;
            match step {
                0 | 1 => {
                    outbox.push(pushed, now);
                    pushed += 1;
                }
                2 => {
                    if let Some(letter) = outbox.next(now) {
                        prop_assert!(sending.is_none());
                        sending = Some(*letter);
                    }
                }
                _ => match sending.take() {
                    Some(letter) if seconds % 3 == 0 => {
                        outbox.handle_sent();
                        taken.push(letter);
                    }
                    Some(_) if seconds % 3 == 1 => outbox.handle_failure(Failure::Passing, now),
                    Some(_) => {
                        outbox.handle_failure(Failure::Final, now);
                        refused += 1;
                    }
                    None => {}
                },
            }
            prop_assert!(outbox.len() <= LETTERS_MAX);
            prop_assert_eq!(outbox.wake_at(now).is_some(), sending.is_none() && !outbox.is_empty());
        }
        prop_assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
        prop_assert!(refused <= outbox.given_up());
        prop_assert_eq!(pushed, taken.len() as u64 + outbox.given_up() + outbox.len() as u64);
    }

    // Property 40: whatever an alert holds, the message is one that mail servers take, and says what was meant.
    #[test]
    fn any_text_makes_a_mail(what in "\\PC{0,300}", breaks in "[\r\n\t\\.a]{0,20}") {
        let mut letter = letter(Occasion::Fired);
        letter.finding.what = format!("{breaks}{what}{breaks}");
        let message = mail_of(&letter);
        prop_assert!(message.is_ascii() && message.ends_with("\r\n"));
        for line in message.split("\r\n") {
            prop_assert!(line.len() <= 78 && !line.contains(['\r', '\n']) && !line.starts_with('.'), "{line:?}");
        }
        let (headers, body) = read_mail(&message);
        prop_assert_eq!(&headers["To"], "a@example.com, b@example.com");
        let subject = decode_subject(&headers["Subject"]);
        let expected = format!("[Tidegate] {}", letter.summary());
        prop_assert!(expected.starts_with(&subject) && subject.chars().count() <= 160);
        prop_assert_eq!(headers.len(), 9);
        prop_assert_eq!(body, letter.text().replace('\r', ""));
    }
}
