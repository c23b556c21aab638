//! Orders against a real sandbox and a real folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use ring::signature::{Ed25519KeyPair, KeyPair};
use tidegate_core::policy::Slot;
use tidegate_core::policy::builtin::Limits;
use tidegate_core::policy::canary::{Reason, Share};
use tidegate_core::policy::faults::FaultKind;
use tidegate_core::policy::seat::Mode;
use tidegate_policy::{Change, Event, MetricKind, embedded};

use super::store::Store;
use super::*;
use crate::config::{FileHash, Pin, PublicKey, Rates, Signature, Signatures};

fn config(state_dir: Option<&Path>) -> PluginsConfig {
    PluginsConfig {
        state_dir: state_dir.map(Path::to_path_buf),
        signatures: Signatures::Off,
        keys: Vec::new(),
        memory_bytes_max: 16 << 20,
        // Tests share the machine: a long time is no fault here.
        plan_time_max: Duration::from_secs(1),
        decide_time_max: Duration::from_secs(1),
        pins: Vec::new(),
    }
}

fn rates() -> Rates {
    Rates { limits: Limits::NONE, administrators: Vec::new(), redis: None }
}

fn started(config: &PluginsConfig) -> Arc<Plugins> {
    Plugins::start(config, &rates(), 1, 1, None).unwrap()
}

const NOBODY: Who = Who { peer: None };

fn order(plugins: &Arc<Plugins>, order: Order) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(plugins.clone().order(order, NOBODY))
}

fn upload_of(slot: Slot, bytes: &[u8], settings: &str) -> Order {
    Order::Upload {
        slot,
        bytes: Bytes::copy_from_slice(bytes),
        settings: settings.to_owned(),
        signature: None,
        intake: Intake::Activate,
    }
}

/// The router that comes with the program, as if it were somebody's.
fn upload(settings: &str) -> Order {
    upload_of(Slot::Routing, embedded(Slot::Routing).bytes, settings)
}

fn tried(order: Order, mode: Mode) -> Order {
    match order {
        Order::Upload { slot, bytes, settings, signature, .. } => {
            Order::Upload { slot, bytes, settings, signature, intake: Intake::TryOut(mode) }
        }
        other => other,
    }
}

fn settings(plugins: &Plugins) -> Option<String> {
    plugins.slot(Slot::Routing).settings.map(|settings| settings.to_string())
}

fn source(plugins: &Plugins) -> Option<&'static str> {
    plugins.slot(Slot::Routing).slot.active.map(|active| active.source)
}

fn check(outcome: Outcome) -> (&'static str, String) {
    let refusal = outcome.unwrap_err();
    (refusal.name(), refusal.detail)
}

fn files(state_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(state_dir.join("plugins")).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

const FIRST: &str = r#"{"lag_ms_max":1}"#;
const SECOND: &str = r#"{"lag_ms_max":2}"#;
const THIRD: &str = r#"{"lag_ms_max":3}"#;

#[test]
fn what_was_uploaded_comes_back_after_a_restart_with_what_was_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Some(dir.path()));
    let shadow = Mode::Shadow(Share::percent(40).unwrap());
    {
        let plugins = started(&config);
        order(&plugins, upload(FIRST)).unwrap();
        order(
            &plugins,
            Order::Configure {
                slot: Slot::Routing,
                settings: SECOND.to_owned(),
                intake: Intake::Activate,
            },
        )
        .unwrap();
        order(&plugins, tried(upload(THIRD), shadow)).unwrap();
        order(&plugins, Order::Disable(Slot::Caching)).unwrap();
    }
    let plugins = started(&config);
    assert_eq!((settings(&plugins).as_deref(), source(&plugins)), (Some(SECOND), Some("uploaded")));
    let candidate = plugins.slot(Slot::Routing).slot.candidate.unwrap();
    assert_eq!((candidate.mode, candidate.share_percent), ("shadow", 40));
    assert!(plugins.slot(Slot::Caching).slot.active.is_none());
    order(&plugins, Order::RollBack(Slot::Routing)).unwrap();
    assert_eq!(settings(&plugins).as_deref(), Some(FIRST));
    order(&plugins, Order::Promote(vec![Slot::Routing])).unwrap();
    drop(plugins);
    let plugins = started(&config);
    assert_eq!(settings(&plugins).as_deref(), Some(THIRD));
    assert_eq!(check(order(&plugins, Order::Withdraw(Slot::Routing))).0, "conflict");
}

