//! Policies as WASM, loaded, swapped and taken back while clients are served.

use crate::own::{SOON, json, policies_answer, pool_of, tidegate};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::tidegate::{TOKEN, binary};
use tidegate_test_support::{
    Client, Tidegate, http, shared_cluster, target_directory, test_database, wait_until,
};

/// A plugin of this repository, as the build of the program compiled it.
pub fn plugin_path(name: &str) -> PathBuf {
    let built = || target_directory().join("plugins/wasm32-unknown-unknown/release");
    let folder = std::env::var_os("TIDEGATE_PLUGINS").map_or_else(built, PathBuf::from);
    folder.join(format!("{name}.wasm"))
}

pub fn plugin(name: &str) -> Vec<u8> {
    let path = plugin_path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn config(&self) -> String {
        format!("{}[plugins]\nstate_dir = \"{}\"\n", pool_of(2), self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn started(database: &str, config: &str) -> Tidegate {
    let tidegate = tidegate(shared_cluster(), database, config);
    wait_until(SOON, "the default plugins answer", || policies_answer(&tidegate));
    tidegate
}

fn slot_of(tidegate: &Tidegate, slot: &str) -> Value {
    json(tidegate, &format!("/api/v1/plugins/{slot}"))
}

/// The settings of whoever answers, and where it came from.
fn active(tidegate: &Tidegate) -> (String, String) {
    let slot = slot_of(tidegate, "routing");
    (slot["settings"].to_string(), slot["active"]["source"].as_str().unwrap_or("").to_owned())
}

fn settings(number: usize) -> String {
    format!("{{\"lag_ms_max\":{number}}}")
}

#[track_caller]
fn refused(answer: &http::Response) -> (u16, String, String) {
    assert!(answer.head.contains("application/problem+json"), "{answer:?}");
    let problem: Value = serde_json::from_str(&answer.body).unwrap();
    let text = |name: &str| problem[name].as_str().unwrap_or("").to_owned();
    (answer.status, text("check"), text("detail"))
}

/// Has the others stop, however a test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn plugins_are_swapped_under_traffic_and_nobody_notices() {
    let database = test_database("plugins_swap");
    let tidegate = started(&database, &pool_of(4));
    let (url, router) = (tidegate.url(ROLE, &database), plugin("route_balanced"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|number| {
                let (url, done) = (&url, &done);
                scope.spawn(move || {
                    let mut client = Client::connect(url);
                    client.query(&format!("CREATE TABLE t{number} (a int)"));
                    let mut count = 0_u64;
                    while !done.load(Ordering::Relaxed) {
                        client.query(&format!("INSERT INTO t{number} VALUES (1)"));
                        count += 1;
                        let seen = client.value(&format!("SELECT count(*) FROM t{number}"));
                        assert_eq!(seen, Some(count.to_string()));
                    }
                    count
                })
            })
            .collect();
        let stop = Stop(&done);
        for number in 1..=4 {
            let answer = tidegate.push("routing", "", &settings(number), &router);
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(active(&tidegate), (settings(number), "uploaded".to_owned()));
        }
        for expected in [3, 4, 3] {
            assert_eq!(tidegate.admin_post("/api/v1/plugins/routing/rollback", "").status, 200);
            assert_eq!(active(&tidegate).0, settings(expected));
        }
        assert_eq!(tidegate.admin_post("/api/v1/plugins/routing/disable", "").status, 200);
        assert!(slot_of(&tidegate, "routing")["active"].is_null());
        drop(stop);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
}

#[test]
fn a_shadow_and_a_canary_are_told_of_and_promoted_or_withdrawn() {
    let database = test_database("plugins_trial");
    let tidegate = started(&database, &pool_of(2));
    let router = plugin("route_balanced");
    let before = active(&tidegate);
    let post = |what: &str| tidegate.admin_post(&format!("/api/v1/plugins/{what}"), "").status;
    assert_eq!(post("routing/promote"), 409);
    assert_eq!(tidegate.push("routing", "?mode=shadow", &settings(1), &router).status, 200);
    let candidate = &slot_of(&tidegate, "routing")["candidate"];
    assert_eq!(
        (candidate["mode"].as_str(), &candidate["share_percent"]),
        (Some("shadow"), &100.into())
    );
    assert_eq!(post("routing/withdraw"), 200);
    assert_eq!((active(&tidegate), post("routing/withdraw")), (before, 409));
    let canary = tidegate.push("routing", "?mode=canary&share=30", &settings(2), &router);
    assert_eq!(canary.status, 200);
    assert_eq!(slot_of(&tidegate, "routing")["candidate"]["share_percent"], 30);
    assert_eq!(post("promote?slots=routing,caching"), 409, "caching has none: neither");
    let cache = tidegate.push("caching", "?mode=shadow", "{\"rules\":[]}", &plugin("cache_tables"));
    assert_eq!(cache.status, 200, "{cache:?}");
    assert_eq!(post("promote?slots=routing,caching"), 200);
    assert_eq!(active(&tidegate).0, settings(2));
    assert_eq!(slot_of(&tidegate, "caching")["active"]["source"], "uploaded");
}

/// A component that exports an empty instance of this name.
fn exporting(name: &str) -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend([5, 3, 1, 1, 0]);
    let export = [&[1, 0, name.len() as u8], name.as_bytes(), &[5, 0, 0]].concat();
    bytes.extend([11, export.len() as u8]);
    bytes.extend(export);
    bytes
}

/// A plugin of which one interface claims another version: that package needs the others', which need it.
fn in_a_circle(mut bytes: Vec<u8>) -> Vec<u8> {
    let (now, then) = (b"tidegate:policy/route@0.1.0", b"tidegate:policy/route@0.2.0");
    let places: Vec<usize> = bytes
        .windows(now.len())
        .enumerate()
        .filter_map(|(at, window)| (window == now).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + then.len()].copy_from_slice(then);
    }
    bytes
}

#[test]
fn uploads_that_fail_a_check_are_told_which_and_change_nothing() {
    let database = test_database("plugins_refused");
    let tidegate = started(&database, &pool_of(2));
    let router = plugin("route_balanced");
    assert_eq!(tidegate.push("routing", "", &settings(1), &router).status, 200);
    let push =
        |settings: &str, bytes: &[u8]| refused(&tidegate.push("routing", "", settings, bytes));
    let (status, check, words) = push("", &plugin("cache_tables"));
    assert_eq!((status, check.as_str()), (422, "world"));
    assert!(words.contains("caching") && words.contains("routing"), "{words}");
    for theirs in ["0.0.9", "0.2.0", "1.0.0"] {
        let (status, check, words) =
            push("", &exporting(&format!("tidegate:policy/route@{theirs}")));
        assert_eq!((status, check.as_str()), (422, "version"));
        assert!(words.contains(theirs) && words.contains("0.1.0"), "{words}");
    }
    let (status, check, words) = push("{\"cpu_percent_max\":0}", &router);
    assert_eq!((status, check.as_str()), (422, "settings"));
    assert!(words.contains("cpu_percent_max must be above 0 and at most 100"), "{words}");
    let (status, check, _) = push("", &router[..router.len() / 2]);
    assert!(status == 422 && ["parse", "types", "world"].contains(&check.as_str()), "{check}");
    assert_eq!(push("", b"<html>").1, "size");
    assert_eq!(push("", b"<html></html>").1, "parse");
    let hostile = plugin("hostile_routing");
    assert_eq!(push("{\"init\":\"loop\"}", &hostile).1, "start");
    assert_eq!(push("{\"plan\":\"panic\"}", &hostile).1, "self-test");
    // Packages that need each other in a circle, which readers of types follow until their stack is full.
    let (status, check, words) = push("", &in_a_circle(hostile));
    assert!(status == 422 && ["types", "version"].contains(&check.as_str()), "{check}: {words}");
    assert_eq!(active(&tidegate), (settings(1), "uploaded".to_owned()));
    let log = tidegate.log();
    let audited = log.lines().filter(|line| line.contains("tidegate::audit"));
    let audited: Vec<&str> = audited.filter(|line| line.contains("upload")).collect();
    assert!(audited.len() >= 10, "{audited:?}");
    assert!(audited[0].contains("done") && audited[0].contains("admin token from 127.0.0.1:"));
    assert!(audited[1].contains("world"), "{}", audited[1]);
}

#[test]
fn the_process_that_compiles_says_why_it_cannot() {
    let compile = |component: &[u8]| {
        let mut child = Command::new(binary())
            .args(["compile-plugin", "--instances=1", "--memory-bytes-max=1048576"])
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(component).unwrap();
        child.wait_with_output().unwrap()
    };
    // What an upload checks before: it is a component.
    let failed = compile(b"\0asm\x0d\0\x01\0, cut off");
    assert_eq!((failed.status.code(), failed.stdout.len()), (Some(1), 0));
    assert!(!failed.stderr.is_empty() && !failed.stderr.contains(&b'\n'), "{failed:?}");
    // The smallest component there is.
    let done = compile(b"\0asm\x0d\0\x01\0");
    assert!(done.status.success() && done.stdout.starts_with(b"\x7fELF"), "{done:?}");
}

#[test]
fn uploads_without_the_token_too_large_or_cut_off_change_nothing() {
    let database = test_database("plugins_cut");
    let tidegate = started(&database, &pool_of(2));
    let before = json(&tidegate, "/api/v1/plugins")["slots"][0]["active"]["generation"].clone();
    let router = plugin("route_balanced");
    let path = "/api/v1/plugins/routing";
    for token in ["", "wrong"] {
        let answer = http::send(tidegate.admin_address(), ("PUT", path), token, "", &router[..9]);
        assert_eq!(refused(&answer.unwrap()).0, 401);
    }
    let head = |length: usize| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        )
    };
    let mut large = TcpStream::connect(tidegate.admin_address()).unwrap();
    large.write_all(head((32 << 20) + 1).as_bytes()).unwrap();
    let mut answer = String::new();
    large.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"check\":\"size\""),
        "{answer}"
    );
    let mut cut = TcpStream::connect(tidegate.admin_address()).unwrap();
    cut.write_all(head(router.len()).as_bytes()).unwrap();
    cut.write_all(&router[..router.len() / 2]).unwrap();
    drop(cut);
    // Taken after whatever the one that was cut off might have left.
    assert_eq!(tidegate.push("caching", "", "", &plugin("cache_tables")).status, 200);
    let after = json(&tidegate, "/api/v1/plugins")["slots"][0]["active"]["generation"].clone();
    assert_eq!(before, after);
    let mut client = Client::connect(&tidegate.url(ROLE, &database));
    assert_eq!(client.value("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn what_was_uploaded_is_there_after_a_restart_and_after_a_kill_during_an_upload() {
    let (database, folder) = (test_database("plugins_restart"), Folder::new("plugins"));
    let router = plugin("route_balanced");
    let mut first = started(&database, &folder.config());
    assert_eq!(first.push("routing", "", &settings(1), &router).status, 200);
    assert_eq!(first.push("routing", "", &settings(2), &router).status, 200);
    let mut half = TcpStream::connect(first.admin_address()).unwrap();
    let head = format!(
        "PUT /api/v1/plugins/routing HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Length: {}\r\n\r\n",
        router.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    half.write_all(&router[..1_000]).unwrap();
    first.kill();
    let compiled = codes(&folder.0);
    let second = tidegate(shared_cluster(), &database, &folder.config());
    // At once: restored before anybody is served.
    assert_eq!(active(&second), (settings(2), "uploaded".to_owned()));
    assert!(!compiled.is_empty() && codes(&folder.0).starts_with(&compiled), "compiled again");
    assert_eq!(second.admin_post("/api/v1/plugins/routing/rollback", "").status, 200);
    assert_eq!(second.terminate(), 0);
    for code in codes(&folder.0) {
        std::fs::write(code, "cut off").unwrap();
    }
    let third = tidegate(shared_cluster(), &database, &folder.config());
    assert_eq!(active(&third), (settings(1), "uploaded".to_owned()));
    assert!(third.log().contains("kept code is not used"), "{}", third.log_tail());
    damage(&folder.0);
    drop(third);
    let fourth = started(&database, &folder.config());
    assert_eq!(active(&fourth).1, "embedded");
    assert!(fourth.log().contains("the file is damaged"), "{}", fourth.log_tail());
}

/// Files with the machine code of plugins, oldest first.
fn codes(state_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state_dir.join("plugins/code")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap()).collect();
    files.sort_by_key(|entry| entry.metadata().unwrap().created().unwrap());
    let files = files.into_iter().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "code")).collect()
}

