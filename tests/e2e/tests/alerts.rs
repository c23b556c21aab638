//! Who is told when something is wrong: by webhook, Slack, PagerDuty and e-mail, through a replica and a primary that die.

use crate::failover::{
    LONG, cluster, options, primary_of, tidegate, topology, url, wait_until_steady,
    wait_until_writable,
};
use crate::own::{metric, pool_of};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Redis, Tidegate, TidegateOptions, shared_cluster, test_database, wait_until,
};

/// One POST.
#[derive(Clone, Debug)]
struct Post {
    head: String,
    body: Value,
}

/// A receiver over HTTP that keeps what it gets, and answers with `status`.
pub struct Hook {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    status: Arc<AtomicU16>,
}

impl Hook {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hook = Self {
            address: listener.local_addr().unwrap(),
            posts: Arc::default(),
            status: Arc::new(AtomicU16::new(200)),
        };
        let (posts, status) = (hook.posts.clone(), hook.status.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(post) = stream.ok().and_then(|stream| read_post(stream, &status)) else {
                    continue;
                };
                posts.lock().unwrap().push(post);
            }
        });
        hook
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// What a webhook was told of this alert: `fired`, `repeated`, `cleared`.
    pub fn told(&self, alert: &str, server: Option<&str>) -> Vec<String> {
        let is_it =
            |post: &&Post| post.body["alert"] == alert && post.body["server"].as_str() == server;
        let event = |post: &Post| post.body["event"].as_str().unwrap().to_owned();
        self.posts().iter().filter(is_it).map(event).collect()
    }
}

fn read_post(mut stream: TcpStream, status: &AtomicU16) -> Option<Post> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let status = status.load(Ordering::Relaxed);
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nok").ok()?;
    (status == 200).then(|| Post { head, body: serde_json::from_slice(&body).unwrap() })
}

/// A mail server that takes everything, and keeps it: commands and messages as they came.
struct MailServer {
    address: SocketAddr,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::<Mutex<Vec<String>>>::default();
        let kept = mails.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if let Some(mail) = stream.ok().and_then(read_mail) {
                    kept.lock().unwrap().push(mail);
                }
            }
        });
        Self { address, mails }
    }
}

/// One session, from greeting to QUIT.
fn read_mail(mut stream: TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    stream.write_all(b"220 mail ESMTP\r\n").ok()?;
    let (mut mail, mut is_data) = (String::new(), false);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        mail.push_str(&line);
        let verb = line.trim_end().to_ascii_uppercase();
        let answer = match verb.split(' ').next().unwrap_or_default() {
            "." if is_data => {
                is_data = false;
                "250 taken"
            }
            _ if is_data => continue,
            "EHLO" => "250-mail\r\n250 AUTH PLAIN LOGIN",
            "AUTH" => "235 welcome",
            "DATA" => {
                is_data = true;
                "354 go on"
            }
            "QUIT" => {
                let _ = stream.write_all(b"221 bye\r\n");
                return Some(mail);
            }
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).ok()?;
    }
}