#[test]
fn without_a_state_directory_nothing_is_kept_and_that_is_told() {
    let config = config(None);
    let plugins = started(&config);
    let told = order(&plugins, upload(FIRST)).unwrap();
    assert!(!told[0].persistent);
    order(
        &plugins,
        Order::Configure {
            slot: Slot::Routing,
            settings: SECOND.to_owned(),
            intake: Intake::Activate,
        },
    )
    .unwrap();
    assert_eq!((settings(&plugins).as_deref(), source(&plugins)), (Some(SECOND), Some("uploaded")));
    // Loads are taken one after the other: the defaults were before them.
    assert!(plugins.slots().iter().all(|slot| slot.active.is_some()));
}

#[test]
fn a_failed_check_is_named_and_leaves_everything_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = started(&config(Some(dir.path())));
    order(&plugins, upload(FIRST)).unwrap();
    let before = files(dir.path());
    let router = embedded(Slot::Routing).bytes;
    let bad = |bytes: &[u8], settings: &str| {
        check(order(&plugins, upload_of(Slot::Routing, bytes, settings)))
    };
    assert_eq!(bad(b"", "").0, "size");
    assert_eq!(bad(b"no WebAssembly at all", "").0, "parse");
    assert!(matches!(bad(&router[..router.len() / 2], "").0, "parse" | "types" | "world"));
    let (check_of, words) = bad(embedded(Slot::Caching).bytes, "");
    assert_eq!(check_of, "world");
    assert!(words.contains("caching") && words.contains("routing"), "{words}");
    let (check_of, words) = bad(router, r#"{"cpu_percent_max": 0}"#);
    assert_eq!(check_of, "settings");
    assert!(words.contains("cpu_percent_max must be above 0"), "{words}");
    let configure = Order::Configure {
        slot: Slot::Routing,
        settings: r#"{"unknown": 1}"#.to_owned(),
        intake: Intake::Activate,
    };
    assert_eq!(check(order(&plugins, configure)).0, "settings");
    assert_eq!(settings(&plugins).as_deref(), Some(FIRST));
    assert_eq!(files(dir.path()), before);
    let history = plugins.slot(Slot::Routing).history;
    assert_eq!((history.len(), history[6].outcome.as_str()), (7, "done"));
    assert!(history[..6].iter().all(|entry| entry.outcome.starts_with("refused: ")));
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_the_running_plugin_stays() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = started(&config(Some(dir.path())));
    order(&plugins, upload(FIRST)).unwrap();
    // A file where the folder was: as good as a full disk, for root too.
    fs::remove_dir_all(dir.path().join("plugins")).unwrap();
    fs::write(dir.path().join("plugins"), "").unwrap();
    let (refused, words) = check(order(&plugins, upload(SECOND)));
    assert_eq!(refused, "storage");
    assert!(words.contains("plugins.state_dir can't be written"), "{words}");
    assert_eq!(check(order(&plugins, Order::Disable(Slot::Routing))).0, "storage");
    assert_eq!(settings(&plugins).as_deref(), Some(FIRST));
}

#[test]
fn damaged_files_are_skipped_and_something_answers_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Some(dir.path()));
    let mut other = embedded(Slot::Routing).bytes.to_vec();
    // A custom section: another file, the same plugin.
    other.extend([0, 2, 1, b'x']);
    {
        let plugins = started(&config);
        order(&plugins, upload(FIRST)).unwrap();
        order(&plugins, upload_of(Slot::Routing, &other, SECOND)).unwrap();
    }
    let second = dir.path().join(format!("plugins/{}.wasm", FileHash::of(&other)));
    fs::write(&second, &other[..other.len() - 1]).unwrap();
    assert_eq!(settings(&started(&config)).as_deref(), Some(FIRST), "the one before it");
    let manifest = dir.path().join("plugins/manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("lag_ms_max", "lag_ms_maX")).unwrap();
    let plugins = started(&config);
    assert_ne!(source(&plugins), Some("uploaded"));
    order(&plugins, upload(THIRD)).unwrap();
    assert_eq!(settings(&started(&config)).as_deref(), Some(THIRD));
}