/// Cuts the end off every plugin that is kept.
fn damage(state_dir: &Path) {
    for entry in std::fs::read_dir(state_dir.join("plugins")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
}

#[test]
fn a_full_disk_is_told_and_the_running_plugin_stays() {
    let (database, folder) = (test_database("plugins_full"), Folder::new("full"));
    let router = plugin("route_balanced");
    let tidegate = started(&database, &folder.config());
    assert_eq!(tidegate.push("routing", "", &settings(1), &router).status, 200);
    // What no privilege gets around: a file where the folder has to be.
    std::fs::remove_dir_all(folder.0.join("plugins")).unwrap();
    std::fs::write(folder.0.join("plugins"), "").unwrap();
    let (status, _, words) = refused(&tidegate.push("routing", "", &settings(2), &router));
    assert_eq!(status, 507);
    assert!(words.contains("plugins.state_dir can't be written"), "{words}");
    assert_eq!(active(&tidegate), (settings(1), "uploaded".to_owned()));
}

#[test]
fn the_command_line_lists_pushes_and_takes_back() {
    let database = test_database("plugins_cli");
    let tidegate = started(&database, &pool_of(2));
    let path = plugin_path("route_balanced").display().to_string();
    let run = |arguments: &[&str]| tidegate.plugin_command(arguments);
    let (code, listed) = run(&["list"]);
    assert_eq!((code, listed.lines().count()), (0, 4), "{listed}");
    let (code, pushed) = run(&["push", "routing", &path, "--settings", &settings(7)]);
    assert_eq!(code, 0, "{pushed}");
    assert!(pushed.contains("uploaded"), "{pushed}");
    assert_eq!(active(&tidegate).0, settings(7));
    let (code, wrong) = run(&["push", "caching", &path]);
    assert_eq!(code, 1);
    assert!(wrong.contains("422 (world)"), "{wrong}");
    assert_eq!(run(&["configure", "routing", &settings(8)]).0, 0);
    assert_eq!(active(&tidegate).0, settings(8));
    assert_eq!(run(&["rollback", "routing"]).0, 0);
    assert_eq!(active(&tidegate).0, settings(7));
    assert_eq!(run(&["push", "routing", &path, "--shadow", "50"]).0, 0);
    assert_eq!(run(&["promote", "routing"]).0, 0);
    let (_, detail) = run(&["list", "routing"]);
    assert!(detail.contains("\"what\": \"promote\""), "{detail}");
    assert_eq!(run(&["disable", "routing"]).0, 0);
    assert!(run(&["list"]).1.contains("Tidegate itself"));
    let (code, tested) = run(&["test", "routing", &path]);
    assert_eq!(code, 0, "{tested}");
    let metrics = tidegate.admin_get("/metrics").body;
    assert!(metrics.contains("tidegate_plugin_calls_total{slot=\"caching\",state=\"active\""));
}
