//! Tests of `tidegate.toml`.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_limiter::FailMode;

use super::super::checked::*;
use super::super::diff::{compare, in_force};
use super::super::docs::assert_current;
use super::super::error::Problem;
use super::super::init::{markdown, template};
use super::super::keys::{Fallback, KEYS};
use super::super::log::LogFormat;
use super::super::quotas::Quota;
use super::super::redact::{redacted, warnings};
use super::super::users::Users;
use super::{accepted, errors, load, with_primary};
use crate::tls::ClientCertificates;

/// Each text is one line of the file, the second, unless it says otherwise.
#[test]
fn errors_name_file_line_column_key_and_the_nearest_key() {
    let cases = [
        ("workrs = 3", "tidegate.toml:2:1: workrs: unknown key; did you mean workers?"),
        ("size_max = 3", "tidegate.toml:2:1: size_max: unknown key; did you mean pool.size_max?"),
        (
            "pool.size_mx = 3",
            "tidegate.toml:2:6: pool.size_mx: unknown key; did you mean size_max?",
        ),
        (
            "pool.size-max = 3",
            "tidegate.toml:2:6: pool.size-max: unknown key; did you mean size_max?",
        ),
        ("zzz = 3", "tidegate.toml:2:1: zzz: unknown key"),
        ("workers = 1.5", "tidegate.toml:2:11: workers: expected a whole number, found a float"),
        ("workers = -1", "tidegate.toml:2:11: workers: `-1` is not a whole number from zero up"),
        ("workers = 5000", "tidegate.toml:2:11: workers: 5000 is not from 0 to 1024"),
        (
            "pool.idle_max = 30",
            "tidegate.toml:2:17: pool.idle_max: expected a duration such as \"30s\", found an integer",
        ),
        (
            "pool.idle_max = \"30\"",
            "tidegate.toml:2:17: pool.idle_max: `30` is not a duration: a number and ms, s, min, h or d",
        ),
        ("pool.wait_max = \"0s\"", "tidegate.toml:2:17: pool.wait_max: must be longer than zero"),
        (
            "pool.wait_max = \"99999999999999999h\"",
            "tidegate.toml:2:17: pool.wait_max: `99999999999999999h` is longer than 365 days",
        ),
        (
            "pool.mode = \"transactoin\"",
            "tidegate.toml:2:13: pool.mode: `transactoin` is none of transaction, session; did you mean transaction?",
        ),
        ("pool = 3", "tidegate.toml:2:8: pool: expected a table, found an integer"),
        (
            "pools = 3",
            "tidegate.toml:2:9: pools: expected tables, each headed [[pools]], found an integer",
        ),
        (
            "listen = [\"127.0.0.1:6432\", \"db:6432\"]",
            "tidegate.toml:2:29: listen: `db:6432` is not ADDRESS:PORT; the address is numeric, localhost or *",
        ),
        (
            "listen = [\"127.0.0.1:1\", \"localhost:1\"]",
            "tidegate.toml:2:26: listen: 127.0.0.1:1 is there twice",
        ),
        (
            "[pool]\nsize_min = 20\nsize_max = 10",
            "tidegate.toml:3:12: pool.size_min: 20 is above pool.size_max 10",
        ),
        (
            "[pool]\nutilisation_clear_percent = 80",
            "tidegate.toml:3:29: pool.utilisation_clear_percent: 80 is not below \
             pool.utilisation_warn_percent 80",
        ),
        ("pool.size_max = 0", "tidegate.toml:2:17: pool.size_max: 0 is not from 1 to 10000"),
        (
            "[[pins]]\nslot = \"routing\"",
            "tidegate.toml:2:1: pins: a pin has slot, file and sha256",
        ),
        (
            "[[pins]]\nslot = \"router\"",
            "tidegate.toml:3:8: pins.slot: `router` is none of routing, caching, limiting, advising; did you mean routing?",
        ),
        (
            "plugins.signatures = \"required\"",
            "tidegate.toml:2:22: plugins.signatures: required needs plugins.keys",
        ),
        (
            "plugins.keys = [\"AAAA\"]",
            "tidegate.toml:2:17: plugins.keys: is not an Ed25519 public key in base64",
        ),
        (
            "plugins.memory_mib_max = 1000",
            "tidegate.toml:2:26: plugins.memory_mib_max: 1000 is not from 1 to 256",
        ),
        (
            "plugins.plan_time_max = \"2s\"",
            "tidegate.toml:2:25: plugins.plan_time_max: 2s is longer than 1s",
        ),
        (
            "[[pools]]\nsize_max = 3",
            "tidegate.toml:2:1: pools: names neither database nor user; settings for every pool belong in [pool]",
        ),
        (
            "[[servers]]\nnode_exporter = \"http://db\"",
            "tidegate.toml:2:1: servers: needs name: \"primary\", \"replica-1\", …",
        ),
        (
            "[[servers]]\nname = \"replica-1\"",
            "tidegate.toml:3:8: servers.name: there is no server \"replica-1\": they are called primary, replica-1, replica-2, … in \
             the order of cluster.replicas",
        ),
        (
            "[[servers]]\nname = \"primary\"\nnode_exporter = \"https://db\"",
            "tidegate.toml:4:17: servers.node_exporter: must begin with http://",
        ),
        (
            "routing.fallback_percent = 0",
            "tidegate.toml:2:28: routing.fallback_percent: 0 is not from 1 to 100",
        ),
        (
            "[[quotas]]\nclients_max = 3",
            "tidegate.toml:2:1: quotas: names neither database nor user; \"*\" is each of them",
        ),
        (
            "[[quotas]]\nuser = \"a\"\n[[quotas]]\nuser = \"a\"",
            "tidegate.toml:4:1: quotas: is about the same as a table before it",
        ),
        (
            "cluster.replicas = [\"postgres://app@db/other\"]",
            "tidegate.toml:2:21: cluster.replicas: db:5432 is the primary",
        ),
        (
            "admin.address = \"0.0.0.0:6433\"",
            "tidegate.toml:2:17: admin.address: 0.0.0.0 is reachable from other machines; use 127.0.0.1, or set \
             admin.allow_remote = true and put TLS in front",
        ),
        (
            "admin = { token = \"a\", token_file = \"b\" }",
            "tidegate.toml:2:19: admin.token: admin.token and admin.token_file are both there",
        ),
        (
            "admin.token = \"two words\"",
            "tidegate.toml:2:15: admin.token: a token is visible ASCII without spaces, and not empty",
        ),
        (
            "tls.mode = \"require\"",
            "tidegate.toml:2:12: tls.mode: require needs tls.cert and tls.key",
        ),
        (
            "auth.method = \"md5\"",
            "tidegate.toml:2:15: auth.method: md5 needs auth.users_file or auth.query",
        ),
        (
            "auth.method = \"certificate\"",
            "tidegate.toml:2:15: auth.method: certificate needs tls.client_ca",
        ),
        (
            "auth.users_file = \"nowhere.txt\"",
            "tidegate.toml:2:19: auth.users_file: /etc/tidegate/nowhere.txt can't be read: No such file or \
             directory (os error 2)",
        ),
        ("log.filter = \"\"\nlog.filter = \"info\"", "tidegate.toml:3:5: duplicate key"),
        (
            "pool.mode = \"${MODE}\"",
            "tidegate.toml:2:13: pool.mode: the environment variable MODE is not set; `${MODE:-default}` gives a default",
        ),
        (
            "log.filter = \"${x\"",
            "tidegate.toml:2:14: log.filter: `${` without `}`; write `$$` for a dollar sign",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(errors(text), expected, "{text}");
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let text = "workrs = 1\n[pool]\nmode = 3\nsize_min = 60\n[log\nfilter = 3";
    let told = errors(text);
    for line in [2, 4, 5, 6, 7] {
        assert!(told.contains(&format!("tidegate.toml:{line}:")), "line {line} in:\n{told}");
    }
}

#[test]
fn what_follows_from_another_error_is_not_told() {
    let told = errors("[pool]\nsize_max = \"many\"\nsize_min = 60\n[tls]\nmode = \"require\"");
    let keys: Vec<_> = told.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(keys, ["pool.size_max", "tls.mode"], "{told}");
}

#[test]
fn columns_count_characters() {
    let told = errors("log = { filter = \"ü\", formt = \"json\" }");
    assert_eq!(
        told.lines().next().unwrap(),
        "tidegate.toml:2:23: log.formt: unknown key; did you mean format?"
    );
}

#[test]
fn without_a_primary_the_error_says_how_to_name_one() {
    let told = load("", &[]).unwrap_err();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].to_string().starts_with("cluster.primary: no primary server; write"),
        "{}",
        told[0]
    );
}