#[test]
fn what_was_half_written_is_removed_and_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Some(dir.path()));
    fs::create_dir(dir.path().join("plugins")).unwrap();
    let router = embedded(Slot::Routing).bytes;
    let half = dir.path().join(format!("plugins/{}.new", FileHash::of(router)));
    fs::write(&half, &router[..100]).unwrap();
    fs::write(dir.path().join("plugins/manifest.new"), "{").unwrap();
    let plugins = started(&config);
    assert_ne!(source(&plugins), Some("uploaded"));
    order(&plugins, upload(FIRST)).unwrap();
    let names: Vec<String> = files(dir.path())
        .iter()
        .map(|path| path.extension().unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    assert!(!names.contains(&"new".to_owned()), "{names:?}");
    let store = Store::new(dir.path().to_path_buf());
    assert_eq!(store.get(&FileHash::of(router)).unwrap(), router);
}

#[test]
fn files_that_nobody_names_any_more_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let plugins = started(&config(Some(dir.path())));
    for number in 0..5_u8 {
        let mut bytes = embedded(Slot::Routing).bytes.to_vec();
        bytes.extend([0, 2, 1, number]);
        order(&plugins, upload_of(Slot::Routing, &bytes, "")).unwrap();
    }
    // The active one, the one before it, the manifest.
    assert_eq!(files(dir.path()).len(), 3);
}

fn key() -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = PublicKey::from_bytes(pair.public_key().as_ref()).unwrap();
    (pair, public)
}

#[test]
fn signatures_are_checked_where_they_are_required_or_given() {
    let (pair, public) = key();
    let router = embedded(Slot::Routing).bytes;
    let good = Signature::from_bytes(pair.sign(router).as_ref()).unwrap();
    let bad = Signature::from_bytes(pair.sign(b"another file").as_ref()).unwrap();
    let signed = |signature: Signature| match upload(FIRST) {
        Order::Upload { slot, bytes, settings, intake, .. } => {
            Order::Upload { slot, bytes, settings, signature: Some(signature), intake }
        }
        other => other,
    };
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(Some(dir.path()));
    (config.signatures, config.keys) = (Signatures::Required, vec![public]);
    let plugins = started(&config);
    assert_eq!(check(order(&plugins, upload(FIRST))).0, "signature");
    assert_eq!(check(order(&plugins, signed(bad))).0, "signature");
    let told = order(&plugins, signed(good)).unwrap();
    assert!(told[0].active.as_ref().unwrap().signed);
    drop(plugins);
    assert_eq!(settings(&started(&config)).as_deref(), Some(FIRST), "with its signature");
    let (_, stranger) = {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let public = PublicKey::from_bytes(pair.public_key().as_ref()).unwrap();
        (pair, public)
    };
    config.keys = vec![stranger];
    assert_ne!(settings(&started(&config)).as_deref(), Some(FIRST), "the key is believed no more");
    config.signatures = Signatures::Optional;
    config.state_dir = None;
    let plugins = started(&config);
    assert_eq!(check(order(&plugins, signed(good))).0, "signature");
    order(&plugins, upload(FIRST)).unwrap();
}

#[test]
fn a_pinned_slot_is_the_configurations_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("router.wasm");
    let router = embedded(Slot::Routing).bytes;
    fs::write(&file, router).unwrap();
    let sha256 = FileHash::of(router);
    let pin = Pin { slot: Slot::Routing, file, sha256, settings: FIRST.to_owned() };
    let mut config = PluginsConfig { pins: vec![pin], ..config(Some(dir.path())) };
    let plugins = started(&config);
    assert_eq!((settings(&plugins).as_deref(), source(&plugins)), (Some(FIRST), Some("pinned")));
    for refused in [upload(SECOND), Order::Disable(Slot::Routing), Order::RollBack(Slot::Routing)] {
        assert_eq!(check(order(&plugins, refused)).0, "conflict");
    }
    order(&plugins, upload_of(Slot::Caching, embedded(Slot::Caching).bytes, "")).unwrap();
    assert_eq!(settings(&plugins).as_deref(), Some(FIRST));
    drop(plugins);
    config.pins[0].sha256 = FileHash::of(b"another file");
    let plugins = started(&config);
    assert_ne!(source(&plugins), Some("pinned"), "a file with another hash is not loaded");
}

