//! Tools for who writes plugins.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Parser;
use tidegate_policy::embedded;

use super::*;
use crate::cli::args::{Args, Command};
use crate::config::{PublicKey, Signature};

fn parsed(args: &[&str]) -> Result<PluginCommand, clap::Error> {
    let args = ["tidegate", "plugin"].iter().chain(args);
    match Args::try_parse_from(args)?.command {
        Command::Plugin(args) => Ok(args.command),
        _ => panic!("not plugin"),
    }
}

#[test]
fn slots_and_shares_are_read_and_what_makes_no_sense_is_told() {
    assert!(parsed(&["push", "routing", "a.wasm", "--shadow", "10"]).is_ok());
    assert!(parsed(&["promote", "routing", "caching"]).is_ok());
    assert!(
        parsed(&["replay", "routing", "a.wasm", "--trace", "a", "--against", "b.wasm"]).is_ok()
    );
    assert!(
        parsed(&["bench", "routing", "a.wasm", "--sql", "SELECT 1", "--sql", "SELECT 2"]).is_ok()
    );
    assert!(parsed(&["build"]).is_ok());
    for wrong in [
        &["push", "router", "a.wasm"][..],
        &["push", "routing", "a.wasm", "--shadow", "1", "--canary", "1"],
        &["push", "routing", "a.wasm", "--shadow", "300"],
        &["promote"],
        &["list", "--admin", "nonsense"],
        &["replay", "routing", "a.wasm"],
        &["replay", "router", "a.wasm", "--trace", "a.jsonl"],
        &["bench", "routing"],
        &["test", "routing", "--cases", "cases.toml"],
    ] {
        assert!(parsed(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn settings_are_a_file_or_json_and_end_up_on_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.json");
    std::fs::write(&file, "{\n  \"a\": [1,\n 2]\n}\n").unwrap();
    assert_eq!(read_settings(file.to_str().unwrap()).unwrap(), r#"{"a":[1,2]}"#);
    assert_eq!(read_settings(r#" {"b": "ä"}"#).unwrap(), r#"{"b":"ä"}"#);
    assert!(read_settings("{").unwrap_err().contains("JSON object"));
    assert!(read_settings("no/such/file").unwrap_err().contains("no/such/file"));
}

#[test]
fn a_plugin_is_tested_in_the_sandbox() {
    for slot in Slot::ALL {
        let told = trial::run(slot, embedded(slot).bytes, "", None).unwrap();
        assert!(told.contains(": ok"), "{told}");
    }
    let router = embedded(Slot::Routing).bytes;
    let told = trial::run(Slot::Routing, router, r#"{"cpu_percent_max": 0}"#, None).unwrap_err();
    assert!(told.starts_with("settings: "), "{told}");
    assert!(trial::run(Slot::Caching, router, "", None).unwrap_err().starts_with("world: "));
}

#[test]
fn cases_are_statements_in_sql_and_what_is_planned_for_them() {
    let bytes = embedded(Slot::Caching).bytes;
    let text = r#"
        [settings]
        rules = [{ table = "app.t", ttl_ms = 500, row = "id" }]
        [[case]]
        sql = "SELECT a FROM app.t WHERE id = $1 /*key='value'*/"
        expect = "store"
        says = "tags t:row:{1}"
        [[case]]
        sql = "SELECT a FROM other"
        expect = "bypass"
    "#;
    let run = |text: &str| {
        let cases = Cases::read(text, Slot::Caching)?;
        trial::run(Slot::Caching, bytes, &cases.settings()?, Some(&cases))
    };
    let told = run(text).unwrap();
    assert!(told.ends_with("2 cases: all as expected\n"), "{told}");
    let told = run(&text.replace("expect = \"bypass\"", "expect = \"store\"")).unwrap_err();
    assert!(told.starts_with("1 of 2 cases"), "{told}");
    assert!(told.contains("SELECT a FROM other\n  expected store, got bypass"), "{told}");
    let told = run(&text.replace("{1}", "{2}")).unwrap_err();
    assert!(told.contains("expected it to say \"tags t:row:{2}\""), "{told}");
    let told = run(&text.replace("FROM other", "FROM")).unwrap();
    assert!(told.contains("all as expected"), "{told}");
    let unread = text.replace("FROM other", "FROM").replace("\"bypass\"", "\"store\"");
    assert!(run(&unread).unwrap_err().contains("(the text is unparseable)"));
    let told = run(&text.replace("\"bypass\"", "\"primary\"")).unwrap_err();
    assert_eq!(told, "\"primary\" is no plan of caching; there are bypass, store, ask");
    assert!(run("").unwrap_err().contains("[[case]]"));
    assert!(run("[[case]]\nsql = 1").unwrap_err().contains("line 2"));
}

#[test]
fn what_a_plugin_costs_is_measured_for_each_kind_of_call() {
    for (slot, expected) in [
        (Slot::Routing, &["start", "plan", "weigh"][..]),
        (Slot::Caching, &["start", "plan"]),
        (Slot::Limiting, &["start", "plan"]),
        (Slot::Advising, &["start", "advise"]),
    ] {
        let source = Source { slot, bytes: embedded(slot).bytes, settings: "" };
        let told = bench::run(source, &[], Format::Json).unwrap();
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let calls = told["calls"].as_array().unwrap();
        let names: Vec<&str> = calls.iter().filter_map(|call| call["what"].as_str()).collect();
        assert_eq!(names, expected, "{slot:?}");
        for call in calls {
            assert!(call["median_ns"].as_u64() > Some(0), "{told}");
            assert!(call["p99_ns"].as_u64() >= call["median_ns"].as_u64(), "{told}");
            assert_eq!(call["faults"], 0, "{told}");
        }
        assert!(told["memory_bytes"].as_u64() > Some(60_000), "{told}");
        assert_eq!(told["asking_plans"], 0);
    }
    let source = Source { slot: Slot::Routing, bytes: embedded(Slot::Routing).bytes, settings: "" };
    let table = bench::run(source, &["SELECT a FROM t".to_owned()], Format::Table).unwrap();
    assert!(table.contains("All 1 plans are static"), "{table}");
    let wrong = bench::run(source, &["SELEC".to_owned()], Format::Table).unwrap_err();
    assert_eq!(wrong, "unparseable: SELEC");
}

#[test]
fn a_signature_is_by_the_key_that_was_made_and_of_the_whole_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("a.wasm"), dir.path().join("key.pem"));
    std::fs::write(&file, b"a plugin").unwrap();
    assert!(sign::run(&file, &key, sign::Missing::Fail).is_err());
    let told = sign::run(&file, &key, sign::Missing::Make).unwrap();
    assert_eq!(sign::run(&file, &key, sign::Missing::Make).unwrap(), told, "the key is kept");
    let public = told.split('"').nth(1).unwrap();
    let public: PublicKey = flag_value(public).unwrap();
    let signature = std::fs::read_to_string(sign::beside(&file)).unwrap();
    let signature = Signature::from_base64(&signature).unwrap();
    assert!(public.has_signed(b"a plugin", &signature));
    assert!(!public.has_signed(b"a plugim", &signature));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_key_that_is_made_is_what_openssl_reads_and_older_ones_still_sign() {
    let dir = tempfile::tempdir().unwrap();
    let (file, key) = (dir.path().join("a.wasm"), dir.path().join("key.pem"));
    std::fs::write(&file, b"a plugin").unwrap();
    let told = sign::run(&file, &key, sign::Missing::Make).unwrap();
    let pem = std::fs::read_to_string(&key).unwrap();
    let lines: Vec<&str> = pem.lines().collect();
    let [_, body, _] = lines[..] else { panic!("{} lines", lines.len()) };
    let der = BASE64.decode(body).unwrap();
    assert_eq!(der.len(), 48, "of version 1: without the public key");
    assert!(der.starts_with(b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20"));
    let args = ["pkey", "-pubout", "-outform", "DER", "-in", key.to_str().unwrap()];
    if let Ok(output) = std::process::Command::new("openssl").args(args).output() {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let public = BASE64.encode(&output.stdout[output.stdout.len() - 32..]);
        assert!(told.contains(&public), "{told}, not {public}");
    }
    let second = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new());
    let older = dir.path().join("older");
    std::fs::write(&older, second.unwrap()).unwrap();
    assert!(sign::run(&file, &older, sign::Missing::Fail).unwrap().contains("plugins.keys"));
}

#[test]
fn a_new_plugin_is_a_crate_that_nobody_had() {
    let dir = tempfile::tempdir().unwrap();
    for slot in Slot::ALL {
        let path = dir.path().join(format!("my-{}", slot.name()));
        create::run(&path, slot, None).unwrap();
        let manifest = std::fs::read_to_string(path.join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&format!("name = \"my-{}\"", slot.name())), "{manifest}");
        let library = std::fs::read_to_string(path.join("src/lib.rs")).unwrap();
        assert!(library.contains(&format!("register!({}: Own)", slot.name())), "{library}");
        assert!(create::run(&path, slot, None).is_err(), "it is there");
        let readme = std::fs::read_to_string(path.join("README.md")).unwrap();
        match std::fs::read_to_string(path.join("cases.toml")) {
            Ok(cases) => {
                Cases::read(&cases, slot).unwrap();
                assert!(readme.contains("--cases cases.toml"), "{readme}");
            }
            Err(_) => assert_eq!(slot, Slot::Advising),
        }
    }
    assert!(create::run(&dir.path().join("My Plugin"), Slot::Routing, None).is_err());
}