#[test]
fn secrets_are_in_no_error_and_in_no_debug_output() {
    let text = "[cluster]\nprimary = \"postgres://app:hunter2@db:port/shop\"\n\
                replicas = [\"postgres://app:hunter2@r1/shop?sslmod=x\", \"postgres://app:hunt@er2@r1/shop\"]\n\
                [admin]\ntoken = \"hunter2 hunter2\"";
    let told = load(text, &[]).unwrap_err();
    assert!(told.len() >= 4, "{told:?}");
    for error in &told {
        assert!(!format!("{error} {error:?}").contains("hunt"), "{error:?}");
    }
    let good = load(
        "cluster.primary = \"postgres://app:hunter2@db/shop\"\nadmin = { address = \"127.0.0.1:1\", token = \"hunter2\" }",
        &[],
    )
    .unwrap();
    assert!(!format!("{good:?}").contains("hunter2"));
    assert!(!redacted(&good).to_string().contains("hunter2"));
}

#[test]
fn variables_are_replaced_also_in_numbers() {
    let variables = [("N", "3"), ("EMPTY", ""), ("URL", "postgres://app:a%24b@db/shop")];
    let text = "workers = \"${N}\"\nlog.filter = \"${EMPTY:-debug}\"\n[cluster]\nprimary = \"${URL}\"\n\
                replicas = [\"postgres://app@${HOST:-r1}/shop\"]\npassword = \"a$$b$c${EMPTY}\"";
    let config = load(text, &variables).unwrap();
    assert_eq!((config.workers, config.log.filter.as_str()), (3, "debug"));
    assert_eq!(config.cluster.primary.password, Some(Secret::new("a$b")));
    assert_eq!(config.cluster.replicas[0].password, Some(Secret::new("a$b$c")));
}