#[test]
fn candidates_of_several_slots_are_promoted_together_or_not_at_all() {
    let plugins = started(&config(None));
    let shadow = Mode::Shadow(Share::percent(100).unwrap());
    let cache = upload_of(Slot::Caching, embedded(Slot::Caching).bytes, r#"{"rules": []}"#);
    order(&plugins, tried(upload(FIRST), shadow)).unwrap();
    let both = || Order::Promote(vec![Slot::Routing, Slot::Caching]);
    assert_eq!(check(order(&plugins, both())).0, "conflict");
    assert_eq!(source(&plugins), Some("embedded"));
    order(&plugins, tried(cache, shadow)).unwrap();
    let told = order(&plugins, both()).unwrap();
    let uploaded = |slot: &SlotReport| slot.active.as_ref().unwrap().source == "uploaded";
    assert!(told.len() == 2 && told.iter().all(uploaded));
}

#[test]
fn an_upload_whose_sender_has_gone_changes_nothing() {
    let plugins = started(&config(None));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let going = plugins.clone().order(upload(FIRST), NOBODY);
        // Polled once, so that it is in the queue; then dropped.
        tokio::select! {
            biased;
            _ = going => panic!("it takes longer than this"),
            () = std::future::ready(()) => {}
        }
    });
    // Taken after it.
    order(&plugins, upload_of(Slot::Caching, embedded(Slot::Caching).bytes, "")).unwrap();
    assert_eq!(source(&plugins), Some("embedded"));
}

#[test]
fn what_the_registry_does_by_itself_is_written_down_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(Some(dir.path()));
    let plugins = started(&config);
    order(&plugins, upload(FIRST)).unwrap();
    order(&plugins, upload(SECOND)).unwrap();
    // As if the sandbox had put the second in quarantine: it changes the slots, then it tells.
    plugins.registry.change(&[(Slot::Routing, Change::RollBack)]).unwrap();
    let last = FaultKind::Trap;
    let event = Event::Quarantined { generation: 2, last, restored: Some(1) };
    plugins.notes.handle(Slot::Routing, &event);
    // Taken after it.
    order(&plugins, upload_of(Slot::Caching, embedded(Slot::Caching).bytes, "")).unwrap();
    let newest = plugins.slot(Slot::Routing).history.remove(0);
    assert_eq!((newest.what, newest.who.as_str()), ("taken out", "tidegate"));
    assert!(newest.outcome.contains("quarantined after trap faults"), "{}", newest.outcome);
    drop(plugins);
    assert_eq!(settings(&started(&config)).as_deref(), Some(FIRST));
}

#[test]
fn what_happened_in_a_slot_is_counted_whatever_becomes_of_the_version() {
    let plugins = started(&config(None));
    let kind = FaultKind::Deadline;
    for generation in 1..4 {
        plugins.notes.handle(Slot::Routing, &Event::Fault { generation, kind, detail: "" });
    }
    let quarantined = Event::Quarantined { generation: 3, last: kind, restored: None };
    plugins.notes.handle(Slot::Routing, &quarantined);
    let given_up = Event::RolledBack { generation: 4, reason: Reason::Latency };
    plugins.notes.handle(Slot::Caching, &given_up);
    // Another version answers; none of those is loaded any more.
    order(&plugins, upload(FIRST)).unwrap();
    let [routing, caching, ..] = &plugins.happened()[..] else { panic!("four slots") };
    assert_eq!(
        (routing.slot, routing.quarantines, routing.faults["deadline"]),
        (Slot::Routing, 1, 3)
    );
    assert_eq!((routing.faults["trap"], routing.canaries_given_up["latency"]), (0, 0));
    assert_eq!((caching.slot, caching.quarantines), (Slot::Caching, 0));
    assert_eq!(caching.canaries_given_up["latency"], 1);
}

#[test]
fn what_plugins_record_adds_up() {
    let plugins = started(&config(None));
    let record = |name, kind, value| {
        plugins.notes.handle(Slot::Caching, &Event::Metric { name, kind, value });
    };
    record("hits", MetricKind::Counter, 1.0);
    record("hits", MetricKind::Counter, 2.0);
    record("size", MetricKind::Gauge, 5.0);
    record("size", MetricKind::Gauge, 4.0);
    record("ms", MetricKind::Histogram, 1.5);
    let recorded = plugins.recorded().into_iter().map(|own| (own.name, own.value));
    let expected = [("hits", 3.0), ("ms_count", 1.0), ("ms_sum", 1.5), ("size", 4.0)];
    assert!(recorded.eq(expected.map(|(name, value)| (name.to_owned(), value))));
}