/// The text of a mail: the base64 after its headers.
fn text_of(mail: &str) -> String {
    let (_, data) = mail.split_once("DATA\r\n").unwrap();
    let (_, body) = data.split_once("\r\n\r\n").unwrap();
    let (body, _) = body.split_once("\r\n.\r\n").unwrap();
    let bytes = base64(&body.replace("\r\n", ""));
    String::from_utf8(bytes).unwrap()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |byte: u8| DIGITS.iter().position(|digit| *digit == byte);
    let (mut bits, mut count, mut bytes) = (0_usize, 0, Vec::new());
    for digit in text.bytes().filter_map(digit) {
        (bits, count) = (bits << 6 | digit, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}

fn is_there(posts: &[Post], field: &str, value: &str) -> usize {
    posts.iter().filter(|post| post.body[field] == value).count()
}

#[test]
fn property_6_whoever_is_named_is_told_of_lost_servers_once_and_when_it_is_over() {
    let cluster = cluster(2);
    let (webhook, slack, pager, mail) =
        (Hook::start(), Hook::start(), Hook::start(), MailServer::start());
    let alerts = format!(
        "mode = \"embedded\"\n\
         [[alerts]]\nkind = \"webhook\"\nurl = \"{}\"\ntoken = \"hunter2-token\"\n\
         [[alerts]]\nkind = \"slack\"\nurl = \"{}\"\n\
         [[alerts]]\nkind = \"pagerduty\"\nurl = \"{}\"\ntoken = \"hunter2-key\"\n\
         [[alerts]]\nkind = \"email\"\nurl = \"smtp+plain://{}\"\nfrom = \"tidegate@example.com\"\n\
         to = [\"dba@example.com\", \"ops@example.com\"]\nuser = \"u\"\npassword = \"hunter2-password\"\n",
        webhook.url("/hook?hunter2"),
        slack.url("/services/hunter2"),
        pager.url("/v2/enqueue"),
        mail.address,
    );
    let tidegate = tidegate(&cluster, &alerts);
    wait_until_steady(&tidegate);
    wait_until(LONG, "both replicas serve reads", || {
        let servers = topology(&tidegate)["servers"].clone();
        servers[1]["serves_reads"] == true && servers[2]["serves_reads"] == true
    });
    cluster.replica(1).kill();
    wait_until(LONG, "too few replicas are told of", || {
        webhook.told("replicas", None) == ["fired"]
            && webhook.told("replica", Some("replica-2")) == ["fired"]
    });
    cluster.replica(1).start().unwrap();
    wait_until(LONG, "it is told that this is over", || {
        webhook.told("replicas", None) == ["fired", "cleared"]
            && webhook.told("replica", Some("replica-2")) == ["fired", "cleared"]
    });
    cluster.primary().kill();
    wait_until_writable(&url(&tidegate), 1);
    wait_until(LONG, "the failover is told", || {
        webhook.told("primary", None) == ["fired", "cleared"]
    });
    let posts = webhook.posts();
    let over = posts.iter().rfind(|post| post.body["alert"] == "primary").unwrap();
    let (body, name) = (over.body.to_string(), primary_of(&tidegate));
    assert!(
        body.contains("nobody listens") && body.contains("is told to become primary"),
        "{body}"
    );
    assert!(over.body["cluster"].as_str().unwrap().contains(&format!("{name}\" is the primary")));
    assert!(over.head.to_ascii_lowercase().contains("authorization: bearer hunter2-token"));
    let fired = posts.iter().find(|post| post.body["alert"] == "primary").unwrap();
    for field in ["what", "since", "advice", "source", "key"] {
        assert!(!fired.body[field].as_str().unwrap().is_empty(), "{}", fired.body);
    }
    assert_eq!(fired.body["severity"], "critical");
    // The others were told the same.
    let is_told = |text: &str| {
        slack.posts().iter().any(|post| post.body["text"].as_str().unwrap().contains(text))
    };
    wait_until(LONG, "Slack is told", || {
        is_told("only 1 of 2 replicas") && is_told("primary: over after")
    });
    wait_until(LONG, "PagerDuty is told", || {
        is_there(&pager.posts(), "event_action", "resolve") >= 3
    });
    let pages = pager.posts();
    assert!(pages.iter().all(|post| post.body["routing_key"] == "hunter2-key"));
    for resolved in pages.iter().filter(|post| post.body["event_action"] == "resolve") {
        let key = &resolved.body["dedup_key"];
        assert!(
            pages.iter().any(
                |page| page.body["event_action"] == "trigger" && page.body["dedup_key"] == *key
            )
        );
    }
    wait_until(LONG, "mail has come", || {
        mail.mails.lock().unwrap().iter().any(|mail| text_of(mail).contains("primary: over after"))
    });
    for mail in mail.mails.lock().unwrap().iter() {
        assert!(mail.contains("AUTH PLAIN "), "{mail}");
        assert!(mail.contains("MAIL FROM:<tidegate@example.com>"), "{mail}");
        assert!(
            mail.contains("RCPT TO:<dba@example.com>")
                && mail.contains("RCPT TO:<ops@example.com>")
        );
    }
    let shown = tidegate.log() + &tidegate.admin_get("/api/v1/config").body;
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn property_23_lag_is_told_of_again_and_again_and_by_whoever_was_away() {
    let cluster = cluster(1);
    let (webhook, away) = (Hook::start(), Hook::start());
    away.status.store(503, Ordering::Relaxed);
    let mut options = options(&cluster, "mode = \"follow\"");
    let alerts = format!(
        "[routing]\nlag_max = \"1s\"\nlag_return = \"500ms\"\n\
         [[alerts]]\nkind = \"webhook\"\nurl = \"{}\"\nrepeat = \"2s\"\n\
         [[alerts]]\nkind = \"webhook\"\nurl = \"{}\"\n",
        webhook.url("/"),
        away.url("/"),
    );
    options.toml = Some(options.toml.unwrap() + &alerts);
    let tidegate = Tidegate::start(options);
    wait_until_steady(&tidegate);
    wait_until(LONG, "the replica serves reads", || {
        topology(&tidegate)["servers"][1]["serves_reads"] == true
    });
    let lag = |hook: &Hook| hook.told("lag", Some("replica-1"));
    cluster.replica(0).psql("SELECT pg_wal_replay_pause()").unwrap();
    wait_until_writable(&url(&tidegate), 1);
    wait_until(LONG, "lag is told of again", || {
        lag(&webhook).starts_with(&["fired".to_owned(), "repeated".to_owned()])
    });
    away.status.store(200, Ordering::Relaxed);
    wait_until(LONG, "whoever was away is told", || lag(&away) == ["fired"]);
    cluster.replica(0).psql("SELECT pg_wal_replay_resume()").unwrap();
    wait_until(LONG, "it is over", || {
        lag(&away) == ["fired", "cleared"] && lag(&webhook).last().unwrap() == "cleared"
    });
    let told = lag(&webhook);
    assert_eq!(told.iter().filter(|event| *event != "repeated").count(), 2, "{told:?}");
    let (code, said) = tidegate.command(&["alert", "--test"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "webhook (127.0.0.1): sent\nwebhook (127.0.0.1): sent\n")
    );
    assert_eq!(webhook.told("test", None), ["fired"]);
    away.status.store(404, Ordering::Relaxed);
    let (code, said) = tidegate.command(&["alert", "--test"]);
    assert!(code == 1 && said.contains("webhook (127.0.0.1): it answers 404"), "{said}");
}

// Property 40: so are thresholds that no server passes; here without any replica.
#[test]
fn a_pool_that_is_nearly_used_up_is_told_of() {
    let (database, webhook) = (test_database("pool_alert"), Hook::start());
    let alerts = format!("[[alerts]]\nkind = \"webhook\"\nurl = \"{}\"\n", webhook.url("/"));
    let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
    options.replicas.clear();
    options.toml = Some(pool_of(1) + &alerts);
    let tidegate = Tidegate::start(options);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    client.query("BEGIN");
    let pool = format!("{ROLE}@{database} on primary (write)");
    wait_until(LONG, "it is told", || webhook.told("pool", Some(&pool)) == ["fired"]);
    client.query("COMMIT");
    wait_until(LONG, "it is over", || webhook.told("pool", Some(&pool)) == ["fired", "cleared"]);
}

#[test]
fn a_redis_that_is_lost_is_told_of() {
    let (database, webhook, mut redis) =
        (test_database("redis_alert"), Hook::start(), Redis::start(&[]));
    let mut options = TidegateOptions::for_cluster(shared_cluster(), &database);
    options.replicas.clear();
    options.toml = Some(format!(
        "{}[[alerts]]\nkind = \"webhook\"\nurl = \"{}\"\n[rates.redis]\nurl = \"{}\"\ndeadline = \"1s\"\n",
        pool_of(1),
        webhook.url("/"),
        redis.url(),
    ));
    let tidegate = Tidegate::start(options);
    let is_shared = || metric(&tidegate, "tidegate_limits_shared") == 1.0;
    let told = || webhook.told("redis", Some("rates.redis"));
    wait_until(LONG, "limits are shared", is_shared);
    redis.kill();
    wait_until(LONG, "it is told", || told().last().is_some_and(|event| event == "fired"));
    redis.start_again();
    wait_until(LONG, "limits are shared again", is_shared);
    wait_until(LONG, "it is over", || told().last().is_some_and(|event| event == "cleared"));
}