#[test]
fn defaults_are_those_of_the_table_and_the_template() {
    let config = accepted("");
    let mut explicit = String::from("cluster.primary = \"postgres://app@db/shop\"\n");
    for key in KEYS {
        if let Fallback::Value(value) = key.default {
            explicit.push_str(&format!("{} = {value}\n", key.path()));
        }
    }
    assert_eq!(load(&explicit, &[]).unwrap(), config);
    let mut template = load(&template(), &[]).unwrap();
    template.cluster = config.cluster.clone();
    assert_eq!(template, config);
}

#[test]
fn each_example_of_the_table_can_be_read() {
    let mut text = String::new();
    for key in KEYS {
        let value = match key.default {
            Fallback::Value(value) | Fallback::Needed(value) | Fallback::Example(value) => value,
        };
        // Files of examples are not there, which is another error than this test is about.
        text.push_str(&match key.table {
            "peers" | "servers" | "pools" | "quotas" | "alerts" | "pins" | "cache.warm" => {
                String::new()
            }
            _ => format!("{} = {value}\n", key.path()),
        });
    }
    for table in ["peers", "servers", "pools", "quotas", "alerts", "pins", "cache.warm"] {
        text.push_str(&format!("[[{table}]]\n"));
        for key in KEYS.iter().filter(|key| key.table == table) {
            if let Fallback::Example(value) = key.default {
                text.push_str(&format!("{} = {value}\n", key.name));
            }
        }
    }
    let variables = [
        ("DATABASE_PASSWORD", "x"),
        ("ADMIN_TOKEN", "y"),
        ("FAILOVER_PASSWORD", "z"),
        ("ETCD_PASSWORD", "e"),
        ("PATRONI_PASSWORD", "p"),
        ("ALERTS_URL", "https://example.com/hook"),
        ("ALERTS_TOKEN", "t"),
        ("SMTP_PASSWORD", "p"),
        ("REDIS_PASSWORD", "r"),
        ("APP_PASSWORD", "a"),
        ("FOLLOW_PASSWORD", "f"),
    ];
    let told = load(&text, &variables).unwrap_err();
    for error in told {
        let expected = match &error.problem {
            Problem::Unreadable(_) => true,
            Problem::Contradiction(text) => {
                text.contains("both there") || text.contains("is not for kind")
            }
            _ => false,
        };
        assert!(expected, "{error}");
    }
}

#[test]
fn writes_past_tidegate_are_followed_as_the_user_that_is_named() {
    let follow = |text: &str| {
        let loaded = load(&with_primary(&format!("[cache]\n{text}")), &[]);
        loaded.map(|config| config.cache.follow)
    };
    assert_eq!(follow("").unwrap(), None);
    assert_eq!(follow("follow_wal = false\nfollow_user = \"f\"").unwrap(), None);
    let followed = follow("follow_wal = true").unwrap().unwrap();
    assert_eq!((followed.user, followed.password), (None, None));
    let text = "follow_wal = true\nfollow_user = \"f\"\nfollow_password = \"x\"";
    let followed = follow(text).unwrap().unwrap();
    assert_eq!(followed.user.as_deref(), Some("f"));
    assert_eq!(followed.password, Some(Secret::new("x")));
    let told = follow("follow_wal = true\nfollow_password = \"x\"").unwrap_err();
    assert!(told[0].to_string().contains("cache.follow_user, which is missing"), "{}", told[0]);
}

#[test]
fn certificates_are_read_and_errors_name_the_file_at_fault() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let made = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (one, other) = (made(), made());
    let cert = file("one.crt", &one.cert.pem());
    let key = file("one.key", &one.signing_key.serialize_pem());
    let other_key = file("other.key", &other.signing_key.serialize_pem());
    let nonsense = file("nonsense", "nonsense");
    let tls = |cert: &str, key: &str, ca: &str| {
        format!("[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\nclient_ca = \"{ca}\"")
    };
    let good = accepted(&tls(&cert, &key, &cert)).tls;
    assert_eq!(good.mode, ClientTlsMode::Prefer);
    assert!(matches!(good.accept_files().unwrap().clients, ClientCertificates::Optional(_)));
    for (text, start) in [
        (tls(&nonsense, &key, &cert), "tidegate.toml:3:8: tls.cert: "),
        (tls(&cert, &nonsense, &cert), "tidegate.toml:4:7: tls.key: "),
        (tls(&cert, &other_key, &cert), "tidegate.toml:4:7: tls.key: "),
        (tls(&cert, &key, "/nowhere"), "tidegate.toml:5:13: tls.client_ca: /nowhere: "),
        (
            "cluster.replicas = [\"postgres://a@r1?sslmode=verify-ca&sslrootcert=/nowhere\"]"
                .to_owned(),
            "tidegate.toml:2:21: cluster.replicas: /nowhere: ",
        ),
    ] {
        let told = errors(&text);
        assert!(told.starts_with(start) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn several_count_together_where_a_redis_is_named() {
    assert_eq!(accepted("[rates.redis]\nfail_mode = \"open\"").rates.redis, None);
    let text = "[rates.redis]\nurl = \"redis://tide:secret@r1:7000/2\"\nfail_mode = \"closed\"";
    let redis = accepted(text).rates.redis.unwrap();
    assert_eq!(redis.url.to_string(), "redis://tide:***@r1:7000/2");
    assert_eq!((redis.prefix.as_str(), redis.fail_mode), ("tidegate", FailMode::Closed));
    assert_eq!(redis.deadline, Duration::from_millis(50));
    let told = errors(
        "[rates.redis]\nurl = \"http://r1\"\ndeadline = \"2s\"\nprefix = \"a:b\"\nfail_mode = \"shut\"",
    );
    assert!(
        told.contains("rates.redis.fail_mode: `shut` is none of local, open, closed"),
        "{told}"
    );
    let told = errors("[rates.redis]\nurl = \"http://r1\"");
    assert!(told.contains("rates.redis.url: is not redis://HOST:PORT"), "{told}");
    let bad = "[rates.redis]\nurl = \"redis://r1\"\ndeadline = \"2s\"\nprefix = \"a:b\"";
    let told = errors(bad);
    assert!(told.contains("rates.redis.deadline: 2s is not from 1ms to 1s"), "{told}");
    assert!(told.contains("rates.redis.prefix: is not up to 64 letters"), "{told}");
}

#[test]
fn a_redis_cluster_is_named_by_some_of_its_nodes() {
    let redis = |url: &str| {
        let text = format!("[cache.redis]\nurl = \"{url}\"");
        accepted(&text).cache.redis.unwrap().url.to_string()
    };
    assert_eq!(redis("redis://r1"), "redis://r1:6379/0");
    let several = "redis://tide:a%2Cb@r1:7001,r2,[::1]:7003/0";
    assert_eq!(redis(several), "redis://tide:***@r1:7001,r2:6379,[::1]:7003/0");
    assert_eq!(redis("rediss://:secret@r1:7001,r2:7002"), "rediss://:***@r1:7001,r2:7002/0");
    let many = vec!["r"; 17].join(",");
    for (url, words) in [
        ("redis://r1,", "is not redis://HOST:PORT"),
        ("redis://,r1", "is not redis://HOST:PORT"),
        ("redis://r1,r 2", "is not redis://HOST:PORT"),
        (&format!("redis://{many}")[..], "names more than 16 nodes"),
    ] {
        let told = errors(&format!("[cache.redis]\nurl = \"{url}\""));
        assert!(told.contains(words), "{url}: {told}");
    }
}

#[test]
fn a_smaller_maximum_bends_a_minimum_that_nobody_wrote() {
    let config = accepted("[pool]\nsize_max = 4\nutilisation_warn_percent = 50");
    assert_eq!((config.pool.size_min, config.pool.size_max), (4, 4));
    assert_eq!(config.pool.utilisation_clear_percent, 49);
}

#[test]
fn overrides_start_from_the_pool_table_and_the_first_match_wins() {
    let text = "[pool]\nwait_max = \"5s\"\n[[pools]]\ndatabase = \"reports\"\nuser = \"ann\"\nsize_max = 1\n\
                [[pools]]\ndatabase = \"reports\"\nmode = \"session\"\nlifetime_max = \"off\"";
    let config = accepted(text);
    let ann = config.pool_settings("reports", "ann");
    assert_eq!((ann.size_max, ann.mode), (1, PoolMode::Transaction));
    let bob = config.pool_settings("reports", "bob");
    assert_eq!((bob.size_max, bob.mode, bob.lifetime_max), (50, PoolMode::Session, None));
    assert_eq!(bob.wait_max, Duration::from_secs(5));
    assert_eq!(config.pool_settings("shop", "ann"), &config.pool);
}

#[test]
fn paths_start_at_the_folder_of_the_file() {
    let config =
        accepted("listen = [\"unix:run/.s.PGSQL.6432\", \"/tmp/.s.PGSQL.6432\", \"*:6432\"]");
    let unix = |path: &str| Listen::Unix(path.into());
    let all = Listen::Tcp(([0, 0, 0, 0], 6432).into());
    assert_eq!(
        config.listen,
        [unix("/etc/tidegate/run/.s.PGSQL.6432"), unix("/tmp/.s.PGSQL.6432"), all]
    );
}

#[test]
fn an_admin_api_without_a_token_gets_the_made_up_one() {
    let admin = accepted("admin.address = \"127.0.0.1:0\"").admin.unwrap();
    assert_eq!(admin.token, Secret::new("made-up"));
    assert_eq!(accepted("").admin, None);
}

#[test]
fn a_reload_names_what_changed_and_what_waits_for_a_restart() {
    let old = accepted("admin = { address = \"127.0.0.1:1\", token = \"one\" }");
    let text = "workers = 7\nlog = { format = \"json\", filter = \"debug\" }\ncluster.password = \"new\"\n\
                admin = { address = \"127.0.0.1:1\", token = \"two\" }\npool.size_max = 60";
    let report = compare(&old, &accepted(text));
    assert_eq!(report.changed, ["cluster.primary", "log.filter", "pool.size_max"]);
    assert_eq!(report.needs_restart, ["admin.token", "log.format", "workers"]);
    assert_eq!(compare(&old, &old), Default::default());
    let gone = compare(&old, &accepted(""));
    assert_eq!((gone.changed.len(), gone.needs_restart), (0, vec!["admin".to_owned()]));
}

#[test]
fn a_reload_keeps_what_waits_for_a_restart() {
    let old = accepted("workers = 1\nlog.format = \"json\"");
    let (config, report) = in_force(&old, accepted("workers = 2\npool.size_max = 60"));
    assert_eq!((config.workers, config.log.format), (1, LogFormat::Json));
    assert_eq!(config.pool.size_max, 60);
    assert_eq!(report.needs_restart, ["log.format", "workers"]);
    // What is in force differs from the old in just what is said to have changed.
    let again = compare(&old, &config);
    assert_eq!((again.changed, again.needs_restart), (report.changed, vec![]));
}

#[test]
fn users_whose_secret_the_method_can_not_check_are_warned_about() {
    let mut config = accepted("");
    let md5 = format!("\"ann\" \"md5{}\"\n\"bob\" \"plain\"", "0".repeat(32));
    config.auth.users = Users::parse(&md5).unwrap();
    assert!(warnings(&config).is_empty());
    config.auth.method = AuthMethod::ScramSha256;
    assert_eq!(
        warnings(&config),
        [
            "auth.method scram-sha-256 can't check the secrets of 1 users in the users file, such as ann"
        ]
    );
}

#[test]
fn configuration_docs_are_current() {
    assert_current("docs/configuration.md", &markdown());
}

proptest! {
    /// No file makes the reader panic, and a file is either accepted or explained.
    #[test]
    fn any_text_is_accepted_or_explained(text in "[\\PC\n]{0,200}") {
        if let Err(errors) = load(&text, &[]) {
            prop_assert!(!errors.is_empty());
        }
    }

    /// As above, with text that is more often TOML.
    #[test]
    fn any_value_of_any_key_is_accepted_or_explained(
        index in 0..KEYS.len(),
        value in prop_oneof!["-?[0-9]{1,22}", "\"[^\"\\\\\\pC]{0,20}\"", "\\[[0-9,]{0,5}\\]", "true", "\\{\\}"],
    ) {
        let key = KEYS[index].path();
        if let Err(errors) = load(&with_primary(&format!("{key} = {value}")), &[]) {
            prop_assert!(!errors.is_empty());
        }
    }
}

#[test]
fn quotas_are_of_one_database_or_user_and_of_each_other_one() {
    let text = "[[quotas]]\nuser = \"*\"\nclients_max = 9\n[[quotas]]\nuser = \"ann\"\nservers_max = 2\n\
                [[quotas]]\ndatabase = \"shop\"\nclients_max = 5\nservers_max = 3\n";
    let config = accepted(text);
    let quota = |clients_max, servers_max| Quota { clients_max, servers_max };
    assert_eq!(config.quotas.of_user("ann"), quota(None, Some(2)));
    assert_eq!(config.quotas.of_user("bob"), quota(Some(9), None));
    assert_eq!(config.quotas.of_database("shop"), quota(Some(5), Some(3)));
    assert_eq!(config.quotas.of_database("*"), Quota::default());
}

#[test]
fn receivers_of_alerts_are_checked_and_their_secrets_kept() {
    let text = "[[alerts]]\nkind = \"slack\"\nurl = \"https://hooks.example.com/services/hunter2\"\n\
                [[alerts]]\nkind = \"pagerduty\"\ntoken = \"hunter2\"\nrepeat = \"10m\"\n\
                [[alerts]]\nkind = \"webhook\"\nurl = \"http://in.example.com:81/a?b=hunter2\"\ntoken = \"hunter2\"\n\
                [[alerts]]\nkind = \"email\"\nurl = \"smtp://mail.example.com\"\nfrom = \"t@example.com\"\n\
                to = [\"a@example.com\", \"b@example.com\"]\nuser = \"u\"\npassword = \"hunter2\"";
    let config = accepted(text);
    let told: Vec<String> = config.alerts.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "slack (hooks.example.com)",
            "pagerduty (events.pagerduty.com)",
            "webhook (in.example.com)",
            "email (mail.example.com)"
        ]
    );
    assert_eq!(config.alerts[1].repeat, Duration::from_secs(600));
    assert!(!format!("{config:?} {}", redacted(&config)).contains("hunter2"));
    let changed = compare(&config, &accepted(&text.replacen("hunter2", "hunter3", 1)));
    assert_eq!(changed.changed, ["alerts"]);
    for (table, expected) in [
        (
            "url = \"https://a\"",
            "tidegate.toml:2:1: alerts: needs kind: webhook, slack, pagerduty or email",
        ),
        (
            "kind = \"fax\"",
            "tidegate.toml:3:8: alerts.kind: `fax` is not one of webhook, slack, pagerduty, email",
        ),
        ("kind = \"slack\"", "tidegate.toml:2:1: alerts: kind = \"slack\" needs url"),
        (
            "kind = \"slack\"\nurl = \"http://example.com/hunter2\"",
            "tidegate.toml:4:7: alerts.url: must begin with https://",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://u:hunter2@example.com\"",
            "tidegate.toml:4:7: alerts.url: holds a user: it has a key of its own",
        ),
        (
            "kind = \"webhook\"\nurl = \"https://example.com\"\nfrom = \"a@b\"",
            "tidegate.toml:5:8: alerts.from: is not for kind = \"webhook\"",
        ),
        ("kind = \"pagerduty\"", "tidegate.toml:2:1: alerts: kind = \"pagerduty\" needs token"),
        (
            "kind = \"email\"\nurl = \"smtp+plain://example.com\"\nfrom = \"a@b\"\nto = \"b@c\"",
            "tidegate.toml:4:7: alerts.url: smtp+plain:// is for this machine only; use smtp:// (STARTTLS)",
        ),
        (
            "kind = \"email\"\nurl = \"smtp://example.com\"\nfrom = \"a@b\"\nto = \"b@c>\\r\\nRCPT\"",
            "tidegate.toml:6:6: alerts.from: `b@c>\r\nRCPT` is not an address such as \"dba@example.com\"",
        ),
        (
            "kind = \"email\"\nurl = \"smtp://example.com\"\nfrom = \"a@b\"\nto = \"b@c\"\nuser = \"u\"",
            "tidegate.toml:7:8: alerts.user: user and password go together",
        ),
    ] {
        let told = errors(&format!("[[alerts]]\n{table}"));
        assert!(told.starts_with(expected.split(" is not one of").next().unwrap()), "{told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}
